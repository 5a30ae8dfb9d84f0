"""transformers' config.json of its Parakeet models to a ModelConfig and back."""

from tdt_jax.checkpoints.formats.fields import ConfigReader, shown
from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
)

ARCHITECTURES = {"TDT": "ParakeetForTDT", "RNN-T": "ParakeetForRNNT", "CTC": "ParakeetForCTC"}
MODEL_TYPES = {"parakeet_tdt": "TDT", "parakeet_rnnt": "RNN-T", "parakeet_ctc": "CTC"}


def read_config(config: ConfigReader, processor: ConfigReader) -> ModelConfig:
    """The model that config.json and the feature extractor's configuration describe.

    Raises:
      ValueError: naming all that this package cannot be.
    """
    model_type = config.get("model_type")
    kind = MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
    if kind is None:
        known = ", ".join(MODEL_TYPES)
        raise ValueError(f"model_type is {shown(model_type)}; {known} are supported")
    fields = config.get("encoder_config")
    if not (fields is None or isinstance(fields, dict)):
        config.refuse(f"encoder_config is {shown(fields)}, not fields")
        config.finish()
    features = dict(
        num_mels=config.size("encoder_config.num_mel_bins", "small", 80),
        sample_rate=processor.size("sampling_rate", "width", 16000),
        fft_length=processor.size("n_fft", "width", 512),
        window_length=processor.size("win_length", "width", 400),
        hop_length=processor.size("hop_length", "width", 160),
        preemphasis=processor.rate("preemphasis", 0.97),
    )
    processor.require("feature_size", features["num_mels"], default=features["num_mels"])
    processor.finish()
    encoder = _encoder_config(config)
    entries = config.size("vocab_size", "vocabulary", 1025 if kind == "CTC" else 8193)
    blank = "pad_token_id" if kind == "CTC" else "blank_token_id"
    config.require(blank, entries - 1, default=1024 if kind == "CTC" else 8192)
    options = {}
    if kind == "CTC":
        options.update(predictor=None, joint=None, durations=None, ctc=True)
    else:
        config.require("hidden_act", "relu", default="relu")
        width = config.size("decoder_hidden_size", "width", 640)
        layers = config.size("num_decoder_layers", "layers", 2)
        durations = config.whole_numbers("durations", (0, 1, 2, 3, 4))
        if durations is None and kind == "TDT":
            config.refuse("durations is None, not a list of whole numbers")
        options.update(
            predictor=PredictorConfig(width=width, num_layers=layers),
            joint=JointConfig(width=width),
            durations=durations if kind == "TDT" else None,
            max_symbols=config.size("max_symbols_per_step", "small", 10),
        )
    config.finish()
    return ModelConfig(
        vocab_size=max(1, entries - 1),
        features=FeatureConfig(**features),
        encoder=encoder,
        **options,
    )


def _encoder_config(config: ConfigReader) -> EncoderConfig:
    def name(field: str) -> str:
        return f"encoder_config.{field}"

    width = config.size(name("hidden_size"), "width", 1024)
    heads = config.size(name("num_attention_heads"), "small", 8)
    hidden = config.size(name("intermediate_size"), "width", 4 * width)
    kernel = config.size(name("conv_kernel_size"), "small", 9)
    bias = config.flag(name("attention_bias"), True)
    config.require(name("convolution_bias"), bias, default=True)
    config.require(name("hidden_act"), "silu", "swish", default="silu")
    config.require(name("subsampling_factor"), 8, default=8)
    config.require(name("subsampling_conv_kernel_size"), 3, default=3)
    config.require(name("subsampling_conv_stride"), 2, default=2)
    if width % 2 or width % heads or hidden % width or kernel % 2 == 0:
        config.refuse(
            f"hidden_size {width}, num_attention_heads {heads}, intermediate_size {hidden} and "
            f"conv_kernel_size {kernel} do not go together"
        )
    layers = config.size(name("num_hidden_layers"), "layers", 24)
    channels = config.size(name("subsampling_conv_channels"), "width", 256)
    scale_input = config.flag(name("scale_input"), True)
    dropout = config.rate(name("dropout"), 0.1)
    attention_dropout = config.rate(name("attention_dropout"), 0.1)
    config.finish()
    return EncoderConfig(
        width=width,
        num_layers=layers,
        num_heads=heads,
        feed_forward_factor=hidden // width,
        kernel_size=kernel,
        subsampling_channels=channels,
        use_bias=bias,
        scale_input=scale_input,
        convolution_norm="affine",
        dropout=dropout,
        attention_dropout=attention_dropout,
    )


def model_config(config: ModelConfig, *, pad: int | None = None, dtype: str = "float32") -> dict:
    """The config.json of a model with parameters of `dtype`.

    Labels are padded with `pad` (None: with blank).

    Raises:
      ValueError: naming all that transformers' Parakeet classes cannot be.
    """
    encoder, features, kind, blank = config.encoder, config.features, config.kind, config.blank
    refusals = {
        "a LayerNorm in the convolution module": encoder.convolution_norm != "affine",
        "a CTC head beside the transducer's": kind != "CTC" and config.ctc,
        "local attention": encoder.attention_context is not None,
        "features that are not normalised by utterance": features.normalize is not None,
        "features whose mean and deviation leave out silence": features.silence is not None,
        "a joint network of another width than the predictor": (
            config.joint is not None and config.joint.width != config.predictor.width
        ),
        f"durations {config.durations}, it takes a duration's index for its value": (
            config.durations is not None and config.durations != tuple(range(len(config.durations)))
        ),
    }
    if refused := [what for what, is_so in refusals.items() if is_so]:
        raise ValueError("transformers has no Parakeet model with " + "; ".join(refused))
    whole = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": next(name for name, each in MODEL_TYPES.items() if each == kind),
        "dtype": dtype,
        "vocab_size": config.vocab_size + 1,
        "encoder_config": {
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
        },
    }
    if kind == "CTC":
        return {**whole, "pad_token_id": blank}
    whole |= {
        "decoder_hidden_size": config.predictor.width,
        "num_decoder_layers": config.predictor.num_layers,
        "hidden_act": "relu",
        "max_symbols_per_step": config.max_symbols,
        "pad_token_id": blank if pad is None else pad,
        "blank_token_id": blank,
        "is_encoder_decoder": True,
    }
    if kind == "TDT":
        whole["durations"] = list(config.durations)
    return whole
