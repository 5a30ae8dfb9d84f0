"""LibriSpeech, 960 h, English: the RNN-T to compare with configs/librispeech_tdt.py.

    python train.py --config configs/librispeech_rnnt.py

Data, hardware and hours are those of configs/librispeech_tdt.py; only the loss and the duration
head differ.

No run of this configuration has been measured. The paper (Xu et al., 2023, arXiv 2304.06795)
reports a WER of 2.14 % on test-clean and 5.11 % on test-other for a Conformer of 120 M parameters
with 4x subsampling.
"""

import dataclasses
from pathlib import Path

from tdt_jax import config as configs


def get_config() -> configs.Config:
    config = configs.load(Path(__file__).parent / "librispeech_tdt.py")
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, durations=None),
        loss=dataclasses.replace(config.loss, sigma=0.0, omega=0.0),
        training=dataclasses.replace(config.training, folder="runs/librispeech_rnnt"),
    )
