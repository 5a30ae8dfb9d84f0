"""Arrays of a pytree by dotted name, such as `encoder.blocks.attention.query.kernel`."""

import jax


def named_leaves(tree) -> dict:
    """The arrays of a pytree by dotted name."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def from_named_leaves(leaves: dict, like):
    """Arrays by name, as a pytree of the structure of `like`."""
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(structure, [leaves[leaf_name(path)] for path, _ in paths])


def leaf_name(path) -> str:
    """The dotted name of a leaf, from its path in the pytree."""
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def num_parameters(model) -> int:
    """How many numbers a model (or any pytree of arrays) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(model))
