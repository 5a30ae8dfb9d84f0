"""The model's configuration: features, encoder, predictor, joint."""

import itertools
from dataclasses import dataclass, field

from tdt_jax.config.checks import at_least, one_of, positive, require, share

PRECISIONS = "default", "highest"
REMAT_POLICIES = "nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable"


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
    # None: each mel bin of an utterance is normalized to mean 0 and standard deviation 1. Otherwise
    # a fixed (mean, deviation) for all bins and utterances: then silence, or other speech in the
    # same utterance, does not change the features of speech.
    normalize: tuple[float, float] | None = None
    # dB: frames that are quieter than the loudest 0.2 s of the utterance by more than this are left
    # out of its mean and deviation, so that the amount and the level of silence do not change the
    # features of speech. None: all frames count, as in NVIDIA's models.
    silence: float | None = None

    def __post_init__(self):
        positive(self, "features.num_mels", "features.sample_rate", "features.silence")
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
            self.normalize is None or self.silence is None,
            "features.silence affects the mean and deviation of each utterance only: with "
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
    use_bias: bool = True  # in feed-forward layers, attention and convolutions
    scale_input: bool = False  # multiply the subsampled frames by sqrt(width) ("xscaling")
    # frames to the (left, right) of a frame that it attends to; None: all. With a limit, memory
    # grows with the number of frames, and not with its square.
    attention_context: tuple[int, int] | None = None
    # (left, right) contexts of attention in chunks: a frame attends to its own chunk of right + 1
    # frames and to the `left` frames before it. Each training batch has one of them, by chance;
    # otherwise the first counts, unless another is chosen.
    chunked_contexts: tuple[tuple[int, int], ...] = ()
    # (lefts, chunks, rights) of attention for one model that encodes whole utterances, with full
    # attention, and streams, where the frames of a chunk also attend to the `right` frames after
    # it. Half of the training batches have one of each.
    unified_contexts: tuple[tuple[int, ...], ...] = ()
    # frames to the (left, right) of a frame that the depthwise convolution covers; None: as many on
    # both sides
    convolution_context: tuple[int, int] | None = None
    causal_subsampling: bool = False  # a frame depends on no features after its last
    # normalization after the depthwise convolution: "layer_norm", or "affine", a BatchNorm with its
    # statistics folded in, as in pretrained models
    convolution_norm: str = "layer_norm"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    # recompute each block in the backward pass: slower, with less memory. None: `train.py`
    # recomputes as little as a device's memory allows; all else recomputes
    remat: bool | None = None
    # what is kept of a block nevertheless, one of jax.checkpoint_policies: "nothing_saveable";
    # "dots_with_no_batch_dims_saveable", products with parameters; "dots_saveable", all products
    remat_policy: str = "nothing_saveable"
    # blocks in the body of the compiled loop; a small encoder on a CPU is fastest with all of them
    unroll: int = 1
    # of float32 products: "default", as fast as the device can, which rounds their factors to 10
    # bits after the point on a GPU (TF32) and to 7 on a TPU (bfloat16); "highest", float32 as on a
    # CPU. Predictor, joint network and heads always have the latter.
    precision: str = "default"

    def __post_init__(self):
        at_least(
            1, self, "encoder.width", "encoder.num_layers", "encoder.num_heads",
            "encoder.feed_forward_factor", "encoder.kernel_size", "encoder.subsampling_channels",
            "encoder.unroll",
        )  # fmt: skip
        share(self, "encoder.dropout", "encoder.attention_dropout", below_one=True)
        one_of(REMAT_POLICIES, self, "encoder.remat_policy")
        one_of(PRECISIONS, self, "encoder.precision")
        one_of(("layer_norm", "affine"), self, "encoder.convolution_norm")
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
        context = self.attention_context
        require(
            context is None or (min(context) >= 0 and max(context) > 0),
            f"encoder.attention_context must be none or (left, right) frames >= 0, got {context}",
        )
        self._check_contexts()

    def _check_contexts(self) -> None:
        for left, right in self.chunked_contexts:
            require(
                left >= 0 and right >= 0 and left % (right + 1) == 0,
                "encoder.chunked_contexts need left >= 0 and right >= 0 with left a multiple of "
                f"right + 1, got {(left, right)}",
            )
        unified = self.unified_contexts
        is_valid = len(unified) == 3 and all(
            choices and min(choices) >= least
            for choices, least in zip(unified, (0, 1, 0), strict=True)
        )
        require(
            not unified or is_valid,
            "encoder.unified_contexts needs frames (lefts >= 0, chunks > 0, rights >= 0), one or "
            f"more of each, got {unified}",
        )
        given = (self.attention_context is not None, bool(self.chunked_contexts), bool(unified))
        require(
            sum(given) <= 1,
            "only one of encoder.attention_context, encoder.chunked_contexts and "
            f"encoder.unified_contexts can be given, got {self.attention_context}, "
            f"{self.chunked_contexts} and {unified}",
        )
        sides = self.convolution_context
        require(
            sides is None or (min(sides) >= 0 and sum(sides) == self.kernel_size - 1),
            "encoder.convolution_context must be none or (left, right) frames >= 0 that add up to "
            f"encoder.kernel_size - 1 = {self.kernel_size - 1}, got {sides}",
        )

    @property
    def convolution_sides(self) -> tuple[int, int]:
        """Returns the frames to the (left, right) that the depthwise convolution covers."""
        half = self.kernel_size // 2
        return self.convolution_context or (half, half)

    @property
    def is_causal(self) -> bool:
        """Returns whether the encoder can stream with a cache: nothing but chunks looks ahead."""
        causal_convolution = self.convolution_sides[1] == 0
        return bool(self.chunked_contexts) and causal_convolution and self.causal_subsampling


@dataclass(frozen=True)
class PredictorConfig:
    """The prediction network: an embedding and LSTM layers."""

    width: int = 640  # P
    num_layers: int = 1
    dropout: float = 0.2
    blank_embedding: bool = False  # learned, as in some fine-tuned checkpoints; otherwise zero

    def __post_init__(self):
        at_least(1, self, "predictor.width", "predictor.num_layers")
        share(self, "predictor.dropout", below_one=True)


@dataclass(frozen=True)
class JointConfig:
    """The joint network."""

    width: int = 640  # J
    dropout: float = 0.2

    def __post_init__(self):
        at_least(1, self, "joint.width")
        share(self, "joint.dropout", below_one=True)


@dataclass(frozen=True)
class PromptConfig:
    """A language prompt: each utterance has one of several slots, which changes its frames."""

    num_slots: int = 128
    width: int = 2048  # of the hidden layer that sees the frame and the slot
    default: int = 101  # slot of utterances for which none is given
    # (name, slot) of each language; several names may share a slot
    languages: tuple[tuple[str, int], ...] = ()

    def __post_init__(self):
        at_least(1, self, "prompt.num_slots", "prompt.width")
        slots = [self.default, *(slot for _, slot in self.languages)]
        outside = [slot for slot in slots if not 0 <= slot < self.num_slots]
        require(
            not outside,
            f"prompt.default and prompt.languages need slots in 0..{self.num_slots - 1}, got "
            f"{outside[:1]}",
        )

    def slot(self, language: str | int) -> int:
        """Returns the slot of a language, which may be given as its slot.

        Raises:
          ValueError: if there is none; the message names those there are.
        """
        if isinstance(language, str):
            names = dict(self.languages)
            if language not in names:
                known = ", ".join(names) or "none by name"
                raise ValueError(f"the model has no prompt for {language!r}; it has {known}")
            return names[language]
        if not 0 <= language < self.num_slots:
            raise ValueError(f"prompts are slots in 0..{self.num_slots - 1}, got {language}")
        return int(language)


@dataclass(frozen=True)
class ModelConfig:
    """A transducer: features, encoder, predictor and joint network.

    With `durations=None` it is an RNN-T; without predictor and joint it is a CTC model.
    """

    vocab_size: int = 1024  # V; blank is index V
    durations: tuple[int, ...] | None = (0, 1, 2, 3, 4)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig | None = field(default_factory=PredictorConfig)
    joint: JointConfig | None = field(default_factory=JointConfig)
    ctc: bool = False  # a CTC head on the encoder
    prompt: PromptConfig | None = None
    max_symbols: int = 10  # labels that greedy decoding emits at one frame at most
    dtype: str = "float32"  # of the computation; losses are float32
    # length of the windows that long audio is transcribed in; None: the longest bucket of the run
    # that trained the model
    piece_seconds: float | None = None

    def __post_init__(self):
        at_least(1, self, "model.vocab_size", "model.max_symbols", "model.piece_seconds")
        one_of(("float32", "bfloat16"), self, "model.dtype")
        require(
            (self.predictor is None) == (self.joint is None),
            "model.predictor and model.joint must both be none, or neither",
        )
        require(
            self.predictor is not None or (self.ctc and self.durations is None),
            "a model without predictor and joint needs ctc=True and durations=None, got ctc="
            f"{self.ctc} and durations={self.durations}",
        )
        if self.durations is not None:
            check_durations(self.durations)

    @property
    def blank(self) -> int:
        """Returns the index of the blank token."""
        return self.vocab_size

    @property
    def decoders(self) -> tuple[str, ...]:
        """Returns the decoders of the model: "transducer", "ctc" or both."""
        return ("transducer",) * (self.predictor is not None) + ("ctc",) * self.ctc

    @property
    def kind(self) -> str:
        """Returns the kind of model: "TDT", "RNN-T" or "CTC"."""
        if self.predictor is None:
            return "CTC"
        return "RNN-T" if self.durations is None else "TDT"

    @property
    def samples_per_frame(self) -> int:
        """Returns the number of audio samples per encoder frame (1280)."""
        return 8 * self.features.hop_length

    @property
    def seconds_per_frame(self) -> float:
        """Returns the seconds of audio per encoder frame (0.08)."""
        return self.samples_per_frame / self.features.sample_rate

    @property
    def lookaheads(self) -> tuple[float, ...]:
        """Returns the seconds that a causal model can look ahead, the default first."""
        return tuple(right * self.seconds_per_frame for _, right in self.encoder.chunked_contexts)


def check_durations(durations: tuple[int, ...]) -> None:
    """Raises ValueError unless durations increase strictly from >= 0 and end above 0."""
    increasing = all(a < b for a, b in itertools.pairwise(durations))
    require(
        len(durations) > 0 and durations[0] >= 0 and durations[-1] > 0 and increasing,
        f"durations must increase strictly from >= 0 and end above 0, got {tuple(durations)}",
    )
