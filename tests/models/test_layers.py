"""Masks, dropout and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tdt_jax.models import layers


def key(seed):
    """A key whose generator compiles fast."""
    return jax.random.key(seed, impl="rbg")


def test_padding_mask():
    expected = [[True, True, True], [False, True, True], [False, False, False]]
    np.testing.assert_array_equal(layers.padding_mask(np.array([0, 1, 3]), 3), expected)


def test_dropout():
    x = jnp.ones((100, 100))
    assert layers.dropout(x, 0.25, None) is x and layers.dropout(x, 0.0, key(0)) is x
    y = layers.dropout(x, 0.25, key(0))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(np.mean(y == 0), 0.25, atol=0.02)
    assert layers.dropout(x.astype(jnp.bfloat16), 0.25, key(0)).dtype == jnp.bfloat16


@pytest.mark.parametrize("draw", [layers.packed_bytes, layers.hashed_bytes])
def test_random_bytes_are_uniform_and_independent(draw):
    """Of each other, of their neighbours, of those of a word (203 = 4 x 51 - 1), of other keys."""
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
    keys = jax.random.split(jax.random.key(2), 3)
    x = jnp.ones((12, 10))
    together = layers.dropout(x, 0.3, keys)
    for i in range(3):
        np.testing.assert_array_equal(
            together[4 * i : 4 * i + 4], layers.dropout(x[:4], 0.3, keys[i])
        )


def test_split():
    assert layers.split_key(None, 3) == [None] * 3
    keys = [jax.random.key_data(each).tolist() for each in layers.split_key(key(0), 3)]
    assert len({tuple(each) for each in keys}) == 3
