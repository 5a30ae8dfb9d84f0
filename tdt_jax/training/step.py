"""One step of training, and one of evaluation: pure functions of state, batch and key.

samples -> augment -> features -> SpecAugment -> encoder -> frames
labels  -> predictor -> states
loss = (1 - w) transducer_loss(joint, frames, states, labels) + w ctc(frames, labels)
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from tdt_jax.config import Config
from tdt_jax.losses.ctc import ctc_fits, ctc_loss
from tdt_jax.losses.tiled import transducer_loss
from tdt_jax.models.features import dither, log_mel
from tdt_jax.models.transducer import Transducer
from tdt_jax.runtime import sharding
from tdt_jax.training.augment import augment_samples, spec_augment
from tdt_jax.training.optimizer import make_optimizer

IMPOSSIBLE = 1e29  # a loss above this: no alignment exists


class BatchArrays(NamedTuple):
    """The arrays of a batch."""

    samples: jax.Array  # [B, S]
    num_samples: jax.Array  # [B], 0 in empty rows
    labels: jax.Array  # [B, U]
    num_labels: jax.Array  # [B]
    num_leading_samples: jax.Array | None = None  # [B], samples without speech at the start

    @classmethod
    def of(cls, batch) -> "BatchArrays":
        """Those of a `tdt_jax.data.utterance.Batch`."""
        return cls(*(getattr(batch, name) for name in cls._fields))


class State(NamedTuple):
    """All that changes while training."""

    step: jax.Array  # steps done
    model: Transducer
    average: Transducer | None  # exponential moving average of the parameters, if kept
    optimizer: Any


class Metrics(NamedTuple):
    """What a training step reports."""

    loss: jax.Array  # per label, nats
    transducer: jax.Array  # [B] per utterance, nats
    ctc: jax.Array  # [B]
    gradient_norm: jax.Array
    num_impossible: (
        jax.Array
    )  # utterances that no alignment fits, or of one feature frame; they don't count
    num_labels: jax.Array  # of those that count
    audio_seconds: jax.Array  # without padding


def init_state(config: Config, key) -> State:
    """Random parameters, and the optimiser's start. Under `jax.eval_shape`: the shapes."""
    model = Transducer(config.model, rngs=nnx.Rngs(key))
    optimizer = make_optimizer(config.optimizer, config.training.num_steps)
    average = jax.tree.map(jnp.copy, model) if config.optimizer.ema_decay else None
    return State(jnp.zeros((), jnp.int32), model, average, optimizer.init(model))


@functools.partial(jax.jit, static_argnames=("config", "mesh"), donate_argnames="state")
def train_step(
    state: State, batch: BatchArrays, key, *, config: Config, mesh: Mesh | None = None
) -> tuple[State, Metrics]:
    """One update; `key` is the run's, the step's own is folded from it.

    `mesh` is what batch and state are split among (`tdt_jax.runtime.sharding`); None is for one
    device.
    With `training.accumulate` parts the gradient is that of the whole batch, a part at a time.
    """
    key = jax.random.fold_in(key, state.step)
    gradients, metrics = _gradients(state.model, batch, key, config, mesh)
    gradients = sharding.constrain_parameters(gradients, mesh)
    optimizer = make_optimizer(config.optimizer, config.training.num_steps)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.model)
    model = optax.apply_updates(state.model, updates)
    average = state.average
    if average is not None:
        # The average follows closely at first: with decay 0.999, at step 90 it forgets at 0.91.
        decay = jnp.minimum(config.optimizer.ema_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), average, model)
    metrics = metrics._replace(gradient_norm=optax.tree.norm(gradients))
    state = State(state.step + 1, model, average, optimizer_state)
    return sharding.constrain_parameters(state, mesh), sharding.constrain_replicated(metrics, mesh)


def _gradients(model: Transducer, batch: BatchArrays, key, config: Config, mesh: Mesh | None):
    """The gradient of the batch's mean loss per label, and the batch's Metrics."""
    num_parts = config.training.accumulate
    gradient = jax.value_and_grad(loss_and_metrics, has_aux=True)
    if num_parts == 1:
        (_, metrics), gradients = gradient(model, batch, key, config, mesh)
        return gradients, metrics

    def add(sums, part):
        rows, part_key = part
        (mean, metrics), gradients = gradient(model, rows, part_key, config, mesh)
        weight = metrics.num_labels.astype(jnp.float32)
        more = jax.tree.map(lambda x: weight * x, (mean, gradients))
        sums = jax.tree.map(jnp.add, sums, sharding.constrain_parameters(more, mesh))
        return sums, metrics

    parts = sharding.microbatches(batch, num_parts, mesh), jax.random.split(key, num_parts)
    zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, model)
    (total, gradients), metrics = jax.lax.scan(add, zeros, parts)
    num_labels = jnp.sum(metrics.num_labels)
    count = jnp.maximum(num_labels, 1).astype(jnp.float32)
    gradients = jax.tree.map(lambda x: x / count, gradients)
    return gradients, Metrics(
        loss=total / count,
        transducer=metrics.transducer.T.reshape(-1),  # as the rows were, see sharding.microbatches
        ctc=metrics.ctc.T.reshape(-1),
        gradient_norm=jnp.zeros(()),
        num_impossible=jnp.sum(metrics.num_impossible),
        num_labels=num_labels,
        audio_seconds=jnp.sum(metrics.audio_seconds),
    )


def loss_and_metrics(
    model: Transducer, batch: BatchArrays, key, config: Config, mesh: Mesh | None = None
):
    """The mean loss per label of the batch, and its Metrics."""
    batch = sharding.constrain_rows(batch, mesh)
    dtype = jnp.dtype(config.model.dtype)
    model = sharding.gather_parameters(model, mesh, dtype)

    def prepare(x, block):
        return sharding.constrain_rows(x, mesh), sharding.gather_parameters(block, mesh, dtype)

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
    frames, num_frames = model.encoder(features, num_features, key=keys[3], prepare=prepare)
    weight = config.loss.ctc_weight
    if model.predictor is None:
        weight = 1.0
        losses = jnp.zeros(batch.num_labels.shape)
        possible = ctc_fits(num_frames, batch.labels, batch.num_labels)
    else:
        losses = _lattice_losses(model, batch, frames, num_frames, keys[4:7], config, mesh)
        possible = (losses < IMPOSSIBLE) | jnp.isnan(losses)  # a NaN must show
    ctc = jnp.zeros_like(losses)
    if weight:
        ctc = ctc_loss(
            model.ctc(frames), num_frames, batch.labels, batch.num_labels, blank=model.config.blank
        )

    # Nothing is left of a single feature frame without its mean: LayerNorm's gradient has no bound.
    possible &= num_features != 1
    total = jnp.where(possible, (1 - weight) * losses + weight * ctc, 0.0)
    num_labels = jnp.sum(jnp.where(possible, batch.num_labels, 0))
    mean = jnp.sum(total) / jnp.maximum(num_labels, 1).astype(total.dtype)
    metrics = Metrics(
        loss=mean,
        transducer=losses,
        ctc=ctc,
        gradient_norm=jnp.zeros(()),
        num_impossible=jnp.sum(~possible),
        num_labels=num_labels,
        audio_seconds=jnp.sum(batch.num_samples.astype(jnp.float32))
        / config.model.features.sample_rate,
    )
    return mean, metrics


def _features(samples, num_samples, config: Config, mesh):
    """Log-mel features, each device of its own rows: XLA would gather all of them for the FFT."""
    log_mels = functools.partial(log_mel, config=config.model.features)
    if mesh is not None and mesh.size > 1:
        log_mels = sharding.map_rows(log_mels, mesh, num_replicated=0)
    return log_mels(samples, num_samples)


def _lattice_losses(model, batch: BatchArrays, frames, num_frames, keys, config: Config, mesh):
    """The transducer loss of each utterance [B]; no label in a frame before its first word's."""
    states = model.predictor(batch.labels, key=keys[0])
    lead = jnp.zeros_like(num_frames)
    if batch.num_leading_samples is not None:
        lead = batch.num_leading_samples // config.model.samples_per_frame
    is_tdt = config.model.durations is not None

    def on_lattice(joint, as_rnnt, *rows):
        *rows, lead, keys = rows
        return transducer_loss(
            joint,
            *rows,
            durations=config.model.durations,
            sigma=config.loss.sigma if is_tdt else 0.0,
            fastemit=config.loss.fastemit,
            chunk=config.loss.chunk,
            lead=lead,
            key=keys,
            as_rnnt=as_rnnt,
        )

    if mesh is not None and mesh.size > 1:
        on_lattice = sharding.map_rows(on_lattice, mesh, num_replicated=2)
    return on_lattice(
        model.joint,
        jax.random.bernoulli(keys[2], config.loss.omega) if is_tdt and config.loss.omega else None,
        frames,
        states,
        batch.labels,
        num_frames,
        batch.num_labels,
        lead,
        jax.random.split(keys[1], len(batch.labels)),
    )
