"""Where arrays live: a mesh of all devices, parameters on each, batches split among them."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(devices=None) -> Mesh:
    """A one-dimensional data-parallel mesh of all devices (or those given)."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicate(tree, mesh: Mesh):
    """Every array of `tree` whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch, mesh: Mesh):
    """Every array of `batch`, [B, ...], split by rows among the devices.

    Raises:
      ValueError: if B is not a multiple of the number of devices.
    """
    size = len(jax.tree.leaves(batch)[0])
    if size % mesh.size:
        raise ValueError(f"a batch of {size} cannot be split among {mesh.size} devices")
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def on_own_rows(function, mesh: Mesh, *, num_whole: int):
    """`function`, run by every device on its own rows, with nothing exchanged in between.

    Its first `num_whole` arguments are whole on every device, and the gradients in them summed; the
    others, and the result, are split by rows.
    """

    def run(*arguments):
        specs = [PartitionSpec()] * num_whole
        specs += [PartitionSpec("data")] * (len(arguments) - num_whole)
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=tuple(specs),
            out_specs=PartitionSpec("data"),
            check_vma=False,
        )(*arguments)

    return run
