"""Connected telephone speech with all recorded words: also codes, extensions, messages, commands.

    python train.py --config configs/telephone.py

As configs/quickstart.py, with 235 words instead of 84 and 2.3 M parameters. The model does not
learn to align if utterances of more than 2.56 s come before step 3000.

Hardware: two CPU cores, a good hour. Expect a WER of 0.6 % on 200 composed utterances whose texts
do not occur in training, with 3.6 decoder steps per second of audio, and of 77 % on the recorded
phrases, many of whose words hardly occur in training.
"""

import dataclasses
from pathlib import Path

from tdt_jax import config as configs
from tdt_jax.data.telephone.grammar import KINDS


def get_config() -> configs.Config:
    config = configs.load(Path(__file__).parent / "quickstart.py")
    model = dataclasses.replace(
        config.model,
        encoder=dataclasses.replace(config.model.encoder, width=128, num_layers=5, unroll=5),
        predictor=dataclasses.replace(config.model.predictor, width=128),
        joint=dataclasses.replace(config.model.joint, width=128),
    )
    telephone = dataclasses.replace(
        config.data.telephone,
        kinds=tuple(KINDS),
        phrase_probability=0.1,
        curriculum=((0, 0), (3000, 1), (4000, 2)),
    )
    return dataclasses.replace(
        config,
        model=model,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=2e-3, warmup_steps=500),
        tokenizer=dataclasses.replace(config.tokenizer, vocab_size=400),
        data=dataclasses.replace(config.data, telephone=telephone),
        training=dataclasses.replace(
            config.training, num_steps=8000, eval_every=1000, folder="runs/telephone"
        ),
    )
