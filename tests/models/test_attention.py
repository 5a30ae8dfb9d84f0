"""Attention against its formula, a score at a time; in blocks against all frames with the mask."""

import functools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
import reference_encoder
from flax import nnx

from tdt_jax.models import attention
from tdt_jax.models.attention import AttentionMask
from tdt_jax.models.layers import padding_mask


def build(**changes):
    config = models.encoder_config(num_heads=4, **changes)
    make = functools.partial(attention.RelativeAttention, config, dtype=jnp.dtype("float32"))
    return models.build(lambda: make(rngs=nnx.Rngs(0)))


def apply(layer, x, lengths, mask=None, **options):
    """The attention's output under a mask, which is known when it is traced."""
    blocks = attention.attention_blocks(mask, x.shape[1])
    positions = attention.position_encoding(blocks.furthest, blocks.nearest, x.shape[2])
    padding = padding_mask(np.asarray(lengths), x.shape[1])
    run = jax.jit(functools.partial(type(layer).__call__, mask=mask, **options))
    return run(layer, x, positions, padding)


def random(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_relative_shift_is_a_gather(num_frames):
    scores = random(2, 3, num_frames, 2 * num_frames - 1)
    shifted = attention.relative_shift(scores, 1 - num_frames, num_frames)
    assert shifted.shape == (2, 3, num_frames, num_frames)
    for t, s in np.ndindex(num_frames, num_frames):
        np.testing.assert_array_equal(shifted[..., t, s], scores[..., t, num_frames - 1 - t + s])


@pytest.mark.parametrize(
    ("num_frames", "num_positions", "first", "num_keys"),
    [
        (4, 9, 0, 12), (4, 5, 0, 12), (4, 6, 3, 12), (1, 2, 1, 3),  # a band in a window
        (6, 8, -2, 11), (6, 5, -2, 8), (3, 13, -2, 13), (3, 3, -2, 3), (1, 1, 0, 1),  # chunks
    ],
)  # fmt: skip
def test_relative_shift_is_a_scatter(num_frames, num_positions, first, num_keys):
    """Whatever no position gives is finite."""
    scores = random(2, num_frames, num_positions)
    shifted = np.asarray(attention.relative_shift(scores, first, num_keys))
    assert shifted.shape == (2, num_frames, num_keys) and np.all(np.isfinite(shifted))
    for t, r in np.ndindex(num_frames, num_positions):
        if 0 <= first + t + r < num_keys:
            np.testing.assert_array_equal(shifted[:, t, first + t + r], scores[:, t, r])


def test_position_encoding():
    """sin and cos in turn, from the furthest past key's distance down to the furthest future's."""
    encoding = attention.position_encoding(5, -3, 8)
    expected = np.stack([reference_encoder.sinusoid(distance, 8) for distance in range(5, -4, -1)])
    np.testing.assert_allclose(encoding, expected, atol=1e-6)


MASKS = [
    None,
    AttentionMask(2, 1, 1), AttentionMask(0, 1, 3), AttentionMask(3, 1, 0), AttentionMask(9, 1, 9),
    AttentionMask(2, 2, 0), AttentionMask(3, 3, 0), AttentionMask(0, 2, 0), AttentionMask(0, 1, 0),
    AttentionMask(8, 4, 0), AttentionMask(1, 2, 1), AttentionMask(0, 3, 2), AttentionMask(3, 2, 0),
]  # fmt: skip


def sees(mask):
    """The rule of the reference for a mask: a band, or its chunk and frames on both sides."""
    if mask is None:
        return reference_encoder.everything
    if mask.chunk == 1:
        return reference_encoder.band(mask.left, mask.right)
    return reference_encoder.unified(*mask)


@pytest.mark.parametrize(
    ("mask", "use_bias"), [(mask, i % 3 != 1) for i, mask in enumerate(MASKS)] + [(None, False)]
)
def test_attention_follows_transformer_xl(mask, use_bias):
    layer, x = build(use_bias=use_bias), random(2, 7, 16)
    x[1, 4:] = 99
    mixed, rule = apply(layer, x, [7, 4], mask), sees(mask)
    np.testing.assert_allclose(mixed[0], reference_encoder.attend(layer, x[0], rule), atol=1e-5)
    short = reference_encoder.attend(layer, x[1, :4], rule)
    np.testing.assert_allclose(mixed[1, :4], short, atol=1e-5)


@pytest.mark.parametrize("mask", [AttentionMask(3, 1, 5), AttentionMask(8, 4, 0), (6, 3, 2)])
def test_blocks_equal_full_attention_with_the_mask(mask):
    """A mask that is traced hides scores of all pairs of frames; one that is known saves them."""
    layer, x, lengths = build(), random(3, 40, 16), np.array([40, 23, 0])
    mask = AttentionMask(*mask)
    blocks = apply(layer, x, lengths, mask)
    positions = attention.position_encoding(39, -39, 16)
    attend = jax.jit(lambda mask: layer(x, positions, padding_mask(lengths, 40), mask=mask))
    full = attend(AttentionMask(*map(jnp.int32, mask)))
    np.testing.assert_allclose(blocks, full, atol=1e-5)
    assert attention.attention_blocks(mask, 40) == mask


@pytest.mark.parametrize(
    ("rule", "mask"),
    [
        *((reference_encoder.band(*each), (each[0], 1, each[1])) for each in [(4, 2), (0, 3)]),
        *(
            (reference_encoder.chunked(left, right), (left, right + 1, 0))
            for left, right in [(70, 13), (70, 6), (70, 1), (70, 0), (6, 2), (0, 4), (0, 0)]
        ),
        *((reference_encoder.unified(*each), each) for each in [(9, 2, 1), (0, 7, 13)]),
    ],
)
def test_masks_are_those_of_nemo(rule, mask):
    t, s = np.ogrid[:95, :95]
    mask = AttentionMask(*mask)
    visible = ~np.asarray(mask.hides(t, s))
    np.testing.assert_array_equal(visible, [[rule(i, j) for j in range(95)] for i in range(95)])
    distances = (t - s)[visible]
    assert mask.nearest <= distances.min() and distances.max() <= mask.furthest


@pytest.mark.parametrize(
    ("mask", "num_frames", "size"),
    [
        ((4, 1, 2), 11, 4), ((8, 4, 0), 17, 8), ((9, 4, 1), 23, 12), ((0, 3, 0), 4, 3),
        ((4, 1, 2), 10, 10), ((8, 4, 0), 16, 16), (None, 5, 5),
    ],
)  # fmt: skip
def test_blocks_are_whole_chunks_where_they_save_something(mask, num_frames, size):
    """The longest audio that is one block has as many frames as a block's window."""
    mask = None if mask is None else AttentionMask(*mask)
    blocks = attention.attention_blocks(mask, num_frames)
    assert attention.block_size(blocks) == size
    assert blocks == (mask if size < num_frames else AttentionMask(0, num_frames, 0))


def test_a_context_wider_than_the_utterance_changes_nothing():
    layer, x = build(), random(3, 40, 16)
    masks = None, AttentionMask(40, 1, 40), AttentionMask(8, 1, 8)
    full, wide, narrow = jax.device_get([apply(layer, x, [40, 23, 0], mask) for mask in masks])
    np.testing.assert_allclose(wide, full, atol=1e-5)
    assert np.max(np.abs(narrow - full)) > 0.01


def test_local_attention_drops_and_differentiates():
    layer, mask, x = build(attention_dropout=0.5), AttentionMask(3, 1, 3), random(1, 11, 16)
    keys = [jax.random.key(seed, impl="rbg") for seed in (0, 1)]
    one, other = jax.device_get([apply(layer, x, [11], mask, key=key) for key in keys])
    for start in (0, 3, 6, 9):  # in every block
        assert np.any(one[:, start : start + 2] != other[:, start : start + 2])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(apply(layer, x, [9], mask)[:, 4])))(x)
    seen = np.any(gradient[0] != 0, axis=-1)
    np.testing.assert_array_equal(seen, [1 <= t <= 7 for t in range(11)])


@pytest.mark.parametrize("mask", [AttentionMask(8, 1, 8), AttentionMask(8, 4, 4)])
def test_local_attention_needs_memory_in_proportion_to_length(mask):
    layer = build()
    positions = attention.position_encoding(mask.furthest, mask.nearest, 16)

    def temporaries(num_frames):
        x = jax.ShapeDtypeStruct((1, num_frames, 16), jnp.float32)
        padding = jax.ShapeDtypeStruct((1, num_frames), bool)
        attend = jax.jit(functools.partial(type(layer).__call__, mask=mask))
        run = attend.lower(layer, x, positions, padding).compile()
        return run.memory_analysis().temp_size_in_bytes

    assert temporaries(8000) < 2.2 * temporaries(4000) < 1e7
