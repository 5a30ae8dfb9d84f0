"""Where arrays live: the mesh, the one rule that splits parameters, and rows across processes.

The mesh has two axes. A batch is split by rows over both; parameters, and with them the optimiser's
state, are split over "fsdp" alone (fully sharded data parallelism: each device holds a share and
gathers a layer when it needs it) and repeated over "data". One axis may be 1.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

ROWS = PartitionSpec(("data", "fsdp"))
WHOLE = PartitionSpec()
SMALL = 1 << 14  # numbers: a smaller array is whole on every device


def make_mesh(devices=None, *, fsdp: int = 1) -> Mesh:
    """A mesh ("data", "fsdp") of all devices (or those given), `fsdp` of them to a set of shares.

    Raises:
      ValueError: if the number of devices is not a multiple of `fsdp`.
    """
    devices = list(jax.devices() if devices is None else devices)
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"{len(devices)} devices cannot be split into sets of fsdp={fsdp}")
    shape = len(devices) // fsdp, fsdp
    return jax.make_mesh(shape, ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices)


def num_usable_devices(sizes, fsdp: int, num_parts: int) -> int:
    """How many of one process's devices can share batches of all those sizes; at least `fsdp`."""
    for number in range(jax.device_count(), fsdp, -1):
        if number % fsdp == 0 and all(size % (number * num_parts) == 0 for size in sizes):
            return number
    return fsdp


def partition_spec(name: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """How a parameter of a dotted name and a shape is split: its largest dimension that divides.

    The layers of a stack (under "blocks") are never split from each other: a loop goes over them.
    The rule holds for whatever has a parameter's name at the end of its own: averages, moments.
    """
    first = 1 if _in_stack(name) else 0
    divisible = [i for i in range(first, len(shape)) if shape[i] % fsdp == 0]
    if fsdp == 1 or math.prod(shape[first:]) < SMALL or not divisible:
        return WHOLE
    longest = max(divisible, key=lambda i: shape[i])
    return PartitionSpec(*[None] * longest, "fsdp")


def _in_stack(name: str) -> bool:
    return "blocks" in name.split(".")


def shardings(tree, mesh: Mesh):
    """The sharding of every array of `tree` (arrays or their shapes), by `rule`."""

    def leaf(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return NamedSharding(mesh, partition_spec(name, x.shape, mesh.shape["fsdp"]))

    return jax.tree_util.tree_map_with_path(leaf, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, WHOLE)


def shard(tree, mesh: Mesh):
    """`tree`, which every process has whole, split by `rule`."""

    def leaf(x, sharding):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(leaf, tree, shardings(tree, mesh))


def abstract(tree, mesh: Mesh):
    """The shapes and shardings that `place` gives, without the arrays."""

    def leaf(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree, shardings(tree, mesh))


def local_copies(tree):
    """Every array of `tree`, however it is split among devices and processes, whole on all of ours.

    All processes must call it at the same time.
    """
    ours = replicated(make_mesh(jax.local_devices()))
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x.sharding, NamedSharding)]
    if leaves:
        tree = _gathered_on(leaves[0].sharding.mesh)(tree)
    return jax.tree.map(lambda x: jax.device_put(x.addressable_data(0), ours), tree)


@functools.lru_cache
def _gathered_on(mesh: Mesh):
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, WHOLE))


def own_rows(mesh: Mesh, size: int) -> np.ndarray:
    """Which rows of a batch of `size` this process's devices hold, in order.

    Raises:
      ValueError: if `size` is not a multiple of the number of devices.
    """
    check_rows(mesh, size)
    spans = NamedSharding(mesh, ROWS).addressable_devices_indices_map((size,)).values()
    return np.concatenate(sorted((np.arange(size)[span] for (span,) in spans), key=min))


def split_batch(batch, mesh: Mesh):
    """Every array of `batch`, split by rows among the devices.

    Of the whole batch [B, ...] every process gives its `own_rows`: all, where there is but one.

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
    """Raise ValueError unless each device has as many rows of each part of a batch of `size`."""
    if size % (mesh.size * num_parts):
        parts = f", in {num_parts} parts" if num_parts > 1 else ""
        raise ValueError(f"a batch of {size} cannot be split among {mesh.size} devices{parts}")


def constrain_rows(tree, mesh: Mesh | None):
    """Inside a jitted function: arrays [B, ...] that must stay split by rows."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, ROWS))


def constrain_replicated(tree, mesh: Mesh | None):
    """Inside a jitted function: small arrays that every device, and so every process, must have."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, WHOLE))


def constrain_parameters(tree, mesh: Mesh | None):
    """Inside a jitted function: arrays that must be split by `rule`."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings(tree, mesh))


def gathered(tree, mesh: Mesh | None, dtype=None):
    """Inside a jitted function: split parameters made whole where they are used.

    Matrices are cast to `dtype`, in which they are used anyway, before they travel; their gradients
    are summed over the devices in it and go back as shares. The layers of a stack stay split: who
    loops over them gathers one at a time.
    """
    if mesh is None or mesh.shape["fsdp"] == 1:
        return tree
    whole = NamedSharding(mesh, WHOLE)

    def leaf(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        spec = partition_spec(name, x.shape, mesh.shape["fsdp"])
        if spec == WHOLE or _in_stack(name):
            return x
        share = NamedSharding(mesh, spec)

        @jax.custom_vjp
        def gather(x):
            x = x if dtype is None else x.astype(dtype)
            return jax.lax.with_sharding_constraint(x, whole)

        def backward(_, gradient):
            gradient = jax.lax.with_sharding_constraint(gradient, share)
            return (gradient.astype(x.dtype),)

        gather.defvjp(lambda x: (gather(x), None), backward)
        return gather(x)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def map_rows(function, mesh: Mesh, *, num_whole: int):
    """`function`, run by every device on its own rows, with nothing exchanged in between.

    Its first `num_whole` arguments are whole on every device, and the gradients in them summed; the
    others, and the result, are split by rows.
    """

    def run(*arguments):
        specs = [WHOLE] * num_whole
        specs += [ROWS] * (len(arguments) - num_whole)
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=tuple(specs),
            out_specs=ROWS,
            check_vma=False,
        )(*arguments)

    return run


def microbatches(tree, num_parts: int, mesh: Mesh | None):
    """Arrays [B, ...] as [num_parts, B / num_parts, ...], each part with rows of every device.

    Row r goes to part r % num_parts: no row leaves its device.

    Raises:
      ValueError: if a device's rows are not a multiple of `num_parts`.
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


on_all = replicated
