"""NeMo's model_config.yaml to a ModelConfig."""

import math
import posixpath

from tdt_jax.checkpoints.formats.fields import ConfigReader, shown
from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
)

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


def read_config(config: ConfigReader, *, has_ctc_head: bool) -> tuple[ModelConfig, str]:
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


def _feature_options(config: ConfigReader) -> dict:
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


def _num_samples(config: ConfigReader, name: str, default: float, rate: int) -> int:
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


def _normalize(config: ConfigReader) -> tuple[float, float] | None:
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


def _silence(config: ConfigReader) -> float | None:
    """Of models that this package has trained: how far below speech silence is."""
    value = config.get("tdt_jax.silence")
    if value is not None and not (type(value) in (int, float) and value > 0):
        config.refuse(f"tdt_jax.silence is {shown(value)}, not decibels above 0")
        return None
    return value


def _encoder_config(config: ConfigReader, num_mels: int) -> EncoderConfig:
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


def _attention_context(config: ConfigReader) -> tuple[int, int] | None:
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


def _refuse_streaming(config: ConfigReader, kernel: int) -> None:
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


def _transducer(
    config: ConfigReader,
) -> tuple[PredictorConfig, JointConfig, tuple[int, ...] | None]:
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


def write_config(config: ModelConfig, pieces: list[str]) -> dict:
    """The model_config.yaml of a model, complete enough for NeMo to restore and train it."""
    features, encoder = config.features, config.encoder
    if config.predictor is not None and config.predictor.blank_embedding:
        raise ValueError("NeMo's embedding of blank is zero; this model has a learned one")
    left, right = encoder.attention_context or (-1, -1)
    written = {
        # NeMo passes over it: its features count all frames, ours leave out silence.
        "tdt_jax": {"silence": features.silence},
        "target": MODELS + CLASSES["ctc" if config.predictor is None else "transducer", config.ctc],
        "sample_rate": features.sample_rate,
        "tokenizer": {
            "dir": "",
            "type": "bpe",
            "model_path": "nemo:tokenizer.model",
            "vocab_path": "nemo:vocab.txt",
            "spe_tokenizer_vocab": "nemo:tokenizer.vocab",
        },
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": features.sample_rate,
            "normalize": _written_normalize(features),
            "window_size": _seconds(features.window_length, features.sample_rate),
            "window_stride": _seconds(features.hop_length, features.sample_rate),
            "window": "hann",
            "features": features.num_mels,
            "n_fft": features.fft_length,
            "log": True,
            "frame_splicing": 1,
            "dither": features.dither,
            "pad_to": 0,
            "pad_value": 0.0,
            "preemph": features.preemphasis,
        },
        "spec_augment": {
            "_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
            "freq_masks": 2,
            "time_masks": 10,
            "freq_width": 27,
            "time_width": 0.05,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": features.num_mels,
            "feat_out": -1,
            "n_layers": encoder.num_layers,
            "d_model": encoder.width,
            "use_bias": encoder.use_bias,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": encoder.subsampling_channels,
            "causal_downsampling": False,
            "ff_expansion_factor": encoder.feed_forward_factor,
            "self_attention_model": (
                "rel_pos" if encoder.attention_context is None else "rel_pos_local_attn"
            ),
            "n_heads": encoder.num_heads,
            "att_context_size": [left, right],
            "att_context_style": "regular",
            "xscaling": encoder.scale_input,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": encoder.kernel_size,
            "conv_norm_type": (
                "layer_norm" if encoder.convolution_norm == "layer_norm" else "batch_norm"
            ),
            "conv_context_size": None,
            "dropout": encoder.dropout,
            "dropout_pre_encoder": encoder.dropout,
            "dropout_emb": 0.0,
            "dropout_att": encoder.attention_dropout,
        },
        "optim": {"name": "adamw", "lr": 1e-4, "betas": [0.9, 0.98], "weight_decay": 1e-3},
    }
    ctc_decoder = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": encoder.width,
        "num_classes": config.vocab_size,
        "vocabulary": pieces,
    }
    if config.predictor is None:
        return {**written, "decoder": ctc_decoder, "decoding": {"strategy": "greedy"}}
    written |= _written_transducer(config, pieces)
    if config.ctc:
        written["aux_ctc"] = {
            "ctc_loss_weight": 0.3,
            "use_cer": False,
            "ctc_reduction": "mean_batch",
            "decoder": ctc_decoder,
            "decoding": {"strategy": "greedy"},
        }
    return written


def _seconds(num_samples: int, rate: int) -> float:
    """Seconds of which NeMo, which rounds down, makes as many samples."""
    seconds = num_samples / rate
    return seconds if int(seconds * rate) == num_samples else math.nextafter(seconds, math.inf)


def _written_normalize(features: FeatureConfig) -> str | dict:
    if features.normalize is None:
        return "per_feature"
    if features.normalize == (0.0, 1.0):
        return "NA"
    mean, deviation = ([each] * features.num_mels for each in features.normalize)
    return {"fixed_mean": mean, "fixed_std": deviation}


def _written_transducer(config: ModelConfig, pieces: list[str]) -> dict:
    predictor, joint = config.predictor, config.joint
    durations = list(config.durations or ())
    kind = "rnnt" if config.durations is None else "tdt"
    return {
        "model_defaults": {
            "enc_hidden": config.encoder.width,
            "pred_hidden": predictor.width,
            "joint_hidden": joint.width,
            **({"tdt_durations": durations} if durations else {}),
        },
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "vocab_size": config.vocab_size,
            "prednet": {
                "pred_hidden": predictor.width,
                "pred_rnn_layers": predictor.num_layers,
                "t_max": None,
                "dropout": predictor.dropout,
            },
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "jointnet": {
                "encoder_hidden": config.encoder.width,
                "pred_hidden": predictor.width,
                "joint_hidden": joint.width,
                "activation": "relu",
                "dropout": joint.dropout,
            },
            "num_classes": config.vocab_size,
            "num_extra_outputs": len(durations),
            "vocabulary": pieces,
        },
        "labels": pieces,
        "decoding": {
            "strategy": "greedy_batch",
            **({"model_type": "tdt", "durations": durations} if durations else {}),
            "greedy": {"max_symbols": config.max_symbols},
            "beam": {"beam_size": 2, "return_best_hypothesis": False, "score_norm": True},
        },
        "loss": {
            "loss_name": kind if durations else "default",
            **(
                {"tdt_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0, "durations": durations,
                                "sigma": 0.02, "omega": 0.1}}
                if durations
                else {"warprnnt_numba_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0}}
            ),
        },
    }  # fmt: skip
