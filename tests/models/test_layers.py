"""Masks, dropout and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tdt_jax.models import layers

dropout = jax.jit(layers.dropout, static_argnums=1)


def key(seed):
    """A key whose generator compiles fast."""
    return jax.random.key(seed, impl="rbg")


def test_padding_mask():
    expected = [[True, True, True], [False, True, True], [False, False, False]]
    np.testing.assert_array_equal(layers.padding_mask(np.array([0, 1, 3]), 3), expected)


def test_dropout():
    x = np.ones((100, 100), np.float32)
    assert layers.dropout(x, 0.25, None) is x and layers.dropout(x, 0.0, key(0)) is x
    y = np.asarray(dropout(x, 0.25, key(0)))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(np.mean(y == 0), 0.25, atol=0.02)
    half = jax.ShapeDtypeStruct((100, 100), jnp.bfloat16)
    assert jax.eval_shape(lambda x: layers.dropout(x, 0.25, key(0)), half).dtype == jnp.bfloat16


@pytest.mark.parametrize("draw", [layers.packed_bytes, layers.hashed_bytes])
def test_random_bytes_are_uniform_and_independent(draw):
    """Of their neighbors, of the others of a word (203 = 4 x 51 - 1), and of other keys."""
    draw = jax.jit(draw, static_argnums=1)
    drawn = np.asarray(draw(jax.random.key(1), (64, 203))).astype(int)
    counts = np.bincount(drawn.ravel(), minlength=256)
    expected = drawn.size / 256
    assert len(counts) == 256
    assert np.sum((counts - expected) ** 2 / expected) < 340  # 99.98 % of chi-squared's mass
    other = np.asarray(draw(jax.random.key(2), (64, 203))).astype(int)
    pairs = [(drawn[:, :152], drawn[:, 51:]), (drawn[:, 1:], drawn[:, :-1]), (drawn, other)]
    pairs += [(drawn[1:], drawn[:-1]), (drawn[:, :101], drawn[:, 102:])]
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.04
        for bit in (1, 128):
            assert abs(np.corrcoef((a & bit > 0).ravel(), (b & bit > 0).ravel())[0, 1]) < 0.04


def test_keys_draw_for_their_rows():
    seeds = [2, 3, 4]
    x = np.ones((12, 10), np.float32)
    together = np.asarray(dropout(x, 0.3, jax.vmap(jax.random.key)(np.array(seeds))))
    for i, seed in enumerate(seeds):
        alone = dropout(x[:4], 0.3, jax.random.key(seed))
        np.testing.assert_array_equal(together[4 * i : 4 * i + 4], alone)


def test_split():
    assert layers.split_key(None, 3) == [None] * 3
    keys = [jax.random.key_data(each).tolist() for each in layers.split_key(key(0), 3)]
    assert len({tuple(each) for each in keys}) == 3
