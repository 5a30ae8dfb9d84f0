"""Alignment and occupancy against every path written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lattice_oracle import VOCAB, every_path, log_softmax, table_inputs, table_joint

import tdt_jax as tdt

FRAMES, LABELS = 7, 3
DURATIONS = [(0, 1, 2), None, pytest.param((1, 2, 4), marks=pytest.mark.slow)]


def example(seed, durations):
    rng = np.random.default_rng(seed)
    width = VOCAB + 1 + len(durations or ())
    tables = 2 * rng.normal(size=(3, FRAMES, LABELS + 1, width)).astype(np.float32)
    lengths = (
        rng.integers(0, VOCAB, (3, LABELS)).astype(np.int32),
        np.array([FRAMES, 5, 6]),
        np.array([LABELS, 1, 2]),
    )
    return tables, (table_joint, *table_inputs(tables), *lengths)


@pytest.mark.parametrize("durations", DURATIONS)
def test_align_returns_the_best_of_every_path(durations):
    for seed in range(4):
        tables, arguments = example(seed, durations)
        alignment = jax.device_get(tdt.align(*arguments, durations=durations))
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


@pytest.mark.parametrize("durations", DURATIONS)
def test_occupancy_counts_every_path(durations):
    tables, arguments = example(5, durations)
    occupancy = jax.device_get(tdt.occupancy(*arguments, durations=durations))
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


def test_an_utterance_without_alignment_has_zeros_and_the_others_have_theirs():
    _, (*inputs, labels, _, _) = example(0, (1, 2))
    arguments = *inputs, labels, np.array([7, 2, 0]), np.array([3, 2, 1])
    alignment, occupancy = jax.device_get(
        [function(*arguments, durations=(1, 2)) for function in (tdt.align, tdt.occupancy)]
    )
    for totals in (alignment.log_probability, occupancy.log_likelihood):
        assert totals[0] > -100 and totals[1] < -1e29 and totals[2] < -1e29
    for array in (*alignment[:3], *occupancy[:2]):
        assert np.any(array[0]) and not np.any(array[1:]) and np.all(np.isfinite(array))


@pytest.mark.parametrize(
    ("durations", "num_frames", "times", "lasting"),
    [
        (None, 40, [39, 39, 39], [0, 0, 0]),  # an RNN-T's labels wait for the last frame
        ((1, 2), 13, [5, 7, 9], [2, 2, 2]),
    ],
)
def test_among_equals_a_blank_first_and_the_shorter_first(durations, num_frames, times, lasting):
    """Of uniform logits."""

    def joint(frames, states):
        nodes = (*frames.shape[:2], states.shape[1])
        return jnp.zeros((*nodes, 5)), jnp.zeros((*nodes, 2))

    inputs = np.zeros((1, 40, 2), np.float32), np.zeros((1, 4, 2), np.float32)
    lengths = np.zeros((1, 3), np.int32), np.array([num_frames]), np.array([3])
    alignment = tdt.align(joint, *inputs, *lengths, durations=durations)
    assert alignment.times.tolist() == [times] and alignment.durations.tolist() == [lasting]


def test_no_labels():
    tables, (joint, *_, num_frames, num_labels) = example(0, (0, 1))
    lengths = np.zeros((3, 0), np.int32), num_frames, num_labels * 0
    inputs = table_inputs(tables[:, :, :1])
    alignment = tdt.align(joint, *inputs, *lengths, durations=(0, 1))
    assert alignment.times.shape == (3, 0) and np.all(np.isfinite(alignment.log_probability))
