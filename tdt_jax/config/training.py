"""How a model is trained: loss, optimizer, augmentation, tokenizer, data; and the whole of it."""

from dataclasses import dataclass, field

from tdt_jax.config.model import ModelConfig, require


@dataclass(frozen=True)
class LossConfig:
    """The training objective (Xu et al., 2023, arXiv 2304.06795)."""

    sigma: float = 0.05  # logit under-normalisation: subtracted from every token log-probability
    omega: float = 0.1  # share of the batches that use the RNN-T loss on the token head
    fastemit: float = 0.0  # label arcs' gradients times (1 + fastemit)
    ctc_weight: float = 0.0  # loss = (1 - w) transducer + w CTC
    chunk: int | None = None  # lattice nodes at a time; None: by backend (tdt_jax.losses.tiled)

    def __post_init__(self):
        require(0 <= self.omega <= 1, f"loss.omega must be in [0, 1], got {self.omega}")
        require(
            0 <= self.ctc_weight <= 1, f"loss.ctc_weight must be in [0, 1], got {self.ctc_weight}"
        )
        require(self.chunk is None or self.chunk >= 1, f"loss.chunk must be >= 1, got {self.chunk}")
        for name in ("sigma", "fastemit"):
            value = getattr(self, name)
            require(value >= 0, f"loss.{name} must be >= 0, got {value}")


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
        require(
            self.schedule in ("cosine", "noam"),
            f"optimizer.schedule must be 'cosine' or 'noam', got {self.schedule!r}",
        )
        require(
            self.learning_rate > 0,
            f"optimizer.learning_rate must be positive, got {self.learning_rate}",
        )
        require(
            self.warmup_steps >= 1, f"optimizer.warmup_steps must be >= 1, got {self.warmup_steps}"
        )
        require(self.clip_norm > 0, f"optimizer.clip_norm must be positive, got {self.clip_norm}")
        require(
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
    gate_probability: float = 0.0  # share whose longer pauses are nearly silent: zeros, dither
    band_probability: float = 0.0  # share of the batches through telephone bands and G.711
    gain: tuple[float, float] = (0.0, 0.0)  # dB, drawn uniformly
    speed: tuple[float, ...] = ()  # rates drawn from, such as (0.9, 1.0, 1.1)
    silence_probability: float = 0.0  # share of the utterances with silence inserted
    silence_seconds: float = 1.0  # at most, at the start, at the end or at a pause

    def __post_init__(self):
        for name in ("freq_masks", "freq_width", "time_masks"):
            value = getattr(self, name)
            require(value >= 0, f"augment.{name} must be >= 0, got {value}")
        for name in (
            "noise_probability", "change_probability", "gate_probability", "band_probability",
            "silence_probability", "time_width",
        ):  # fmt: skip
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name} must be in [0, 1], got {value}")
        for name in ("noise_snr", "gain"):
            low, high = getattr(self, name)
            require(low <= high, f"augment.{name} must be (low, high), got {(low, high)}")
        require(
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
        require(
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
        require(
            self.seconds > 0 and self.tokens > 0 and self.batch_size > 0,
            f"bucket needs positive seconds, tokens and batch_size, got "
            f"{self.seconds}, {self.tokens}, {self.batch_size}",
        )


@dataclass(frozen=True)
class TelephoneConfig:
    """Connected telephone speech composed from the embedded recordings."""

    kinds: tuple[str, ...] = ("digits", "phone", "amount", "date", "time")
    phrase_probability: float = 0.1  # share of recorded phrases among the training utterances
    fragment_probability: float = 0.0  # share of utterances whose texts begin or end anywhere
    noise_probability: float = 0.0  # share of noise in which nothing is said
    gap: tuple[float, float] = (0.0, 0.3)  # seconds between words
    long_silence_probability: float = 0.2  # of each place: start, end, one gap inside
    long_silence_seconds: float = 2.0  # at most
    # Of texts that fill an utterance together: a long silence between two, and for each another
    # level and noise, in half of the gaps with digital silence between, as where recordings meet.
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
        require(len(self.kinds) > 0, "telephone.kinds must name at least one kind")
        for name in (
            "phrase_probability", "fragment_probability", "noise_probability",
            "long_silence_probability", "joint_silence_probability", "joint_change_probability",
        ):  # fmt: skip
            value = getattr(self, name)
            require(0 <= value <= 1, f"telephone.{name} must be in [0, 1], got {value}")
        for name in ("gap", "level", "snr"):
            low, high = getattr(self, name)
            require(low <= high, f"telephone.{name} must be (low, high), got {(low, high)}")
        require(self.gap[0] >= 0, f"telephone.gap must be >= 0, got {self.gap}")
        require(self.level[1] <= 0, f"telephone.level must be <= 0 dB, got {self.level}")
        for name in ("long_silence_seconds", "word_gain", "num_test"):
            value = getattr(self, name)
            require(value >= 0, f"telephone.{name} must be >= 0, got {value}")
        require(
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
        require(len(seconds) > 0, "data.buckets must name at least one bucket")
        require(seconds == sorted(seconds), f"data.buckets must grow in seconds, got {seconds}")


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
        require(
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
            require(value >= 1, f"training.{name} must be >= 1, got {value}")


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
        require(
            self.loss.ctc_weight == 0 or self.model.ctc,
            f"loss.ctc_weight is {self.loss.ctc_weight} but model.ctc is False",
        )
