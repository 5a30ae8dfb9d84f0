"""Arrays by dotted name."""

import numpy as np
from flax import nnx

from tdt_jax.runtime.pytree import from_named_leaves, named_leaves, num_parameters


def test_leaves_have_dotted_names_and_come_back():
    tree = {"joint": {"kernel": nnx.Param(np.ones((2, 3)))}, "bias": np.zeros(4)}
    leaves = named_leaves(tree)
    assert {name: leaf.shape for name, leaf in leaves.items()} == {
        "joint.kernel": (2, 3), "bias": (4,)
    }  # fmt: skip
    doubled = from_named_leaves({name: 2 * leaf for name, leaf in leaves.items()}, tree)
    np.testing.assert_array_equal(doubled["joint"]["kernel"][...], np.full((2, 3), 2))
    assert num_parameters(doubled) == 10
