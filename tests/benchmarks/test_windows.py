"""The benchmark of streams in windows: where recordings are cut, and which words it counts."""

import json
from types import SimpleNamespace

import models
import numpy as np
import pytest

from tdt_jax.benchmarks import windows
from tdt_jax.benchmarks.windows import Sizes
from tdt_jax.cli import main
from tdt_jax.data.utterance import Utterance
from tdt_jax.inference.streaming import StreamedWord
from tdt_jax.inference.transcript import Word

RATE = 16000
LEVELS = {"one": 0.1, "two": 0.2, "three": 0.3}


def recording(*texts):
    """Words of 0.3 s at a level of their own, between 0.3 s of digital silence."""
    quiet = np.zeros(round(0.3 * RATE))
    parts = [(quiet, np.full(len(quiet), LEVELS[text]), quiet) for text in texts]
    samples = np.concatenate([each for part in parts for each in part])
    return Utterance(" ".join(texts), samples.astype(np.float32), " ".join(texts))


RECORDINGS = [recording("one", "two"), recording("three", "one", "one")]


def heard(samples):
    """Returns the words of samples as (text, start, end)."""
    edges = np.diff(samples, prepend=0, append=0)
    starts, ends = np.flatnonzero(edges > 0.01), np.flatnonzero(edges < -0.01)
    names = {round(level * 10): text for text, level in LEVELS.items()}
    texts = [names[round(float(samples[start]) * 10)] for start in starts]
    return [(w, s / RATE, e / RATE) for w, s, e in zip(texts, starts, ends, strict=True)]


class Stream:
    """Loses a word in which a chunk begins; starts of all others are `late` seconds late."""

    late = 0.0

    def __init__(self, recogniser, *, left, chunk, right):
        self.chunk, self.latency = chunk, chunk + right
        self.audio = []

    def warm_up(self):
        pass

    def reset(self):
        pass

    def push(self, samples):
        self.audio.append(samples)
        words = heard(samples)
        assert len(samples) / RATE > words[-1][2] + self.latency  # no word waits for the end
        return [
            StreamedWord(w, s + self.late, e, 1.0, 1.0)
            for w, s, e in words
            if s // self.chunk == (e - 1e-6) // self.chunk
        ]

    def finish(self):
        return []


@pytest.fixture
def recogniser(monkeypatch):
    def transcribed(recogniser, audio):
        words = [[Word(*word, 1.0, 1.0) for word in heard(samples)] for samples in audio]
        return [(" ".join(word.text for word in each), each) for each in words]

    monkeypatch.setattr(windows, "transcribed", transcribed)
    monkeypatch.setattr(windows, "Stream", Stream)
    return SimpleNamespace(config=models.config())


def row_of(recogniser, sizes, cuts):
    (report,) = windows.window_reports(recogniser, RECORDINGS, windows=[sizes], cuts=cuts)
    (row,) = report.rows
    return row


def test_words_at_borders_of_chunks_are_counted(recogniser):
    row = row_of(recogniser, Sizes(8, 0.9, 0.5), 40)
    assert row["words"] == 20 * 2 + 20 * 3
    # A third of the places where chunks of 0.9 s can begin are in words of 0.3 s, 0.9 s apart.
    assert row["lost"] == pytest.approx(100 / 3, abs=3)
    assert 12 <= row["changed"] <= 15
    assert row["inserted"] == row["doubled"] == row["substituted"] == 0
    assert row["latency"] == pytest.approx(1.4)
    assert row["late"] == 0 and row["difference"] == pytest.approx({"p95": 0, "max": 0})
    whole = row_of(recogniser, Sizes(8, 12, 0.5), 4)
    assert whole["lost"] == whole["changed"] == 0


def test_cuts_are_spread_over_a_chunk():
    recordings = [SimpleNamespace(samples=each.samples) for each in RECORDINGS]
    audio = windows._cut(recordings, 40, Sizes(8, 0.6, 0.5), RATE)
    firsts = np.array([heard(samples)[0][1] - 0.3 for samples in audio])
    np.testing.assert_allclose(np.sort(firsts), np.arange(40) * 0.015, atol=1e-4)
    for own in (firsts[::2], firsts[1::2]):
        assert own.min() < 0.1 and own.max() > 0.5


def test_times_are_compared_in_frames(recogniser, monkeypatch):
    monkeypatch.setattr(Stream, "late", 0.08)
    row = row_of(recogniser, Sizes(8, 12, 0.5), 2)
    assert row["late"] == 0 and row["difference"]["max"] == pytest.approx(1)
    monkeypatch.setattr(Stream, "late", 0.1)
    row = row_of(recogniser, Sizes(8, 12, 0.5), 2)
    assert row["late"] == 5 and row["difference"]["p95"] == pytest.approx(1.25)


def words(text):
    """Words a second apart; "+b" continues the word before it."""
    return [
        Word(part.lstrip("+"), i, i + 0.5, 1.0, 1.0, space_before=part[0] != "+")
        for i, part in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    "whole, streamed, counts",
    [
        ("a b c", "a b c", (0, 0, 0, 0)),
        ("a b c", "a c", (1, 0, 0, 0)),
        ("a b c", "a b b c", (0, 1, 0, 1)),
        ("a b c", "a b d c", (0, 1, 0, 0)),
        ("a b c", "a d c", (0, 0, 1, 0)),
        ("a b +c", "a b +c", (0, 0, 0, 0)),
        ("a", "", (1, 0, 0, 0)),
        ("", "a a", (0, 2, 0, 2)),
    ],
)
def test_words_are_aligned(whole, streamed, counts):
    compared = windows.compare(words(whole), words(streamed))
    names = "lost", "inserted", "substituted", "doubled"
    assert tuple(compared.counts[name] for name in names) == counts


def test_nothing_to_compare(recogniser, monkeypatch):
    monkeypatch.setattr(Stream, "push", lambda self, samples: [])
    (report,) = windows.window_reports(recogniser, RECORDINGS, windows=[Sizes(8, 0.6, 0.5)], cuts=2)
    assert report.rows[0]["lost"] == 5 and report.rows[0]["difference"] is None
    assert "8-0.6-0.5" in str(report)


def test_the_command(recogniser, monkeypatch, capsys):
    monkeypatch.setattr("tdt_jax.checkpoints.loading.load", lambda name: recogniser)
    monkeypatch.setattr("tdt_jax.data.sources.read_source", lambda name: RECORDINGS)
    command = ["benchmark", "live", "model", "manifest", "--windows", "8:12:1.5,4:0.8:0.4"]
    assert main.main([*command, "--cuts", "4", "--json"]) == 0
    rows = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [(row["left"], row["chunk"], row["right"]) for row in rows] == [
        (8, 12, 1.5), (4, 0.8, 0.4)
    ]  # fmt: skip
    assert rows[0]["cuts"] == 4
    assert main.main([*command, "--streams", "2"]) == 2
    assert "--streams" in capsys.readouterr().err
