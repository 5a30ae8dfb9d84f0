"""What a model is: features, encoder, predictor, joint."""

import itertools
from dataclasses import dataclass, field

REMAT_POLICIES = "nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable"


def require(condition: bool, message: str) -> None:
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
    # Frames so many dB below the loudest 0.2 s of an utterance are silence, which its mean and
    # deviation leave out: how much of it there is, and how silent it is, changes no feature of
    # speech. None: all frames count, as in NVIDIA's models.
    silence: float | None = None

    def __post_init__(self):
        require(self.num_mels > 0, f"features.num_mels must be positive, got {self.num_mels}")
        require(
            0 < self.hop_length <= self.window_length <= self.fft_length,
            "features need 0 < hop_length <= window_length <= fft_length, got "
            f"{self.hop_length}, {self.window_length}, {self.fft_length}",
        )
        require(
            self.normalize is None or self.normalize[1] > 0,
            f"features.normalize needs a positive deviation, got {self.normalize}",
        )
        require(
            self.silence is None or self.silence > 0,
            f"features.silence needs dB > 0, got {self.silence}",
        )
        require(
            self.normalize is None or self.silence is None,
            "features.silence belongs to an utterance's own mean and deviation: with "
            f"features.normalize = {self.normalize} it must be none, got {self.silence}",
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
            require(value >= 1, f"encoder.{name} must be >= 1, got {value}")
        require(
            self.width % self.num_heads == 0,
            f"encoder.width ({self.width}) must be a multiple of "
            f"encoder.num_heads ({self.num_heads})",
        )
        require(
            self.width % 2 == 0, f"encoder.width must be even (sine and cosine), got {self.width}"
        )
        require(
            self.kernel_size % 2 == 1, f"encoder.kernel_size must be odd, got {self.kernel_size}"
        )
        for name in ("dropout", "attention_dropout"):
            rate = getattr(self, name)
            require(0 <= rate < 1, f"encoder.{name} must be in [0, 1), got {rate}")
        require(
            self.remat_policy in REMAT_POLICIES,
            f"encoder.remat_policy must be one of {', '.join(REMAT_POLICIES)}, got "
            f"{self.remat_policy!r}",
        )
        context = self.attention_context
        require(
            context is None or (min(context) >= 0 and max(context) > 0),
            f"encoder.attention_context must be none or (left, right) frames >= 0, got {context}",
        )
        require(
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
            require(value >= 1, f"predictor.{name} must be >= 1, got {value}")
        require(0 <= self.dropout < 1, f"predictor.dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class JointConfig:
    """The joint network."""

    width: int = 640  # J
    dropout: float = 0.2

    def __post_init__(self):
        require(self.width >= 1, f"joint.width must be >= 1, got {self.width}")
        require(0 <= self.dropout < 1, f"joint.dropout must be in [0, 1), got {self.dropout}")


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
        require(
            self.piece_seconds is None or self.piece_seconds >= 1,
            f"piece_seconds must be >= 1 or none, got {self.piece_seconds}",
        )
        require(
            (self.predictor is None) == (self.joint is None),
            "predictor and joint go together: one is none, the other is not",
        )
        require(
            self.predictor is not None or (self.ctc and self.durations is None),
            "a model without predictor and joint needs ctc=True and durations=None, got "
            f"{self.ctc} and {self.durations}",
        )
        require(self.max_symbols >= 1, f"max_symbols must be >= 1, got {self.max_symbols}")
        require(self.vocab_size >= 1, f"vocab_size must be >= 1, got {self.vocab_size}")
        require(
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
    def samples_per_frame(self) -> int:
        """Samples of audio that one encoder frame stands for (1280)."""
        return 8 * self.features.hop_length

    @property
    def seconds_per_frame(self) -> float:
        """Seconds of audio that one encoder frame stands for (0.08)."""
        return self.samples_per_frame / self.features.sample_rate


def check_durations(durations: tuple[int, ...]) -> None:
    """Raise ValueError unless durations increase strictly from >= 0 and end above 0."""
    increasing = all(a < b for a, b in itertools.pairwise(durations))
    require(
        len(durations) > 0 and durations[0] >= 0 and durations[-1] > 0 and increasing,
        f"durations must increase strictly from >= 0 and end above 0, got {tuple(durations)}",
    )
