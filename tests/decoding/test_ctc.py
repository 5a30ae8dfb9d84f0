"""Greedy CTC decoding: token sequences written by hand, and any others, frame by frame."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_model import BLANK, VOCAB, TableConfig

import tdt_jax as tdt
from tdt_jax.decoding.hypothesis import take


@functools.partial(jax.tree_util.register_dataclass, data_fields=["table"], meta_fields=["config"])
@dataclasses.dataclass
class CTCTable:
    """At frame [token] that token has probability 1/2."""

    table: jax.Array
    config: TableConfig

    def ctc(self, frames):
        return self.table[frames[..., 0].astype(jnp.int32)]


@functools.cache
def ctc_table():
    probability = np.full((VOCAB + 1, VOCAB + 1), 0.5 / VOCAB, np.float32)
    np.fill_diagonal(probability, 0.5)
    return CTCTable(jnp.log(probability), TableConfig(BLANK, None))


def test_repeats_and_blanks_are_left_out():
    """A label lasts as long as it is repeated; a blank parts it from the same label again."""
    tokens = np.array(
        [
            [BLANK, 3, 3, BLANK, 3, 5, 5, 5],
            [2, 2, 2, 2, 2, 2, 2, 2],
            [BLANK] * 8,
            [1, BLANK, 1, 4, BLANK, BLANK, 4, 4],
        ]
    )
    lengths = np.array([8, 3, 8, 7], np.int32)
    hypothesis = tdt.ctc_decode(ctc_table(), tokens[..., None].astype(np.float32), lengths)
    hypothesis = jax.device_get(hypothesis)
    expected = [
        ([3, 3, 5], [1, 4, 5], [2, 1, 3]),
        ([2], [0], [3]),
        ([], [], []),
        ([1, 1, 4, 4], [0, 2, 3, 6], [1, 1, 1, 1]),
    ]
    np.testing.assert_array_equal(hypothesis.num_labels, [len(each[0]) for each in expected])
    np.testing.assert_array_equal(hypothesis.num_steps, lengths)
    for row, (labels, times, durations) in enumerate(expected):
        count = len(labels)
        np.testing.assert_array_equal(hypothesis.labels[row, :count], labels)
        np.testing.assert_array_equal(hypothesis.times[row, :count], times)
        np.testing.assert_array_equal(hypothesis.durations[row, :count], durations)
        np.testing.assert_allclose(hypothesis.scores[row, :count], np.log(0.5), rtol=1e-6)
        assert not np.any(hypothesis.labels[row, count:])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    tokens=st.lists(st.sampled_from([0, 1, BLANK]), min_size=8, max_size=8),
    size=st.integers(0, 8),
)
def test_any_tokens_decode_to_the_groups_of_equal_labels(tokens, size):
    hypothesis = tdt.ctc_decode(
        ctc_table(), np.float32(tokens)[None, :, None], np.array([size], np.int32)
    )
    hypothesis = take(hypothesis, 0)
    groups = [
        (token, [time for time, _ in group])
        for token, group in itertools.groupby(enumerate(tokens[:size]), key=lambda pair: pair[1])
        if token != BLANK
    ]
    assert hypothesis.labels.tolist() == [token for token, _ in groups]
    assert hypothesis.times.tolist() == [times[0] for _, times in groups]
    assert hypothesis.durations.tolist() == [len(times) for _, times in groups]


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="has none"):
        tdt.ctc_decode(models.transducer(), np.zeros((1, 2, 16)), np.array([2]))
    for frames, lengths in (((1, 0, 1), 1), ((2, 3), 2), ((2, 3, 1), 3)):
        with pytest.raises(ValueError, match="ctc_decode needs frames"):
            tdt.ctc_decode(ctc_table(), np.zeros(frames), np.zeros(lengths, np.int32))
