"""Every experiment in configs/ and every size of presets builds and traces."""

import ast

import jax
import jax.numpy as jnp
import pytest
from paths import ROOT

from tdt_jax import config as configs
from tdt_jax import presets
from tdt_jax.data.buckets import bucket_samples
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime.pytree import num_parameters
from tdt_jax.training.step import BatchArrays, init_state, train_step

FILES = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_traces_a_step(path):
    config = configs.load(path)
    assert configs.from_json(configs.to_json(config)) == config
    assert f"--config configs/{path.name}" in ast.get_docstring(ast.parse(path.read_text()))
    bucket = config.data.buckets[-1]
    batch = BatchArrays(
        jax.ShapeDtypeStruct((bucket.batch_size, bucket_samples(bucket)), jnp.float32),
        jax.ShapeDtypeStruct((bucket.batch_size,), jnp.int32),
        jax.ShapeDtypeStruct((bucket.batch_size, bucket.tokens), jnp.int32),
        jax.ShapeDtypeStruct((bucket.batch_size,), jnp.int32),
    )
    with jax.numpy_dtype_promotion("standard"):
        state = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
        key = jax.eval_shape(lambda: jax.random.key(0))
        after, metrics = jax.eval_shape(
            lambda *args: train_step(*args, config=config), state, batch, key
        )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics.loss.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "millions"),  # NVIDIA's: 14, 32, 115 (120 with its CTC head), 616 and about 1,100
    [
        ("MICRO", 1.2), ("TINY", 4.7), ("SMALL", 14), ("MEDIUM", 32), ("LARGE", 115),
        ("XLARGE", 616), ("XXLARGE", 1070),
    ],
)  # fmt: skip
def test_preset_has_the_published_size(name, millions):
    size = num_parameters(abstract_model(getattr(presets, name))) / 1e6
    assert size == pytest.approx(millions, rel=0.03)


def test_twins_differ_in_the_model_alone():
    tdt, rnnt = (
        configs.load(FILES[0].parent / f"librispeech_{kind}.py") for kind in ("tdt", "rnnt")
    )
    assert (tdt.model.kind, rnnt.model.kind) == ("TDT", "RNN-T")
    for name in ("optimizer", "augment", "tokenizer", "data"):
        assert getattr(tdt, name) == getattr(rnnt, name)
