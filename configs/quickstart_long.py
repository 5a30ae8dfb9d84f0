"""The quickstart's model, trained further for long audio, which is cut at any pause.

    python train.py --config configs/quickstart.py
    python train.py --config configs/quickstart_long.py

Starts from runs/quickstart and trains on utterances of up to 15 s with long silences, also between
texts, and with changes of level and noise as where two recordings meet. Features are normalized by
a fixed mean and deviation: with those of the utterance, silence would change the features of the
speech beside it.

Hardware: one CPU core, 42 minutes. Expect a WER of 0.2 % on an hour of composed utterances joined
together, as on the single ones, where the quickstart's model has 2.5 % (measured with a previous
version of the quickstart; one speaker).
"""

import dataclasses
from pathlib import Path

from tdt_jax import config as configs
from tdt_jax.config import Bucket


def get_config() -> configs.Config:
    config = configs.load(Path(__file__).parent / "quickstart.py")
    features = dataclasses.replace(config.model.features, normalize=(-9.0, 2.0), silence=None)
    telephone = dataclasses.replace(
        config.data.telephone,
        fragment_probability=0.0,
        noise_probability=0.0,
        long_silence_probability=0.4,
        long_silence_seconds=3.0,
        joint_silence_probability=0.4,
        joint_change_probability=0.7,
        curriculum=(),
    )
    buckets = Bucket(2.56, 12, 32), Bucket(5.12, 20, 16), Bucket(8.96, 32, 10), Bucket(15.36, 60, 5)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, features=features),
        augment=dataclasses.replace(
            config.augment,
            noise_probability=0.6,
            change_probability=0.3,
            gate_probability=0.0,
            band_probability=0.0,
            gain=(0.0, 0.0),
        ),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=2e-3, warmup_steps=100),
        data=dataclasses.replace(config.data, telephone=telephone, buckets=buckets),
        training=dataclasses.replace(
            config.training,
            num_steps=3600,
            eval_every=600,
            save_every=600,
            folder="runs/quickstart_long",
            init_from="runs/quickstart",
        ),
    )
