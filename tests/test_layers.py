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


def test_split():
    assert layers.split(None, 3) == [None] * 3
    keys = [jax.random.key_data(each).tolist() for each in layers.split(key(0), 3)]
    assert len({tuple(each) for each in keys}) == 3
