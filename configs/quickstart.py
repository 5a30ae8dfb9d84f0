"""Connected telephone speech: phone numbers, digits, amounts, dates and times; 1 M parameters.

    python train.py --config configs/quickstart.py
    python train.py --config configs/quickstart.py --set model.durations=none \\
        --set training.folder=runs/quickstart_rnnt

The data come with the package: recordings of single words, from which utterances are composed.

Hardware: two CPU cores, 15 minutes. Expect a WER of about 0.5 % on composed utterances whose texts
do not occur in training, also near silence and through telephone bands, with 4 decoder steps per
second of audio. The second command trains an RNN-T, which learns more slowly: 7 % after 2000 steps
without the augmentation of pauses and bands, with 13.8 decoder steps per second.

To train on your own data, use configs/manifest.py, or add `--set data.telephone=none`.
"""

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
    TelephoneConfig,
    TokenizerConfig,
    TrainingConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(
            features=FeatureConfig(silence=22.0),
            encoder=EncoderConfig(
                width=96,
                num_layers=4,
                num_heads=4,
                subsampling_channels=16,
                dropout=0.0,
                attention_dropout=0.0,
                remat=False,
                unroll=4,
            ),
            predictor=PredictorConfig(width=96, dropout=0.1),
            joint=JointConfig(width=96, dropout=0.0),
            ctc=True,
        ),
        loss=LossConfig(ctc_weight=0.5),
        optimizer=OptimizerConfig(
            learning_rate=3e-3, warmup_steps=200, weight_decay=1e-2, ema_decay=0.995
        ),
        augment=AugmentConfig(
            freq_masks=2,
            freq_width=15,
            time_masks=2,
            time_width=0.03,
            noise_probability=0.95,
            noise_snr=(8.0, 40.0),
            gate_probability=0.5,
            band_probability=0.4,
            gain=(-30.0, 0.0),
        ),
        tokenizer=TokenizerConfig(vocab_size=160),
        data=DataConfig(
            telephone=TelephoneConfig(
                fragment_probability=0.25,
                noise_probability=0.05,
                long_silence_seconds=4.0,
                joint_silence_probability=0.2,
                joint_change_probability=0.3,
                curriculum=((0, 0), (400, 1), (800, 2)),
            ),
            buckets=(Bucket(2.56, 12, 32), Bucket(5.12, 20, 16), Bucket(8.96, 32, 10)),
            num_threads=1,
        ),
        training=TrainingConfig(
            num_steps=2400,
            log_every=100,
            eval_every=600,
            save_every=600,
            folder="runs/quickstart",
        ),
    )
