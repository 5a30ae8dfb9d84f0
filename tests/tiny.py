"""Tiny models with random parameters, for the tests: built without compiling anything."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import tdt_jax as tdt
from tdt_jax.config import (
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
)

# Compiler options for what is large to compile and small to run, such as gradients.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
NUM_MELS = 16


def encoder_config(**changes) -> EncoderConfig:
    options = dict(
        width=16, num_layers=2, num_heads=2, feed_forward_factor=2, kernel_size=5,
        subsampling_channels=4,
    )  # fmt: skip
    return EncoderConfig(**{**options, **changes})


def config(durations=(0, 1, 2), encoder=None, **changes) -> ModelConfig:
    options = dict(
        vocab_size=6,
        durations=durations,
        features=FeatureConfig(num_mels=NUM_MELS),
        encoder=encoder or encoder_config(),
        predictor=PredictorConfig(width=8, num_layers=2),
        joint=JointConfig(width=12),
    )
    return ModelConfig(**{**options, **changes})


def build(make, seed: int = 0):
    """What `make()` builds, every parameter of it random, biases and norms as well."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        values = rng.normal(size=leaf.shape)
        if name.removesuffix(".value").endswith("scale"):
            values = 1 + 0.1 * values
        elif len(leaf.shape) > 1:
            values /= np.sqrt(leaf.shape[-2])
        else:
            values *= 0.1
        return jnp.asarray(values.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(make))


def transducer(model_config: ModelConfig | None = None, seed: int = 0) -> tdt.Transducer:
    model_config = model_config or config()
    return build(lambda: tdt.Transducer(model_config, rngs=nnx.Rngs(0)), seed)


def numpy_model(model):
    """The model with numpy's arrays: what runs operation by operation then compiles nothing."""
    return jax.tree.map(np.asarray, model)


def num_compilations(function, *args, **options):
    """How many programs named like `function` XLA compiles while it runs on the arguments."""
    name = f"jit({function.__name__})"
    before = _compiled.count(name)
    jax.block_until_ready(function(*args, **options))
    return _compiled.count(name) - before


_compiled = []


def _listen(event, duration, **info):
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled.append(info.get("fun_name"))


jax.monitoring.register_event_duration_secs_listener(_listen)
