"""MuST-C, 408 h of TED talks, speech translation from English to German: TDT with durations 0 to 4.

    tdt-jax prepare must_c en-de data         # en-de: the folder in the archive of MuST-C
    python train.py --config configs/must_c_tdt.py

The text is German with case and punctuation, and is scored by BLEU (pip install '.[metrics]') as
well as WER. For another language, prepare its folder into another DATA_DIR and name that by
`--set data.folder=DATA_DIR`.

Hardware: as for configs/librispeech_tdt.py; the utterances are half as long, and there are 50,000
steps instead of 70,000.

No run of this configuration has been measured. The paper (Xu et al., 2023, arXiv 2304.06795)
reports a BLEU of 24.15 on tst-COMMON for TDT 0-4, decoding 2.06 times as fast as the RNN-T, which
has 23.21 (here: `--set model.durations=none --set loss.sigma=0 --set loss.omega=0`). A transducer
emits its text in the order of the audio: where German puts the verb elsewhere, the encoder has to
move it.
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
        # most segments are sentences of a few seconds; German has more tokens than English
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
