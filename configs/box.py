"""Numbers, dates, times, money, spelling and commands by anyone, live; 2.8 M parameters.

    python examples/box/train.py corpus/* --out runs/box --seconds 3000

That trains it on one GPU, from the corpus of synthetic voices that examples/box/make_corpus.py
makes; on other speech, `python train.py --config configs/box.py` does. The model is causal and
looks ahead by 0, 80, 160 or 560 ms.

Status: far from trained. After 65 s (1,423 steps) on an H100 with 5.9 hours of speech its WER on
speakers that it had not heard was 88 %, by its CTC head 84 % (100 utterances). After 22 minutes
more on two CPU cores, in 600 steps of 48 and 2,000 of 16 short utterances with less augmentation
and `loss.ctc_weight` 0.5 and 0.6, it was 82 and 66 % (these and 400 others).
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
    TokenizerConfig,
    TrainingConfig,
)

LEFT = 48  # frames, 3.84 s


def get_config() -> Config:
    return Config(
        model=ModelConfig(
            features=FeatureConfig(normalize=(-13.0, 3.5)),
            encoder=EncoderConfig(
                width=144,
                num_layers=6,
                num_heads=4,
                feed_forward_factor=3,
                subsampling_channels=24,
                chunked_contexts=tuple((LEFT, right) for right in (7, 0, 1, 2)),
                convolution_context=(8, 0),
                causal_subsampling=True,
                dropout=0.05,
                attention_dropout=0.0,
                remat=False,
                unroll=6,
            ),
            predictor=PredictorConfig(width=128, dropout=0.1),
            joint=JointConfig(width=144, dropout=0.0),
            ctc=True,
        ),
        loss=LossConfig(ctc_weight=0.3),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, warmup_steps=200, weight_decay=1e-2, ema_decay=0.998
        ),
        augment=AugmentConfig(
            freq_masks=2,
            freq_width=15,
            time_masks=2,
            time_width=0.03,
            noise_probability=0.9,
            noise_snr=(3.0, 40.0),
            room_probability=0.4,
            gate_probability=0.2,
            band_probability=0.4,
            gain=(-25.0, 0.0),
        ),
        tokenizer=TokenizerConfig(vocab_size=256),
        data=DataConfig(buckets=(Bucket(3.2, 14, 512), Bucket(6.4, 28, 256))),
        training=TrainingConfig(num_steps=4000, folder="runs/box"),
    )
