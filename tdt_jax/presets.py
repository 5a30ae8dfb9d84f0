"""Model sizes, from 1 million to 1.2 billion parameters.

SMALL to XXLARGE are NVIDIA's FastConformer sizes (Rekesh et al., 2023, arXiv 2305.05084, and the
recipes published with NeMo); MICRO and TINY are for CPUs and experiments. A size is a ModelConfig:

    config = dataclasses.replace(tdt_jax.presets.LARGE, vocab_size=512, durations=None)

PARAKEET_* are the shapes of NVIDIA's public checkpoints, for `fine_tuning` and for models of the
same shape with random parameters. `tdt_jax.load` does not need them: it reads the shape from the
checkpoint.
"""

import dataclasses

from tdt_jax.config import (
    AugmentConfig,
    Bucket,
    Config,
    DataConfig,
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PredictorConfig,
    TrainingConfig,
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


def _parakeet(
    base: ModelConfig, *, scale_input: bool = False, is_ctc: bool = False, **changes
) -> ModelConfig:
    encoder = dataclasses.replace(
        base.encoder, scale_input=scale_input, convolution_norm="affine", kernel_size=9
    )
    if is_ctc:
        changes |= dict(predictor=None, joint=None, durations=None, ctc=True)
    return dataclasses.replace(base, encoder=encoder, **changes)


def _with_biases(base: ModelConfig) -> ModelConfig:
    """The 0.6 B shape of the older checkpoints: biases, 80 mel bins."""
    encoder = dataclasses.replace(base.encoder, use_bias=True)
    return dataclasses.replace(base, encoder=encoder, features=FeatureConfig(num_mels=80))


PARAKEET_TDT_0_6B_V2 = _parakeet(XLARGE)
PARAKEET_TDT_0_6B_V3 = _parakeet(XLARGE, vocab_size=8192)
PARAKEET_TDT_1_1B = _parakeet(XXLARGE)
PARAKEET_TDT_CTC_110M = _parakeet(LARGE, ctc=True)
PARAKEET_RNNT_0_6B = _parakeet(_with_biases(XLARGE), scale_input=True, durations=None)
PARAKEET_RNNT_1_1B = _parakeet(XXLARGE, scale_input=True, durations=None)
PARAKEET_CTC_0_6B = _parakeet(_with_biases(XLARGE), scale_input=True, is_ctc=True)
PARAKEET_CTC_1_1B = _parakeet(XXLARGE, scale_input=True, is_ctc=True)
# By name: the shape of a checkpoint, and its repository on the Hugging Face Hub.
CHECKPOINTS = {
    "tdt_0_6b_v2": (PARAKEET_TDT_0_6B_V2, "nvidia/parakeet-tdt-0.6b-v2"),
    "tdt_0_6b_v3": (PARAKEET_TDT_0_6B_V3, "nvidia/parakeet-tdt-0.6b-v3"),
    "tdt_1_1b": (PARAKEET_TDT_1_1B, "nvidia/parakeet-tdt-1.1b"),
    "tdt_ctc_110m": (PARAKEET_TDT_CTC_110M, "nvidia/parakeet-tdt_ctc-110m"),
    "rnnt_0_6b": (PARAKEET_RNNT_0_6B, "nvidia/parakeet-rnnt-0.6b"),
    "rnnt_1_1b": (PARAKEET_RNNT_1_1B, "nvidia/parakeet-rnnt-1.1b"),
    "ctc_0_6b": (PARAKEET_CTC_0_6B, "nvidia/parakeet-ctc-0.6b"),
    "ctc_1_1b": (PARAKEET_CTC_1_1B, "nvidia/parakeet-ctc-1.1b"),
}


def fine_tuning(model: ModelConfig, init_from: str) -> Config:
    """Returns a configuration that fine-tunes a checkpoint, with its tokenizer.

    `data.train` is left to name manifests. The optimizer is AdamW at a tenth of the learning rate
    of NVIDIA's recipe for training from scratch, with their SpecAugment; computation is in bfloat16
    with float32 parameters.

    Args:
      model: the checkpoint's shape, such as PARAKEET_TDT_0_6B_V3.
      init_from: the checkpoint, as `tdt_jax.load` takes it.
    """
    is_hybrid = model.ctc and model.predictor is not None
    return Config(
        model=dataclasses.replace(model, dtype="bfloat16"),
        loss=LossConfig(sigma=0.02, ctc_weight=0.3 if is_hybrid else 0.0),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=500, weight_decay=1e-3),
        augment=AugmentConfig(),
        data=DataConfig(buckets=(Bucket(10.24, 100, 16), Bucket(20.48, 200, 8))),
        training=TrainingConfig(
            num_steps=5000,
            init_from=init_from,
            folder="runs/" + init_from.rpartition("/")[2],
        ),
    )
