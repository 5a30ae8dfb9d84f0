"""Speech translation, English to German: MuST-C, 408 h of TED talks, TDT with durations 0 to 4.

    tdt-jax prepare must_c en-de data             # the folder that MuST-C's archive unpacks to
    python train.py --config configs/must_c_tdt.py

German text with its case and punctuation, scored by sacrebleu (pip install '.[metrics]') beside
WER. Another language: prepare its folder into another DATA_DIR and name that by `data.folder`.
Hardware as for configs/librispeech_tdt.py; the segments are half as long. A
transducer must emit in the order of the audio; German moves its verbs, which the encoder has to
make up for.

The paper (Xu et al., 2023, arXiv 2304.06795) has BLEU 24.15 on tst-COMMON for TDT 0-4, 2.06 times
as fast as the RNN-T with 23.21 (`--set model.durations=none --set loss.sigma=0 --set
loss.omega=0`). No run of this configuration has been measured.
"""

import dataclasses
from pathlib import Path

from tdt_jax import config as configs
from tdt_jax.config import Bucket


def get_config() -> configs.Config:
    config = configs.load(Path(__file__).parent / "librispeech_tdt.py")
    data = dataclasses.replace(
        config.data,
        train=("must_c:train",),
        dev=("must_c:dev",),
        test=("must_c:tst_common",),
        lowercase=False,
        # most segments are sentences of a few seconds; pieces of German are shorter than of English
        buckets=(
            Bucket(3.2, 40, 2048),
            Bucket(6.4, 72, 2048),
            Bucket(10.24, 110, 2048),
            Bucket(20.48, 200, 1024),
        ),
    )
    return dataclasses.replace(
        config,
        data=data,
        training=dataclasses.replace(
            config.training, num_steps=50_000, metric="bleu", folder="runs/must_c_tdt"
        ),
    )
