"""Configuration: nested frozen dataclasses that hold every default, checked when they are built.

A configuration is a Python file that returns a `Config`; `override` changes single fields from text
("optimizer.learning_rate=1e-3"), and `to_json`/`from_json` carry it to disk and back.
"""

import ast
import dataclasses
import importlib.util
import itertools
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

REMAT_POLICIES = "nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel features as NVIDIA's Parakeet models use them (16 kHz, 25 ms windows every 10 ms)."""

    num_mels: int = 80
    sample_rate: int = 16000  # Hz
    fft_length: int = 512  # samples
    window_length: int = 400  # samples
    hop_length: int = 160  # samples
    preemphasis: float = 0.97
    dither: float = 1e-5  # standard deviation of the noise added in training, full scale = 1
    # None: each bin of an utterance to mean 0 and deviation 1. Else the (mean, deviation) of
    # log-mels anywhere, so that silence or other speech beside it changes no feature of speech.
    normalize: tuple[float, float] | None = None

    def __post_init__(self):
        _require(self.num_mels > 0, f"features.num_mels must be positive, got {self.num_mels}")
        _require(
            0 < self.hop_length <= self.window_length <= self.fft_length,
            "features need 0 < hop_length <= window_length <= fft_length, got "
            f"{self.hop_length}, {self.window_length}, {self.fft_length}",
        )
        _require(
            self.normalize is None or self.normalize[1] > 0,
            f"features.normalize needs a positive deviation, got {self.normalize}",
        )


@dataclass(frozen=True)
class EncoderConfig:
    """FastConformer (Rekesh et al., 2023, arXiv 2305.05084)."""

    width: int = 512  # D
    num_layers: int = 17
    num_heads: int = 8  # H
    feed_forward_factor: int = 4
    kernel_size: int = 9  # of the depthwise convolution, in frames
    subsampling_channels: int = 256
    use_bias: bool = True  # in feed-forwards, attention and convolutions
    scale_input: bool = False  # multiply the subsampled frames by sqrt(width) ("xscaling")
    # frames that attention sees to the (left, right); None: all. Memory then grows with length,
    # not with its square.
    attention_context: tuple[int, int] | None = None
    # after the depthwise convolution: "layer_norm", or "affine", a BatchNorm with its statistics
    # folded in, as pretrained models have it
    convolution_norm: str = "layer_norm"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    remat: bool = True  # recompute each block in the backward pass: memory for time
    # what of a block is kept all the same, one of jax.checkpoint_policies: "nothing_saveable";
    # "dots_with_no_batch_dims_saveable", the products with parameters; "dots_saveable", all
    remat_policy: str = "nothing_saveable"
    unroll: int = 1  # blocks compiled as one loop body: a small encoder on CPU gains from all

    def __post_init__(self):
        for name in (
            "width",
            "num_layers",
            "num_heads",
            "feed_forward_factor",
            "kernel_size",
            "subsampling_channels",
            "unroll",
        ):
            value = getattr(self, name)
            _require(value >= 1, f"encoder.{name} must be >= 1, got {value}")
        _require(
            self.width % self.num_heads == 0,
            f"encoder.width ({self.width}) must be a multiple of "
            f"encoder.num_heads ({self.num_heads})",
        )
        _require(
            self.width % 2 == 0, f"encoder.width must be even (sine and cosine), got {self.width}"
        )
        _require(
            self.kernel_size % 2 == 1, f"encoder.kernel_size must be odd, got {self.kernel_size}"
        )
        for name in ("dropout", "attention_dropout"):
            rate = getattr(self, name)
            _require(0 <= rate < 1, f"encoder.{name} must be in [0, 1), got {rate}")
        _require(
            self.remat_policy in REMAT_POLICIES,
            f"encoder.remat_policy must be one of {', '.join(REMAT_POLICIES)}, got "
            f"{self.remat_policy!r}",
        )
        context = self.attention_context
        _require(
            context is None or (min(context) >= 0 and max(context) > 0),
            f"encoder.attention_context must be none or (left, right) frames >= 0, got {context}",
        )
        _require(
            self.convolution_norm in ("layer_norm", "affine"),
            "encoder.convolution_norm must be 'layer_norm' or 'affine', got "
            f"{self.convolution_norm!r}",
        )


@dataclass(frozen=True)
class PredictorConfig:
    """The prediction network: an embedding and LSTM layers."""

    width: int = 640  # P
    num_layers: int = 1
    dropout: float = 0.2
    blank_embedding: bool = False  # learned, as some fine-tuned checkpoints have it; else zero

    def __post_init__(self):
        for name in ("width", "num_layers"):
            value = getattr(self, name)
            _require(value >= 1, f"predictor.{name} must be >= 1, got {value}")
        _require(0 <= self.dropout < 1, f"predictor.dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class JointConfig:
    """The joint network."""

    width: int = 640  # J
    dropout: float = 0.2

    def __post_init__(self):
        _require(self.width >= 1, f"joint.width must be >= 1, got {self.width}")
        _require(0 <= self.dropout < 1, f"joint.dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class ModelConfig:
    """A transducer: features, encoder, predictor and joint. `durations=None` makes it an RNN-T.

    Without predictor and joint it is a CTC model.
    """

    vocab_size: int = 1024  # V; blank is index V
    durations: tuple[int, ...] | None = (0, 1, 2, 3, 4)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig | None = field(default_factory=PredictorConfig)
    joint: JointConfig | None = field(default_factory=JointConfig)
    ctc: bool = False  # a CTC head on the encoder
    max_symbols: int = 10  # labels at one frame that greedy decoding goes up to
    dtype: str = "float32"  # of the computation; losses stay float32
    piece_seconds: float | None = None  # of long audio heard at once; a run's: its longest bucket

    def __post_init__(self):
        _require(
            self.piece_seconds is None or self.piece_seconds >= 1,
            f"piece_seconds must be >= 1 or none, got {self.piece_seconds}",
        )
        _require(
            (self.predictor is None) == (self.joint is None),
            "predictor and joint go together: one is none, the other is not",
        )
        _require(
            self.predictor is not None or (self.ctc and self.durations is None),
            "a model without predictor and joint needs ctc=True and durations=None, got "
            f"{self.ctc} and {self.durations}",
        )
        _require(self.max_symbols >= 1, f"max_symbols must be >= 1, got {self.max_symbols}")
        _require(self.vocab_size >= 1, f"vocab_size must be >= 1, got {self.vocab_size}")
        _require(
            self.dtype in ("float32", "bfloat16"),
            f"dtype must be float32 or bfloat16, got {self.dtype!r}",
        )
        if self.durations is not None:
            check_durations(self.durations)

    @property
    def blank(self) -> int:
        """Index of the blank token."""
        return self.vocab_size

    @property
    def decoders(self) -> tuple[str, ...]:
        """How it can be decoded: "transducer", "ctc" or both."""
        return ("transducer",) * (self.predictor is not None) + ("ctc",) * self.ctc

    @property
    def kind(self) -> str:
        """What it is: "TDT", "RNN-T" or "CTC"."""
        if self.predictor is None:
            return "CTC"
        return "RNN-T" if self.durations is None else "TDT"

    @property
    def seconds_per_frame(self) -> float:
        """Seconds of audio that one encoder frame stands for (0.08)."""
        return 8 * self.features.hop_length / self.features.sample_rate


def check_durations(durations: tuple[int, ...]) -> None:
    """Raise ValueError unless durations increase strictly from >= 0 and end above 0."""
    increasing = all(a < b for a, b in itertools.pairwise(durations))
    _require(
        len(durations) > 0 and durations[0] >= 0 and durations[-1] > 0 and increasing,
        f"durations must increase strictly from >= 0 and end above 0, got {tuple(durations)}",
    )


@dataclass(frozen=True)
class LossConfig:
    """The training objective (Xu et al., 2023, arXiv 2304.06795)."""

    sigma: float = 0.05  # logit under-normalisation: subtracted from every token log-probability
    omega: float = 0.1  # share of the batches that use the RNN-T loss on the token head
    fastemit: float = 0.0  # label arcs' gradients times (1 + fastemit)
    ctc_weight: float = 0.0  # loss = (1 - w) transducer + w CTC
    chunk: int | None = None  # lattice nodes at a time; None: by backend (tdt_jax.lean_loss)

    def __post_init__(self):
        _require(0 <= self.omega <= 1, f"loss.omega must be in [0, 1], got {self.omega}")
        _require(
            0 <= self.ctc_weight <= 1, f"loss.ctc_weight must be in [0, 1], got {self.ctc_weight}"
        )
        _require(
            self.chunk is None or self.chunk >= 1, f"loss.chunk must be >= 1, got {self.chunk}"
        )
        for name in ("sigma", "fastemit"):
            value = getattr(self, name)
            _require(value >= 0, f"loss.{name} must be >= 0, got {value}")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up and decay."""

    learning_rate: float = 1e-3  # the peak
    schedule: str = "cosine"  # or "noam"
    warmup_steps: int = 10000
    final_learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 1e-3  # on matrices only
    clip_norm: float = 1.0
    ema_decay: float = 0.0  # of the averaged parameters that are evaluated; 0 = none

    def __post_init__(self):
        _require(
            self.schedule in ("cosine", "noam"),
            f"optimizer.schedule must be 'cosine' or 'noam', got {self.schedule!r}",
        )
        _require(
            self.learning_rate > 0,
            f"optimizer.learning_rate must be positive, got {self.learning_rate}",
        )
        _require(
            self.warmup_steps >= 1, f"optimizer.warmup_steps must be >= 1, got {self.warmup_steps}"
        )
        _require(self.clip_norm > 0, f"optimizer.clip_norm must be positive, got {self.clip_norm}")
        _require(
            0 <= self.ema_decay < 1,
            f"optimizer.ema_decay must be in [0, 1), got {self.ema_decay}",
        )


@dataclass(frozen=True)
class AugmentConfig:
    """Training-time augmentation; everything off at zero."""

    freq_masks: int = 2
    freq_width: int = 27  # mel bins, at most
    time_masks: int = 10
    time_width: float = 0.05  # of the utterance, at most
    noise_probability: float = 0.0  # share of the utterances that get noise
    noise_snr: tuple[float, float] = (10.0, 40.0)  # dB, drawn uniformly
    # Share in which level and noise change at some moment, as where two recordings meet.
    change_probability: float = 0.0
    gain: tuple[float, float] = (0.0, 0.0)  # dB, drawn uniformly
    speed: tuple[float, ...] = ()  # rates drawn from, such as (0.9, 1.0, 1.1)
    silence_probability: float = 0.0  # share of the utterances with silence inserted
    silence_seconds: float = 1.0  # at most, at the start, at the end or at a pause

    def __post_init__(self):
        for name in ("freq_masks", "freq_width", "time_masks"):
            value = getattr(self, name)
            _require(value >= 0, f"augment.{name} must be >= 0, got {value}")
        for name in (
            "noise_probability", "change_probability", "silence_probability", "time_width"
        ):  # fmt: skip
            value = getattr(self, name)
            _require(0 <= value <= 1, f"augment.{name} must be in [0, 1], got {value}")
        for name in ("noise_snr", "gain"):
            low, high = getattr(self, name)
            _require(low <= high, f"augment.{name} must be (low, high), got {(low, high)}")
        _require(
            all(0.5 <= rate <= 2 for rate in self.speed),
            f"augment.speed rates must be in [0.5, 2], got {self.speed}",
        )


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes labels; trained on the training text when a run starts."""

    kind: str = "sentencepiece"  # or "characters"
    vocab_size: int = 1024  # of SentencePiece; characters have as many as the text has
    model: str = ""  # an existing SentencePiece model or tokenizer folder to use instead

    def __post_init__(self):
        _require(
            self.kind in ("sentencepiece", "characters"),
            f"tokenizer.kind must be 'sentencepiece' or 'characters', got {self.kind!r}",
        )


@dataclass(frozen=True)
class Bucket:
    """A fixed batch shape: utterances of at most `seconds` and `tokens`, `batch_size` at a time."""

    seconds: float
    tokens: int
    batch_size: int

    def __post_init__(self):
        _require(
            self.seconds > 0 and self.tokens > 0 and self.batch_size > 0,
            f"bucket needs positive seconds, tokens and batch_size, got "
            f"{self.seconds}, {self.tokens}, {self.batch_size}",
        )


@dataclass(frozen=True)
class TelephoneConfig:
    """Connected telephone speech composed from the embedded recordings (tdt_jax.data.telephone)."""

    kinds: tuple[str, ...] = ("digits", "phone", "amount", "date", "time")
    phrase_probability: float = 0.1  # share of recorded phrases among the training utterances
    gap: tuple[float, float] = (0.0, 0.3)  # seconds between words
    long_silence_probability: float = 0.2  # of each place: start, end, one gap inside
    long_silence_seconds: float = 2.0  # at most
    # Of texts that fill an utterance together: a long silence between two, and for each another
    # level and noise, as where two recordings meet.
    joint_silence_probability: float = 0.0
    joint_change_probability: float = 0.0
    speed: tuple[float, ...] = (0.9, 0.95, 1.0, 1.05, 1.1)
    word_gain: float = 3.0  # dB, either way, per word
    level: tuple[float, float] = (-20.0, -1.0)  # dB: the utterance's peak, full scale = 0
    num_test: int = 200
    snr: tuple[float, float] = (10.0, 40.0)  # dB, of the noise in the test utterances
    # (first step, index of the largest bucket allowed): short utterances before long ones
    curriculum: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        _require(len(self.kinds) > 0, "telephone.kinds must name at least one kind")
        for name in (
            "phrase_probability", "long_silence_probability", "joint_silence_probability",
            "joint_change_probability",
        ):  # fmt: skip
            value = getattr(self, name)
            _require(0 <= value <= 1, f"telephone.{name} must be in [0, 1], got {value}")
        for name in ("gap", "level", "snr"):
            low, high = getattr(self, name)
            _require(low <= high, f"telephone.{name} must be (low, high), got {(low, high)}")
        _require(self.gap[0] >= 0, f"telephone.gap must be >= 0, got {self.gap}")
        _require(self.level[1] <= 0, f"telephone.level must be <= 0 dB, got {self.level}")
        for name in ("long_silence_seconds", "word_gain", "num_test"):
            value = getattr(self, name)
            _require(value >= 0, f"telephone.{name} must be >= 0, got {value}")
        _require(
            len(self.speed) > 0 and all(0.5 <= rate <= 2 for rate in self.speed),
            f"telephone.speed needs rates in [0.5, 2], got {self.speed}",
        )


@dataclass(frozen=True)
class DataConfig:
    """Where utterances come from, and the shapes that they are batched in."""

    # JSONL manifests, or prepared datasets as "FOLDER:SPLIT" or "FOLDER:SPLIT+SPLIT"
    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    folder: str = ""  # that relative names in train, dev and test are relative to
    keys: tuple[str, str] = ("speech", "text")  # of audio and text in a dataset's records
    lowercase: bool = False  # make the text of train, dev and test lower case
    telephone: TelephoneConfig | None = None  # composed utterances instead of manifests
    buckets: tuple[Bucket, ...] = (Bucket(16.7, 120, 16),)
    num_threads: int = 2  # that read and decode ahead of the training step
    prefetch: int = 4  # batches

    def __post_init__(self):
        seconds = [bucket.seconds for bucket in self.buckets]
        _require(len(seconds) > 0, "data.buckets must name at least one bucket")
        _require(seconds == sorted(seconds), f"data.buckets must grow in seconds, got {seconds}")


@dataclass(frozen=True)
class TrainingConfig:
    """The run itself."""

    num_steps: int = 100_000
    seed: int = 0
    log_every: int = 50  # steps
    eval_every: int = 1000
    save_every: int = 1000
    keep: int = 3  # newest checkpoints, beside the best
    fsdp: int = 1  # devices among which parameters are split; rows are split among all
    accumulate: int = 1  # parts of a batch, one after another, before a step: less memory
    folder: str = "runs/default"
    init_from: str = ""  # a checkpoint whose parameters to start from
    metric: str = "wer"  # by which the best checkpoint is chosen; or "bleu", for translation

    def __post_init__(self):
        _require(
            self.metric in ("wer", "bleu"),
            f"training.metric must be 'wer' or 'bleu', got {self.metric!r}",
        )
        for name in (
            "num_steps",
            "log_every",
            "eval_every",
            "save_every",
            "keep",
            "fsdp",
            "accumulate",
        ):
            value = getattr(self, name)
            _require(value >= 1, f"training.{name} must be >= 1, got {value}")


@dataclass(frozen=True)
class Config:
    """Everything that defines an experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self):
        _require(
            self.loss.ctc_weight == 0 or self.model.ctc,
            f"loss.ctc_weight is {self.loss.ctc_weight} but model.ctc is False",
        )


def load(path: str | Path) -> Config:
    """Run the configuration file at `path` and return what its `get_config()` returns."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no configuration file at {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} defines no get_config()")
    return module.get_config()


def override(config, assignment: str):
    """Return `config` with one field changed, as in "optimizer.learning_rate=1e-3".

    The text is read as the field's type: numbers, true/false, none, words, and JSON for tuples and
    nested dataclasses ("model.durations=[0,1,2]"; "0,1,2" does as well).
    """
    path, separator, text = assignment.partition("=")
    if not separator:
        raise ValueError(f"an override reads 'a.b=value', got {assignment!r}")
    return _replace(config, path.strip().split("."), text.strip(), path.strip())


def _replace(config, names: list[str], text: str, path: str):
    hints = typing.get_type_hints(type(config))
    name, *rest = names
    if name not in hints:
        raise ValueError(f"no field {name!r} in {path!r}; there are {', '.join(sorted(hints))}")
    if rest:
        inner = getattr(config, name)
        if not dataclasses.is_dataclass(inner):
            raise ValueError(f"{name!r} in {path!r} has no fields (it is {inner!r})")
        return dataclasses.replace(config, **{name: _replace(inner, rest, text, path)})
    try:
        value = _from_plain(_parse(text, hints[name]), hints[name])
    except (TypeError, ValueError, KeyError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be {text!r}: {error}") from None
    return dataclasses.replace(config, **{name: value})


def _parse(text: str, hint):
    """Text to the plain (JSON-like) value that `_from_plain` reads as `hint`."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    if str in options:
        return text
    for option in options:
        if typing.get_origin(option) is tuple and text[:1] not in ("[", "("):
            if typing.get_args(option)[0] is str:
                return [part.strip() for part in text.split(",") if part.strip()]
            text = f"[{text}]"
    if text.lower() in ("true", "false"):
        text = text.lower()
    if text.startswith("("):
        return ast.literal_eval(text)
    return json.loads(text)


def to_json(config) -> str:
    """The configuration as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str, cls=Config):
    """The configuration that `to_json` wrote; missing fields take their defaults.

    Raises:
      ValueError: on unknown fields, wrong types and missing fields that have no default.
    """
    try:
        return _from_plain(json.loads(text), cls)
    except TypeError as error:
        raise ValueError(f"not a {cls.__name__}: {error}") from None


def _from_plain(value, hint):
    """A JSON value as the type `hint`: dataclasses, tuples, optionals and scalars."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = (option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        if not isinstance(value, dict):
            raise ValueError(f"{hint.__name__} needs an object, got {value!r}")
        if unknown := sorted(set(value) - set(hints)):
            raise ValueError(f"{hint.__name__} has no field {', '.join(unknown)}")
        return hint(**{name: _from_plain(item, hints[name]) for name, item in value.items()})
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"needs a list, got {value!r}")
        inner = typing.get_args(hint)
        if inner[-1] is Ellipsis:
            return tuple(_from_plain(item, inner[0]) for item in value)
        if len(inner) != len(value):
            raise ValueError(f"needs {len(inner)} values, got {value!r}")
        return tuple(_from_plain(item, each) for item, each in zip(value, inner, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"needs {hint.__name__}, got {value!r}")
    return value
