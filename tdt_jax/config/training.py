"""The configuration of a run: loss, optimizer, augmentation, tokenizer, data, tuning, training."""

from dataclasses import dataclass, field

from tdt_jax.config.checks import at_least, one_of, ordered, positive, require, share, speeds
from tdt_jax.config.model import ModelConfig


@dataclass(frozen=True)
class LossConfig:
    """The training objective (Xu et al., 2023, arXiv 2304.06795)."""

    sigma: float = 0.05  # logit under-normalization: subtracted from every token log-probability
    omega: float = 0.1  # share of the batches that use the RNN-T loss on the token head
    fastemit: float = 0.0  # label arcs' gradients are multiplied by (1 + fastemit)
    ctc_weight: float = 0.0  # loss = (1 - w) transducer + w CTC
    chunk: int | None = None  # lattice nodes at a time; None: by backend (tdt_jax.losses.tiled)

    def __post_init__(self):
        share(self, "loss.omega", "loss.ctc_weight")
        at_least(0, self, "loss.sigma", "loss.fastemit")
        at_least(1, self, "loss.chunk")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up and decay of the learning rate."""

    learning_rate: float = 1e-3  # the highest
    schedule: str = "cosine"  # or "noam"
    warmup_steps: int = 10000
    final_learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 1e-3  # on matrices only
    clip_norm: float = 1.0
    ema_decay: float = 0.0  # of the averaged parameters, which are evaluated; 0: no average

    def __post_init__(self):
        one_of(("cosine", "noam"), self, "optimizer.schedule")
        positive(self, "optimizer.learning_rate", "optimizer.clip_norm")
        at_least(1, self, "optimizer.warmup_steps")
        share(self, "optimizer.ema_decay", below_one=True)


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation in training."""

    freq_masks: int = 2
    freq_width: int = 27  # mel bins, at most
    time_masks: int = 10
    time_width: float = 0.05  # share of the utterance, at most
    noise_probability: float = 0.0  # share of the utterances that noise is added to
    noise_snr: tuple[float, float] = (10.0, 40.0)  # dB, drawn uniformly
    room_probability: float = 0.0  # share of the utterances that reverberate as in a room
    # share of the utterances whose level and noise change once, as where two recordings meet
    change_probability: float = 0.0
    # share of the utterances whose longer pauses become nearly silent: zeros, or dither
    gate_probability: float = 0.0
    band_probability: float = 0.0  # share of the batches limited to telephone bands, with G.711
    gain: tuple[float, float] = (0.0, 0.0)  # dB, drawn uniformly
    speed: tuple[float, ...] = ()  # rates to draw from, such as (0.9, 1.0, 1.1)
    silence_probability: float = 0.0  # share of the utterances that silence is inserted into
    silence_seconds: float = 1.0  # at most, at the start, at the end or at a pause

    def __post_init__(self):
        at_least(0, self, "augment.freq_masks", "augment.freq_width", "augment.time_masks")
        share(
            self, "augment.time_width", "augment.noise_probability", "augment.room_probability",
            "augment.change_probability", "augment.gate_probability", "augment.band_probability",
            "augment.silence_probability",
        )  # fmt: skip
        ordered(self, "augment.noise_snr", "augment.gain")
        speeds(self, "augment.speed")


@dataclass(frozen=True)
class TokenizerConfig:
    """The tokenizer, which is trained on the training text when a run starts."""

    kind: str = "sentencepiece"  # or "characters"
    vocab_size: int = 1024  # of SentencePiece; with characters, as many as the text has
    model: str = ""  # a SentencePiece model or a tokenizer's folder to use instead

    def __post_init__(self):
        one_of(("sentencepiece", "characters"), self, "tokenizer.kind")


@dataclass(frozen=True)
class Bucket:
    """A fixed batch shape: `batch_size` utterances of at most `seconds` and `tokens`."""

    seconds: float
    tokens: int
    batch_size: int

    def __post_init__(self):
        positive(self, "bucket.seconds", "bucket.tokens", "bucket.batch_size")


@dataclass(frozen=True)
class TelephoneConfig:
    """Connected telephone speech, composed from the recordings that come with the package."""

    # of texts; see tdt_jax.data.telephone.grammar
    kinds: tuple[str, ...] = ("digits", "phone", "amount", "date", "time")
    phrase_probability: float = 0.1  # share of recorded phrases among the training utterances
    # share of the utterances that begin or end in the middle of a text
    fragment_probability: float = 0.0
    noise_probability: float = 0.0  # share of the utterances that are noise without speech
    gap: tuple[float, float] = (0.0, 0.3)  # seconds between words
    # probability of a long silence at each of three places: the start, the end, one gap of words
    long_silence_probability: float = 0.2
    long_silence_seconds: float = 2.0  # at most
    # probability of a long silence between two texts, if an utterance consists of several
    joint_silence_probability: float = 0.0
    # probability of another level and noise for each of several texts, with digital silence in
    # half of the gaps
    joint_change_probability: float = 0.0
    speed: tuple[float, ...] = (0.9, 0.95, 1.0, 1.05, 1.1)  # rates to draw from
    word_gain: float = 3.0  # dB: the level of a word varies by up to this in both directions
    level: tuple[float, float] = (-20.0, -1.0)  # dB relative to full scale: an utterance's peak
    num_test: int = 200  # composed test utterances
    snr: tuple[float, float] = (10.0, 40.0)  # dB, of the noise in the test utterances
    # (first step, index of the largest bucket allowed from then on): short utterances first
    curriculum: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        require(len(self.kinds) > 0, "telephone.kinds must name at least one kind")
        share(
            self, "telephone.phrase_probability", "telephone.fragment_probability",
            "telephone.noise_probability", "telephone.long_silence_probability",
            "telephone.joint_silence_probability", "telephone.joint_change_probability",
        )  # fmt: skip
        ordered(self, "telephone.gap", "telephone.level", "telephone.snr")
        at_least(0, self, "telephone.long_silence_seconds", "telephone.word_gain")
        at_least(0, self, "telephone.num_test")
        require(self.gap[0] >= 0, f"telephone.gap must be >= 0, got {self.gap}")
        require(self.level[1] <= 0, f"telephone.level must be <= 0 dB, got {self.level}")
        require(len(self.speed) > 0, f"telephone.speed needs at least one rate, got {self.speed}")
        speeds(self, "telephone.speed")


@dataclass(frozen=True)
class DataConfig:
    """The utterances to train and evaluate on, and the shapes of their batches."""

    # JSONL manifests, or prepared datasets as "FOLDER:SPLIT" or "FOLDER:SPLIT+SPLIT"
    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()  # evaluated during training, all together
    test: tuple[str, ...] = ()  # evaluated at the end, each by itself
    replay: tuple[str, ...] = ()  # sources of what a model knew before, against forgetting
    replay_share: float = 0.25  # of the steps, which train on `replay`
    folder: str = ""  # that relative names in train, dev, test and replay are relative to
    keys: tuple[str, str] = ("speech", "text")  # of audio and text in a dataset's records
    lowercase: bool = False  # convert the text of train, dev, test and replay to lower case
    # composed utterances, instead of those of train, dev and test
    telephone: TelephoneConfig | None = None
    buckets: tuple[Bucket, ...] = (Bucket(16.7, 120, 16),)
    num_threads: int = 2  # that read and decompress audio ahead of the training step
    prefetch: int = 4  # batches

    def __post_init__(self):
        seconds = [bucket.seconds for bucket in self.buckets]
        share(self, "data.replay_share", below_one=True)
        require(len(seconds) > 0, "data.buckets must name at least one bucket")
        require(seconds == sorted(seconds), f"data.buckets must grow in seconds, got {seconds}")
        for name in ("train", "dev", "test"):
            sources = ",".join(getattr(self, name))
            require(
                not sources or self.telephone is None,
                f"data.{name}={sources} would be ignored, because data.telephone makes the "
                "utterances of this configuration: to use your own data, add "
                "--set data.telephone=none",
            )


@dataclass(frozen=True)
class TuningConfig:
    """What fine-tuning trains: all of a model, some parameters, or low-rank adapters.

    Patterns are of parameters' names, such as encoder.blocks.attention.* or *.bias; a * stands for
    any characters, dots included.
    """

    # patterns of the parameters to train; none: all of them, or with adapters no others
    train: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()  # patterns of parameters that stay as they are, of those in train
    frozen_steps: int = 0  # steps at the start in which the encoder stays as it is
    # the learning rate of an encoder block is that of the block above it times this
    layer_decay: float = 1.0
    rates: tuple[tuple[str, float], ...] = ()  # (pattern, factor of the learning rate)
    # of adapters (Hu et al., 2021, arXiv 2106.09685): W + scale A B in place of a kernel W, with A
    # [inputs, rank] and B [rank, outputs]; 0: no adapters
    rank: int = 0
    scale: float = 2.0
    # patterns of the kernels with adapters; none: those of attention, feed-forward and pointwise
    # convolution in the encoder's blocks, of the LSTM, the joint network and the CTC head
    adapt: tuple[str, ...] = ()
    base_dtype: str = "float32"  # in memory, of parameters that are not trained; or "bfloat16"
    # "kept": the tokens of training.init_from. "extended": they, and those of tokenizer.model (or
    # of a tokenizer that is trained on the text) that are not among them. "replaced": the latter
    vocabulary: str = "kept"
    # the architecture is that of training.init_from, whatever `model` says; of `model` count what
    # only training and speed depend on: dtype, dropout and encoder.remat
    same_model: bool = False

    def __post_init__(self):
        at_least(0, self, "tuning.frozen_steps", "tuning.rank")
        positive(self, "tuning.layer_decay", "tuning.scale")
        share(self, "tuning.layer_decay")
        for pattern, factor in self.rates:
            require(factor > 0, f"tuning.rates need factors above 0, got {factor} of {pattern}")
        one_of(("float32", "bfloat16"), self, "tuning.base_dtype")
        one_of(("kept", "extended", "replaced"), self, "tuning.vocabulary")
        require(
            not self.adapt or self.rank > 0,
            f"tuning.adapt={','.join(self.adapt)} needs a tuning.rank above 0, such as 16",
        )


@dataclass(frozen=True)
class TrainingConfig:
    """Steps, intervals, devices and the folder of the run."""

    num_steps: int = 100_000
    seed: int = 0
    log_every: int = 50  # steps between lines of the log
    eval_every: int = 1000  # steps between evaluations on the development set
    save_every: int = 1000  # steps between checkpoints
    keep: int = 3  # newest checkpoints, besides the best
    fsdp: int = 1  # devices that parameters are split among; rows are split among all
    accumulate: int = 1  # parts of a batch, processed one after another: less memory
    folder: str = "runs/default"
    init_from: str = ""  # a checkpoint with the parameters to start from
    metric: str = "wer"  # that selects the best checkpoint; "bleu" for translation

    def __post_init__(self):
        one_of(("wer", "bleu"), self, "training.metric")
        at_least(
            1, self, "training.num_steps", "training.log_every", "training.eval_every",
            "training.save_every", "training.keep", "training.fsdp", "training.accumulate",
        )  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that defines an experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self):
        require(
            self.loss.ctc_weight == 0 or self.model.ctc,
            f"loss.ctc_weight is {self.loss.ctc_weight} but model.ctc is False",
        )
