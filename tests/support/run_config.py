"""The configuration of a whole run that trains in seconds; `train.py --config` takes this file."""

from tdt_jax.config import (
    AugmentConfig,
    Bucket,
    Config,
    DataConfig,
    EncoderConfig,
    JointConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PredictorConfig,
    TelephoneConfig,
    TokenizerConfig,
    TrainingConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(
            vocab_size=40,
            durations=(0, 1, 2),
            encoder=EncoderConfig(
                width=16, num_layers=2, num_heads=2, subsampling_channels=4, feed_forward_factor=2
            ),
            predictor=PredictorConfig(width=16),
            joint=JointConfig(width=16),
            ctc=True,
        ),
        loss=LossConfig(ctc_weight=0.3, fastemit=0.01),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=5, ema_decay=0.9),
        augment=AugmentConfig(noise_probability=0.5, gain=(-3.0, 3.0)),
        tokenizer=TokenizerConfig(vocab_size=40),
        data=DataConfig(
            telephone=TelephoneConfig(kinds=("digits",), num_test=3, phrase_probability=0.0),
            buckets=(Bucket(8.96, 40, 4),),
        ),
        training=TrainingConfig(
            num_steps=12, log_every=1, eval_every=100, save_every=3, folder="unset"
        ),
    )
