"""The joint network: its formula, all pairs against single ones, dtypes."""

import functools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from flax import nnx

from tdt_jax.config import JointConfig
from tdt_jax.models import joint as joints
from tdt_jax.models.joint import Joint
from tdt_jax.runtime import backend


@functools.cache
def joint(num_durations=3, dtype="float32", dropout=0.0):
    config = JointConfig(width=7, dropout=dropout)
    sizes = dict(frame_width=4, state_width=5, vocab_size=6, num_durations=num_durations)
    return models.build(lambda: Joint(config, **sizes, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))


def inputs(dtype=np.float32):
    rng = np.random.default_rng(0)
    return (jnp.asarray(rng.normal(size=size), dtype) for size in ((2, 3, 4), (2, 4, 5)))


def linear(layer, x):
    return x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])


@pytest.mark.parametrize("num_durations", [3, 0])
def test_all_pairs_follow_the_formula(num_durations):
    """An RNN-T, without durations, has no duration head."""
    model = joint(num_durations)
    frames, states = inputs()
    tokens, durations = jax.jit(type(model).__call__)(model, frames, states)
    assert tokens.shape == (2, 3, 4, 7) and tokens.dtype == jnp.float32
    frames = linear(model.frame_projection, np.asarray(frames))
    states = linear(model.state_projection, np.asarray(states))
    hidden = np.maximum(frames[:, :, None] + states[:, None], 0)
    np.testing.assert_allclose(tokens, linear(model.token_head, hidden), atol=1e-5)
    if num_durations:
        np.testing.assert_allclose(durations, linear(model.duration_head, hidden), atol=1e-5)
    else:
        assert durations is None and model.duration_head is None


def test_heads_of_single_pairs_equal_all_pairs():
    model = joint()
    frames, states = inputs()
    pairs = jax.jit(type(model).__call__)(model, frames, states)
    frames, states = model.project_frames(frames), model.project_states(states)
    for t, u in ((0, 0), (2, 1), (1, 3)):
        for single, every in zip(model.heads(frames[:, t], states[:, u]), pairs, strict=True):
            np.testing.assert_allclose(single, every[:, t, u], atol=1e-6)


@pytest.mark.parametrize("num_durations", [3, 0])
@pytest.mark.parametrize("is_large", [True, False])
def test_heads_in_a_loop_equal_heads(num_durations, is_large, monkeypatch):
    """Also from halves of the token head, of seven inputs here: three and four."""
    monkeypatch.setattr("tdt_jax.models.joint.MANY_LABELS", 7 if is_large else 8)
    model = joint(num_durations)
    frames, states = inputs()
    frames, states = model.project_frames(frames)[:, :2], model.project_states(states)[:, :2]
    for num_rows in (3, 4):
        heads = model.heads_in_loop(num_rows)
        if backend.current() == "cpu":
            assert (heads == model.heads) == (num_rows == 3 or not is_large)
        for a, b in zip(heads(frames, states), model.heads(frames, states), strict=True):
            if a is not b:
                np.testing.assert_allclose(a, b, atol=1e-6)
                assert a.dtype == jnp.float32


def test_logits_are_float32_with_bfloat16():
    """The hidden layer is rounded to bfloat16, but the logits are not."""
    frames, states = inputs(jnp.bfloat16)
    model = joint(dtype="bfloat16")
    with jax.numpy_dtype_promotion("standard"):  # flax adds a bfloat16 bias to float32 products
        tokens, durations = jax.jit(type(model).__call__)(model, frames, states)
    assert tokens.dtype == durations.dtype == jnp.float32
    assert np.any(tokens != tokens.astype(jnp.bfloat16).astype(jnp.float32))
    full = joint()(frames.astype(jnp.float32), states.astype(jnp.float32))
    np.testing.assert_allclose(tokens, full[0], atol=0.1)
    np.testing.assert_allclose(durations, full[1], atol=0.1)


def test_dropout_comes_with_a_key_only():
    model, key = joint(dropout=0.5), functools.partial(jax.random.key, impl="rbg")
    pairs = jax.jit(lambda key: model(*inputs(), key=key)[0])
    np.testing.assert_allclose(pairs(None), joint()(*inputs())[0], atol=1e-6)
    np.testing.assert_array_equal(pairs(key(0)), pairs(key(0)))
    assert np.any(pairs(key(0)) != pairs(None)) and np.any(pairs(key(0)) != pairs(key(1)))


def test_the_gradient_of_the_logits_is_rounded_before_anything_uses_it():
    rng = np.random.default_rng(0)
    x, kernel, bias, gradient = (
        rng.normal(size=size).astype(np.float32) for size in ((9, 4), (4, 5), (5,), (9, 5))
    )
    _, pull = jax.vjp(joints.linear, x.astype("bfloat16"), kernel, bias)
    to_x, to_kernel, to_bias = pull(jnp.asarray(gradient))
    rounded = gradient.astype("bfloat16").astype(np.float32)
    np.testing.assert_allclose(to_bias, rounded.sum(0), rtol=1e-6)
    np.testing.assert_allclose(
        to_kernel, x.astype("bfloat16").astype(np.float32).T @ rounded, atol=1e-5
    )
    assert (to_x.dtype, to_kernel.dtype, to_bias.dtype) == ("bfloat16", "float32", "float32")
