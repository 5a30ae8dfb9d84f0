"""Training steps that leave parameters as they are: adapters, frozen parts, rates, dtypes.

What the step does is tested on a linear model, what the loss does on a small CTC model, and a
transducer on meshes in slow tests.
"""

import dataclasses

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from tdt_jax.config import (
    AugmentConfig,
    Config,
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    PredictorConfig,
    TuningConfig,
    override,
)
from tdt_jax.models.adapters import (
    adapter_shapes,
    merge_adapters,
    trained_names,
    with_adapters,
)
from tdt_jax.runtime import sharding
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves, num_parameters
from tdt_jax.training import step as steps
from tdt_jax.training.optimizer import make_optimizer
from tdt_jax.training.step import (
    BatchArrays,
    Metrics,
    State,
    init_state,
    train_step,
    trained_leaves,
    trained_model,
)

ROWS = 8


@pytest.fixture(autouse=True, scope="module")
def standard_promotion():
    """optax relies on the standard promotion of dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def make_config(transducer=False, accumulate=1, ema_decay=0.0, **tuning) -> Config:
    encoder = EncoderConfig(
        width=16, num_layers=2, num_heads=2, subsampling_channels=2, feed_forward_factor=1,
        kernel_size=3, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    parts = dict(predictor=None, joint=None)
    if transducer:  # without dropout, which differs between parts of a batch
        parts = dict(
            predictor=PredictorConfig(width=8, dropout=0.0), joint=JointConfig(width=8, dropout=0.0)
        )
    durations = (0, 1, 2) if transducer else None
    features = FeatureConfig(num_mels=8, dither=0.0)
    model = models.config(durations, encoder, features=features, ctc=True, **parts)
    config = Config(model=model, augment=AugmentConfig(freq_masks=0, time_masks=0))
    return dataclasses.replace(
        config,
        loss=dataclasses.replace(config.loss, omega=0.0, ctc_weight=0.5),
        optimizer=dataclasses.replace(
            config.optimizer, schedule="noam", warmup_steps=1, learning_rate=0.01,
            ema_decay=ema_decay,
        ),
        tuning=TuningConfig(**tuning),
        training=dataclasses.replace(config.training, accumulate=accumulate),
    )  # fmt: skip


def make_batch(seed=0) -> BatchArrays:
    rng = np.random.default_rng(seed)
    return BatchArrays(
        rng.normal(size=(ROWS, 8000)).astype(np.float32) * 0.1,
        rng.integers(6000, 8001, ROWS).astype(np.int32),
        rng.integers(0, 6, (ROWS, 3)).astype(np.int32),
        rng.integers(1, 4, ROWS).astype(np.int32),
        np.zeros(ROWS, np.int32),
    )


def start(config: Config, seed=0):
    """A state with random parameters, in numpy; only its structure is traced."""
    shapes = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
    state = models.fill(shapes, seed)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes.optimizer)
    adapters = state.adapters and {name: 0.1 * np.asarray(x) for name, x in state.adapters.items()}
    state = state._replace(step=np.zeros((), np.int32), optimizer=zeros, adapters=adapters)
    return jax.tree.map(np.asarray, state)


def run(config: Config, num_steps=2):
    """The state before and after some steps, and the last metrics."""
    state = before = start(config)
    metrics = None
    for _ in range(num_steps):
        state, metrics = train_step(state, make_batch(), jax.random.key(0), config=config)
    return before, jax.device_get(state), metrics


# The step, of a linear model


def linear_loss(model, batch, key, config, mesh=None):
    """`loss_and_metrics` of two linear layers: the mean square of their outputs."""
    del key, config, mesh
    outputs = batch.samples[:, :5] @ model["encoder"]["kernel"] @ model["ctc"]["kernel"]
    losses = jnp.square(outputs + model["ctc"]["bias"][None]).sum(axis=1)
    zero = jnp.zeros(())
    num_labels = jnp.sum(batch.num_labels)
    mean = losses.sum() / num_labels
    return mean, Metrics(mean, losses, losses, zero, zero, num_labels, zero)


def linear_run(config: Config, monkeypatch, num_steps=2):
    """States of a linear model, before and after each step."""
    monkeypatch.setattr(steps, "loss_and_metrics", linear_loss)
    rng = np.random.default_rng(0)
    shapes = {"encoder.kernel": (5, 4), "ctc.kernel": (4, 3), "ctc.bias": (3,)}
    leaves = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    full, adapted = trained_names(config.tuning, shapes)
    kept = {name: x.astype(config.tuning.base_dtype) for name, x in leaves.items()}
    kept |= {name: leaves[name] for name in full}
    model = {
        "encoder": {"kernel": kept["encoder.kernel"]},
        "ctc": {"kernel": kept["ctc.kernel"], "bias": kept["ctc.bias"]},
    }
    adapters = adapter_shapes({name: shapes[name] for name in adapted}, config.tuning.rank)
    adapters = {name: rng.normal(size=x).astype(np.float32) for name, x in adapters.items()}
    state = State(np.zeros((), np.int32), model, None, None, adapters or None)  # type: ignore
    trained = trained_leaves(state, config)
    average = (
        {name: x.copy() for name, x in trained.items()} if config.optimizer.ema_decay else None
    )
    optimizer = make_optimizer(config.optimizer, config.training.num_steps).init(trained)
    states = [state._replace(average=average, optimizer=optimizer)]
    for i in range(num_steps):
        state, _ = train_step(states[-1], make_batch(i), jax.random.key(0), config=config)
        states.append(jax.device_get(state))
    return states


def test_the_base_stays_as_it_is_and_the_rest_learns(monkeypatch):
    config = make_config(
        rank=2, adapt=("*.kernel",), train=("ctc.bias",), base_dtype="bfloat16", ema_decay=0.9
    )
    before, _, after = linear_run(config, monkeypatch)
    for name, leaf in named_leaves(before.model).items():
        changed = named_leaves(after.model)[name]
        if name == "ctc.bias":
            assert leaf.dtype == np.float32 and np.all(leaf != changed)
        else:
            assert leaf.dtype == jnp.bfloat16
            np.testing.assert_array_equal(leaf, changed, err_msg=name)
    for name, leaf in before.adapters.items():
        assert leaf.dtype == np.float32 and np.all(leaf != after.adapters[name]), name

    # Optimizer and average hold what is trained alone.
    names = {"ctc.bias", *after.adapters}
    assert len(names) == 5
    moments = after.optimizer[1][0]
    assert set(moments.mu) == set(moments.nu) == set(after.average) == names
    assert np.all(after.average["ctc.bias"] != after.model["ctc"]["bias"])

    # The model as trained has the averages, with adapters merged.
    tuned = trained_model(after, config)
    kernel, change = (
        np.asarray(after.model["ctc"]["kernel"], np.float32),
        after.average["ctc.kernel.a"] @ after.average["ctc.kernel.b"],
    )
    assert tuned["ctc"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(tuned["ctc"]["kernel"], np.float32), kernel + 2.0 * change, rtol=0.01
    )
    np.testing.assert_array_equal(tuned["ctc"]["bias"], after.average["ctc.bias"])


def test_the_encoder_waits_and_rates_differ(monkeypatch):
    config = make_config(frozen_steps=1, rates=(("ctc.bias", 0.5),))
    config = override(config, "optimizer.weight_decay=0", "optimizer.clip_norm=1e9")
    states = linear_run(config, monkeypatch)
    first, second, third = (named_leaves(state.model) for state in states)
    np.testing.assert_array_equal(first["encoder.kernel"], second["encoder.kernel"])
    assert np.all(second["encoder.kernel"] != third["encoder.kernel"])
    steps_of = {name: np.abs(second[name] - first[name]) for name in ("ctc.kernel", "ctc.bias")}
    # Adam's first step is the learning rate, 0.01, whatever the gradient.
    np.testing.assert_allclose(steps_of["ctc.kernel"], 0.01, rtol=1e-3)
    np.testing.assert_allclose(steps_of["ctc.bias"], 0.005, rtol=1e-3)


def test_parts_of_a_batch_add_up(monkeypatch):
    whole, parts = (make_config(rank=2, accumulate=n) for n in (1, 4))
    expected, found = (linear_run(config, monkeypatch)[-1] for config in (whole, parts))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), expected.adapters, found.adapters
    )


# The loss, of a CTC model


def test_a_loss_with_adapters_is_that_of_the_merged_model():
    config = make_config(rank=2, base_dtype="bfloat16")
    state = start(config)
    leaves = {name: np.asarray(x, np.float32) for name, x in named_leaves(state.model).items()}
    merged = merge_adapters(leaves, state.adapters, config.tuning.scale)
    model = from_named_leaves(merged, state.model)
    arguments = make_batch(), jax.random.key(0), config
    _, expected = jax.jit(lambda model: steps.loss_and_metrics(model, *arguments))(model)

    @jax.jit
    def tuned(state):
        adapted = with_adapters(state.model, state.adapters, config.tuning.scale)
        return steps.loss_and_metrics(adapted, *arguments)[1]

    np.testing.assert_allclose(tuned(state).ctc, expected.ctc, rtol=1e-5)


def test_a_frozen_encoder_costs_no_gradient():
    """Neither its parameters' gradients nor those of its frames are computed."""
    frozen, whole = make_config(train=("ctc.*",)), make_config()

    def count(config):
        state = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
        step = jax.make_jaxpr(
            lambda s: train_step(s, make_batch(), jax.random.key(0), config=config)
        )
        return str(step(state)).count("dot_general")

    assert count(frozen) < 0.6 * count(whole)


def test_a_state_needs_memory_for_what_is_trained():
    def numbers(config):
        return num_parameters(jax.eval_shape(lambda: init_state(config, jax.random.key(0))))

    whole, adapters, head = (
        make_config(**each) for each in ({}, {"rank": 1}, {"train": ("ctc.*",)})
    )
    base = num_parameters(jax.eval_shape(lambda: init_state(whole, jax.random.key(0))).model)
    assert numbers(whole) == 3 * base + 3
    assert numbers(head) == base + 2 * (16 * 7 + 7) + 3
    assert numbers(adapters) < 1.7 * base


def test_every_block_has_a_rate_of_its_own():
    config = make_config(layer_decay=0.5)
    updates = {"encoder.blocks.attention.key.kernel": jnp.ones((2, 4, 4)), "ctc.bias": jnp.ones(3)}
    scaled = steps.scaled_updates(dict(updates), np.zeros((), np.int32), config)
    np.testing.assert_allclose(scaled["encoder.blocks.attention.key.kernel"][:, 0, 0], [0.5, 1.0])
    np.testing.assert_allclose(scaled["ctc.bias"], 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 2, 4])
def test_adapters_train_alike_on_any_mesh_and_in_parts(fsdp, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 64)
    config = make_config(transducer=True, rank=2, train=("joint.*",), base_dtype="bfloat16")
    optimizer = dataclasses.replace(config.optimizer, learning_rate=1e-3)
    config = dataclasses.replace(config, optimizer=optimizer)
    _, expected, metrics = run(config)
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, fsdp=fsdp, accumulate=2)
    )
    mesh = sharding.make_mesh(jax.devices()[:4], fsdp=fsdp)
    state = sharding.shard(start(config), mesh)
    for _ in range(2):
        batch = sharding.shard_batch(make_batch(), mesh)
        state, other = train_step(state, batch, jax.random.key(0), config=config, mesh=mesh)
    np.testing.assert_allclose(other.loss, metrics.loss, rtol=1e-4)
    for name, leaf in trained_leaves(expected, config).items():
        np.testing.assert_allclose(
            trained_leaves(state, config)[name], leaf, atol=2e-4, err_msg=name
        )


@pytest.mark.slow
def test_a_base_in_bfloat16_has_the_same_curve():
    """Sixty steps of adapters: the losses agree to a percent, and fall."""
    curves = []
    for base_dtype in ("float32", "bfloat16"):
        config = make_config(transducer=True, rank=4, base_dtype=base_dtype)
        state = start(make_config(transducer=True, rank=4))
        model = jax.tree.map(lambda x, dtype=base_dtype: x.astype(dtype), state.model)
        full = {"joint.duration_head.kernel"}  # is trained
        leaves = {
            name: np.asarray(named_leaves(state.model)[name] if name in full else x)
            for name, x in named_leaves(model).items()
        }
        state = state._replace(model=from_named_leaves(leaves, model))
        losses = []
        for i in range(60):
            state, metrics = train_step(state, make_batch(i % 2), jax.random.key(0), config=config)
            losses.append(float(metrics.loss))
        curves.append(losses)
    np.testing.assert_allclose(*curves, rtol=0.01)
    assert curves[1][-1] < 0.9 * curves[1][0]
