"""The transducer as a pytree, its random start, its heads, and flax's tree mode."""

import dataclasses
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from flax import nnx
from paths import ROOT

import tdt_jax as tdt
from tdt_jax.config import PredictorConfig
from tdt_jax.models.transducer import MismatchError, abstract_model, with_parameters
from tdt_jax.runtime.pytree import named_leaves, num_parameters

CONFIG = models.config(
    encoder=models.encoder_config(use_bias=False),
    predictor=PredictorConfig(width=8, num_layers=1),
)


@pytest.fixture(scope="module")
def lowered():
    """The real initialization of a model from a key, not yet compiled."""
    start = jax.jit(lambda key: tdt.Transducer(CONFIG, rngs=nnx.Rngs(key)))
    return start.lower(jax.random.key(0))


def test_shapes_come_without_computing(lowered):
    abstract, model = abstract_model(CONFIG), lowered.out_info
    assert jax.tree.structure(abstract) == jax.tree.structure(model)
    shapes, leaves = named_leaves(abstract), named_leaves(model)
    for name, leaf in leaves.items():
        assert (leaf.shape, leaf.dtype) == (shapes[name].shape, shapes[name].dtype), name
        assert leaf.dtype == jnp.float32
    size = sum(math.prod(leaf.shape) for leaf in leaves.values())
    assert num_parameters(abstract) == size


def test_parameters_start_at_random(lowered):
    """Matrices differ by seed and by layer, norms are the identity, other biases zero."""
    start = lowered.compile()
    one, again, other = (
        named_leaves(jax.device_get(start(jax.random.key(seed)))) for seed in (1, 1, 2)
    )
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, again[name])
        if name.endswith("scale"):
            assert np.all(leaf == 1), name
        elif name.endswith("bias"):
            assert not np.any(leaf), name
        else:
            assert np.all(np.isfinite(leaf)) and np.std(leaf) > 0.01, name
            assert np.all(leaf != other[name]), name
            if "blocks" in name:
                assert np.all(leaf[0] != leaf[1]), name


def test_the_model_is_a_pytree():
    """Values go through map, jit and flattening; the configuration stays with the structure."""
    model = models.numpy_model(models.transducer())
    flat, structure = jax.tree.flatten(model)
    back = jax.tree.unflatten(structure, flat)
    assert isinstance(back, tdt.Transducer) and back.config == model.config
    doubled = jax.jit(lambda model: jax.tree.map(lambda leaf: 2 * leaf, model))(model)
    assert doubled.config == model.config
    for name, leaf in named_leaves(model).items():
        np.testing.assert_array_equal(named_leaves(doubled)[name], 2 * leaf)
    assert jax.tree.structure(doubled) == jax.tree.structure(models.transducer(seed=5))
    assert jax.tree.structure(models.transducer(models.config((1, 2, 4)))) != structure


def test_heads_by_configuration():
    rnnt = abstract_model(models.config(None))
    assert rnnt.joint.duration_head is None and rnnt.ctc is None
    both = abstract_model(models.config((0, 1, 2, 8), ctc=True))
    assert both.joint.duration_head.kernel.shape == (12, 4)
    assert both.joint.token_head.kernel.shape == (12, 7)  # blank is the last
    assert both.ctc.kernel.shape == (16, 7)


def test_bfloat16_has_float32_parameters():
    model = abstract_model(models.config(dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("float32")}


TREE_MODE = """
import flax, jax, jax.numpy as jnp, numpy as np
import tdt_jax as tdt
from tdt_jax.models.transducer import abstract_model

assert not (flax.config.nnx_graph_mode or flax.config.nnx_graph_updates)
model = abstract_model(tdt.ModelConfig(
    features=tdt.FeatureConfig(num_mels=16), encoder=tdt.EncoderConfig(width=16, num_layers=2)))
features, lengths = np.ones((2, 24, 16), np.float32), np.array([24, 9], np.int32)

def run(model):
    frames, num_frames = tdt.encode(model, features, lengths)
    return tdt.greedy_decode(model, frames, num_frames)

def loss(model):
    frames, num_frames = model.encoder(features, lengths)
    states = model.predictor(np.array([[0, 1], [2, 3]]))
    tokens, durations = model.joint(frames, states)
    return jnp.sum(frames**2) + jnp.sum(tokens) + jnp.sum(durations)

assert jax.eval_shape(run, model).num_steps.shape == (2,)
gradients = jax.eval_shape(jax.grad(loss), model)
assert jax.tree.structure(gradients) == jax.tree.structure(model)
updated = jax.eval_shape(lambda *trees: jax.tree.map(jnp.subtract, *trees), model, gradients)
assert jax.tree.structure(updated) == jax.tree.structure(model)
print("fine")
"""


@pytest.mark.slow
def test_tree_mode():
    """Modules are stateless pytrees, so that flax's coming default changes nothing."""
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    modes = {"NNX_GRAPH_MODE": "false", "NNX_GRAPH_UPDATES": "false"}
    done = subprocess.run(
        [sys.executable, "-c", TREE_MODE],
        env={**os.environ, **modes, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr


def test_a_configuration_is_traced_once(monkeypatch):
    """The initialization takes a quarter of a second to trace, and `load` asks for it each time."""
    built, build = [], tdt.Transducer.__init__
    monkeypatch.setattr(
        tdt.Transducer, "__init__", lambda *x, **options: built.append(x) or build(*x, **options)
    )
    config = models.config(vocab_size=61)  # of no other test
    first = abstract_model(config)
    again = abstract_model(models.config(vocab_size=61), dtype="bfloat16")
    assert len(built) == 1
    assert jax.tree.structure(again) == jax.tree.structure(first)
    assert {leaf.dtype for leaf in jax.tree.leaves(again)} == {np.dtype("bfloat16")}


def test_parameters_are_taken_for_the_same_meaning_only():
    source = models.transducer()
    config = source.config
    dropout = dataclasses.replace(config.encoder, dropout=0.5, attention_context=(8, 8))
    features = dataclasses.replace(config.features, dither=0.0, normalize=(-9.0, 3.0))
    changed = dataclasses.replace(config, encoder=dropout, features=features)
    taken = with_parameters(models.transducer(changed, seed=1), source)
    assert taken.config == changed
    for one, other in zip(jax.tree.leaves(taken), jax.tree.leaves(source), strict=True):
        np.testing.assert_array_equal(one, other)
    other = dataclasses.replace(
        config,
        durations=(1, 2, 3),
        encoder=dataclasses.replace(config.encoder, scale_input=True, kernel_size=7),
    )
    with pytest.raises(MismatchError, match=r"durations is .*scale_input is False.*depthwise is"):
        with_parameters(models.transducer(other), source)
