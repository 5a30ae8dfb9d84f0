"""Masks, dropout and keys."""

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax import layers


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


def test_dropout_of_neighbours_is_independent():
    """Four numbers share a random word; every byte of it is uniform, and none tells of another."""
    y = np.asarray(layers.dropout(jnp.ones((64, 203)), 0.5, jax.random.key(1))) > 0
    quarters = [y[:, i : i + 50] for i in (0, 51, 102, 153)]  # of the same words
    for i, a in enumerate(quarters):
        np.testing.assert_allclose(np.mean(a), 0.5, atol=0.03)
        for b in quarters[:i]:
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.06


def test_keys_draw_for_their_rows():
    keys = jax.random.split(jax.random.key(2), 3)
    x = jnp.ones((12, 10))
    together = layers.dropout(x, 0.3, keys)
    for i in range(3):
        np.testing.assert_array_equal(
            together[4 * i : 4 * i + 4], layers.dropout(x[:4], 0.3, keys[i])
        )


def test_split():
    assert layers.split(None, 3) == [None] * 3
    keys = [jax.random.key_data(each).tolist() for each in layers.split(key(0), 3)]
    assert len({tuple(each) for each in keys}) == 3
