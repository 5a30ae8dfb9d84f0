"""Training steps: what they learn, count, average, and refuse.

The model is as small as can be, and one compiled gradient of its loss serves most tests. What
`train_step` itself does (optimizer, average, keys, devices) is tested on a linear model instead.
"""

import dataclasses
import itertools
import re
from importlib.metadata import version
from typing import NamedTuple

import jax
import jax.numpy as jnp
import models
import numpy as np
import optax
import pytest
from flax import nnx
from run_config import get_config

import tdt_jax as tdt
from tdt_jax.config import (
    Config,
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PredictorConfig,
)
from tdt_jax.data.utterance import Utterance, collate
from tdt_jax.losses.ctc import ctc_loss
from tdt_jax.models.joint import Joint
from tdt_jax.models.predictor import Predictor
from tdt_jax.runtime import backend, sharding
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.training import step as steps
from tdt_jax.training.step import BatchArrays, Metrics, State, init_state, train_step


@pytest.fixture(autouse=True, scope="module")
def standard_promotion():
    """optax relies on the standard promotion of dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def small_config(**changes) -> Config:
    """The smallest model, without dropout, augmentation and omega: its loss is a plain function."""
    options = dict(
        vocab_size=6,
        durations=(1, 2),
        features=FeatureConfig(num_mels=8, dither=0.0),
        encoder=EncoderConfig(
            width=8, num_layers=1, num_heads=2, subsampling_channels=2, feed_forward_factor=1,
            kernel_size=3, use_bias=False, remat=False, dropout=0.0, attention_dropout=0.0,
        ),
        predictor=PredictorConfig(width=8, num_layers=1, dropout=0.0),
        joint=JointConfig(width=8, dropout=0.0),
        ctc=True,
    )  # fmt: skip
    model = ModelConfig(**{**options, **changes})
    return Config(
        model=model,
        augment=tdt.AugmentConfig(freq_masks=0, time_masks=0),
        loss=LossConfig(omega=0.0, ctc_weight=0.3 if model.ctc else 0.0),
    )


def make_batch(seed=0, batch=8, num_samples=16000, num_labels=6, vocab=6) -> BatchArrays:
    """Noise with random labels, in numpy."""
    rng = np.random.default_rng(seed)
    return BatchArrays(
        rng.normal(size=(batch, num_samples)).astype(np.float32) * 0.1,
        rng.integers(num_samples // 2, num_samples + 1, batch).astype(np.int32),
        rng.integers(0, vocab, (batch, num_labels)).astype(np.int32),
        rng.integers(0, num_labels + 1, batch).astype(np.int32),
        np.zeros(batch, np.int32),
    )


def changed(array, **values):
    """A copy of an array with other values in some rows, as in changed(x, row3=7)."""
    array = array.copy()
    for row, value in values.items():
        array[int(row.removeprefix("row"))] = value
    return array


# The loss


class Gradient(NamedTuple):
    """Value and gradient of the loss of the smallest model: traced, lowered or compiled."""

    config: Config
    model: tdt.Transducer
    program: jax.stages.Traced | jax.stages.Lowered | jax.stages.Compiled

    def __call__(self, batch):
        """The metrics of a batch, and the gradient by name, in numpy."""
        (_, metrics), gradient = self.program(self.model, batch, jax.random.key(0))
        return jax.device_get((metrics, named_leaves(gradient)))


def trace_gradient(config: Config, batch: BatchArrays) -> Gradient:
    model = models.numpy_model(models.transducer(config.model))
    gradient = jax.jit(
        jax.value_and_grad(steps.loss_and_metrics, has_aux=True), static_argnums=(3,)
    )
    return Gradient(config, model, gradient.trace(model, batch, jax.random.key(0), config))


@pytest.fixture(scope="module")
def traced() -> Gradient:
    return trace_gradient(small_config(), make_batch())


@pytest.fixture(scope="module")
def lowered(traced) -> Gradient:
    return traced._replace(program=traced.program.lower())


@pytest.fixture(scope="module")
def compiled(lowered) -> Gradient:
    return lowered._replace(program=lowered.program.compile())


def test_a_gradient_has_the_structure_of_the_model(traced):
    (loss, metrics), gradient = traced.program.out_info
    assert loss.shape == () and loss.dtype == jnp.float32
    assert metrics.transducer.shape == metrics.ctc.shape == (8,)
    assert jax.tree.structure(gradient) == jax.tree.structure(traced.model)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(traced.model), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_a_language_prompt_is_trained():
    """By its default slot: the loss depends on no other."""
    prompt = tdt.PromptConfig(num_slots=5, width=12, default=3)
    config = small_config(predictor=None, joint=None, durations=None, prompt=prompt)
    loss = jax.jit(lambda *inputs: steps.loss_and_metrics(*inputs, config)[0])

    def with_slot(slot):
        model = models.numpy_model(models.transducer(config.model))
        kernel = np.array(model.prompt.linear1.kernel[...])
        kernel[8 + slot] += 1
        model.prompt.linear1.kernel = nnx.Param(kernel)
        return float(loss(model, make_batch(), jax.random.key(0)))

    assert with_slot(0) == with_slot(4) != with_slot(3)


def test_a_step_does_not_wait_for_the_host(lowered):
    assert "callback" not in lowered.program.as_text()


def test_every_parameter_has_a_gradient(compiled):
    metrics, gradient = compiled(make_batch())
    for name, leaf in gradient.items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf), name
    assert metrics.num_impossible == 0 and 0 < metrics.loss < np.inf


@pytest.mark.slow
def test_a_causal_model_trains_in_a_context_drawn_by_the_key():
    """Every parameter has a gradient, and the loss is that of the context."""
    config, batch = small_config(ctc=False), make_batch(batch=4)
    encoder = dataclasses.replace(
        config.model.encoder, chunked_contexts=((4, 1), (0, 1)), convolution_context=(2, 0),
        causal_subsampling=True,
    )  # fmt: skip
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder))
    gradient = trace_gradient(config, batch)
    compiled = gradient.program.lower().compile()
    losses = set()
    for seed in range(8):
        (loss, _), leaves = compiled(gradient.model, batch, jax.random.key(seed))
        losses.add(round(float(loss), 4))
        for name, leaf in named_leaves(leaves).items():
            assert np.all(np.isfinite(leaf)) and np.any(leaf), name
    assert len(losses) == 2


def test_impossible_utterances_and_empty_rows_do_not_count(compiled):
    """The loss is the sum over the others, per label of theirs; the impossible are counted."""
    batch = make_batch()
    batch = batch._replace(
        num_samples=changed(batch.num_samples, row3=1280, row5=0),  # row 3: one frame, six labels
        num_labels=changed(batch.num_labels, row3=6, row5=0),
    )
    metrics, _ = compiled(batch)
    assert metrics.num_impossible == 1
    rows = np.delete(np.arange(8), [3, 5])
    expected = 0.7 * metrics.transducer[rows].sum() + 0.3 * metrics.ctc[rows].sum()
    np.testing.assert_allclose(metrics.loss, expected / batch.num_labels[rows].sum(), rtol=1e-5)
    assert metrics.num_labels == batch.num_labels[rows].sum()


def test_a_nan_shows_in_the_loss_of_its_row(compiled):
    batch = make_batch()
    metrics, _ = compiled(batch._replace(samples=changed(batch.samples, row2=np.nan)))
    assert np.isnan(metrics.loss)
    assert np.flatnonzero(~np.isfinite(metrics.transducer + metrics.ctc)).tolist() == [2]


def test_no_label_is_trained_before_the_first_word(compiled):
    batch, config, model = make_batch(), compiled.config.model, compiled.model
    leading = batch.num_samples // 3
    metrics, _ = compiled(batch._replace(num_leading_samples=leading))

    @jax.jit
    def losses(model, lead):
        features, num_features = tdt.log_mel(batch.samples, batch.num_samples, config.features)
        frames, num_frames = tdt.encode(model, features, num_features)
        return tdt.transducer_loss(
            model.joint, frames, model.predictor(batch.labels), batch.labels, num_frames,
            batch.num_labels, durations=config.durations, sigma=LossConfig().sigma, lead=lead,
        )  # fmt: skip

    expected, free = losses(model, leading // 1280), losses(model, np.zeros_like(leading))
    np.testing.assert_allclose(metrics.transducer, expected, rtol=1e-4)
    has_labels = batch.num_labels > 0
    assert has_labels.sum() > 4 and np.all((expected > 1.001 * free) == has_labels)


def test_rows_of_a_frame_or_less_have_no_gradient(compiled):
    """A single feature frame, which is its own mean, and labels without any frame."""
    batch = make_batch()
    batch = batch._replace(num_labels=changed(batch.num_labels, row1=0, row2=1, row4=0))
    metrics, gradient = compiled(
        batch._replace(num_samples=changed(batch.num_samples, row1=160, row2=80, row4=0))
    )
    assert metrics.num_impossible == 2
    batch = batch._replace(num_labels=changed(batch.num_labels, row2=0))
    expected_metrics, expected = compiled(
        batch._replace(num_samples=changed(batch.num_samples, row1=0, row2=0, row4=0))
    )
    assert expected_metrics.num_impossible == 0
    # Elsewhere sums are in another order.
    is_exact = backend.current() == "cpu" and version("jaxlib").startswith("0.10.")
    rounding = 0 if is_exact else 1e-6
    for name, leaf in gradient.items():
        assert np.all(np.isfinite(leaf)), name
        np.testing.assert_allclose(leaf, expected[name], rtol=rounding, err_msg=name)


@pytest.mark.slow
def test_a_bucket_of_one_frame_trains():
    """Durations longer than the bucket, labels without frames, and a single feature frame."""
    random = np.random.default_rng(0)
    contents = {"a": (1280, [1, 2]), "b": (640, [3]), "c": (160, [4]), "d": (80, [5])}
    utterances = [
        Utterance(name, 0.1 * random.normal(size=size), "") for name, (size, _) in contents.items()
    ]
    labels = [labels for _, labels in contents.values()]
    batch = collate(utterances, labels, tdt.Bucket(0.08, 2, 6), sample_rate=16000)
    batch = BatchArrays.of(batch)
    assert batch.samples.shape == (6, 1280)
    traced = trace_gradient(small_config(durations=(0, 1, 2, 3, 4)), batch)
    metrics, gradient = traced._replace(program=traced.program.lower().compile())(batch)
    assert metrics.num_impossible == 2 and metrics.num_labels == 3
    assert np.isfinite(metrics.loss) and metrics.loss > 0
    assert all(np.all(np.isfinite(leaf)) for leaf in gradient.values())
    assert any(np.any(leaf) for leaf in gradient.values())


@pytest.mark.slow
def test_omega_trains_the_token_head_as_an_rnnt():
    config = dataclasses.replace(
        small_config(durations=(0, 1, 2), ctc=False), loss=LossConfig(omega=1.0)
    )
    batch = make_batch()
    traced = trace_gradient(config, batch)
    metrics, gradient = traced._replace(program=traced.program.lower().compile())(batch)
    assert not np.any(gradient["joint.duration_head.kernel"])
    features = tdt.log_mel(batch.samples, batch.num_samples, config.model.features)
    frames, num_frames = tdt.encode(traced.model, *features)
    tokens, _ = traced.model.joint(frames, traced.model.predictor(batch.labels))
    expected = tdt.rnnt_loss(tokens, batch.labels, num_frames, batch.num_labels)
    np.testing.assert_allclose(metrics.transducer, expected, rtol=1e-4)


@pytest.mark.slow
def test_a_ctc_model_trains_by_its_only_loss():
    """Rows that do not fit are counted and left out, as in a transducer's loss."""
    config = small_config(durations=None, predictor=None, joint=None)
    config = dataclasses.replace(config, loss=LossConfig())
    batch = make_batch()
    batch = batch._replace(num_samples=changed(batch.num_samples, row3=1280))
    traced = trace_gradient(config, batch)
    metrics, gradient = traced._replace(program=traced.program.lower().compile())(batch)
    assert metrics.num_impossible == 1
    rows = np.delete(np.arange(8), 3)
    expected = metrics.ctc[rows].sum() / batch.num_labels[rows].sum()
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-5)
    for name, leaf in gradient.items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf), name
    state = init_state(config, jax.random.key(0))
    _, after = train_step(state, batch, jax.random.key(0), config=config)
    assert np.isfinite(after.loss)


def test_ctc_loss_of_what_does_not_fit_is_zero():
    logits = jnp.ones((3, 4, 4))
    labels = np.array([[1, 1, 2], [1, 2, 3], [1, 1, 1]])
    losses = jax.jit(ctc_loss, static_argnames="blank")(
        logits, np.array([4, 4, 4]), labels, np.array([3, 3, 3]), blank=3
    )
    assert losses[0] > 0 and losses[1] > 0 and losses[2] == 0


def test_arrays_of_a_batch_are_all_of_them():
    utterance = Utterance("a", np.ones(900, np.float32), "one", num_leading_samples=300)
    batch = collate([utterance], [[3, 4]], tdt.Bucket(1.0, 5, 2), sample_rate=16000)
    arrays = BatchArrays.of(batch)
    assert arrays.num_leading_samples.tolist() == [300, 0]
    assert arrays.num_samples.tolist() == [900, 0]
    assert arrays.labels is batch.labels and arrays.num_labels.tolist() == [2, 0]


# The step


def linear_loss(model, batch, key, config, mesh=None):
    """`loss_and_metrics` of a linear model: the mean square of its outputs on noisy samples."""
    batch = sharding.constrain_rows(batch, mesh)
    noisy = batch.samples + 0.1 * jax.random.normal(key, batch.samples.shape)
    losses = jnp.square(noisy @ model["kernel"] + model["bias"][None]).sum(axis=1)
    num_labels = jnp.sum(batch.num_labels)
    mean = losses.sum() / num_labels
    zero = jnp.zeros(())
    return mean, Metrics(mean, losses, jnp.zeros_like(losses), zero, zero, num_labels, zero)


class Run(NamedTuple):
    """Four steps of training a linear model."""

    config: Config
    states: list[State]  # before, and after each step
    metrics: list[Metrics]


def linear_batch(seed: int) -> BatchArrays:
    return make_batch(seed, num_samples=5)


@pytest.fixture(scope="module")
def linear_run():
    optimizer = OptimizerConfig(learning_rate=0.01, schedule="noam", warmup_steps=2, ema_decay=0.9)
    config, key = Config(optimizer=optimizer), jax.random.key(0)
    kernel = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    model = {"kernel": kernel, "bias": np.ones(3, np.float32)}
    moments = steps.make_optimizer(optimizer, config.training.num_steps).init(model)
    state = State(np.zeros((), np.int32), model, model, moments)
    states, metrics = [jax.device_get(state)], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "loss_and_metrics", linear_loss)
        for i in range(4):
            state, metric = train_step(state, linear_batch(i), key, config=config)
            states.append(jax.device_get(state))
            metrics.append(metric)
        yield Run(config, states, metrics)


def test_a_step_updates_and_counts(linear_run):
    states, metrics = linear_run.states, linear_run.metrics
    assert [int(state.step) for state in states] == [0, 1, 2, 3, 4]
    for before, after in itertools.pairwise(states):
        assert np.all(before.model["kernel"] != after.model["kernel"])
    loss, _ = linear_loss(
        states[1].model, linear_batch(1), jax.random.fold_in(jax.random.key(0), 1), None
    )
    np.testing.assert_allclose(metrics[1].loss, loss, rtol=1e-5)
    assert all(metric.gradient_norm > 0 for metric in metrics)


def test_average_follows_the_parameters(linear_run):
    config, states, _ = linear_run
    decays = [min(config.optimizer.ema_decay, (1 + i) / (10 + i)) for i in range(4)]
    expected = states[0].model["kernel"].astype(np.float64)
    for decay, state in zip(decays, states[1:], strict=True):
        expected = decay * expected + (1 - decay) * state.model["kernel"]
    np.testing.assert_allclose(states[-1].average["kernel"], expected, atol=1e-6)


def test_a_step_is_a_function_of_state_batch_and_key(linear_run):
    config, states, _ = linear_run

    def again(key):
        return jax.device_get(train_step(states[2], linear_batch(2), key, config=config)[0])

    for a, b in zip(
        jax.tree.leaves(again(jax.random.key(0))), jax.tree.leaves(states[3]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert np.any(again(jax.random.key(1)).model["kernel"] != states[3].model["kernel"])


def test_two_devices_train_as_one(linear_run):
    """The batch split among two devices gives the parameters that one device gives."""
    config, states, metrics = linear_run
    mesh = sharding.make_mesh(jax.devices()[:2])
    state = sharding.shard(states[0], mesh)
    batch = sharding.shard_batch(linear_batch(0), mesh)
    state, metric = train_step(state, batch, jax.random.key(0), config=config, mesh=mesh)
    assert len(state.model["kernel"].sharding.device_set) == 2
    np.testing.assert_allclose(metric.loss, metrics[0].loss, rtol=1e-5)
    np.testing.assert_allclose(metric.transducer, metrics[0].transducer, rtol=1e-5)
    np.testing.assert_allclose(metric.gradient_norm, metrics[0].gradient_norm, rtol=1e-4)
    for name, leaf in states[1].model.items():
        np.testing.assert_allclose(state.model[name], leaf, atol=1e-6)
        assert np.all(np.abs(leaf - states[0].model[name]) > 1e-3)


@pytest.mark.parametrize("durations", [(0, 1), pytest.param(None, marks=pytest.mark.slow)])
def test_every_device_computes_its_own_rows_of_the_loss(durations):
    """Devices exchange the sum of the joint's gradients only, and these are those of one device."""
    sizes = dict(frame_width=4, state_width=5, vocab_size=8, num_durations=len(durations or ()))
    joint = models.build(
        lambda: Joint(JointConfig(width=7), **sizes, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    mesh = sharding.make_mesh(jax.devices()[:2])
    rng = np.random.default_rng(0)
    rows = (
        rng.normal(size=(4, 12, 4)).astype(np.float32),
        rng.normal(size=(4, 6, 5)).astype(np.float32),
        rng.integers(0, 8, (4, 5)).astype(np.int32),
        rng.integers(6, 13, 4).astype(np.int32),
        rng.integers(0, 6, 4).astype(np.int32),
    )

    def losses(joint, *rows):
        return tdt.transducer_loss(joint, *rows, durations=durations)

    apart = sharding.map_rows(losses, mesh, num_replicated=1)
    together, split = [
        jax.jit(jax.value_and_grad(lambda *x, f=f: f(*x).sum(), argnums=(0, 1, 2)))
        for f in (losses, apart)
    ]
    arguments = sharding.shard(joint, mesh), *sharding.shard_batch(rows, mesh)
    program = split.lower(*arguments).compile()
    exchanges = re.findall(r"(all-\w+|collective-\w+|reduce-scatter)\(", program.as_text())
    assert set(exchanges) == {"all-reduce"}
    for a, b in zip(
        jax.tree.leaves(together(joint, *rows)), jax.tree.leaves(program(*arguments)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(ValueError, match="6 cannot be split among 8"):
        sharding.shard_batch(make_batch(batch=6), sharding.make_mesh())


# The whole


class Toy(NamedTuple):
    """A transducer without an encoder."""

    predictor: Predictor
    joint: Joint


class Decodable(nnx.Module):
    def __init__(self, toy, config):
        self.predictor, self.joint, self.config = toy.predictor, toy.joint, config


@pytest.mark.parametrize(
    ("durations", "batch", "size", "num_steps", "tiled"),
    [
        ((0, 1, 2), 8, 16, 100, False),
        pytest.param((0, 1, 2), 8, 16, 100, True, marks=pytest.mark.slow),
        pytest.param((0, 1, 2, 3, 4), 16, 24, 200, True, marks=pytest.mark.slow),
        pytest.param(None, 16, 24, 200, True, marks=pytest.mark.slow),
    ],
)
def test_toy_task_copies_eight_labels(durations, batch, size, num_steps, tiled):
    """Frames spell 8 labels amid silence; after some steps the decoder emits exactly these."""
    vocab, num_labels = 10, 8
    config = ModelConfig(vocab_size=vocab, durations=durations)
    joint_sizes = dict(
        frame_width=vocab + 1, state_width=16, vocab_size=vocab, num_durations=len(durations or ())
    )

    def make_toy():
        options = dict(dtype=jnp.float32, rngs=nnx.Rngs(0))
        predictor = Predictor(PredictorConfig(width=16, num_layers=1), vocab, **options)
        return Toy(predictor, Joint(JointConfig(width=32), **joint_sizes, **options))

    toy = models.build(make_toy)
    rng = np.random.default_rng(0)

    def sample():
        """Each label in a frame of its own, at random places, silence in the others."""
        # Without an encoder a frame does not show whether its label was emitted: none repeats.
        labels = np.cumsum(rng.integers(1, vocab, (batch, num_labels)), axis=1) % vocab
        places = np.stack([rng.permutation(size)[:num_labels] for _ in range(batch)])
        tokens = np.full((batch, size), vocab)
        np.put_along_axis(tokens, np.sort(places), labels, axis=1)
        return np.eye(vocab + 1, dtype=np.float32)[tokens], labels.astype(np.int32)

    lengths = np.full(batch, size, np.int32), np.full(batch, num_labels, np.int32)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-2, num_steps))

    @jax.jit
    def step(toy, state, frames, labels):
        def objective(toy):
            states = toy.predictor(labels)
            if tiled:
                given = toy.joint, frames, states, labels, *lengths
                return tdt.transducer_loss(*given, durations=durations).mean()
            logits = toy.joint(frames, states)
            return tdt.tdt_loss(*logits, labels, *lengths, durations=durations).mean()

        updates, state = optimizer.update(jax.grad(objective)(toy), state, toy)
        return optax.apply_updates(toy, updates), state

    shapes = jax.eval_shape(optimizer.init, toy)
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    for _ in range(num_steps):
        toy, state = step(toy, state, *sample())
    frames, labels = sample()
    hypothesis = jax.device_get(tdt.greedy_decode(Decodable(toy, config), frames, lengths[0]))
    np.testing.assert_array_equal(hypothesis.num_labels, lengths[1])
    np.testing.assert_array_equal(hypothesis.labels[:, :num_labels], labels)
    if durations is None:
        np.testing.assert_array_equal(hypothesis.num_steps, size + num_labels)
    else:
        assert np.all(hypothesis.num_steps < size + num_labels)


@pytest.fixture(scope="module")
def trained():
    """The states of a whole model before four steps and after each."""
    config, key = get_config(), jax.random.key(0)
    state, metrics = init_state(config, key), []
    states = [jax.tree.map(jnp.copy, state)]
    for i in range(4):
        state, metric = train_step(state, whole_batch(i), key, config=config)
        metrics.append(metric)
        states.append(jax.tree.map(jnp.copy, state))
    return Run(config, states, metrics)


def whole_batch(seed: int) -> BatchArrays:
    return make_batch(seed, num_samples=40960, vocab=40)


@pytest.mark.slow
def test_train_step_changes_every_parameter(trained):
    """With dropout, noise, masks and a CTC head; the same step again gives the same bits."""
    config, states, metrics = trained
    assert int(states[-1].step) == 4
    before, after = named_leaves(states[0].model), named_leaves(states[-1].model)
    for name, leaf in after.items():
        assert np.any(np.asarray(before[name]) != np.asarray(leaf)), name
        assert np.all(np.isfinite(leaf)), name
    assert all(np.isfinite(m.loss) and m.num_impossible == 0 for m in metrics)
    state = jax.tree.map(jnp.copy, states[2])
    again, _ = train_step(state, whole_batch(2), jax.random.key(0), config=config)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(states[3]), strict=True):
        np.testing.assert_array_equal(a, b)
