"""Arrays of a pytree by dotted name, such as `encoder.blocks.attention.query.kernel`."""

from collections.abc import Mapping
from typing import Any

import jax


def leaf_name(path: tuple) -> str:
    """Returns the dotted name of a leaf, given its path as `jax.tree_util` writes it."""
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the arrays of a pytree by dotted name."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def from_named_leaves(leaves: Mapping[str, Any], like: Any) -> Any:
    """Returns a pytree of the structure of `like`, with the arrays of `leaves` by dotted name."""
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(structure, [leaves[leaf_name(path)] for path, _ in paths])


def num_parameters(model: Any) -> int:
    """Returns how many numbers a model (or any pytree of arrays) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(model))
