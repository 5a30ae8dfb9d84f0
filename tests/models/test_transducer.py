"""The transducer as a pytree, its start, and what importing the package costs."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from flax import nnx
from paths import TESTS

import tdt_jax as tdt
from tdt_jax.models.transducer import MismatchError, with_parameters
from tdt_jax.runtime.pytree import num_parameters


def leaves(tree):
    """{name: leaf}"""
    return {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


@pytest.fixture(scope="module")
def initialise():
    """From a seed to a model with its real start, compiled once."""
    config = models.config(encoder=models.encoder_config(num_layers=3))
    return jax.jit(
        lambda key: tdt.Transducer(config, rngs=nnx.Rngs(key)), compiler_options=models.QUICK
    )


def test_shapes_come_without_computing(initialise):
    abstract = jax.eval_shape(initialise, jax.random.key(0))
    model = models.numpy_model(initialise(jax.random.key(0)))
    assert jax.tree.structure(abstract) == jax.tree.structure(model)
    for name, leaf in leaves(model).items():
        shape = leaves(abstract)[name]
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype), name
        assert leaf.dtype == jnp.float32
    assert (
        num_parameters(abstract)
        == num_parameters(model)
        == sum(map(np.size, leaves(model).values()))
    )


def test_parameters_start_at_random(initialise):
    """Matrices differ by seed and by layer, norms are the identity, other biases zero."""
    one, again, other = (
        leaves(models.numpy_model(initialise(jax.random.key(seed)))) for seed in (1, 1, 2)
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
                assert np.all(leaf[0] != leaf[1]) and np.all(leaf[1] != leaf[2]), name


def test_the_model_is_a_pytree():
    """Values go through map, jit and flattening; the configuration stays with the structure."""
    model = models.numpy_model(models.transducer())
    flat, structure = jax.tree.flatten(model)
    back = jax.tree.unflatten(structure, flat)
    assert isinstance(back, tdt.Transducer) and back.config == model.config
    doubled = jax.jit(lambda model: jax.tree.map(lambda leaf: 2 * leaf, model))(model)
    assert doubled.config == model.config
    for name, leaf in leaves(model).items():
        np.testing.assert_array_equal(leaves(doubled)[name], 2 * leaf)
    assert jax.tree.structure(doubled) == jax.tree.structure(models.transducer(seed=5))
    assert jax.tree.structure(models.transducer(models.config((1, 2, 4)))) != structure


def test_heads_by_configuration():
    rnnt = jax.eval_shape(lambda: models.transducer(models.config(None)))
    assert rnnt.joint.duration_head is None and rnnt.ctc is None
    both = jax.eval_shape(lambda: models.transducer(models.config((0, 1, 2, 8), ctc=True)))
    assert both.joint.duration_head.kernel.shape == (12, 4)
    assert both.joint.token_head.kernel.shape == (12, 7)  # blank is the last
    assert both.ctc.kernel.shape == (16, 7)


def test_bfloat16_has_float32_parameters():
    model = jax.eval_shape(lambda: models.transducer(models.config(dtype="bfloat16")))
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("float32")}


LIGHT = """
import json, sys
import tdt_jax
print(json.dumps(sorted(sys.modules)))
"""

TREE_MODE = """
import flax, jax, jax.numpy as jnp, numpy as np
import tdt_jax as tdt
import models

assert not (flax.config.nnx_graph_mode or flax.config.nnx_graph_updates)
model = models.transducer()
features, lengths = np.ones((2, 24, 16), np.float32), np.array([24, 9], np.int32)
frames, num_frames = tdt.encode(model, features, lengths)
hypothesis = tdt.greedy_decode(model, frames, num_frames)
assert np.all(hypothesis.num_steps > 0)

@jax.jit
@jax.grad
def gradient(model):
    frames, num_frames = model.encoder(features, lengths)
    states = model.predictor(np.array([[0, 1], [2, 3]]))
    tokens, durations = model.joint(frames, states)
    return jnp.sum(frames**2) + jnp.sum(tokens) + jnp.sum(durations)

gradients = gradient(model)
assert jax.tree.structure(gradients) == jax.tree.structure(model)
assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))
updated = jax.tree.map(np.subtract, model, gradients)
tdt.encode(updated, features, lengths)
assert num_compilations(tdt.encode, updated, features, lengths) == 0
print("fine")
"""


def run(program, **environment):
    """Standard output of a Python program in a process of its own."""
    tests = str(TESTS)
    path = os.pathsep.join([tests, str(Path(tests).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **environment},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    """A notebook that wants the loss does not wait for what reads files and writes checkpoints."""
    modules = json.loads(run(LIGHT))
    heavy = (
        "tensorflow", "tensorflow_datasets", "grain", "orbax", "librosa", "soundfile",
        "sentencepiece", "jiwer", "tensorboardX", "numba", "torch", "matplotlib",
    )  # fmt: skip
    found = [name for name in modules if name.partition(".")[0] in heavy]
    assert not found
    assert "tdt_jax.models.transducer" in modules


def test_tree_mode():
    """Modules are stateless pytrees, so that flax's coming default changes nothing."""
    options = " ".join(f"--{name}={str(value).lower()}" for name, value in models.QUICK.items())
    assert "fine" in run(
        TREE_MODE, NNX_GRAPH_MODE="false", NNX_GRAPH_UPDATES="false", XLA_FLAGS=options
    )


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
