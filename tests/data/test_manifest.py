"""Manifests: what is read and written, and what is refused with its line."""

import json
import os

import numpy as np
import pytest

from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.segment import Segment
from tdt_jax.data.manifest import Entry, read_manifest, write_manifest
from tdt_jax.data.utterance import SpokenWord, Utterance


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
        ("{not json", "needs a JSON object, got '{not json'"),
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
        (item(text="\ud800"), "text has half of a surrogate pair"),
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


def test_times_of_words_are_written_and_read(tmp_path):
    words = SpokenWord("grün", 0.0312, 0.25), SpokenWord("a m", 0.3, 0.75)
    utterance = Utterance("a", np.zeros(8000, np.float32), "grün a m", words=words)
    write_manifest(tmp_path / "test.jsonl", [utterance], 8000)
    assert read_manifest(tmp_path / "test.jsonl")[0].words == words
    assert '"words": [{"word": "gr' in (tmp_path / "test.jsonl").read_text()


@pytest.mark.parametrize(
    "words",
    [
        None,
        3,
        ["one"],
        [{"word": "one", "start": 0.1}],
        [{"word": 1, "start": 0.1, "end": 0.2}],
        [{"word": "one", "start": "0.1", "end": 0.2}],
        [{"word": "one", "start": 0.3, "end": 0.2}],
        [{"word": "one", "start": 0.1, "end": float("nan")}],
        [{"word": "one", "start": 0.5, "end": 0.6}, {"word": "two", "start": 0.2, "end": 0.7}],
    ],
)
def test_words_of_another_form_are_ignored(tmp_path, words):
    assert read_manifest(write(tmp_path, item(words=words)))[0].words == ()
