"""Lattices that are shorter than the longest duration, against every path written out."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_oracle import VOCAB, every_path, table_inputs, table_joint

import tdt_jax as tdt

ALL = tuple(range(9))
NEVER = -1e4  # a logit that leaves no probability


def tables(seed, batch, frames, labels, num_durations):
    """Logits [B, T, U+1, V+1+N] of all nodes, tokens before durations, and labels [B, U]."""
    rng = np.random.default_rng(seed)
    shape = (batch, frames, labels + 1, VOCAB + 1 + num_durations)
    return (
        2 * rng.normal(size=shape).astype(np.float32),
        rng.integers(0, VOCAB, (batch, labels)).astype(np.int32),
    )


def expected(table, labels, num_frames, num_labels, durations):
    """Log-likelihood, the best path, and the arcs' posteriors [T, U+1, N], of blanks and labels."""
    paths = every_path(table, labels, num_frames, num_labels, durations)
    posteriors = np.zeros((2, *table.shape[:2], len(durations)))
    if not paths:
        return -1e30, None, posteriors
    total = np.logaddexp.reduce([score for score, _ in paths])
    for score, path in paths:
        for t, u, i, is_label in path:
            posteriors[int(is_label), t, u, i] += np.exp(score - total)
    return total, max(paths, key=lambda pair: pair[0]), posteriors


@functools.partial(jax.jit, static_argnums=4)
def loss_and_gradients(table, labels, num_frames, num_labels, durations):
    def loss(table):
        tokens, lengths = table[..., : VOCAB + 1], table[..., VOCAB + 1 :]
        arguments = labels, num_frames, num_labels
        losses = tdt.tdt_loss(tokens, lengths, *arguments, durations=durations)
        return losses.sum(), losses

    gradient, losses = jax.grad(loss, has_aux=True)(table)
    return losses, gradient


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    "shape", [(4, 1), *(pytest.param(x, marks=pytest.mark.slow) for x in [(1, 0), (1, 2)])]
)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(choice=st.sets(st.sampled_from(ALL), min_size=1), seed=st.integers(0, 99), data=st.data())
def test_loss_and_gradients_of_every_short_lattice(shape, choice, seed, data):
    """Any durations up to 8, any lengths: the losses, and gradients of arcs that carry mass."""
    frames, labels = shape
    num_frames = data.draw(st.lists(st.integers(0, frames), min_size=3, max_size=3))
    num_labels = data.draw(st.lists(st.integers(0, labels), min_size=3, max_size=3))
    table, tokens = tables(seed, 3, frames, labels, len(ALL))
    # One program for all durations: those that are not chosen have no probability.
    table[..., VOCAB + 1 :][..., [d for d in ALL if d not in choice]] = NEVER
    lengths = np.array(num_frames, np.int32), np.array(num_labels, np.int32)
    losses, gradient = jax.device_get(loss_and_gradients(table, tokens, *lengths, ALL))
    assert np.all(np.isfinite(gradient))
    chosen = [VOCAB + 1 + d for d in sorted(choice)]
    for b in range(3):
        kept = np.concatenate([table[b, ..., : VOCAB + 1], table[b][..., chosen]], axis=-1)
        total, _, posteriors = expected(
            kept, tokens[b], num_frames[b], num_labels[b], tuple(sorted(choice))
        )
        if num_frames[b] == num_labels[b] == 0:
            total = 0.0  # the empty path
        if total < -1e29:
            assert losses[b] > 3e3  # a path through durations without probability, or none
            continue
        np.testing.assert_allclose(losses[b], -total, rtol=1e-5, atol=1e-5)
        arcs = posteriors.sum(0)
        share = softmax(kept[..., VOCAB + 1 :])
        np.testing.assert_allclose(
            gradient[b][..., chosen], share * arcs.sum(-1, keepdims=True) - arcs, atol=1e-5
        )


SHAPES = [(2, 1, (0, 2, 8)), (1, 0, (0, 1, 2, 3, 4)), (1, 2, (0, 1, 2, 3, 4)), (1, 1, (8,))]


of_every_shape = pytest.mark.parametrize(
    ("frames", "labels", "durations"),
    [SHAPES[0], *(pytest.param(*x, marks=pytest.mark.slow) for x in SHAPES[1:])],
)


@of_every_shape
def test_both_losses_on_a_short_lattice(frames, labels, durations):
    """Values and gradients, of every shape by itself."""
    table, tokens = tables(7, 2, frames, labels, len(durations))
    lengths = np.array([frames, frames]), np.array([labels, 0])
    inputs, states = table_inputs(table)
    losses, gradient = jax.device_get(loss_and_gradients(table, tokens, *lengths, durations))

    @jax.jit
    @jax.value_and_grad
    def tiled_loss(x):
        options = dict(durations=durations, neglect=0.0)
        return tdt.transducer_loss(table_joint, x, states, tokens, *lengths, **options).sum()

    total_loss, to_frames = tiled_loss(inputs)
    np.testing.assert_allclose(np.reshape(to_frames, table.shape), gradient, atol=1e-5)
    assert np.all(np.isfinite(gradient))
    totals = []
    for b in range(2):
        total, best, _ = expected(table[b], tokens[b], *(x[b] for x in lengths), durations)
        totals.append(total)
        if best is None:
            assert losses[b] > 1e29 and not np.any(gradient[b])
        else:
            np.testing.assert_allclose(losses[b], -total, rtol=1e-5)
    np.testing.assert_allclose(total_loss, -sum(totals), rtol=1e-5)


@of_every_shape
def test_alignment_and_occupancy_of_a_short_lattice(frames, labels, durations):
    table, tokens = tables(7, 2, frames, labels, len(durations))
    lengths = np.array([frames, frames]), np.array([labels, 0])
    arguments = table_joint, *table_inputs(table), tokens, *lengths
    alignment = jax.device_get(tdt.align(*arguments, durations=durations))
    occupancy = jax.device_get(tdt.occupancy(*arguments, durations=durations))
    for b in range(2):
        total, best, posteriors = expected(table[b], tokens[b], *(x[b] for x in lengths), durations)
        np.testing.assert_allclose(occupancy.blank[b], posteriors[0], atol=1e-5)
        np.testing.assert_allclose(occupancy.label[b], posteriors[1][:, :labels], atol=1e-5)
        np.testing.assert_allclose(occupancy.log_likelihood[b], total, rtol=1e-5)
        if best is None:
            assert alignment.log_probability[b] < -1e29
            continue
        score, path = best
        emitted = [(t, durations[i]) for t, _, i, is_label in path if is_label]
        np.testing.assert_allclose(alignment.log_probability[b], score, rtol=1e-5)
        assert alignment.times[b, : len(emitted)].tolist() == [t for t, _ in emitted]
        assert alignment.durations[b, : len(emitted)].tolist() == [d for _, d in emitted]
