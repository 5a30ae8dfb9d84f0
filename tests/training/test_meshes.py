"""A training step is the same on every mesh, and gathers one layer at a time."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from run_config import get_config

from tdt_jax import presets
from tdt_jax.config import Config
from tdt_jax.runtime import sharding
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.training.step import (
    BatchArrays,
    gradients_and_metrics,
    init_state,
    train_step,
    trained_leaves,
)

ROWS = 16


def config_of(*, fsdp=1, accumulate=1, **model):
    config = get_config()
    encoder = dataclasses.replace(config.model.encoder, width=32, dropout=0.1)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, encoder=encoder, **model),
        training=dataclasses.replace(config.training, fsdp=fsdp, accumulate=accumulate),
    )


@pytest.fixture(autouse=True, scope="module")
def optax_needs_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(autouse=True)
def even_small_arrays_are_split(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 64)


def make_batch():
    rng = np.random.default_rng(0)
    return BatchArrays(
        (rng.normal(size=(ROWS, 12800)) * 0.1).astype(np.float32),
        rng.integers(6400, 12801, ROWS).astype(np.int32),
        rng.integers(0, 40, (ROWS, 5)).astype(np.int32),
        rng.integers(1, 6, ROWS).astype(np.int32),
    )


def train(num_devices, *, num_steps=2, **options):
    """Parameters before and after some steps, the last metrics, and the state where it lives."""
    config = config_of(**options)
    mesh = sharding.make_mesh(jax.devices()[:num_devices], fsdp=config.training.fsdp)
    key = jax.random.key(0)
    placed = sharding.parameter_shardings(jax.eval_shape(lambda: init_state(config, key)), mesh)
    state = jax.jit(init_state, static_argnums=0, out_shardings=placed)(config, key)
    before = jax.tree.map(np.asarray, state.model)
    compiled = train_step._cache_size()
    for _ in range(num_steps):
        batch = sharding.shard_batch(make_batch(), mesh)
        state, metrics = train_step(state, batch, jax.random.key(1), config=config, mesh=mesh)
    assert train_step._cache_size() == compiled + 1, "the step gave back another placement"
    for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(placed), strict=True):
        assert leaf.sharding.is_equivalent_to(expected, leaf.ndim)
    return before, jax.tree.map(np.asarray, state.model), metrics, state


def assert_same_training(result, expected):
    before, parameters, metrics, _ = result
    before_expected, expected_parameters, expected_metrics, _ = expected
    np.testing.assert_allclose(metrics.loss, expected_metrics.loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.transducer, expected_metrics.transducer, rtol=1e-5)
    np.testing.assert_allclose(metrics.gradient_norm, expected_metrics.gradient_norm, rtol=1e-4)
    assert int(metrics.num_labels) == int(expected_metrics.num_labels)
    moved = []
    for start, other_start, a, b in zip(
        *map(jax.tree.leaves, (before, before_expected, parameters, expected_parameters)),
        strict=True,
    ):
        np.testing.assert_array_equal(start, other_start)
        np.testing.assert_allclose(a, b, atol=2e-5)
        moved.append(np.abs(b - start).max())
    assert np.median(moved) > 2e-4


@pytest.fixture(scope="module")
def alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "SMALL", 64)
        return train(1)


@pytest.mark.slow
def test_split_parameters_train_as_whole_ones(alone):
    """4 x 2: the batch in eight, parameters and moments in two."""
    result = train(8, fsdp=2)
    assert_same_training(result, alone)
    state = result[3]
    name = "encoder.blocks.feed_forward1.linear1.kernel"
    for tree in (state.model, state.average, state.optimizer[1][0].mu):
        kernel = named_leaves(tree)[name]
        assert kernel.shape == (2, 32, 64)
        assert kernel.addressable_shards[0].data.shape == (2, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "fsdp"), [(8, 1), (8, 4), (8, 8), (2, 2)])
def test_any_mesh_trains_alike(alone, devices, fsdp):
    assert_same_training(train(devices, fsdp=fsdp), alone)


@pytest.mark.slow
def test_gradients_in_parts_are_those_of_the_parts_together():
    """On any mesh; and without dropout, noise and masks, which each part draws anew, as whole."""
    alone = train(1, accumulate=2)
    assert_same_training(train(8, fsdp=2, accumulate=2), alone)


@pytest.mark.slow
def test_a_batch_in_parts_gives_the_gradient_of_the_whole():
    def plain(accumulate):
        config = config_of(accumulate=accumulate)
        quiet = dataclasses.replace(
            config.augment, noise_probability=0.0, gain=(0.0, 0.0), freq_masks=0, time_masks=0
        )
        features = dataclasses.replace(config.model.features, dither=0.0)
        encoder = dataclasses.replace(config.model.encoder, dropout=0.0, attention_dropout=0.0)
        model = dataclasses.replace(
            config.model,
            features=features,
            encoder=encoder,
            predictor=dataclasses.replace(config.model.predictor, dropout=0.0),
            joint=dataclasses.replace(config.model.joint, dropout=0.0),
        )
        loss = dataclasses.replace(config.loss, omega=0.0)
        config = dataclasses.replace(config, augment=quiet, model=model, loss=loss)
        state = init_state(config, jax.random.key(0))
        return jax.jit(gradients_and_metrics, static_argnums=4)(
            trained_leaves(state, config), state, make_batch(), jax.random.key(1), config
        )

    whole, parts = plain(1), plain(4)
    for a, b in zip(jax.tree.leaves(whole[0]), jax.tree.leaves(parts[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * float(np.abs(a).max() + 1))
    for a, b in zip(whole[1], parts[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_every_large_parameter_of_the_presets_is_split(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 1 << 14)
    for model in (presets.LARGE, presets.PARAKEET_TDT_0_6B_V3):
        config = Config(model=model)
        state = jax.eval_shape(lambda c=config: init_state(c, jax.random.key(0)))
        mesh = sharding.make_mesh(fsdp=8)
        placed = jax.tree.leaves(sharding.parameter_shardings(state, mesh))
        leaves = jax.tree.leaves(state)
        whole = sum(
            x.size for x, s in zip(leaves, placed, strict=True) if s.spec == PartitionSpec()
        )
        assert whole < 0.005 * sum(x.size for x in leaves)


@pytest.mark.slow
def test_layers_are_gathered_one_at_a_time():
    """No collective sees the whole stack, and no activation is gathered."""
    config = config_of(fsdp=8)
    mesh = sharding.make_mesh(fsdp=8)
    shapes = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=jax.sharding.NamedSharding(mesh, sharding.ROWS)
        ),
        make_batch(),
    )
    program = train_step.lower(
        sharding.sharded_shapes(shapes, mesh), batch, jax.random.key(1), config=config, mesh=mesh
    )
    gathered = re.findall(r" = \w+\[([\d,]*)\]\S* all-gather\(", program.compile().as_text())
    sizes = [np.prod([int(n) for n in shape.split(",") if n], initial=1) for shape in gathered]
    parameters = max(x.size for x in jax.tree.leaves(shapes.model))
    assert len(sizes) > 10
    assert max(sizes) <= parameters // config.model.encoder.num_layers * 2
    samples = make_batch().samples
    assert max(sizes) < samples.size // 8
