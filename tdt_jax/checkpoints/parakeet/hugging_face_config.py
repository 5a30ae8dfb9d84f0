"""transformers' config.json and processor_config.json of Parakeet models to a ModelConfig and back.

Part by part, each as it is read and as it is written: features, encoder, prompt, transducer. The
streaming models are transformers' Nemotron: causal RNN-Ts, one of them with a language prompt.
"""

from typing import Any, NamedTuple

from tdt_jax.checkpoints.formats.fields import ConfigReader, describe
from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
    PromptConfig,
)


class ModelType(NamedTuple):
    """One of transformers' models."""

    kind: str
    architecture: str
    processor: str = "ParakeetProcessor"
    extractor: str = "ParakeetFeatureExtractor"
    vocab_size: int = 8193  # by default, with blank
    is_streaming: bool = False


_STREAMING_EXTRACTOR = "NemotronAsrStreamingFeatureExtractor"
MODEL_TYPES = {
    "parakeet_tdt": ModelType("TDT", "ParakeetForTDT"),
    "parakeet_rnnt": ModelType("RNN-T", "ParakeetForRNNT"),
    "parakeet_ctc": ModelType("CTC", "ParakeetForCTC", vocab_size=1025),
    "nemotron_asr_streaming": ModelType(
        "RNN-T", "NemotronAsrStreamingForRNNT", "NemotronAsrStreamingProcessor",
        _STREAMING_EXTRACTOR, vocab_size=1025, is_streaming=True,
    ),
    "nemotron3_5_asr": ModelType(
        "RNN-T", "Nemotron3_5AsrForRNNT", "Nemotron3_5AsrProcessor",
        _STREAMING_EXTRACTOR, vocab_size=13088, is_streaming=True,
    ),
}  # fmt: skip
LOOKAHEADS, PROMPTS = "supported_num_lookahead_tokens", "prompt_dictionary"
DECODER_TYPES = {"TDT": "tdt", "RNN-T": "rnnt", "CTC": "ctc"}
_CTC: dict[str, Any] = {"predictor": None, "joint": None, "durations": None, "ctc": True}


def read_config(
    config: ConfigReader, extractor: ConfigReader, processor: ConfigReader
) -> ModelConfig:
    """Returns the model that config.json and the settings of its processor describe.

    Args:
      config: config.json.
      extractor: the feature extractor's settings.
      processor: processor_config.json; empty if there is none.

    Raises:
      ValueError: naming everything in them that this package does not have.
    """
    name = config.get("model_type")
    model_type = MODEL_TYPES.get(name) if isinstance(name, str) else None
    if model_type is None:
        supported = ", ".join(MODEL_TYPES)
        raise ValueError(f"model_type is {describe(name)}; {supported} are supported")
    encoder_fields = config.get("encoder_config")
    if not (encoder_fields is None or isinstance(encoder_fields, dict)):
        config.add_problem(f"encoder_config is {describe(encoder_fields)}, not fields")
        config.raise_problems()
    features = _read_features(config, extractor)
    encoder = _read_encoder(config)
    if model_type.is_streaming:
        extractor.require("mel_filters_dtype", "float32", default="float32")
        features["normalize"] = 0.0, 1.0
        encoder |= _read_streaming(config, processor, encoder["kernel_size"])
    prompt = _read_prompt(config, processor) if name == "nemotron3_5_asr" else None
    is_ctc = model_type.kind == "CTC"
    num_outputs = config.size("vocab_size", "vocabulary", model_type.vocab_size)
    blank = "pad_token_id" if is_ctc else "blank_token_id"
    config.require(blank, num_outputs - 1, default=model_type.vocab_size - 1)
    decoder = _CTC if is_ctc else _read_transducer(config, model_type.kind)
    for reader in (extractor, processor, config):
        reader.raise_problems()
    return ModelConfig(
        vocab_size=max(1, num_outputs - 1),
        features=FeatureConfig(**features),
        encoder=EncoderConfig(**encoder),
        prompt=prompt,
        **decoder,
    )


def model_config(config: ModelConfig, *, pad: int | None = None, dtype: str = "float32") -> dict:
    """Returns the config.json of a model.

    Args:
      config: of the model.
      pad: the label that pads labels; None: blank.
      dtype: of the parameters.

    Raises:
      ValueError: naming everything in it that transformers' classes do not have.
    """
    _check_supported(config)
    name, blank = _model_type(config), config.blank
    fields = {
        "architectures": [MODEL_TYPES[name].architecture],
        "model_type": name,
        "dtype": dtype,
        "vocab_size": config.vocab_size + 1,
        "encoder_config": _written_encoder(config.encoder, config.features),
    }
    if config.prompt is not None:
        fields |= _written_prompt(config.prompt)
    if config.predictor is None:
        return {**fields, "pad_token_id": blank}
    return {
        **fields,
        **_written_transducer(config, config.predictor),
        "pad_token_id": blank if pad is None else pad,
        "blank_token_id": blank,
    }


def processor_config(config: ModelConfig) -> dict:
    """Returns the processor_config.json of a model."""
    model_type, contexts = MODEL_TYPES[_model_type(config)], config.encoder.chunked_contexts
    extractor = _written_features(config.features) | {
        "feature_extractor_type": model_type.extractor
    }
    fields = {
        "processor_class": model_type.processor,
        "blank_token": "<blank>",
        "feature_extractor": extractor,
    }
    if not model_type.is_streaming:
        return {**fields, "decoder_type": DECODER_TYPES[config.kind]}
    fields[LOOKAHEADS] = [right for _, right in contexts]
    fields["default_num_lookahead_tokens"] = contexts[0][1]
    if config.prompt is not None:
        fields["num_prompts"] = config.prompt.num_slots
        fields[PROMPTS] = dict(config.prompt.languages)
    return fields


def _model_type(config: ModelConfig) -> str:
    """Returns the name of the model's type."""
    if config.prompt is not None:
        return "nemotron3_5_asr"
    is_causal = config.encoder.is_causal
    return next(
        name
        for name, each in MODEL_TYPES.items()
        if each.kind == config.kind and each.is_streaming == is_causal
    )


def _check_supported(config: ModelConfig) -> None:
    encoder, features, durations = config.encoder, config.features, config.durations
    is_causal = encoder.is_causal
    unsupported = {
        "a LayerNorm in the convolution module of an encoder that is not causal": (
            not is_causal and encoder.convolution_norm != "affine"
        ),
        "a CTC head beside the transducer's (--drop-ctc leaves it out)": config.kind != "CTC"
        and config.ctc,
        "local attention": encoder.attention_context is not None,
        "attention contexts to stream with beside full attention (encoder.unified_contexts)": bool(
            encoder.unified_contexts
        ),
        "causal convolutions or subsampling, or attention in chunks, without the other two": (
            not is_causal
            and (
                bool(encoder.chunked_contexts)
                or len(set(encoder.convolution_sides)) > 1
                or encoder.causal_subsampling
            )
        ),
        f"a causal encoder of a {config.kind}: it has causal RNN-Ts only": (
            is_causal and config.kind != "RNN-T"
        ),
        "a BatchNorm in the convolution module of a causal encoder": (
            is_causal and encoder.convolution_norm != "layer_norm"
        ),
        f"several left contexts of attention, {encoder.chunked_contexts}": (
            is_causal and len({left for left, _ in encoder.chunked_contexts}) > 1
        ),
        "a language prompt on an encoder that is not causal": (
            config.prompt is not None and not is_causal
        ),
        "features that are not normalised by utterance": (
            not is_causal and features.normalize is not None
        ),
        "a causal encoder of features that are normalised": (
            is_causal and features.normalize != (0.0, 1.0)
        ),
        "features whose mean and deviation leave out silence": features.silence is not None,
        "a joint network of another width than the predictor": (
            config.joint is not None
            and config.predictor is not None
            and config.joint.width != config.predictor.width
        ),
        f"durations {durations}, as it takes a duration's index for its value": (
            durations is not None and durations != tuple(range(len(durations)))
        ),
    }
    if names := [name for name, is_so in unsupported.items() if is_so]:
        raise ValueError("transformers has no Parakeet model with: " + "; ".join(names))


# Features


def _read_features(config: ConfigReader, extractor: ConfigReader) -> dict[str, Any]:
    """Returns the fields of a FeatureConfig."""
    num_mels = config.size("encoder_config.num_mel_bins", "small", 80)
    extractor.require("feature_size", num_mels, default=num_mels)
    return dict(
        num_mels=num_mels,
        sample_rate=extractor.size("sampling_rate", "width", 16000),
        fft_length=extractor.size("n_fft", "width", 512),
        window_length=extractor.size("win_length", "width", 400),
        hop_length=extractor.size("hop_length", "width", 160),
        preemphasis=extractor.fraction("preemphasis", 0.97),
    )


def _written_features(features: FeatureConfig) -> dict[str, Any]:
    return {
        "feature_size": features.num_mels,
        "sampling_rate": features.sample_rate,
        "n_fft": features.fft_length,
        "win_length": features.window_length,
        "hop_length": features.hop_length,
        "preemphasis": features.preemphasis,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }


# Encoder


def _read_encoder(config: ConfigReader) -> dict[str, Any]:
    """Returns the fields of an EncoderConfig."""

    def path(field: str) -> str:
        return f"encoder_config.{field}"

    width = config.size(path("hidden_size"), "width", 1024)
    heads = config.size(path("num_attention_heads"), "small", 8)
    hidden = config.size(path("intermediate_size"), "width", 4 * width)
    kernel = config.size(path("conv_kernel_size"), "small", 9)
    if width % 2 or width % heads or hidden % width or kernel % 2 == 0:
        config.add_problem(
            f"hidden_size {width}, num_attention_heads {heads}, intermediate_size {hidden} and "
            f"conv_kernel_size {kernel} do not go together"
        )
    use_bias = config.flag(path("attention_bias"), True)
    config.require(path("convolution_bias"), use_bias, default=True)
    config.require(path("hidden_act"), "silu", "swish", default="silu")
    config.require(path("subsampling_factor"), 8, default=8)
    config.require(path("subsampling_conv_kernel_size"), 3, default=3)
    config.require(path("subsampling_conv_stride"), 2, default=2)
    return dict(
        width=width,
        num_layers=config.size(path("num_hidden_layers"), "layers", 24),
        num_heads=heads,
        feed_forward_factor=hidden // width,
        kernel_size=kernel,
        subsampling_channels=config.size(path("subsampling_conv_channels"), "width", 256),
        use_bias=use_bias,
        scale_input=config.flag(path("scale_input"), True),
        convolution_norm="affine",
        dropout=config.fraction(path("dropout"), 0.1),
        attention_dropout=config.fraction(path("attention_dropout"), 0.1),
    )


def _read_streaming(config: ConfigReader, processor: ConfigReader, kernel: int) -> dict[str, Any]:
    """Returns the fields of a causal EncoderConfig; its default context is the first.

    Every context has the same frames to the left.
    """
    left = config.size("encoder_config.sliding_window", "small", 71) - 1
    path = "encoder_config.default_num_lookahead_tokens"
    default = config.get(path, 13)
    rights = processor.integers(LOOKAHEADS, ()) or ()
    if type(default) is not int or min((default, *rights)) < 0:
        config.add_problem(
            f"{path} is {describe(default)} and {LOOKAHEADS} {describe(rights)}, not numbers of "
            "frames >= 0"
        )
        return {}
    rights = dict.fromkeys((default, *rights))
    if indivisible := [right for right in rights if left % (right + 1)]:
        config.add_problem(
            f"sliding_window is {left + 1}: {left} frames to the left are no multiple of a chunk "
            f"of {indivisible[0] + 1}"
        )
        return {}
    return dict(
        convolution_norm="layer_norm",
        convolution_context=(kernel - 1, 0),
        causal_subsampling=True,
        chunked_contexts=tuple((left, right) for right in rights),
    )


def _written_encoder(encoder: EncoderConfig, features: FeatureConfig) -> dict[str, Any]:
    streaming = {}
    if encoder.is_causal:
        left, right = encoder.chunked_contexts[0]
        streaming = {"sliding_window": left + 1, "default_num_lookahead_tokens": right}
    return {
        "model_type": "nemotron_asr_streaming_encoder" if streaming else "parakeet_encoder",
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": encoder.num_heads,
        "num_key_value_heads": encoder.num_heads,
        "intermediate_size": encoder.feed_forward_factor * encoder.width,
        "hidden_act": "silu",
        "attention_bias": encoder.use_bias,
        "convolution_bias": encoder.use_bias,
        "conv_kernel_size": encoder.kernel_size,
        "subsampling_factor": 8,
        "subsampling_conv_channels": encoder.subsampling_channels,
        "subsampling_conv_kernel_size": 3,
        "subsampling_conv_stride": 2,
        "num_mel_bins": features.num_mels,
        "scale_input": encoder.scale_input,
        "dropout": encoder.dropout,
        "dropout_positions": 0.0,
        "layerdrop": 0.0,
        "activation_dropout": encoder.dropout,
        "attention_dropout": encoder.attention_dropout,
        "max_position_embeddings": 5000,
        **streaming,
    }


# Prompt


def _read_prompt(config: ConfigReader, processor: ConfigReader) -> PromptConfig | None:
    num_slots = config.size("num_prompts", "small", 128)
    default = config.get("default_prompt_id", 101)
    value = processor.get(PROMPTS)
    names = value if isinstance(value, dict) else {}
    slots = [default, *names.values()]
    is_valid = all(type(slot) is int and 0 <= slot < num_slots for slot in slots)
    if not is_valid or not (value is None or isinstance(value, dict)) or len(names) > 4096:
        config.add_problem(
            f"default_prompt_id is {describe(default)} and the processor's {PROMPTS} "
            f"{describe(value)}; slots in 0..{num_slots - 1} are supported"
        )
        return None
    width = config.size("prompt_intermediate_size", "width", 2048)
    return PromptConfig(num_slots, width, default, tuple(names.items()))


def _written_prompt(prompt: PromptConfig) -> dict[str, Any]:
    return {
        "num_prompts": prompt.num_slots,
        "prompt_intermediate_size": prompt.width,
        "default_prompt_id": prompt.default,
    }


# Transducer


def _read_transducer(config: ConfigReader, kind: str) -> dict[str, Any]:
    """Returns the fields of a ModelConfig that a CTC model has not."""
    config.require("hidden_act", "relu", default="relu")
    width = config.size("decoder_hidden_size", "width", 640)
    num_layers = config.size("num_decoder_layers", "layers", 2)
    durations = config.integers("durations", (0, 1, 2, 3, 4))
    if durations is None and kind == "TDT":
        config.add_problem("durations is None, not a list of whole numbers")
    return dict(
        predictor=PredictorConfig(width=width, num_layers=num_layers),
        joint=JointConfig(width=width),
        durations=durations if kind == "TDT" else None,
        max_symbols=config.size("max_symbols_per_step", "small", 10),
    )


def _written_transducer(config: ModelConfig, predictor: PredictorConfig) -> dict[str, Any]:
    fields = {
        "decoder_hidden_size": predictor.width,
        "num_decoder_layers": predictor.num_layers,
        "hidden_act": "relu",
        "max_symbols_per_step": config.max_symbols,
        "is_encoder_decoder": True,
    }
    if config.durations is not None:
        fields["durations"] = list(config.durations)
    return fields
