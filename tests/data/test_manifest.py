"""Manifests: what is read, what is refused with its line, what is skipped for which reason."""

import itertools
import json
import math
import os

import numpy as np
import pytest

from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.segment import Segment
from tdt_jax.config import Bucket, ModelConfig
from tdt_jax.data.buckets import bucket_samples, fit
from tdt_jax.data.manifest import Entry, read_manifest, write_manifest
from tdt_jax.data.selection import label_limit, select
from tdt_jax.data.utterance import Utterance
from tdt_jax.tokenizer import Characters

BUCKETS = (Bucket(1.0, 4, 2), Bucket(2.0, 8, 2))
TOKENIZER = Characters("abc ")


def write(folder, *lines):
    path = folder / "manifest.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def item(**changes):
    return {"audio_filepath": "a.wav", "duration": 1.5, "text": "ab"} | changes


def test_read_manifest(tmp_path):
    path = write(
        tmp_path,
        "\ufeff" + json.dumps(item(text="grün", speaker=3, offset=0)),
        "",
        item(audio_filepath="/data/b.wav", duration=2),
        item(duration=None),
    )
    assert read_manifest(path) == [
        Entry("a.wav", tmp_path / "a.wav", 1.5, "grün", 0.0),
        Entry("/data/b.wav", type(tmp_path)("/data/b.wav"), 2.0, "ab"),
        Entry("a.wav#4", tmp_path / "a.wav", 0.0, "ab"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "Expecting property name"),
        ("[1, 2]", "needs a JSON object, got list"),
        ({"duration": 1.0}, "lacks audio_filepath and text"),
        (item(text=None), "text must be a string, got None"),
        (item(audio_filepath=3), "audio_filepath must be a string, got 3"),
        (item(audio_filepath=""), "audio_filepath is empty"),
        (item(duration="1.0"), "duration must be a number of seconds, got '1.0'"),
        (item(duration=True), "duration must be a number"),
        (item(duration=float("nan")), "duration must be finite"),
        (item(duration=10**400), "duration must be finite"),
        (item(offset="2.5"), "offset must be a number of seconds, got '2.5'"),
        (item(offset=-0.5), "offset must not be negative, got -0.5"),
        (item(offset=float("nan")), "offset must be finite"),
        (item(text="\ud800"), "text holds half a character"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = write(tmp_path, item(), line)
    with pytest.raises(ValueError, match=rf"manifest\.jsonl:2: .*{message}"):
        read_manifest(path)


def test_bad_lines_are_collected(tmp_path):
    with pytest.raises(ValueError) as error:
        read_manifest(write(tmp_path, *["{"] * 20))
    assert str(error.value).count("manifest.jsonl:") == 10
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"audio_filepath": "a.wav", "text": "gr\xfcn"}')
    with pytest.raises(ValueError, match=r"latin\.jsonl:1: .*utf-8"):
        read_manifest(path)


def test_no_manifest(tmp_path):
    with pytest.raises(ValueError, match="no manifest at"):
        read_manifest(tmp_path / "manifest.jsonl")
    with pytest.raises(ValueError, match="is empty"):
        read_manifest(write(tmp_path, "", " "))


def test_segments_and_names(tmp_path):
    """Parts of one file have ids of their own; a name is the bytes that the manifest spells."""
    path = write(
        tmp_path,
        item(offset=0.0),
        item(offset=5.042),
        item(offset=5.042, duration=2),
        item(offset=7, duration=None),
        item(offset=None, audio_filepath="\udcff.wav", text="gru\u0308n"),
    )
    entries = read_manifest(path)
    assert [(each.id, each.offset) for each in entries] == [
        ("a.wav", 0.0), ("a.wav@5.042", 5.042), ("a.wav@5.042#3", 5.042), ("a.wav@7.0", 7.0),
        ("\\xff.wav", None),
    ]  # fmt: skip
    assert entries[2].audio == Segment(tmp_path / "a.wav", 5.042, 2.0)
    assert entries[3].audio == Segment(tmp_path / "a.wav", 7.0, None)
    assert os.fsencode(entries[4].path.name) == b"\xff.wav"
    assert entries[4].text == "grün"  # NFC


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
    selection = select(entries, TOKENIZER, BUCKETS, label_limit=lambda frames: frames)
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
    selection = select(entries, TOKENIZER, BUCKETS, label_limit=limit)
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


def test_select_options(tmp_path):
    entries = [entry(tmp_path, "empty", text=""), entry(tmp_path, "dense", 0.25, "abcabc")]
    selection = select(entries, TOKENIZER, BUCKETS, allow_empty=True)
    assert len(selection.entries) == 2 and selection.skipped == {}
    assert selection.report() == "2 utterances, 0.00 h"


def test_bucket_shapes():
    assert bucket_samples(Bucket(16.7, 1, 1)) == 209 * 1280  # 267200 samples need 208.75 frames
    assert bucket_samples(Bucket(1.6, 1, 1)) == 25600
    assert fit(1.0, 4, BUCKETS) == 0
    assert fit(1.0, 5, BUCKETS) == 1
    assert fit(1.1, 1, BUCKETS) == 1  # the rows of the first hold 1.04 s
    assert fit(2.1, 1, BUCKETS) is None


def test_what_is_written_is_read_again(tmp_path):
    rng = np.random.default_rng(0)
    samples = [rng.uniform(-0.5, 0.5, size).astype(np.float32) for size in (800, 1600)]
    utterances = [Utterance("a", samples[0], "grün"), Utterance("b", samples[1], "b")]
    write_manifest(tmp_path / "test.jsonl", utterances, 8000)
    entries = read_manifest(tmp_path / "test.jsonl")
    assert [(each.id, each.seconds, each.text) for each in entries] == [
        ("test/a.flac", 0.1, "grün"), ("test/b.flac", 0.2, "b")
    ]  # fmt: skip
    for entry, wanted in zip(entries, samples, strict=True):
        np.testing.assert_allclose(as_samples(entry.audio, 8000), wanted, atol=2**-15)
