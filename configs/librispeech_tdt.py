"""LibriSpeech, 960 h, English: TDT with durations 0 to 4 and a FastConformer of 115 M parameters.

    tdt-jax prepare librispeech FOLDER data   # FOLDER: archives of OpenSLR, or LibriSpeech/
    python train.py --config configs/librispeech_tdt.py

Hardware: 32 or more TPU v5e chips or GPUs. A batch has 2048 utterances of up to 17.28 s, in equal
parts on all devices; for fewer devices, set smaller batches with `--set 'data.buckets=[...]'`. A
step takes about 3e14 operations, so the 70,000 steps (500 epochs) take 3 to 4 hours on 32 v5e that
reach 30 % of their peak, and longer by the time of the loss and of all that is no matrix product.

No run of this configuration has been measured. The paper (Xu et al., 2023, arXiv 2304.06795)
reports, for a Conformer of 120 M parameters with 4x subsampling (here: 8x), for TDT 0-4 a WER of
2.17 % on test-clean and 5.06 % on test-other, decoding 1.98 and 1.91 times as fast as the RNN-T,
which has 2.14 % and 5.11 %.

Training skips utterances that are longer than the largest bucket, about 0.2 % of them (by the
durations in icefall's recipe; the longest has 30 s); with 16.7 s it would be 1 %. The longest
utterances of the test sets, 35 s, are transcribed whole.
"""

import dataclasses

from tdt_jax import presets
from tdt_jax.config import (
    Bucket,
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainingConfig,
)


def get_config() -> Config:
    return Config(
        model=dataclasses.replace(presets.LARGE, dtype="bfloat16", piece_seconds=36.0),
        loss=LossConfig(sigma=0.05, omega=0.1),
        optimizer=OptimizerConfig(
            learning_rate=2e-3,
            schedule="noam",
            warmup_steps=10_000,
            betas=(0.9, 0.98),
            weight_decay=1e-3,
            clip_norm=1.0,
        ),
        tokenizer=TokenizerConfig(vocab_size=1024),
        data=DataConfig(
            folder="data",
            train=("librispeech:train_clean100+train_clean360+train_other500",),
            dev=("librispeech:dev_other",),
            test=("librispeech:test_clean", "librispeech:test_other"),
            lowercase=True,
            buckets=(
                Bucket(6.4, 48, 2048),
                Bucket(11.2, 76, 2048),
                Bucket(13.6, 92, 2048),
                Bucket(15.2, 100, 2048),
                Bucket(17.28, 116, 2048),
            ),
            num_threads=16,
            prefetch=4,
        ),
        training=TrainingConfig(
            num_steps=70_000,
            log_every=50,
            eval_every=2000,
            save_every=1000,
            folder="runs/librispeech_tdt",
        ),
    )
