"""LibriSpeech, 960 h: the RNN-T twin of configs/librispeech_tdt.py, all else equal.

    python train.py --config configs/librispeech_rnnt.py

Data, hardware and hours are those of configs/librispeech_tdt.py. The paper (Xu et al., 2023, arXiv
2304.06795) has WER 2.14 % on test-clean and 5.11 % on test-other for a Conformer of 120 M with 4x
subsampling. No run of this configuration has been measured.
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
