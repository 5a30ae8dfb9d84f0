"""Alignment and occupancy against every path written out."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from lattice_oracle import FRAMES, LABELS, VOCAB, every_path, log_softmax, table_joint

import tdt_jax as tdt


def example(seed, durations):
    rng = np.random.default_rng(seed)
    width = VOCAB + 1 + len(durations or ())
    tables = 2 * rng.normal(size=(3, FRAMES, LABELS + 1, width)).astype(np.float32)
    lengths = (
        rng.integers(0, VOCAB, (3, LABELS)).astype(np.int32),
        np.array([FRAMES, 5, 6]),
        np.array([LABELS, 1, 2]),
    )
    states = jnp.broadcast_to(jnp.eye(LABELS + 1), (3, LABELS + 1, LABELS + 1))
    return tables, (table_joint, tables.reshape(3, FRAMES, -1), states, *lengths)


@pytest.mark.parametrize("durations", [(0, 1, 2), (1, 2, 4), None])
def test_align_finds_the_best_of_every_path(durations):
    for seed in range(4):
        tables, arguments = example(seed, durations)
        alignment = tdt.align(*arguments, durations=durations)
        labels, num_frames, num_labels = arguments[3:]
        for b in range(3):
            paths = every_path(tables[b], labels[b], num_frames[b], num_labels[b], durations)
            score, path = max(paths, key=lambda pair: pair[0])
            emitted = [(t, (durations or (0,))[i]) for t, _, i, is_label in path if is_label]
            count = num_labels[b]
            assert alignment.times[b, :count].tolist() == [t for t, _ in emitted]
            assert alignment.durations[b, :count].tolist() == [d for _, d in emitted]
            assert not np.any(alignment.times[b, count:])
            np.testing.assert_allclose(alignment.log_probability[b], score, rtol=1e-6)
            tokens = log_softmax(tables[b][..., : VOCAB + 1])
            lengths = log_softmax(tables[b][..., VOCAB + 1 :]) if durations else tokens * 0
            expected = [
                tokens[t, u, labels[b, u]] + lengths[t, u, i]
                for t, u, i, is_label in path
                if is_label
            ]
            np.testing.assert_allclose(alignment.scores[b, :count], expected, rtol=1e-5)


@pytest.mark.parametrize("durations", [(0, 1, 2), (1, 2, 4), None])
def test_occupancy_counts_every_path(durations):
    tables, arguments = example(5, durations)
    occupancy = tdt.occupancy(*arguments, durations=durations)
    labels, num_frames, num_labels = arguments[3:]
    size = len(durations or (1,))
    for b in range(3):
        paths = every_path(tables[b], labels[b], num_frames[b], num_labels[b], durations)
        total = np.logaddexp.reduce([score for score, _ in paths])
        blank, label = np.zeros((FRAMES, LABELS + 1, size)), np.zeros((FRAMES, LABELS, size))
        for score, path in paths:
            for t, u, i, is_label in path:
                (label if is_label else blank)[t, u, i] += math.exp(score - total)
        np.testing.assert_allclose(occupancy.blank[b], blank, atol=2e-6)
        np.testing.assert_allclose(occupancy.label[b], label, atol=2e-6)
        np.testing.assert_allclose(occupancy.log_likelihood[b], total, rtol=1e-6)
    emitted = occupancy.label.sum((1, 3))
    np.testing.assert_allclose(emitted, np.arange(LABELS)[None] < num_labels[:, None], atol=2e-6)


def test_what_cannot_be_aligned_is_told_and_the_rest_is():
    _, (joint, frames, states, labels, _, _) = example(0, (1, 2))
    arguments = joint, frames, states, labels, np.array([7, 2, 0]), np.array([3, 2, 1])
    alignment = tdt.align(*arguments, durations=(1, 2))
    occupancy = tdt.occupancy(*arguments, durations=(1, 2))
    for totals in (alignment.log_probability, occupancy.log_likelihood):
        assert totals[0] > -100 and totals[1] < -1e29 and totals[2] < -1e29
    for array in (*alignment[:3], *occupancy[:2]):
        assert np.any(array[0]) and not np.any(array[1:]) and np.all(np.isfinite(array))


def test_among_equals_a_blank_first_and_the_shorter_first():
    """Of uniform logits: an RNN-T's labels wait for the last frame."""
    joint = functools.partial(zero_joint, 0)
    arguments = (jnp.zeros((1, 40, 2)), jnp.zeros((1, 4, 2)), jnp.zeros((1, 3), jnp.int32))
    lengths = jnp.array([40]), jnp.array([3])
    alignment = tdt.align(joint, *arguments, *lengths, durations=None)
    assert alignment.times.tolist() == [[39, 39, 39]]
    joint = functools.partial(zero_joint, 2)
    lengths = jnp.array([13]), jnp.array([3])
    alignment = tdt.align(joint, *arguments, *lengths, durations=(1, 2))
    assert alignment.times.tolist() == [[5, 7, 9]]
    assert alignment.durations.tolist() == [[2, 2, 2]]


def zero_joint(num_durations, frames, states):
    nodes = (*frames.shape[:2], states.shape[1])
    return jnp.zeros((*nodes, 5)), jnp.zeros((*nodes, num_durations))


def test_no_labels():
    _, (joint, frames, _, _, num_frames, num_labels) = example(0, (0, 1))
    arguments = joint, frames, jnp.eye(4)[None, :1].repeat(3, 0), np.zeros((3, 0), np.int32)
    alignment = tdt.align(*arguments, num_frames, num_labels * 0, durations=(0, 1))
    assert alignment.times.shape == (3, 0) and np.all(np.isfinite(alignment.log_probability))
