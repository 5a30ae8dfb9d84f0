"""Adapters of random numbers, as a run would save them."""

import numpy as np

from tdt_jax.checkpoints.adapter import Adapter
from tdt_jax.config import Config, TuningConfig
from tdt_jax.models.adapters import adapter_shapes, fingerprint, trained_names
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.vocabulary import with_vocabulary


def make_adapter(base, source, seed=0, tokenizer=None, **tuning) -> Adapter:
    """Returns an adapter with rank 2 and a trained bias of the CTC head."""
    options = {"rank": 2, "train": ("ctc.bias",), "scale": 0.5, **tuning}
    tuned = with_vocabulary(base, tokenizer or base.tokenizer)
    shapes = {name: leaf.shape for name, leaf in named_leaves(tuned.model).items()}
    config = Config(model=tuned.config, tuning=TuningConfig(**options))
    full, adapted = trained_names(config.tuning, shapes)
    wanted = {name: shapes[name] for name in full}
    wanted |= adapter_shapes({name: shapes[name] for name in adapted}, config.tuning.rank)
    rng = np.random.default_rng(seed)
    leaves = {name: rng.normal(size=shape).astype(np.float32) for name, shape in wanted.items()}
    return Adapter(leaves, config, tuned.tokenizer, str(source), fingerprint(base.model))
