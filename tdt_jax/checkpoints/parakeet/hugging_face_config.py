"""transformers' config.json and processor_config.json of Parakeet models to a ModelConfig and back.

Part by part, each as it is read and as it is written: features, encoder, transducer.
"""

from typing import Any

from tdt_jax.checkpoints.formats.fields import ConfigReader, describe
from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
)

ARCHITECTURES = {"TDT": "ParakeetForTDT", "RNN-T": "ParakeetForRNNT", "CTC": "ParakeetForCTC"}
MODEL_TYPES = {"parakeet_tdt": "TDT", "parakeet_rnnt": "RNN-T", "parakeet_ctc": "CTC"}
DECODER_TYPES = {"TDT": "tdt", "RNN-T": "rnnt", "CTC": "ctc"}
_CTC: dict[str, Any] = {"predictor": None, "joint": None, "durations": None, "ctc": True}


def read_config(config: ConfigReader, extractor: ConfigReader) -> ModelConfig:
    """Returns the model that config.json and the feature extractor's settings describe.

    Raises:
      ValueError: naming everything in them that this package does not have.
    """
    model_type = config.get("model_type")
    kind = MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
    if kind is None:
        supported = ", ".join(MODEL_TYPES)
        raise ValueError(f"model_type is {describe(model_type)}; {supported} are supported")
    encoder_fields = config.get("encoder_config")
    if not (encoder_fields is None or isinstance(encoder_fields, dict)):
        config.add_problem(f"encoder_config is {describe(encoder_fields)}, not fields")
        config.raise_problems()
    features = _read_features(config, extractor)
    encoder = _read_encoder(config)
    is_ctc = kind == "CTC"
    num_outputs = config.size("vocab_size", "vocabulary", 1025 if is_ctc else 8193)
    blank = "pad_token_id" if is_ctc else "blank_token_id"
    config.require(blank, num_outputs - 1, default=1024 if is_ctc else 8192)
    decoder = _CTC if is_ctc else _read_transducer(config, kind)
    extractor.raise_problems()
    config.raise_problems()
    return ModelConfig(
        vocab_size=max(1, num_outputs - 1),
        features=FeatureConfig(**features),
        encoder=EncoderConfig(**encoder),
        **decoder,
    )


def model_config(config: ModelConfig, *, pad: int | None = None, dtype: str = "float32") -> dict:
    """Returns the config.json of a model.

    Args:
      config: of the model.
      pad: the label that pads labels; None: blank.
      dtype: of the parameters.

    Raises:
      ValueError: naming everything in it that transformers' Parakeet classes do not have.
    """
    _check_supported(config)
    kind, blank = config.kind, config.blank
    fields = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": next(name for name, each in MODEL_TYPES.items() if each == kind),
        "dtype": dtype,
        "vocab_size": config.vocab_size + 1,
        "encoder_config": _written_encoder(config.encoder, config.features),
    }
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
    return {
        "processor_class": "ParakeetProcessor",
        "decoder_type": DECODER_TYPES[config.kind],
        "blank_token": "<blank>",
        "feature_extractor": _written_features(config.features),
    }


def _check_supported(config: ModelConfig) -> None:
    encoder, features, durations = config.encoder, config.features, config.durations
    unsupported = {
        "a LayerNorm in the convolution module": encoder.convolution_norm != "affine",
        "a CTC head beside the transducer's (--drop-ctc leaves it out)": config.kind != "CTC"
        and config.ctc,
        "local attention": encoder.attention_context is not None,
        "features that are not normalised by utterance": features.normalize is not None,
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
        "feature_extractor_type": "ParakeetFeatureExtractor",
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


def _written_encoder(encoder: EncoderConfig, features: FeatureConfig) -> dict[str, Any]:
    return {
        "model_type": "parakeet_encoder",
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
