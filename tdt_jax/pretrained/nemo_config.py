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
        raise ValueError(f"the model is a {target[:80] or 'nothing named'}; {known} are supported")
    is_ctc = kinds[0][0] == "ctc"
    features = _feature_config(config)
    encoder = _encoder_config(config, features)
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
    config.require("tokenizer.type", "bpe")
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
        features=features,
        encoder=encoder,
        predictor=predictor,
        joint=joint,
        ctc=is_ctc or has_ctc_head,
        max_symbols=max_symbols,
    )
    return model, posixpath.normpath(tokenizer.removeprefix("nemo:"))


def _feature_config(config: Fields) -> FeatureConfig:
    config.require("preprocessor.window", "hann", default="hann")
    config.require("preprocessor.log", True, default=True)
    config.require("preprocessor.frame_splicing", 1, default=1)
    config.require("preprocessor.log_zero_guard_type", "add", default="add")
    config.require("preprocessor.mag_power", 2.0, default=2.0)
    config.require("preprocessor.pad_value", 0, default=0)
    config.require("preprocessor.mel_norm", "slaney", default="slaney")
    config.require("preprocessor.lowfreq", 0, default=0)
    config.require("preprocessor.exact_pad", False, default=False)
    rate = config.size("preprocessor.sample_rate", "width", 16000)
    seconds = [
        config.get(f"preprocessor.{name}", default)
        for name, default in (("window_size", 0.02), ("window_stride", 0.01))
    ]
    if not all(type(each) in (int, float) and 0 < each < 1 for each in seconds):
        config.refuse(
            f"preprocessor.window_size and window_stride are {shown(seconds)}, not seconds"
        )
        seconds = [0.025, 0.01]
    window, hop = (round(each * rate) for each in seconds)
    return FeatureConfig(
        num_mels=config.size("preprocessor.features", "small", 64),
        sample_rate=rate,
        fft_length=config.size("preprocessor.n_fft", "width", 1 << (window - 1).bit_length()),
        window_length=window,
        hop_length=hop,
        preemphasis=config.rate("preprocessor.preemph", 0.97),
        dither=config.rate("preprocessor.dither", 1e-5),
        normalize=_normalize(config),
    )


def _normalize(config: Fields) -> tuple[float, float] | None:
    """NeMo's "NA" leaves log-mels as they are; fixed means and deviations are one for each bin."""
    value = config.get("preprocessor.normalize", "per_feature")
    if value == "per_feature":
        return None
    if value == "NA":
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


def _encoder_config(config: Fields, features: FeatureConfig) -> EncoderConfig:
    width = config.size("encoder.d_model", "width")
    kernel = config.size("encoder.conv_kernel_size", "small", 31)
    half = (kernel - 1) // 2
    config.require("encoder.subsampling", "dw_striding")
    config.require("encoder.subsampling_factor", 8, default=4)
    config.require("encoder.causal_downsampling", False, default=False)
    config.require("encoder.reduction", None)
    config.require("encoder.self_attention_model", "rel_pos", "rel_pos_local_attn",
                   default="rel_pos")  # fmt: skip
    config.require("encoder.att_context_style", "regular", default="regular")
    config.require("encoder.global_tokens", 0, default=0)
    config.require("encoder.untie_biases", True, default=True)
    config.require("encoder.conv_norm_type", "batch_norm", "layer_norm", default="batch_norm")
    config.require("encoder.conv_context_size", None, [half, half])
    config.require("encoder.feat_out", -1, width, default=-1)
    config.require("encoder.feat_in", features.num_mels, default=features.num_mels)
    channels = config.get("encoder.subsampling_conv_channels", -1)
    context = config.whole_numbers("encoder.att_context_size", [-1, -1]) or (-1, -1)
    if len(context) != 2 or (min(context) < 0 and max(context) >= 0):
        config.refuse(
            f"encoder.att_context_size is {shown(context)}; two limits or none are supported"
        )
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
        attention_context=None if max(context) < 1 else context,
    )
    config.finish()
    return EncoderConfig(
        width=width, num_layers=layers, num_heads=heads, kernel_size=kernel, **options
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
