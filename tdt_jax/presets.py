"""Model sizes, from 1 million to 1.2 billion parameters.

SMALL to XXLARGE are NVIDIA's FastConformer sizes (Rekesh et al., 2023, arXiv 2305.05084, and the
recipes published with NeMo); MICRO and TINY are for CPUs and experiments. A size is a ModelConfig:

    config = dataclasses.replace(tdt_jax.presets.LARGE, vocab_size=512, durations=None)
"""

from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
)


def _model(
    width: int,
    heads: int,
    layers: int,
    predictor: int,
    *,
    channels: int = 256,
    predictor_layers: int = 1,
    kernel: int = 9,
    num_mels: int = 80,
    use_bias: bool = True,
) -> ModelConfig:
    return ModelConfig(
        features=FeatureConfig(num_mels=num_mels),
        encoder=EncoderConfig(
            width=width,
            num_heads=heads,
            num_layers=layers,
            subsampling_channels=channels,
            kernel_size=kernel,
            use_bias=use_bias,
        ),
        predictor=PredictorConfig(width=predictor, num_layers=predictor_layers),
        joint=JointConfig(width=predictor),
    )


MICRO = _model(96, 4, 4, 96, channels=16)  # 1 M
TINY = _model(144, 4, 8, 160, channels=32)  # 5 M
SMALL = _model(176, 4, 16, 320)  # 14 M
MEDIUM = _model(256, 4, 16, 640)  # 30 M
LARGE = _model(512, 8, 17, 640)  # 115 M
XLARGE = _model(  # 0.6 B, the shape of Parakeet TDT 0.6b
    1024, 8, 24, 640, predictor_layers=2, num_mels=128, use_bias=False
)
XXLARGE = _model(1024, 8, 42, 640, predictor_layers=2, kernel=5)  # 1.1 B
