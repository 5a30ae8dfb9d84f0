"""Which utterances can be trained on, and for which reason the others are skipped."""

import itertools
import math

import pytest

from tdt_jax.config import Bucket, ModelConfig
from tdt_jax.data.manifest import Entry
from tdt_jax.data.selection import label_limit, select
from tdt_jax.tokenizer import Characters

BUCKETS = (Bucket(1.0, 4, 2), Bucket(2.0, 8, 2))
TOKENIZER = Characters("abc ")
UNITS = dict(sample_rate=16000, samples_per_frame=1280)


def entry(folder, name, seconds=0.9, text="ab", exists=True):
    if exists:
        (folder / name).touch()
    return Entry(name, folder / name, seconds, text)


def test_select_counts_what_it_skips(tmp_path):
    entries = [
        entry(tmp_path, "short"),
        entry(tmp_path, "wordy", text="abcab"),
        entry(tmp_path, "long", seconds=1.9),
        entry(tmp_path, "gone", exists=False),
        entry(tmp_path, "untimed", seconds=0.0),
        entry(tmp_path, "negative", seconds=-1.0),
        entry(tmp_path, "empty", text="  "),
        entry(tmp_path, "unknown", text="abx"),
        entry(tmp_path, "too long", seconds=2.5),
        entry(tmp_path, "too wordy", text="abcabcabc"),
        entry(tmp_path, "dense", seconds=0.25, text="abcabc"),
    ]
    selection = select(entries, TOKENIZER, BUCKETS, **UNITS, label_limit=lambda frames: frames)
    assert [kept.id for kept in selection.entries] == ["short", "wordy", "long"]
    assert selection.labels == [[0, 1], [0, 1, 2, 0, 1], [0, 1]]
    assert selection.bucket_index.tolist() == [0, 1, 1]
    assert selection.skipped == {
        "without a file": ["gone"],
        "without a positive duration": ["untimed", "negative"],
        "without text": ["empty"],
        "with unknown characters": ["unknown"],
        "longer than the largest bucket (seconds)": ["too long"],
        "longer than the largest bucket (tokens)": ["too wordy"],
        "with more labels than frames allow": ["dense"],
    }
    report = selection.report()
    assert report.startswith("3 utterances, 0.00 h; skipped 8: 1 without a file, 2 without a pos")
    assert "\n" not in report


SHORT = (0.01, 0.02, 0.08, 0.081, 0.16, 0.24, 0.4)  # seconds: 0, 1, 1, 1, 2, 3 and 5 frames


@pytest.mark.parametrize(
    ("durations", "kept"),
    [
        ((0, 1, 2, 3, 4), SHORT[1:]),
        ((0, 1, 2, 3, 4, 5, 6, 7, 8), SHORT[1:]),
        ((1, 2, 3, 4), SHORT[5:]),  # two labels and the blank that ends it: three frames
        ((0, 2, 4), (0.16,)),  # even numbers only
        ((0, 3, 5), (0.24, 0.4)),
        ((2, 3), ()),  # six frames at least
        (None, SHORT[1:]),
        ("ctc", SHORT[4:]),
    ],
)
def test_short_utterances_are_kept_where_an_alignment_exists(tmp_path, durations, kept):
    entries = [entry(tmp_path, f"{seconds}", seconds) for seconds in SHORT]
    changes = dict(durations=durations)
    if durations == "ctc":
        changes = dict(durations=None, predictor=None, joint=None, ctc=True)
    limit = label_limit(ModelConfig(**changes))
    selection = select(entries, TOKENIZER, BUCKETS, **UNITS, label_limit=limit)
    assert [each.seconds for each in selection.entries] == list(kept)
    reasons = {"with too few frames for any alignment", "with more labels than frames allow"}
    assert selection.skipped.keys() <= reasons
    assert "0.01" in selection.skipped["with too few frames for any alignment"]


def test_the_most_labels_by_every_alignment():
    """As counted over all ways to fill the frames with arcs, of which the last is a blank."""
    for durations in ((1, 2, 3), (0, 2, 3), (2, 5), (0, 1, 2), (3,)):
        limit = label_limit(ModelConfig(durations=durations))
        positive = [d for d in durations if d]
        for frames in range(1, 9):
            ways = [
                arcs
                for number in range(1, frames + 1)
                for arcs in itertools.product(positive, repeat=number)
                if sum(arcs) == frames
            ]
            most = max((len(arcs) - 1 for arcs in ways), default=-1)
            assert limit(frames) == (math.inf if durations[0] == 0 and ways else most)


def test_without_a_limit_any_number_of_labels_is_kept(tmp_path):
    entries = [entry(tmp_path, "dense", 0.25, "abcabc")]
    selection = select(entries, TOKENIZER, BUCKETS, **UNITS)
    assert len(selection.entries) == 1 and selection.skipped == {}
    assert selection.report() == "1 utterances, 0.00 h"


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 1.12), (16000, 1.04), (24000, 1.0133)])
def test_buckets_are_filled_at_the_rate_of_the_model(tmp_path, rate, seconds):
    """The rows of a bucket of 1 s hold whole multiples of 1280 samples, whatever the rate."""
    entries = [entry(tmp_path, "fits", seconds), entry(tmp_path, "does not", seconds + 0.001)]
    selection = select(
        entries, TOKENIZER, BUCKETS, sample_rate=rate, samples_per_frame=rate * 8 // 100
    )
    assert selection.bucket_index.tolist() == [0, 1]
