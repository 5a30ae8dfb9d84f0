"""One training step, as a pure function of state, batch and key.

samples -> augment -> features -> SpecAugment -> encoder -> frames
labels  -> predictor -> states
loss = (1 - w) transducer_loss(joint, frames, states, labels) + w ctc(frames, labels)
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from tdt_jax.config import Config
from tdt_jax.data.utterance import Batch
from tdt_jax.losses.ctc import ctc_fits, ctc_loss
from tdt_jax.losses.tiled import transducer_loss
from tdt_jax.models.adapters import (
    AdaptedBlocks,
    merged_model,
    new_adapters,
    rate_factors,
    trained_names,
    with_adapters,
)
from tdt_jax.models.features import dither, log_mel
from tdt_jax.models.joint import Joint
from tdt_jax.models.transducer import Transducer
from tdt_jax.runtime import sharding
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves
from tdt_jax.training.augment import augment_samples, spec_augment
from tdt_jax.training.optimizer import make_optimizer

IMPOSSIBLE = 1e29  # nats: the loss of an utterance that no alignment fits is larger


class BatchArrays(NamedTuple):
    """The arrays of a batch."""

    samples: jax.Array  # [B, S]
    num_samples: jax.Array  # [B], 0 in empty rows
    labels: jax.Array  # [B, U]
    num_labels: jax.Array  # [B]
    num_leading_samples: jax.Array | None = None  # [B], at the start, before the first word

    @classmethod
    def of(cls, batch: Batch) -> "BatchArrays":
        """Returns the arrays of a batch as `tdt_jax.data` makes it."""
        return cls(*(getattr(batch, name) for name in cls._fields))

    @classmethod
    def shapes(cls, num_rows: int, num_samples: int, num_labels: int) -> "BatchArrays":
        """Returns the shapes and dtypes of a batch of so many rows, without leading silence."""
        return jax.eval_shape(
            lambda: cls(
                samples=jnp.zeros((num_rows, num_samples)),
                num_samples=jnp.zeros(num_rows, jnp.int32),
                labels=jnp.zeros((num_rows, num_labels), jnp.int32),
                num_labels=jnp.zeros(num_rows, jnp.int32),
            )
        )


class State(NamedTuple):
    """What a training step changes, and the parameters that it leaves as they are."""

    step: jax.Array  # steps done
    model: Transducer
    # exponential moving average of what is trained, if kept: a model if that is all of it,
    # otherwise arrays by name
    average: Any
    optimizer: Any  # of what is trained, by name
    adapters: dict[str, jax.Array] | None = None  # by name; see `tdt_jax.models.adapters`


class Metrics(NamedTuple):
    """What a training step reports."""

    loss: jax.Array  # per label, nats
    transducer: jax.Array  # [B] per utterance, nats
    ctc: jax.Array  # [B] per utterance, nats
    gradient_norm: jax.Array
    num_impossible: jax.Array  # utterances left out: no alignment, or a single feature frame
    num_labels: jax.Array  # of the others
    audio_seconds: jax.Array  # without padding


def init_state(config: Config, key: jax.Array) -> State:
    """Returns a new run's state, with random parameters.

    Raises:
      ValueError: if patterns of `config.tuning` match nothing, or nothing is trained.
    """
    model = Transducer(config.model, rngs=nnx.Rngs(key))
    leaves = named_leaves(model)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    full, adapted = trained_names(config.tuning, shapes)
    adapters = None
    if adapted:
        kernels = {name: shapes[name] for name in adapted}
        adapters = new_adapters(kernels, config.tuning.rank, jax.random.fold_in(key, 1))
    kept = {name: leaf.astype(config.tuning.base_dtype) for name, leaf in leaves.items()}
    model = from_named_leaves(kept | {name: leaves[name] for name in full}, model)
    state = State(jnp.zeros((), jnp.int32), model, None, None, adapters)
    average = None
    if config.optimizer.ema_decay:
        is_all = len(full) == len(leaves)
        average = jax.tree.map(jnp.copy, model if is_all else trained_leaves(state, config))
    trained: Any = trained_leaves(state, config)
    rate_factors(config.tuning, {name: leaf.shape for name, leaf in trained.items()})
    optimizer = make_optimizer(config.optimizer, config.training.num_steps)
    return state._replace(average=average, optimizer=optimizer.init(trained))


def trained_leaves(state: State, config: Config) -> dict[str, jax.Array]:
    """Returns what a run trains, by name: parameters, and adapters of others."""
    leaves = named_leaves(state.model)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    full = trained_names(config.tuning, shapes).full
    return {name: leaves[name] for name in full} | (state.adapters or {})


def with_trained(state: State, trained: Mapping[str, jax.Array]) -> State:
    """Returns the state with other values of what the run trains."""
    leaves = {name: trained.get(name, leaf) for name, leaf in named_leaves(state.model).items()}
    adapters = state.adapters and {name: trained[name] for name in state.adapters}
    return state._replace(model=from_named_leaves(leaves, state.model), adapters=adapters)


def trained_model(state: State, config: Config) -> Transducer:
    """Returns the model as trained: with averages if the run keeps them, and adapters merged."""
    if state.adapters is None:
        tuned = state.average
        if tuned is None or isinstance(tuned, Transducer):
            return state.model if tuned is None else tuned
    else:
        tuned = state.average or state.adapters
    return merged_model(state.model, tuned, config.tuning.scale)


@functools.partial(jax.jit, static_argnames=("config", "mesh"), donate_argnames="state")
def train_step(
    state: State, batch: BatchArrays, key: jax.Array, *, config: Config, mesh: Mesh | None = None
) -> tuple[State, Metrics]:
    """Returns the state after one update of what is trained, and the batch's metrics.

    With `training.accumulate` parts, the gradient is that of the whole batch, computed part by
    part; each part draws its own noise, dropout and attention context.

    Args:
      state: is donated: its arrays cannot be used afterwards.
      batch: of any of the run's shapes, each of which compiles a program.
      key: the run's; the step's own key is folded from it.
      config: the run's.
      mesh: of the devices among which batch and state are split (`tdt_jax.runtime.sharding`); None:
        they lie on one device.
    """
    key = jax.random.fold_in(key, state.step)
    trained: Any = trained_leaves(state, config)  # optax's types know no dictionaries
    gradients, metrics = _gradients_of_step(trained, state, batch, key, config, mesh)
    gradients = sharding.constrain_parameters(gradients, mesh)
    optimizer = make_optimizer(config.optimizer, config.training.num_steps)
    updates: Any
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, trained)
    trained = optax.apply_updates(trained, scaled_updates(updates, state.step, config))
    average = state.average
    if average is not None:
        # A short memory at first: with ema_decay 0.999, the decay at step 90 is 0.91.
        decay = jnp.minimum(config.optimizer.ema_decay, (1 + state.step) / (10 + state.step))
        averaged = {
            name: leaf + (1 - decay) * (trained[name] - leaf)
            for name, leaf in named_leaves(average).items()
        }
        average = from_named_leaves(averaged, average)
    metrics = metrics._replace(gradient_norm=optax.tree.norm(gradients))
    state = with_trained(state, trained)
    state = state._replace(step=state.step + 1, average=average, optimizer=optimizer_state)
    return sharding.constrain_parameters(state, mesh), sharding.constrain_replicated(metrics, mesh)


def loss_and_metrics(
    model: Transducer,
    batch: BatchArrays,
    key: jax.Array,
    config: Config,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, Metrics]:
    """Returns the batch's mean loss per label, and its metrics but the gradient's norm."""
    batch = sharding.constrain_rows(batch, mesh)
    dtype = jnp.dtype(config.model.dtype)
    model = sharding.gather_parameters(model, mesh, dtype)

    def prepare(x, block):
        if isinstance(block, AdaptedBlocks):
            adapters = sharding.gather_parameters(block.adapters, mesh)
            blocks = sharding.gather_parameters(block.blocks, mesh, dtype)
            block = AdaptedBlocks(blocks, adapters, block.scale).merged()
        else:
            block = sharding.gather_parameters(block, mesh, dtype)
        return sharding.constrain_rows(x, mesh), block

    keys = jax.random.split(key, 8)
    samples = augment_samples(
        batch.samples,
        batch.num_samples,
        config.augment,
        keys[0],
        sample_rate=config.model.features.sample_rate,
    )
    samples = dither(samples, config.model.features, keys[1])
    features, num_features = _features(samples, batch.num_samples, config, mesh)
    features = spec_augment(features, num_features, config.augment, keys[2])
    frames, num_frames = model.encoder(
        features, num_features, key=keys[3], mesh=mesh, prepare=prepare
    )
    frames = model.prompted(frames, num_frames)
    ctc_weight = config.loss.ctc_weight
    if model.predictor is None or model.joint is None:
        ctc_weight = 1.0
        transducer = jnp.zeros(batch.num_labels.shape)
        possible = ctc_fits(num_frames, batch.labels, batch.num_labels)
    else:
        states = model.predictor(batch.labels, key=keys[4])
        transducer = _transducer_losses(
            model.joint, batch, frames, num_frames, states, keys[5:7], config, mesh
        )
        possible = (transducer < IMPOSSIBLE) | jnp.isnan(transducer)  # a NaN must show
    ctc = jnp.zeros_like(transducer)
    if model.ctc is not None and ctc_weight:
        ctc = ctc_loss(
            model.ctc(frames), num_frames, batch.labels, batch.num_labels, blank=model.config.blank
        )

    # A single feature frame minus its mean is zero, where LayerNorm's gradient has no bound.
    possible &= num_features != 1
    total = jnp.where(possible, (1 - ctc_weight) * transducer + ctc_weight * ctc, 0.0)
    num_labels = jnp.sum(jnp.where(possible, batch.num_labels, 0))
    mean = jnp.sum(total) / jnp.maximum(num_labels, 1).astype(total.dtype)
    metrics = Metrics(
        loss=mean,
        transducer=transducer,
        ctc=ctc,
        gradient_norm=jnp.zeros(()),
        num_impossible=jnp.sum(~possible),
        num_labels=num_labels,
        audio_seconds=jnp.sum(batch.num_samples.astype(jnp.float32))
        / config.model.features.sample_rate,
    )
    return mean, metrics


def _gradients_of_step(trained, state: State, batch: BatchArrays, key, config: Config, mesh):
    """Returns the gradient of what is trained, zero where it is not yet, and the metrics."""
    if not config.tuning.frozen_steps:
        return gradients_and_metrics(trained, state, batch, key, config, mesh)
    first = {name: x for name, x in trained.items() if not name.startswith("encoder.")}

    def without_encoder():
        gradients, metrics = gradients_and_metrics(first, state, batch, key, config, mesh)
        zeros = {name: jnp.zeros_like(x) for name, x in trained.items()}
        return zeros | gradients, metrics

    return jax.lax.cond(
        state.step < config.tuning.frozen_steps,
        without_encoder,
        lambda: gradients_and_metrics(trained, state, batch, key, config, mesh),
    )


def scaled_updates(
    updates: dict[str, jax.Array], step: jax.Array, config: Config
) -> dict[str, jax.Array]:
    """Returns the optimizer's updates times the factors of the parameters' learning rates."""
    tuning = config.tuning
    shapes = {name: update.shape for name, update in updates.items()}
    for name, factor in rate_factors(tuning, shapes).items():
        updates[name] = updates[name] * jnp.asarray(factor, updates[name].dtype)
    if tuning.frozen_steps:
        for name in updates:
            if name.startswith("encoder."):
                updates[name] = jnp.where(step < tuning.frozen_steps, 0.0, updates[name])
    return updates


def gradients_and_metrics(
    trained: dict[str, jax.Array],
    state: State,
    batch: BatchArrays,
    key: jax.Array,
    config: Config,
    mesh: Mesh | None = None,
) -> tuple[dict[str, jax.Array], Metrics]:
    """Returns the gradient of the batch's mean loss per label, and the batch's metrics.

    The gradient is that of `trained`; the state's other parameters and adapters are constants.
    """
    num_parts = config.training.accumulate

    def loss(trained, batch, key):
        leaves, adapters = (
            {name: trained.get(name, leaf) for name, leaf in each.items()}
            for each in (named_leaves(state.model), state.adapters or {})
        )
        model = from_named_leaves(leaves, state.model)
        if adapters:
            model = with_adapters(model, adapters, config.tuning.scale)
        return loss_and_metrics(model, batch, key, config, mesh)

    gradient = jax.value_and_grad(loss, has_aux=True)
    if num_parts == 1:
        (_, metrics), gradients = gradient(trained, batch, key)
        return gradients, metrics

    def add(sums, part):
        rows, part_key = part
        (mean, metrics), gradients = gradient(trained, rows, part_key)
        weight = metrics.num_labels.astype(jnp.float32)
        terms = jax.tree.map(lambda x: weight * x, (mean, gradients))
        sums = jax.tree.map(jnp.add, sums, sharding.constrain_parameters(terms, mesh))
        return sums, metrics

    parts = sharding.microbatches(batch, num_parts, mesh), jax.random.split(key, num_parts)
    zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained)
    (total, gradients), metrics = jax.lax.scan(add, zeros, parts)
    num_labels = jnp.sum(metrics.num_labels)
    count = jnp.maximum(num_labels, 1).astype(jnp.float32)
    gradients = jax.tree.map(lambda x: x / count, gradients)
    return gradients, Metrics(
        loss=total / count,
        transducer=metrics.transducer.T.reshape(-1),  # in the order of the batch's rows
        ctc=metrics.ctc.T.reshape(-1),
        gradient_norm=jnp.zeros(()),
        num_impossible=jnp.sum(metrics.num_impossible),
        num_labels=num_labels,
        audio_seconds=jnp.sum(metrics.audio_seconds),
    )


def _features(samples, num_samples, config: Config, mesh: Mesh | None):
    """Returns log-mel features; each device computes its own rows.

    Without `map_rows`, XLA would gather all rows on all devices for the FFT.
    """
    log_mels = functools.partial(log_mel, config=config.model.features)
    if mesh is not None and mesh.size > 1:
        log_mels = sharding.map_rows(log_mels, mesh, num_replicated=0)
    return log_mels(samples, num_samples)


def _transducer_losses(
    joint: Joint, batch: BatchArrays, frames, num_frames, states, keys, config: Config, mesh
):
    """Returns the transducer loss of each utterance [B]; each device computes its own rows.

    No alignment has a label in a frame before the utterance's first word.
    """
    lead = jnp.zeros_like(num_frames)
    if batch.num_leading_samples is not None:
        lead = batch.num_leading_samples // config.model.samples_per_frame
    is_tdt = config.model.durations is not None

    def losses(joint, as_rnnt, frames, states, labels, num_frames, num_labels, lead, keys):
        return transducer_loss(
            joint,
            frames,
            states,
            labels,
            num_frames,
            num_labels,
            durations=config.model.durations,
            sigma=config.loss.sigma if is_tdt else 0.0,
            fastemit=config.loss.fastemit,
            chunk=config.loss.chunk,
            lead=lead,
            key=keys,
            as_rnnt=as_rnnt,
        )

    run = losses
    if mesh is not None and mesh.size > 1:
        run = sharding.map_rows(losses, mesh, num_replicated=2)
    omega = config.loss.omega
    return run(
        joint,
        jax.random.bernoulli(keys[1], omega) if is_tdt and omega else None,
        frames,
        states,
        batch.labels,
        num_frames,
        batch.num_labels,
        lead,
        jax.random.split(keys[0], len(batch.labels)),
    )
