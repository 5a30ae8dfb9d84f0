"""Your own speech, from manifests: JSON lines with audio_filepath, duration and text, as in NeMo.

    python train.py --config configs/manifest.py \\
        --set data.train=train.jsonl --set data.dev=dev.jsonl --set training.folder=runs/mine

A model of 2 M parameters, which a laptop can train. On an accelerator, choose a larger
`model.encoder` (see tdt_jax.presets) and larger buckets.

What to expect depends on the amount of data: from 2.6 hours of acted dialogue, a model of half this
size learned a few words at best (WER 96.5 % after 6000 steps, in 48 minutes on one CPU core). With
few data, fine-tune a pretrained model instead (configs/parakeet.py).
"""

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
    TokenizerConfig,
    TrainingConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(
            encoder=EncoderConfig(
                width=128,
                num_layers=6,
                num_heads=4,
                subsampling_channels=24,
                dropout=0.1,
                attention_dropout=0.0,
                remat=False,
                unroll=6,
            ),
            predictor=PredictorConfig(width=128, dropout=0.2),
            joint=JointConfig(width=128, dropout=0.0),
            ctc=True,
        ),
        loss=LossConfig(ctc_weight=0.3),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, warmup_steps=500, weight_decay=1e-2, ema_decay=0.998
        ),
        augment=AugmentConfig(
            freq_masks=2,
            freq_width=20,
            time_masks=4,
            time_width=0.05,
            noise_probability=0.3,
            noise_snr=(10.0, 40.0),
            speed=(0.9, 1.0, 1.1),
            silence_probability=0.1,
        ),
        tokenizer=TokenizerConfig(vocab_size=128),
        data=DataConfig(
            buckets=(Bucket(2.56, 40, 32), Bucket(5.12, 70, 16), Bucket(10.24, 120, 8)),
        ),
        training=TrainingConfig(
            num_steps=6000,
            log_every=100,
            eval_every=1000,
            save_every=500,
            folder="runs/manifest",
        ),
    )
