"""Attention against its formula, a score at a time; over a window against all with that mask."""

import functools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
import reference_encoder
from flax import nnx

from tdt_jax.models import attention
from tdt_jax.models.layers import padding_mask


def build(**changes):
    config = models.encoder_config(num_heads=4, **changes)
    make = functools.partial(attention.RelativeAttention, config, dtype=jnp.dtype("float32"))
    return models.build(lambda: make(rngs=nnx.Rngs(0)))


def apply(layer, x, lengths, **options):
    left, right = attention.visible_context(layer.context, x.shape[1])
    positions = attention.position_encoding(left, -right, x.shape[2])
    padding = padding_mask(np.asarray(lengths), x.shape[1])
    run = jax.jit(functools.partial(type(layer).__call__, **options))
    return run(layer, x, positions, padding)


def random(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_relative_shift_is_a_gather(num_frames):
    scores = random(2, 3, num_frames, 2 * num_frames - 1)
    shifted = attention.relative_shift(scores)
    assert shifted.shape == (2, 3, num_frames, num_frames)
    for t, s in np.ndindex(num_frames, num_frames):
        np.testing.assert_array_equal(shifted[..., t, s], scores[..., t, num_frames - 1 - t + s])


@pytest.mark.parametrize(("left", "right"), [(4, 4), (4, 0), (1, 4), (0, 1)])
def test_local_shift_is_a_scatter(left, right):
    size = max(left, right)
    scores = random(2, size, left + right + 1)
    shifted = attention.local_shift(scores, size - left, 3 * size)
    expected = np.zeros((2, size, 3 * size), np.float32)
    for t, r in np.ndindex(size, left + right + 1):
        expected[:, t, size - left + t + r] = scores[:, t, r]
    np.testing.assert_array_equal(shifted, expected)


def test_position_encoding():
    """sin and cos in turn, from the furthest past key's distance down to the furthest future's."""
    encoding = attention.position_encoding(5, -3, 8)
    expected = np.stack([reference_encoder.sinusoid(distance, 8) for distance in range(5, -4, -1)])
    np.testing.assert_allclose(encoding, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("context", "use_bias"),
    [
        (None, True),
        (None, False),
        ((2, 1), False),
        ((0, 3), True),
        ((3, 0), True),
        ((9, 9), True),
    ],
)
def test_attention_follows_transformer_xl(context, use_bias):
    layer, x = build(use_bias=use_bias, attention_context=context), random(2, 7, 16)
    x[1, 4:] = 99
    mixed = apply(layer, x, [7, 4])
    np.testing.assert_allclose(mixed[0], reference_encoder.attend(layer, x[0]), atol=1e-5)
    np.testing.assert_allclose(mixed[1, :4], reference_encoder.attend(layer, x[1, :4]), atol=1e-5)


def test_a_context_wider_than_the_utterance_changes_nothing():
    x = random(3, 40, 16)
    full, wide, narrow = jax.device_get(
        [
            apply(build(attention_context=context), x, [40, 23, 0])
            for context in (None, (40, 40), (8, 8))
        ]
    )
    np.testing.assert_allclose(wide, full, atol=1e-5)
    assert np.max(np.abs(narrow - full)) > 0.01


def test_local_attention_drops_and_differentiates():
    layer, x = build(attention_context=(3, 3), attention_dropout=0.5), random(1, 11, 16)
    keys = [jax.random.key(seed, impl="rbg") for seed in (0, 1)]
    one, other = jax.device_get([apply(layer, x, [11], key=key) for key in keys])
    for start in (0, 3, 6, 9):  # in every chunk
        assert np.any(one[:, start : start + 2] != other[:, start : start + 2])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(apply(layer, x, [9])[:, 4])))(x)
    seen = np.any(gradient[0] != 0, axis=-1)
    np.testing.assert_array_equal(seen, [1 <= t <= 7 for t in range(11)])


def test_local_attention_needs_memory_in_proportion_to_length():
    layer = build(attention_context=(8, 8))
    positions = attention.position_encoding(8, -8, 16)

    def temporaries(num_frames):
        x = jax.ShapeDtypeStruct((1, num_frames, 16), jnp.float32)
        padding = jax.ShapeDtypeStruct((1, num_frames), bool)
        run = jax.jit(type(layer).__call__).lower(layer, x, positions, padding).compile()
        return run.memory_analysis().temp_size_in_bytes

    assert temporaries(8000) < 2.2 * temporaries(4000) < 1e7
