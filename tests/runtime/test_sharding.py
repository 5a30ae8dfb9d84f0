"""The rule that splits parameters, and rows of batches."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tdt_jax.runtime import sharding


def test_the_largest_dimension_that_divides_is_split(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 64)

    def spec(name, *shape):
        return sharding.partition_spec(name, shape, 8)

    assert spec("joint.token_head.kernel", 640, 1024) == PartitionSpec(None, "fsdp")
    assert spec("joint.token_head.kernel", 640, 1025) == PartitionSpec("fsdp")
    assert spec("optimizer.1.0.mu.joint.token_head.kernel", 640, 1025) == PartitionSpec("fsdp")
    layers = "model.encoder.blocks.attention.query.kernel"
    assert spec(layers, 8, 32, 64) == PartitionSpec(None, None, "fsdp")
    assert spec(layers, 64, 32, 7) == PartitionSpec(None, "fsdp")  # never layer from layer
    assert spec("joint.token_head.bias", 63) == PartitionSpec()  # small
    assert spec("x", 641, 1025) == PartitionSpec()  # nothing divides
    assert sharding.partition_spec("x", (640, 1024), 1) == PartitionSpec()


def test_rows_of_a_batch_stay_in_order():
    mesh = sharding.make_mesh(fsdp=2)
    np.testing.assert_array_equal(sharding.local_rows(mesh, 16), np.arange(16))
    batch = {"samples": np.arange(64.0).reshape(16, 4), "num_samples": np.arange(16)}
    for name, array in sharding.shard_batch(batch, mesh).items():
        np.testing.assert_array_equal(array, batch[name])
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}
    parts = sharding.microbatches(np.arange(16), 2, None)
    np.testing.assert_array_equal(parts, [range(0, 16, 2), range(1, 16, 2)])


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="8 devices cannot be split into sets of fsdp=3"):
        sharding.make_mesh(fsdp=3)
    with pytest.raises(ValueError, match="12 cannot be split among 8 devices"):
        sharding.local_rows(sharding.make_mesh(), 12)
    with pytest.raises(ValueError, match="8 cannot be split among 8 devices, in 2 parts"):
        sharding.check_rows(sharding.make_mesh(), 8, 2)


def test_as_many_devices_as_the_batches_can_be_split_among():
    assert sharding.num_usable_devices((32, 16, 10), 1, 1) == 2
    assert sharding.num_usable_devices((32, 16), 1, 1) == 8
    assert sharding.num_usable_devices((32, 16), 4, 4) == 4
    assert sharding.num_usable_devices((24,), 1, 4) == 6
    assert sharding.num_usable_devices((7,), 4, 1) == 4  # and then check_rows refuses


def test_a_model_goes_to_all_accelerators(monkeypatch):
    assert sharding.on_accelerators() is None  # on CPUs
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    placed = sharding.on_accelerators()
    assert placed.is_fully_replicated and placed.device_set == set(jax.local_devices())
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    assert sharding.on_accelerators() is None


def test_local_copies_are_whole_on_every_device(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 64)
    tree = {"a": np.arange(4096.0).reshape(64, 64), "b": np.float32(3)}
    copy = sharding.local_copies(sharding.shard(tree, sharding.make_mesh(fsdp=8)))
    for name, leaf in copy.items():
        assert leaf.is_fully_replicated and leaf.sharding.device_set == set(jax.devices())
        np.testing.assert_array_equal(leaf, tree[name])


def test_shards_and_their_shapes_agree(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 64)
    mesh = sharding.make_mesh(fsdp=4)
    tree = {"blocks": {"kernel": np.arange(256.0).reshape(4, 8, 8)}, "bias": np.arange(8.0)}
    split = sharding.shard(tree, mesh)
    shapes = sharding.sharded_shapes(tree, mesh)
    for array, shape, whole in zip(*map(jax.tree.leaves, (split, shapes, tree)), strict=True):
        assert array.sharding == shape.sharding and array.shape == shape.shape
        np.testing.assert_array_equal(array, whole)
    assert split["blocks"]["kernel"].addressable_shards[0].data.shape == (4, 2, 8)
    assert split["bias"].addressable_shards[0].data.shape == (8,)
