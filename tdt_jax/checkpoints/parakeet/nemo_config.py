"""NeMo's model_config.yaml to a ModelConfig and back.

Part by part, each as it is read and as it is written: features, encoder, prompt, transducer.
"""

import math
import posixpath
from typing import Any

from tdt_jax.checkpoints.formats.fields import ConfigReader, describe
from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
    PromptConfig,
)

MODELS, MODULES = "nemo.collections.asr.models.", "nemo.collections.asr.modules."
# By kind, and whether it has a CTC head and a language prompt.
CLASSES = {
    ("transducer", False, False): "rnnt_bpe_models.EncDecRNNTBPEModel",
    ("transducer", True, False): "hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel",
    ("transducer", False, True): "rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt",
    ("transducer", True, True): (
        "hybrid_rnnt_ctc_bpe_models_prompt.EncDecHybridRNNTCTCBPEModelWithPrompt"
    ),
    ("ctc", True, False): "ctc_bpe_models.EncDecCTCModelBPE",
}
# Those that predict the end of an utterance differ in training alone.
KINDS = {name.partition(".")[2]: (kind, prompt) for (kind, _, prompt), name in CLASSES.items()}
KINDS |= dict.fromkeys(
    ("EncDecRNNTBPEEOUModel", "EncDecHybridRNNTCTCBPEEOUModel"), ("transducer", False)
)
# What a null means to NeMo 3.0.0 where it is not the field's default. A null that NeMo fails on
# stands for the default here.
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
AUTO = "auto"  # the name of the default prompt: the model detects the language
_CTC: dict[str, Any] = {"predictor": None, "joint": None, "durations": None}


def read_config(config: ConfigReader, *, has_ctc_head: bool) -> tuple[ModelConfig, str]:
    """Returns the model that a configuration describes, and the name of its tokenizer's file.

    Args:
      config: the configuration, read with NULLS.
      has_ctc_head: whether the archive holds a CTC head beside a transducer.

    Raises:
      ValueError: naming everything in it that this package does not have.
    """
    kind, may_have_prompt = _read_kind(config)
    is_ctc = kind == "ctc"
    features = _read_features(config)
    encoder = _read_encoder(config, features["num_mels"])
    decoder = _CTC if is_ctc else _read_transducer(config)
    vocab_size = _read_vocab_size(config, is_ctc)
    config.require("tokenizer.type", "bpe", "BPE")
    tokenizer = config.get("tokenizer.model_path")
    if not isinstance(tokenizer, str):
        config.add_problem(f"tokenizer.model_path is {describe(tokenizer)}, not a file's name")
        tokenizer = ""
    max_symbols = _read_max_symbols(config)
    prompt = _read_prompt(config, encoder["width"]) if may_have_prompt else None
    config.raise_problems()
    model = ModelConfig(
        vocab_size=vocab_size,
        features=FeatureConfig(**features),
        encoder=EncoderConfig(**encoder),
        **decoder,
        ctc=is_ctc or has_ctc_head,
        prompt=prompt,
        max_symbols=max_symbols,
    )
    return model, posixpath.normpath(tokenizer.removeprefix("nemo:"))


def write_config(config: ModelConfig, pieces: list[str]) -> dict[str, Any]:
    """Returns the configuration of a model: all that NeMo needs to restore and train it.

    Args:
      config: of the model.
      pieces: of its tokenizer.

    Raises:
      ValueError: if NeMo has no such model.
    """
    predictor, joint = config.predictor, config.joint
    if predictor is not None and predictor.blank_embedding:
        raise ValueError("NeMo's embedding of blank is zero; this model has a learned one")
    kind = "ctc" if predictor is None else "transducer"
    if (kind, config.ctc, config.prompt is not None) not in CLASSES:
        raise ValueError("NeMo has no CTC model with a language prompt")
    fields = {
        # NeMo ignores it: silence counts in the mean and deviation of its features, not of ours.
        "tdt_jax": {"silence": config.features.silence},
        "target": MODELS + CLASSES[kind, config.ctc, config.prompt is not None],
        "sample_rate": config.features.sample_rate,
        "tokenizer": {
            "dir": "",
            "type": "bpe",
            "model_path": "nemo:tokenizer.model",
            "vocab_path": "nemo:vocab.txt",
            "spe_tokenizer_vocab": "nemo:tokenizer.vocab",
        },
        "preprocessor": _written_features(config.features),
        "spec_augment": {
            "_target_": f"{MODULES}SpectrogramAugmentation",
            "freq_masks": 2,
            "time_masks": 10,
            "freq_width": 27,
            "time_width": 0.05,
        },
        "encoder": _written_encoder(config.encoder, config.features.num_mels),
        "optim": {"name": "adamw", "lr": 1e-4, "betas": [0.9, 0.98], "weight_decay": 1e-3},
    }
    ctc_decoder = {
        "_target_": f"{MODULES}ConvASRDecoder",
        "feat_in": config.encoder.width,
        "num_classes": config.vocab_size,
        "vocabulary": pieces,
    }
    if predictor is None or joint is None:
        return {**fields, "decoder": ctc_decoder, "decoding": {"strategy": "greedy"}}
    fields |= _written_transducer(config, predictor, joint, pieces)
    if config.prompt is not None:
        fields["model_defaults"] |= _written_prompt(config.prompt, config.encoder.width)
    if config.ctc:
        fields["aux_ctc"] = {
            "ctc_loss_weight": 0.3,
            "use_cer": False,
            "ctc_reduction": "mean_batch",
            "decoder": ctc_decoder,
            "decoding": {"strategy": "greedy"},
        }
    return fields


# Kind and vocabulary, read


def _read_kind(config: ConfigReader) -> tuple[str, bool]:
    """Returns "transducer" or "ctc" and whether there may be a prompt, by the model's class."""
    target = config.get("target")
    class_name = target.rpartition(".")[2] if isinstance(target, str) else ""
    if class_name not in KINDS:
        supported = ", ".join(KINDS)
        raise ValueError(
            f"the model is a {class_name[:80] or 'nothing named'}; {supported} are supported"
        )
    return KINDS[class_name]


def _read_vocab_size(config: ConfigReader, is_ctc: bool) -> int:
    for path in ("joint.vocabulary", "decoder.vocabulary", "labels"):
        vocabulary = config.get(path)
        if isinstance(vocabulary, list) and vocabulary:
            return len(vocabulary)
    return config.size("decoder.num_classes" if is_ctc else "joint.num_classes", "vocabulary")


def _read_max_symbols(config: ConfigReader) -> int:
    for path in ("decoding.greedy.max_symbols", "decoding.greedy.max_symbols_per_step"):
        if config.get(path) is not None:
            return config.size(path, "small")
    return 10


# Features


def _read_features(config: ConfigReader) -> dict[str, Any]:
    """Returns the fields of a FeatureConfig."""
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
    window = _read_num_samples(config, "window_size", 0.02, rate)
    return dict(
        num_mels=config.size("preprocessor.features", "small", 64),
        sample_rate=rate,
        fft_length=config.size("preprocessor.n_fft", "width", 1 << (window - 1).bit_length()),
        window_length=window,
        hop_length=_read_num_samples(config, "window_stride", 0.01, rate),
        preemphasis=config.fraction("preprocessor.preemph", 0.97),
        dither=config.fraction("preprocessor.dither", 1e-5),
        normalize=_read_normalize(config),
        silence=_read_silence(config),
    )


def _written_features(features: FeatureConfig) -> dict[str, Any]:
    return {
        "_target_": f"{MODULES}AudioToMelSpectrogramPreprocessor",
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
    }


def _read_num_samples(config: ConfigReader, name: str, default: float, rate: int) -> int:
    """Returns the samples of a window or stride: in seconds there, or with "n_" in samples."""
    seconds, in_samples = f"preprocessor.{name}", f"preprocessor.n_{name}"
    if config.get(in_samples) is not None:
        if config.get(seconds) is not None:
            config.add_problem(f"{seconds} and n_{name} are both given")
        return config.size(in_samples, "width")
    value = config.get(seconds, default)
    if type(value) not in (int, float) or not 1 <= value * rate < rate:
        config.add_problem(f"{seconds} is {describe(value)}, not seconds")
        return 1
    return int(value * rate)  # rounded down, as in NeMo


def _seconds(num_samples: int, rate: int) -> float:
    """Returns seconds that NeMo, which rounds down, takes for as many samples."""
    seconds = num_samples / rate
    return seconds if int(seconds * rate) == num_samples else math.nextafter(seconds, math.inf)


def _read_normalize(config: ConfigReader) -> tuple[float, float] | None:
    """Returns the mean and deviation that all bins share; None: normalised by utterance."""
    value = config.get("preprocessor.normalize", "per_feature")
    if value == "per_feature":
        return None
    if value in ("NA", "", False):  # NeMo leaves log-mels as they are
        return 0.0, 1.0
    if isinstance(value, dict) and set(value) == {"fixed_mean", "fixed_std"}:
        means, deviations = value["fixed_mean"], value["fixed_std"]
        if _is_repeated(means) and _is_repeated(deviations) and deviations[0] > 0:
            return float(means[0]), float(deviations[0])
    config.add_problem(
        f"preprocessor.normalize is {describe(value)}; per_feature, NA, or a mean and a deviation "
        "that all bins share are supported"
    )
    return None


def _is_repeated(value: Any) -> bool:
    """Returns whether a value is a list of one number, repeated."""
    is_list = isinstance(value, list) and len(value) > 0
    return is_list and type(value[0]) in (int, float) and value.count(value[0]) == len(value)


def _written_normalize(features: FeatureConfig) -> str | dict[str, list[float]]:
    if features.normalize is None:
        return "per_feature"
    if features.normalize == (0.0, 1.0):
        return "NA"
    mean, deviation = features.normalize
    return {
        "fixed_mean": [mean] * features.num_mels,
        "fixed_std": [deviation] * features.num_mels,
    }


def _read_silence(config: ConfigReader) -> float | None:
    """Returns FeatureConfig.silence, which models that this package has trained may have."""
    value = config.get("tdt_jax.silence")
    if value is not None and not (type(value) in (int, float) and value > 0):
        config.add_problem(f"tdt_jax.silence is {describe(value)}, not decibels above 0")
        return None
    return value


# Encoder


def _read_encoder(config: ConfigReader, num_mels: int) -> dict[str, Any]:
    """Returns the fields of an EncoderConfig."""
    width = config.size("encoder.d_model", "width")
    kernel = config.size("encoder.conv_kernel_size", "small", 31)
    if width % 2 or kernel % 2 == 0:
        config.add_problem(
            f"encoder.d_model is {width}, conv_kernel_size {kernel}: even and odd needed"
        )
    heads = config.size("encoder.n_heads", "small", 4)
    if width % heads:
        config.add_problem(f"encoder.d_model is {width}, not a multiple of n_heads, {heads}")
    config.require("encoder.feat_in", num_mels, default=num_mels)
    config.require("encoder.feat_out", -1, width, default=-1)
    config.require("encoder.subsampling", "dw_striding")
    config.require("encoder.subsampling_factor", 8, default=4)
    channels = "encoder.subsampling_conv_channels"
    if config.get("encoder.reduction_factor", 1) != 1:
        config.require("encoder.reduction", None)
    config.require("encoder.conv_norm_type", "batch_norm", "layer_norm", default="batch_norm")
    norm = config.get("encoder.conv_norm_type", "batch_norm")
    config.require("encoder.conv_context_style", "regular", "dcc", default="regular")
    return dict(
        width=width,
        num_layers=config.size("encoder.n_layers", "layers"),
        num_heads=heads,
        feed_forward_factor=config.size("encoder.ff_expansion_factor", "small", 4),
        kernel_size=kernel,
        subsampling_channels=(
            width if config.get(channels, -1) == -1 else config.size(channels, "width")
        ),
        use_bias=config.flag("encoder.use_bias", True),
        scale_input=config.flag("encoder.xscaling", True),
        dropout=config.fraction("encoder.dropout", 0.1),
        attention_dropout=config.fraction("encoder.dropout_att", 0.0),
        convolution_norm="layer_norm" if norm == "layer_norm" else "affine",
        convolution_context=_read_convolution_context(config, kernel),
        causal_subsampling=config.flag("encoder.causal_downsampling", False),
        **_read_attention(config),
    )


def _written_encoder(encoder: EncoderConfig, num_mels: int) -> dict[str, Any]:
    sides = encoder.convolution_context
    return {
        "_target_": f"{MODULES}ConformerEncoder",
        "feat_in": num_mels,
        "feat_out": -1,
        "n_layers": encoder.num_layers,
        "d_model": encoder.width,
        "use_bias": encoder.use_bias,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": encoder.subsampling_channels,
        "causal_downsampling": encoder.causal_subsampling,
        "ff_expansion_factor": encoder.feed_forward_factor,
        **_written_attention(encoder),
        "n_heads": encoder.num_heads,
        "xscaling": encoder.scale_input,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": encoder.kernel_size,
        "conv_norm_type": (
            "layer_norm" if encoder.convolution_norm == "layer_norm" else "batch_norm"
        ),
        "conv_context_size": None if sides is None else list(sides),
        "dropout": encoder.dropout,
        "dropout_pre_encoder": encoder.dropout,
        "dropout_emb": 0.0,
        "dropout_att": encoder.attention_dropout,
    }


def _read_attention(config: ConfigReader) -> dict[str, Any]:
    """Returns the fields of an EncoderConfig that limit attention.

    Of several contexts NeMo takes the first when audio is encoded as a whole. It draws those of a
    training batch with `att_context_probs`, which is not read: all are alike here.
    """
    models = "rel_pos", "rel_pos_local_attn"
    config.require("encoder.self_attention_model", *models, default="rel_pos")
    style = "encoder.att_context_style"
    if config.get("encoder.self_attention_model") == "rel_pos_local_attn":
        config.require("encoder.global_tokens", 0, default=0)
        config.require(style, "regular", default="regular")
        return dict(attention_context=_read_band(config))
    match config.get(style, "regular"):
        case "regular":
            return dict(attention_context=_read_band(config))
        case "chunked_limited":
            return dict(chunked_contexts=_read_chunked_contexts(config))
        case "chunked_limited_with_rc":
            return dict(unified_contexts=_read_unified_contexts(config))
    config.require(style, "regular", "chunked_limited", "chunked_limited_with_rc")
    return {}


def _written_attention(encoder: EncoderConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "self_attention_model": "rel_pos",
        "att_context_size": [-1, -1],
        "att_context_style": "regular",
    }
    if encoder.attention_context is not None:
        fields["self_attention_model"] = "rel_pos_local_attn"
        fields["att_context_size"] = list(encoder.attention_context)
    if encoder.chunked_contexts:
        fields["att_context_style"] = "chunked_limited"
        fields["att_context_size"] = [list(context) for context in encoder.chunked_contexts]
    if encoder.unified_contexts:
        fields["att_context_style"] = "chunked_limited_with_rc"
        fields["att_chunk_context_size"] = [list(each) for each in encoder.unified_contexts]
        fields["conv_context_style"] = "dcc"
    return fields


def _read_band(config: ConfigReader) -> tuple[int, int] | None:
    """Returns the limits (left, right) of attention, in frames."""
    path = "encoder.att_context_size"
    value = config.get(path) or [-1, -1]
    first = value[0] if isinstance(value, list) and isinstance(value[0], list) else value
    if isinstance(first, list) and len(first) == 2 and all(type(n) is int for n in first):
        left, right = first
        if left < 0 and right < 0:
            return None
        if min(left, right) >= 0 and max(left, right) > 0:
            return left, right
    config.add_problem(
        f"{path} is {describe(value)}; two limits, not both 0, or none are supported"
    )
    return None


def _read_chunked_contexts(config: ConfigReader) -> tuple[tuple[int, int], ...]:
    """Returns the contexts (left, right) of attention in chunks."""
    path = "encoder.att_context_size"
    value = config.get(path)
    nested = value if _is_list_of_lists(value) else [value]
    contexts = []
    for each in nested:
        is_pair = _is_list_of_integers(each) and len(each) == 2
        if not (is_pair and min(each) >= 0 and each[0] % (each[1] + 1) == 0):
            config.add_problem(
                f"{path} has {describe(each)}; with att_context_style 'chunked_limited', limits "
                "[left, right] >= 0 with left a multiple of right + 1 are supported"
            )
            return ()
        contexts.append((each[0], each[1]))
    return tuple(contexts)


def _read_unified_contexts(config: ConfigReader) -> tuple[tuple[int, ...], ...]:
    """Returns (lefts, chunks, rights); none if there are none, for full attention alone."""
    path = "encoder.att_chunk_context_size"
    value = config.get(path)
    if value is None:
        return ()
    is_valid = _is_list_of_lists(value) and len(value) == 3 and all(
        _is_list_of_integers(each) and min(each) >= least
        for each, least in zip(value, (0, 1, 0), strict=True)
    )  # fmt: skip
    if not is_valid:
        config.add_problem(
            f"{path} is {describe(value)}; lists of left limits >= 0, chunks > 0 and right limits "
            ">= 0 are supported"
        )
        return ()
    return tuple(map(tuple, value))


def _read_convolution_context(config: ConfigReader, kernel: int) -> tuple[int, int] | None:
    """Returns the frames to the (left, right) that convolutions cover; None: as many on both."""
    path = "encoder.conv_context_size"
    value = config.get(path)
    if value == "causal":
        value = [kernel - 1, 0]
    if value is None or value == [kernel // 2, kernel // 2]:
        return None
    is_pair = _is_list_of_integers(value) and min(value) >= 0 and len(value) == 2
    if is_pair and sum(value) == kernel - 1:
        return value[0], value[1]
    config.add_problem(
        f"{path} is {describe(value)}, not 'causal' or [left, right] that add up to "
        f"conv_kernel_size - 1 = {kernel - 1}"
    )
    return None


def _is_list_of_integers(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(type(n) is int for n in value)


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(x, list) for x in value)


# Prompt


def _read_prompt(config: ConfigReader, width: int) -> PromptConfig | None:
    """Returns the language prompt; None if the model's is switched off."""
    if not config.flag("model_defaults.initialize_prompt_feature", False):
        return None
    num_slots = config.size("model_defaults.num_prompts", "small", 128)
    path = "model_defaults.prompt_dictionary"
    value = config.get(path)
    names = value if isinstance(value, dict) else {}
    slots = {
        name: slot
        for name, slot in names.items()
        if isinstance(name, str) and type(slot) is int and 0 <= slot < num_slots
    }
    if len(slots) < len(names) or AUTO not in slots or len(slots) > 4096:
        config.add_problem(
            f"{path} is {describe(value)}; names of slots in 0..{num_slots - 1}, {AUTO!r} among "
            "them, are supported"
        )
        return None
    return PromptConfig(num_slots, 2 * width, slots[AUTO], tuple(slots.items()))


def _written_prompt(prompt: PromptConfig, width: int) -> dict[str, Any]:
    if prompt.width != 2 * width:
        raise ValueError(
            f"NeMo's language prompt has a hidden layer of twice the encoder's width, {2 * width}; "
            f"this model's has {prompt.width}"
        )
    if dict(prompt.languages).get(AUTO) != prompt.default:
        raise ValueError(
            f"NeMo's default prompt is the slot named {AUTO!r}; this model's is {prompt.default}, "
            f"and {AUTO!r} is {dict(prompt.languages).get(AUTO)}"
        )
    return {
        "initialize_prompt_feature": True,
        "num_prompts": prompt.num_slots,
        "prompt_dictionary": dict(prompt.languages),
    }


# Transducer


def _read_transducer(config: ConfigReader) -> dict[str, Any]:
    """Returns the fields of a ModelConfig that a CTC model has not."""
    config.require("decoder.blank_as_pad", True, default=True)
    config.require("decoder.normalization_mode", None)
    config.require("joint.jointnet.activation", "relu", "ReLU")
    return dict(
        predictor=PredictorConfig(
            width=config.size("decoder.prednet.pred_hidden", "width"),
            num_layers=config.size("decoder.prednet.pred_rnn_layers", "layers"),
            dropout=config.fraction("decoder.prednet.dropout"),
        ),
        joint=JointConfig(
            width=config.size("joint.jointnet.joint_hidden", "width"),
            dropout=config.fraction("joint.jointnet.dropout"),
        ),
        durations=_read_durations(config),
    )


def _read_durations(config: ConfigReader) -> tuple[int, ...] | None:
    if not config.get("joint.num_extra_outputs", 0):
        return None  # an RNN-T
    number = config.size("joint.num_extra_outputs", "small")
    paths = "decoding.durations", "model_defaults.tdt_durations", "loss.tdt_kwargs.durations"
    durations = next((found for path in paths if (found := config.integers(path))), None)
    if durations is None or len(durations) != number:
        config.add_problem(
            f"joint.num_extra_outputs is {number}, but the durations are {describe(durations)}"
        )
    return durations


def _written_transducer(
    config: ModelConfig, predictor: PredictorConfig, joint: JointConfig, pieces: list[str]
) -> dict[str, Any]:
    durations = list(config.durations or ())
    loss = {"fastemit_lambda": 0.0, "clamp": -1.0}
    return {
        "model_defaults": {
            "enc_hidden": config.encoder.width,
            "pred_hidden": predictor.width,
            "joint_hidden": joint.width,
            **({"tdt_durations": durations} if durations else {}),
        },
        "decoder": {
            "_target_": f"{MODULES}RNNTDecoder",
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
            "_target_": f"{MODULES}RNNTJoint",
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
        "loss": (
            {
                "loss_name": "tdt",
                "tdt_kwargs": {**loss, "durations": durations, "sigma": 0.02, "omega": 0.1},
            }
            if durations
            else {"loss_name": "default", "warprnnt_numba_kwargs": loss}
        ),
    }
