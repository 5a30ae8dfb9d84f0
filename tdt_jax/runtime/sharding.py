"""Where arrays live: the mesh, the rule that splits parameters, rows of a batch.

The mesh has two axes, "data" and "fsdp", either of which may be 1. A batch is split by rows over
both. Parameters, and with them the optimizer's state, are split over "fsdp" alone and repeated over
"data" (fully sharded data parallelism: each device holds a shard, and gathers a layer when it needs
it). `partition_spec` is the only rule.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from tdt_jax.runtime.pytree import leaf_name

ROWS = PartitionSpec(("data", "fsdp"))
REPLICATED = PartitionSpec()
SMALL = 1 << 14  # an array of fewer numbers is replicated on every device


def make_mesh(devices: Sequence | None = None, *, fsdp: int = 1) -> Mesh:
    """Returns a mesh ("data", "fsdp") of `devices` (by default all), `fsdp` of them along "fsdp".

    Raises:
      ValueError: if the number of devices is not a multiple of `fsdp`.
    """
    devices = list(jax.devices() if devices is None else devices)
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"{len(devices)} devices cannot be split into sets of fsdp={fsdp}")
    shape = len(devices) // fsdp, fsdp
    return jax.make_mesh(shape, ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices)


def num_usable_devices(batch_sizes: Iterable[int], fsdp: int, num_parts: int) -> int:
    """Returns how many devices of a single process can split all those batches; at least `fsdp`.

    Args:
      fsdp: the result is a multiple of it.
      num_parts: microbatches that each batch is divided into.
    """
    batch_sizes = list(batch_sizes)
    for number in range(jax.device_count(), fsdp, -1):
        if number % fsdp == 0 and all(size % (number * num_parts) == 0 for size in batch_sizes):
            return number
    return fsdp


def partition_spec(name: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Returns the split of a parameter: its largest dimension that `fsdp` divides.

    The layers of a stack (under "blocks") stay together, since a loop runs over them. Averages and
    moments have their parameter's name at the end of their own, so they are split alike.
    """
    first = 1 if _in_stack(name) else 0
    divisible = [i for i in range(first, len(shape)) if shape[i] % fsdp == 0]
    if fsdp == 1 or math.prod(shape[first:]) < SMALL or not divisible:
        return REPLICATED
    longest = max(divisible, key=lambda i: shape[i])
    return PartitionSpec(*[None] * longest, "fsdp")


def _in_stack(name: str) -> bool:
    return "blocks" in name.split(".")


def parameter_shardings(tree: Any, mesh: Mesh) -> Any:
    """Returns the sharding of every array of `tree` (arrays or their shapes), as a pytree."""

    def leaf(path, x):
        return NamedSharding(mesh, partition_spec(leaf_name(path), x.shape, mesh.shape["fsdp"]))

    return jax.tree_util.tree_map_with_path(leaf, tree)


def sharded_shapes(tree: Any, mesh: Mesh) -> Any:
    """Returns the shapes and shardings that `shard` would give the arrays of `tree`."""

    def leaf(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree, parameter_shardings(tree, mesh))


def shard(tree: Any, mesh: Mesh) -> Any:
    """Returns `tree`, of which every process has all, split as parameters are."""

    def leaf(x, sharding):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(leaf, tree, parameter_shardings(tree, mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device has all of."""
    return NamedSharding(mesh, REPLICATED)


def on_accelerators() -> NamedSharding | None:
    """Returns the sharding that puts a model on all accelerators of this process.

    None on CPUs, and with a single accelerator.
    """
    if jax.default_backend() == "cpu" or jax.local_device_count() == 1:
        return None
    return replicated(make_mesh(jax.local_devices()))


on_all = replicated  # its older public name


def local_copies(tree: Any) -> Any:
    """Returns `tree` replicated on this process's devices, however it is split among all.

    All processes must call it together.
    """
    local = replicated(make_mesh(jax.local_devices()))
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x.sharding, NamedSharding)]
    if leaves:
        tree = _replicate_on(leaves[0].sharding.mesh)(tree)
    return jax.tree.map(lambda x: jax.device_put(x.addressable_data(0), local), tree)


@functools.lru_cache
def _replicate_on(mesh: Mesh):
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def local_rows(mesh: Mesh, size: int) -> np.ndarray:
    """Returns the sorted indices of the rows of a batch of `size` that this process's devices hold.

    Raises:
      ValueError: if `size` is not a multiple of the number of devices.
    """
    check_rows(mesh, size)
    indices = NamedSharding(mesh, ROWS).addressable_devices_indices_map((size,)).values()
    return np.sort(np.concatenate([np.arange(size)[index] for index in indices]))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Returns the arrays [B, ...] of `batch` split by rows among the devices.

    Every process passes its `local_rows` of the batch: all, if there is one process.

    Raises:
      ValueError: if B is not a multiple of the number of devices.
    """
    sharding = NamedSharding(mesh, ROWS)
    num_local = len(sharding.addressable_devices)

    def leaf(x):
        size = len(x) * mesh.size // num_local
        check_rows(mesh, size)
        shape = (size, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, np.asarray(x), shape)

    return jax.tree.map(leaf, batch)


def check_rows(mesh: Mesh, size: int, num_parts: int = 1) -> None:
    """Raises ValueError unless a batch of `size` splits evenly among devices and microbatches."""
    if size % (mesh.size * num_parts):
        parts = f", in {num_parts} parts" if num_parts > 1 else ""
        raise ValueError(f"a batch of {size} cannot be split among {mesh.size} devices{parts}")


# Within jitted functions.


def constrain_rows(tree: Any, mesh: Mesh | None) -> Any:
    """Returns `tree`, whose arrays [B, ...] the compiler must keep split by rows."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, ROWS))


def constrain_replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Returns `tree`, whose (small) arrays the compiler must replicate on every device."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def constrain_parameters(tree: Any, mesh: Mesh | None) -> Any:
    """Returns `tree`, whose arrays the compiler must keep split as parameters are."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, parameter_shardings(tree, mesh))


def gather_parameters(tree: Any, mesh: Mesh | None, dtype: DTypeLike | None = None) -> Any:
    """Returns `tree` with its split parameters replicated, for use.

    Matrices are cast to `dtype`, in which they are used anyway, before they are gathered; their
    gradients are summed over the devices in it and split again. The layers of a stack stay split:
    the loop over them gathers one at a time.
    """
    if mesh is None or mesh.shape["fsdp"] == 1:
        return tree

    def leaf(path, x):
        name = leaf_name(path)
        spec = partition_spec(name, x.shape, mesh.shape["fsdp"])
        if spec == REPLICATED or _in_stack(name):
            return x

        @jax.custom_vjp
        def gather(x):
            x = x if dtype is None else x.astype(dtype)
            return jax.lax.with_sharding_constraint(x, replicated(mesh))

        def backward(_, gradient):
            gradient = jax.lax.with_sharding_constraint(gradient, NamedSharding(mesh, spec))
            return (gradient.astype(x.dtype),)

        gather.defvjp(lambda x: (gather(x), None), backward)
        return gather(x)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def map_rows(function: Callable, mesh: Mesh, *, num_replicated: int) -> Callable:
    """Returns `function` so that every device computes it of its own rows, without communication.

    The first `num_replicated` arguments are replicated, and their gradients summed; the others, and
    the result, are split by rows.
    """

    def run(*arguments):
        num_split = len(arguments) - num_replicated
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(*[REPLICATED] * num_replicated, *[ROWS] * num_split),
            out_specs=ROWS,
            check_vma=False,
        )(*arguments)

    return run


def microbatches(tree: Any, num_parts: int, mesh: Mesh | None) -> Any:
    """Returns the arrays [B, ...] of `tree` as [num_parts, B / num_parts, ...].

    Row r goes to part r % num_parts, so that every part has rows of every device, and no row leaves
    its device.

    Raises:
      ValueError: if the rows of a device are not a multiple of `num_parts`.
    """

    def leaf(x):
        size = len(x)
        if mesh is not None:
            check_rows(mesh, size, num_parts)
        x = jnp.swapaxes(x.reshape(size // num_parts, num_parts, *x.shape[1:]), 0, 1)
        if mesh is None or mesh.size == 1:
            return x
        spec = PartitionSpec(None, *ROWS)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    return jax.tree.map(leaf, tree)
