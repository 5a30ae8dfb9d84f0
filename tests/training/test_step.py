"""Training steps: what they learn, count, average, and refuse."""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from run_config import get_config

import tdt_jax as tdt
from tdt_jax.config import JointConfig, LossConfig, ModelConfig, PredictorConfig
from tdt_jax.data.utterance import Utterance, collate
from tdt_jax.losses.ctc import ctc_loss
from tdt_jax.models.joint import Joint
from tdt_jax.models.predictor import Predictor
from tdt_jax.runtime import sharding
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.training.step import BatchArrays, init_state, loss_and_metrics, train_step


@pytest.fixture(autouse=True, scope="module")
def standard_promotion():
    """optax counts on the standard promotion of dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Toy(NamedTuple):
    """A transducer without an encoder."""

    predictor: Predictor
    joint: Joint


class Decodable(nnx.Module):
    def __init__(self, toy, config):
        self.predictor, self.joint, self.config = toy.predictor, toy.joint, config


@pytest.mark.parametrize("durations", [(0, 1, 2, 3, 4), None])
def test_toy_task_copies_eight_labels(durations):
    """Frames that spell 8 labels amid silence, 200 steps, and the decoder reads them exactly."""
    vocab, batch, size, num_labels = 10, 16, 24, 8
    rngs = nnx.Rngs(0)
    config = ModelConfig(vocab_size=vocab, durations=durations)
    toy = Toy(
        Predictor(PredictorConfig(width=32), vocab, dtype=jnp.float32, rngs=rngs),
        Joint(
            JointConfig(width=64),
            frame_width=vocab + 1,
            state_width=32,
            vocab_size=vocab,
            num_durations=len(durations or ()),
            dtype=jnp.float32,
            rngs=rngs,
        ),
    )

    def sample(key):
        """Each label in a frame of its own, at random places, silence in the others."""
        label_key, place_key = jax.random.split(key)
        # Without an encoder a frame cannot tell whether its label was read: no label repeats.
        steps = jax.random.randint(label_key, (batch, num_labels), 1, vocab)
        labels = jnp.cumsum(steps, axis=1) % vocab
        order = jax.vmap(lambda k: jax.random.permutation(k, size))(
            jax.random.split(place_key, batch)
        )
        places = jnp.sort(order[:, :num_labels], axis=1)
        spoken = jnp.full((batch, size), vocab).at[jnp.arange(batch)[:, None], places].set(labels)
        return jax.nn.one_hot(spoken, vocab + 1), labels, places

    lengths = jnp.full((batch,), size), jnp.full((batch,), num_labels)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-2, 200))

    @jax.jit
    def step(toy, state, key):
        frames, labels, _ = sample(key)

        def objective(toy):
            states = toy.predictor(labels)
            return tdt.transducer_loss(
                toy.joint, frames, states, labels, *lengths, durations=durations, chunk=24
            ).mean()

        updates, state = optimizer.update(jax.grad(objective)(toy), state, toy)
        return optax.apply_updates(toy, updates), state

    state = optimizer.init(toy)
    for i in range(200):
        toy, state = step(toy, state, jax.random.key(i))
    frames, labels, _ = sample(jax.random.key(1000))
    hypothesis = tdt.greedy_decode(Decodable(toy, config), frames, lengths[0])
    np.testing.assert_array_equal(hypothesis.num_labels, lengths[1])
    np.testing.assert_array_equal(hypothesis.labels[:, :num_labels], labels)
    if durations is None:
        np.testing.assert_array_equal(hypothesis.num_steps, size + num_labels)
    else:
        assert np.all(hypothesis.num_steps < size + num_labels)


def make_batch(seed=0, batch=8, num_samples=40960, num_labels=6, vocab=40):
    rng = np.random.default_rng(seed)
    batch = BatchArrays(
        rng.normal(size=(batch, num_samples)).astype(np.float32) * 0.1,
        rng.integers(num_samples // 2, num_samples + 1, batch).astype(np.int32),
        rng.integers(0, vocab, (batch, num_labels)).astype(np.int32),
        rng.integers(0, num_labels + 1, batch).astype(np.int32),
    )
    return jax.tree.map(jnp.asarray, batch)


@pytest.fixture(scope="module")
def trained():
    """The state before, after one and after four steps, with the metrics."""
    config, key = get_config(), jax.random.key(0)
    state, metrics = init_state(config, key), []
    states = [jax.tree.map(jnp.copy, state)]
    for i in range(4):
        state, metric = train_step(state, make_batch(i), key, config=config)
        metrics.append(metric)
        states.append(jax.tree.map(jnp.copy, state))
    return config, states, metrics


def test_train_step_changes_every_parameter(trained):
    _, states, metrics = trained
    assert int(states[-1].step) == 4
    for before, after in zip(
        jax.tree.leaves(states[0].model), jax.tree.leaves(states[-1].model), strict=True
    ):
        assert np.any(np.asarray(before) != np.asarray(after))
        assert np.all(np.isfinite(after))
    assert all(np.isfinite(m.loss) and m.num_impossible == 0 for m in metrics)


def test_average_follows_the_parameters(trained):
    config, states, _ = trained
    decays = [min(config.optimizer.ema_decay, (1 + i) / (10 + i)) for i in range(4)]
    expected = np.asarray(states[0].model.joint.token_head.kernel[...], np.float64)
    for decay, state in zip(decays, states[1:], strict=True):
        expected = decay * expected + (1 - decay) * np.asarray(
            state.model.joint.token_head.kernel[...]
        )
    np.testing.assert_allclose(states[-1].average.joint.token_head.kernel[...], expected, atol=1e-6)


def test_a_step_is_a_function_of_state_batch_and_key(trained):
    config, states, _ = trained
    again, _ = train_step(
        jax.tree.map(jnp.copy, states[2]), make_batch(2), jax.random.key(0), config=config
    )
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(states[3]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_eight_devices_train_as_one(trained):
    """The batch split among 8 devices gives the parameters that one device gives."""
    config, states, metrics = trained
    mesh = sharding.make_mesh()
    state = sharding.shard(jax.tree.map(jnp.copy, states[0]), mesh)
    batch = sharding.shard_batch(make_batch(0), mesh)
    state, metric = train_step(state, batch, jax.random.key(0), config=config, mesh=mesh)
    np.testing.assert_allclose(metric.loss, metrics[0].loss, rtol=1e-5)
    kernel = state.model.encoder.blocks.feed_forward1.linear1.kernel[...]
    expected = states[1].model.encoder.blocks.feed_forward1.linear1.kernel[...]
    np.testing.assert_allclose(kernel, expected, atol=2e-4)  # Adam's first step has size 2e-4
    np.testing.assert_allclose(metric.gradient_norm, metrics[0].gradient_norm, rtol=1e-4)


@pytest.mark.parametrize("durations", [(0, 1, 2), None])
def test_every_device_does_its_own_rows_of_the_loss(durations):
    """Nothing is exchanged but the sum of the gradients in the joint, and they are those of one."""
    joint = init_state(plain(durations=durations), jax.random.key(0)).model.joint
    mesh = sharding.make_mesh()
    rng = np.random.default_rng(0)
    width, state_width = joint.frame_projection.in_features, joint.state_projection.in_features
    rows = (
        jnp.asarray(rng.normal(size=(8, 12, width)), jnp.float32),
        jnp.asarray(rng.normal(size=(8, 6, state_width)), jnp.float32),
        jnp.asarray(rng.integers(0, 8, (8, 5)), jnp.int32),
        jnp.asarray(rng.integers(6, 13, 8), jnp.int32),
        jnp.asarray(rng.integers(0, 6, 8), jnp.int32),
    )

    def losses(joint, *rows):
        return tdt.transducer_loss(joint, *rows, durations=durations)

    apart = sharding.map_rows(losses, mesh, num_replicated=1)
    both = [
        jax.jit(jax.value_and_grad(lambda *x, f=f: f(*x).sum(), argnums=(0, 1, 2)))
        for f in (losses, apart)
    ]
    split = sharding.shard(joint, mesh), *sharding.shard_batch(rows, mesh)
    compiled = both[1].lower(*split).compile()
    exchanges = re.findall(r"(all-\w+|collective-\w+|reduce-scatter)\(", compiled.as_text())
    assert set(exchanges) == {"all-reduce"}
    for a, b in zip(
        jax.tree.leaves(both[0](joint, *rows)), jax.tree.leaves(compiled(*split)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(ValueError, match="6 cannot be split among 8"):
        sharding.shard_batch(make_batch(batch=6), sharding.make_mesh())


def plain(**changes):
    """The tiny configuration without augmentation, dropout and omega."""
    config = get_config()
    model = dataclasses.replace(
        config.model,
        encoder=dataclasses.replace(config.model.encoder, dropout=0.0, attention_dropout=0.0),
        features=dataclasses.replace(config.model.features, dither=0.0),
        **changes,
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            model,
            predictor=dataclasses.replace(model.predictor, dropout=0.0),
            joint=dataclasses.replace(model.joint, dropout=0.0),
        ),
        augment=tdt.AugmentConfig(freq_masks=0, time_masks=0),
        loss=LossConfig(omega=0.0, ctc_weight=0.3),
    )


jitted_loss = jax.jit(loss_and_metrics, static_argnums=3)


def test_impossible_utterances_and_empty_rows_do_not_count():
    """The loss is the sum over the others, per label of theirs; the impossible are counted."""
    config = plain(durations=(1, 2))
    model = init_state(config, jax.random.key(0)).model
    batch = make_batch()
    num_samples = batch.num_samples.at[3].set(1280).at[5].set(0)  # row 3: one frame, six labels
    num_labels = batch.num_labels.at[3].set(6).at[5].set(0)
    batch = batch._replace(num_samples=num_samples, num_labels=num_labels)
    _, metrics = jitted_loss(model, batch, jax.random.key(0), config)
    assert int(metrics.num_impossible) == 1
    rows = np.delete(np.arange(8), [3, 5])
    expected = 0.7 * metrics.transducer[rows].sum() + 0.3 * metrics.ctc[rows].sum()
    np.testing.assert_allclose(metrics.loss, expected / num_labels[rows].sum(), rtol=1e-5)


def test_arrays_of_a_batch_are_all_of_them():
    utterance = Utterance("a", np.ones(900, np.float32), "one", num_leading_samples=300)
    batch = collate([utterance], [[3, 4]], tdt.Bucket(1.0, 5, 2), sample_rate=16000)
    arrays = BatchArrays.of(batch)
    assert arrays.num_leading_samples.tolist() == [300, 0]
    assert arrays.num_samples.tolist() == [900, 0]
    assert arrays.labels is batch.labels and arrays.num_labels.tolist() == [2, 0]


def test_a_bucket_of_one_frame_trains():
    """Durations longer than the bucket, labels without frames, and a single feature frame."""
    config = plain(durations=(0, 1, 2, 3, 4))
    random = np.random.default_rng(0)
    said = {"a": (1280, [1, 2]), "b": (640, [3]), "c": (160, [4]), "d": (80, [5])}
    utterances = [
        Utterance(name, 0.1 * random.normal(size=size), "") for name, (size, _) in said.items()
    ]
    labels = [labels for _, labels in said.values()]
    batch = BatchArrays.of(collate(utterances, labels, tdt.Bucket(0.08, 2, 6), sample_rate=16000))
    state = init_state(config, jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, batch)
    state, metrics = train_step(state, batch, jax.random.key(0), config=config)
    assert batch.samples.shape == (6, 1280)
    assert metrics.num_impossible == 2 and metrics.num_labels == 3
    assert np.isfinite(metrics.loss) and metrics.loss > 0
    assert 0 < metrics.gradient_norm < np.inf
    for leaf in jax.tree.leaves(state.model):
        assert np.all(np.isfinite(leaf))


def test_no_label_is_trained_in_the_lead():
    config = plain()
    model = init_state(config, jax.random.key(0)).model
    batch = make_batch()
    lead = batch.num_samples // 3
    led = batch._replace(num_leading_samples=lead)
    _, metrics = jitted_loss(model, led, jax.random.key(0), config)
    features, num_features = tdt.log_mel(batch.samples, batch.num_samples)
    frames, num_frames = tdt.encode(model, features, num_features)
    given = model.joint, frames, model.predictor(batch.labels), batch.labels, num_frames
    options = dict(durations=config.model.durations, sigma=config.loss.sigma)
    expected, free = (
        tdt.transducer_loss(*given, batch.num_labels, lead=lead, **options)
        for lead in (lead // 1280, None)
    )
    np.testing.assert_allclose(metrics.transducer, expected, rtol=1e-4)
    said = np.asarray(batch.num_labels) > 0
    assert said.sum() > 4 and np.all((expected > 1.001 * free) == said)


def test_a_nan_shows_in_the_loss_of_its_row():
    config = plain(durations=(1, 2))
    model = init_state(config, jax.random.key(0)).model
    batch = make_batch()
    batch = batch._replace(samples=batch.samples.at[2].set(jnp.nan))
    _, metrics = jitted_loss(model, batch, jax.random.key(0), config)
    assert np.isnan(metrics.loss)
    per_row = np.asarray(metrics.transducer + metrics.ctc)
    assert np.flatnonzero(~np.isfinite(per_row)).tolist() == [2]


@pytest.mark.slow
def test_omega_trains_the_token_head_as_an_rnnt():
    config = plain()
    config = dataclasses.replace(config, loss=LossConfig(omega=1.0))
    model = init_state(config, jax.random.key(0)).model
    batch, key = make_batch(), jax.random.key(0)
    gradients, metrics = jax.jit(jax.grad(loss_and_metrics, has_aux=True), static_argnums=3)(
        model, batch, key, config
    )
    assert not np.any(gradients.joint.duration_head.kernel[...])
    features, num_features = tdt.log_mel(batch.samples, batch.num_samples)
    frames, num_frames = tdt.encode(model, features, num_features)
    tokens, _ = model.joint(frames, model.predictor(batch.labels))
    expected = tdt.rnnt_loss(tokens, batch.labels, num_frames, batch.num_labels)
    np.testing.assert_allclose(metrics.transducer, expected, rtol=1e-4)


def test_ctc_loss_of_what_does_not_fit_is_zero():
    logits = jnp.ones((3, 4, 4))
    labels = jnp.array([[1, 1, 2], [1, 2, 3], [1, 1, 1]])
    losses = ctc_loss(logits, jnp.array([4, 4, 4]), labels, jnp.array([3, 3, 3]), blank=3)
    assert losses[0] > 0 and losses[1] > 0 and losses[2] == 0


@pytest.mark.slow
def test_a_ctc_model_trains_by_its_only_loss():
    """What does not fit is counted and left out, as in a transducer's loss."""
    config = plain(durations=None)
    model = dataclasses.replace(config.model, predictor=None, joint=None)
    config = dataclasses.replace(config, model=model, loss=LossConfig())
    model = init_state(config, jax.random.key(0)).model
    batch = make_batch()
    batch = batch._replace(num_samples=batch.num_samples.at[3].set(1280))
    (gradients, metrics) = jax.jit(jax.grad(loss_and_metrics, has_aux=True), static_argnums=3)(
        model, batch, jax.random.key(0), config
    )
    assert int(metrics.num_impossible) == 1
    rows = np.delete(np.arange(8), 3)
    expected = metrics.ctc[rows].sum() / batch.num_labels[rows].sum()
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-5)
    for name, leaf in named_leaves(gradients).items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf), name
    _, after = train_step(
        init_state(config, jax.random.key(0)), batch, jax.random.key(0), config=config
    )
    assert np.isfinite(after.loss)
