"""NeMo's model_config.yaml to a ModelConfig."""

import posixpath

from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
)
from tdt_jax.pretrained.fields import Fields, shown

MODELS = "nemo.collections.asr.models."
CLASSES = {  # by kind, and whether a transducer has a CTC head
    ("transducer", False): "rnnt_bpe_models.EncDecRNNTBPEModel",
    ("transducer", True): "hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel",
    ("ctc", True): "ctc_bpe_models.EncDecCTCModelBPE",
}
# What a null means to NeMo 3.0.0 where it is not the field's default. A null that NeMo fails on is
# the default here as well.
NULLS = {
    "preprocessor.window_size": None,
    "preprocessor.window_stride": None,
    "preprocessor.normalize": "NA",
    "preprocessor.preemph": 0.0,
    "preprocessor.log": None,
    "preprocessor.mel_norm": None,
    "encoder.use_bias": False,
    "encoder.xscaling": False,
    "decoder.blank_as_pad": None,
}


def read_config(config: Fields, *, has_ctc_head: bool) -> tuple[ModelConfig, str]:
    """The model that a configuration of NeMo's describes, and the name of its tokenizer's file.

    Raises:
      ValueError: naming all that this package cannot be.
    """
    target = config.get("target")
    target = target if isinstance(target, str) else ""
    kinds = [kind for kind, name in CLASSES.items() if target.endswith("." + name.split(".")[1])]
    if not kinds:
        known = ", ".join(name.split(".")[1] for name in CLASSES.values())
        name = target.rpartition(".")[2][:80]
        raise ValueError(f"the model is a {name or 'nothing named'}; {known} are supported")
    is_ctc = kinds[0][0] == "ctc"
    features = _feature_options(config)
    encoder = _encoder_config(config, features["num_mels"])
    predictor = joint = durations = None
    if not is_ctc:
        predictor, joint, durations = _transducer(config)
    vocabulary = next(
        (
            len(found)
            for place in ("joint.vocabulary", "decoder.vocabulary", "labels")
            if isinstance(found := config.get(place), list) and found
        ),
        None,
    )
    if vocabulary is None:
        place = "decoder.num_classes" if is_ctc else "joint.num_classes"
        vocabulary = config.size(place, "vocabulary")
    config.require("tokenizer.type", "bpe", "BPE")
    tokenizer = config.get("tokenizer.model_path")
    if not isinstance(tokenizer, str):
        config.refuse(f"tokenizer.model_path is {shown(tokenizer)}, not a file's name")
    place = "decoding.greedy.max_symbols"
    if config.get(place) is None:
        place += "_per_step"
    max_symbols = 10 if config.get(place) is None else config.size(place, "small")
    config.finish()
    model = ModelConfig(
        vocab_size=vocabulary,
        durations=durations,
        features=FeatureConfig(**features),
        encoder=encoder,
        predictor=predictor,
        joint=joint,
        ctc=is_ctc or has_ctc_head,
        max_symbols=max_symbols,
    )
    return model, posixpath.normpath(tokenizer.removeprefix("nemo:"))


def _feature_options(config: Fields) -> dict:
    """The fields of a FeatureConfig."""
    config.require("preprocessor.window", "hann", default="hann")
    config.require("preprocessor.log", True, default=True)
    config.require("preprocessor.frame_splicing", 1, default=1)
    config.require("preprocessor.log_zero_guard_type", "add", default="add")
    config.require("preprocessor.mag_power", 2.0, default=2.0)
    config.require("preprocessor.pad_value", 0, default=0)
    config.require("preprocessor.mel_norm", "slaney", default="slaney")
    config.require("preprocessor.lowfreq", 0, default=0)
    config.require("preprocessor.exact_pad", False, default=False)
    config.require("preprocessor.log_zero_guard_value", 2**-24, default=2**-24)
    rate = config.size("preprocessor.sample_rate", "width", 16000)
    config.require("preprocessor.highfreq", rate / 2, default=rate / 2)
    window = _num_samples(config, "window_size", 0.02, rate)
    hop = _num_samples(config, "window_stride", 0.01, rate)
    return dict(
        num_mels=config.size("preprocessor.features", "small", 64),
        sample_rate=rate,
        fft_length=config.size("preprocessor.n_fft", "width", 1 << (window - 1).bit_length()),
        window_length=window,
        hop_length=hop,
        preemphasis=config.rate("preprocessor.preemph", 0.97),
        dither=config.rate("preprocessor.dither", 1e-5),
        normalize=_normalize(config),
        silence=_silence(config),
    )


def _num_samples(config: Fields, name: str, default: float, rate: int) -> int:
    """Of a window or a stride, which are given in seconds, or with an "n_" in samples."""
    seconds, in_samples = f"preprocessor.{name}", f"preprocessor.n_{name}"
    if config.get(in_samples) is not None:
        if config.get(seconds) is not None:
            config.refuse(f"{seconds} and n_{name} are both given")
        return config.size(in_samples, "width")
    value = config.get(seconds, default)
    if type(value) not in (int, float) or not 1 <= value * rate < rate:
        config.refuse(f"{seconds} is {shown(value)}, not seconds")
        return 1
    return int(value * rate)  # rounded down, as in NeMo


def _normalize(config: Fields) -> tuple[float, float] | None:
    """NeMo's "NA" leaves log-mels as they are; fixed means and deviations are one for each bin."""
    value = config.get("preprocessor.normalize", "per_feature")
    if value == "per_feature":
        return None
    if value in ("NA", "", False):
        return 0.0, 1.0
    if isinstance(value, dict) and set(value) == {"fixed_mean", "fixed_std"}:
        means, deviations = value["fixed_mean"], value["fixed_std"]
        if all(
            isinstance(each, list) and each and each.count(each[0]) == len(each)
            and type(each[0]) in (int, float) for each in (means, deviations)
        ) and deviations[0] > 0:  # fmt: skip
            return float(means[0]), float(deviations[0])
    config.refuse(
        f"preprocessor.normalize is {shown(value)}; per_feature, NA, or a mean and a deviation "
        "that all bins share are supported"
    )
    return None


def _silence(config: Fields) -> float | None:
    """Of models that this package has trained: how far below speech silence is."""
    value = config.get("tdt_jax.silence")
    if value is not None and not (type(value) in (int, float) and value > 0):
        config.refuse(f"tdt_jax.silence is {shown(value)}, not decibels above 0")
        return None
    return value


def _encoder_config(config: Fields, num_mels: int) -> EncoderConfig:
    width = config.size("encoder.d_model", "width")
    kernel = config.size("encoder.conv_kernel_size", "small", 31)
    config.require("encoder.subsampling", "dw_striding")
    config.require("encoder.subsampling_factor", 8, default=4)
    if config.get("encoder.reduction_factor", 1) != 1:
        config.require("encoder.reduction", None)
    config.require("encoder.conv_norm_type", "batch_norm", "layer_norm", default="batch_norm")
    config.require("encoder.feat_out", -1, width, default=-1)
    config.require("encoder.feat_in", num_mels, default=num_mels)
    channels = config.get("encoder.subsampling_conv_channels", -1)
    context = _attention_context(config)
    _refuse_streaming(config, kernel)
    norm = config.get("encoder.conv_norm_type", "batch_norm")
    if width % 2 or kernel % 2 == 0:
        config.refuse(f"encoder.d_model is {width}, conv_kernel_size {kernel}: even and odd needed")
    heads = config.size("encoder.n_heads", "small", 4)
    if width % heads:
        config.refuse(f"encoder.d_model is {width}, not a multiple of n_heads, {heads}")
    layers = config.size("encoder.n_layers", "layers")
    options = dict(
        feed_forward_factor=config.size("encoder.ff_expansion_factor", "small", 4),
        subsampling_channels=(
            width if channels == -1 else config.size("encoder.subsampling_conv_channels", "width")
        ),
        use_bias=config.flag("encoder.use_bias", True),
        scale_input=config.flag("encoder.xscaling", True),
        dropout=config.rate("encoder.dropout", 0.1),
        attention_dropout=config.rate("encoder.dropout_att", 0.0),
        convolution_norm="layer_norm" if norm == "layer_norm" else "affine",
        attention_context=context,
    )
    config.finish()
    return EncoderConfig(
        width=width, num_layers=layers, num_heads=heads, kernel_size=kernel, **options
    )


def _attention_context(config: Fields) -> tuple[int, int] | None:
    """The frames that attention sees to the (left, right) where the whole is heard at once.

    Of several contexts NeMo takes the first then. The style "chunked_limited_with_rc" limits it
    while streaming only.
    """
    config.require("encoder.self_attention_model", "rel_pos", "rel_pos_local_attn",
                   default="rel_pos")  # fmt: skip
    is_local = config.get("encoder.self_attention_model") == "rel_pos_local_attn"
    if is_local:
        config.require("encoder.global_tokens", 0, default=0)
        config.require("encoder.att_context_style", "regular", default="regular")
    elif config.get("encoder.att_context_style") == "chunked_limited_with_rc":
        return None
    path = "encoder.att_context_size"
    value = config.get(path) or [-1, -1]
    first = value[0] if isinstance(value, list) and isinstance(value[0], list) else value
    is_pair = isinstance(first, list) and len(first) == 2 and all(type(n) is int for n in first)
    if not is_pair or max(first) == 0 or (min(first) < 0 <= max(first)):
        config.refuse(f"{path} is {shown(value)}; two limits, not both 0, or none are supported")
        return None
    return None if max(first) < 0 else tuple(first)


def _refuse_streaming(config: Fields, kernel: int) -> None:
    """Refuse what NeMo's cache-aware streaming models are made of."""
    half = (kernel - 1) // 2
    normal = {
        "att_context_style": ("regular", ["regular", "chunked_limited_with_rc"]),
        "causal_downsampling": (False, [False]),
        "conv_context_size": ([half, half], [[half, half]]),
    }
    found = [
        f"{name} {shown(value)}"
        for name, (default, allowed) in normal.items()
        if (value := config.get(f"encoder.{name}", default)) not in allowed
    ]
    if found:
        config.refuse(
            f"the encoder is a streaming one ({', '.join(found)}), which hears little of what "
            "follows; those that hear a whole utterance are supported"
        )


def _transducer(config: Fields) -> tuple[PredictorConfig, JointConfig, tuple[int, ...] | None]:
    config.require("decoder.blank_as_pad", True, default=True)
    config.require("decoder.normalization_mode", None)
    config.require("joint.jointnet.activation", "relu", "ReLU")
    extra = config.get("joint.num_extra_outputs", 0)
    durations = None
    if extra:
        extra = config.size("joint.num_extra_outputs", "small")
        places = ("decoding.durations", "model_defaults.tdt_durations", "loss.tdt_kwargs.durations")
        durations = next((found for p in places if (found := config.whole_numbers(p))), None)
        if durations is None or len(durations) != extra:
            config.refuse(
                f"joint.num_extra_outputs is {extra}, but the durations are {shown(durations)}"
            )
    predictor = PredictorConfig(
        width=config.size("decoder.prednet.pred_hidden", "width"),
        num_layers=config.size("decoder.prednet.pred_rnn_layers", "layers"),
        dropout=config.rate("decoder.prednet.dropout"),
    )
    joint = JointConfig(
        width=config.size("joint.jointnet.joint_hidden", "width"),
        dropout=config.rate("joint.jointnet.dropout"),
    )
    return predictor, joint, durations
