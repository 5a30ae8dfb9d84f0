"""The benchmark of long audio: what it joins, and what it counts as changed."""

import json
import wave
from types import SimpleNamespace

import models
import numpy as np
import pytest

from tdt_jax.benchmarks import long_form
from tdt_jax.benchmarks.near_silence import PLACES, channels, kinds
from tdt_jax.cli import main
from tdt_jax.data.utterance import Utterance
from tdt_jax.inference.transcript import Transcript, Word
from tdt_jax.inference.transcription import RecordingResult

RATE = 16000
WORDS = "zero one two three four five six seven eight nine".split()


def spoken(*numbers):
    """A word is 0.1 s of a level, with 0.1 s of digital silence on both sides."""
    quiet = np.zeros(RATE // 10, np.float32)
    parts = [(quiet, np.full(RATE // 10, (n + 1) / 20, np.float32), quiet) for n in numbers]
    samples = np.concatenate([each for part in parts for each in part])
    return Utterance(f"{numbers}", samples, " ".join(WORDS[n] for n in numbers))


@pytest.fixture
def recogniser(monkeypatch):
    """Decodes every level as its word, but not the first word after a second of silence."""

    def decode(samples):
        starts = np.flatnonzero(np.diff(np.concatenate([[0], samples])) > 0.01)
        words = [WORDS[round(samples[start] * 20) - 1] for start in starts]
        first = Word("word", 0.9 * starts[0] / RATE, 0.0, 1.0, 1.0)  # a tenth too early
        text = " ".join(words[int(starts[0] >= RATE) :])
        return Transcript(text, [], [first], [], len(samples) / RATE)

    def transcribe_each(recogniser, audio, *, piece_seconds):
        results = [RecordingResult(decode(samples), 0, 0, 0) for samples in audio]
        return reversed(list(enumerate(results)))

    monkeypatch.setattr(long_form, "transcribe_each", transcribe_each)
    return SimpleNamespace(config=models.config())


UTTERANCES = [spoken(1, 2, 3), spoken(4), spoken(5, 6)]


def rows_of(recogniser, items, **options):
    reports = long_form.long_form_reports(recogniser, items, **options)
    return [row for report in reports for row in report.rows]


def changes_of(row):
    return row["name"], row["changed"]


def test_what_has_changed_is_counted(recogniser):
    options = dict(minutes=[0.05], gaps=[0.0, 1.0], leads=[0.5, 1.0], near_silence=[], rights=[])
    wrong = UTTERANCES[1]._replace(text="five")  # it says four
    items = [UTTERANCES[0], wrong, UTTERANCES[2]]
    reports = list(long_form.long_form_reports(recogniser, items, **options))
    alone, joined, apart, *leads = (row for report in reports for row in report.rows)
    assert list(alone.values())[2:] == [1 / 6, 6, 0, 3, 0, None]
    assert joined["name"] == "joined, 0.05 min" and joined["audio_seconds"] >= 3
    assert joined["words"] > 6 and joined["utterances"] == 1 and joined["changed"] == 0
    assert apart["name"] == "joined, 0.05 min, 1 s between" and apart["words"] < joined["words"]
    changes = [(row["changed"], row["changed_utterances"]) for row in leads]
    assert changes == [(0, 0)] * 2 + [(3, 3)] * 2
    assert [row["moved"] for row in leads] == [pytest.approx(0.05)] * 2 + [None] * 2
    assert leads[-1]["word_error_rate"] == pytest.approx(3 / 6)
    names = [row["name"] for row in leads[2:]]
    assert names == ["after 1 s of silence", "after 1 s of background"]
    assert "changed: 3 of 6 words, 3 of 3 transcripts" in str(reports[-1])
    assert str(reports[3]).endswith("; first words are 0.05 s off")


def test_recordings_are_joined_as_often_as_it_takes():
    audio = [each.samples for each in UTTERANCES]
    order, samples = long_form.join(audio, 10 * RATE, 100)
    assert sorted(order[:3]) == sorted(order[3:6]) == [0, 1, 2]
    assert len(samples) - 100 - len(audio[order[-1]]) < 10 * RATE <= len(samples)
    expected = np.concatenate([np.append(audio[i], np.zeros(100)) for i in order])
    np.testing.assert_array_equal(samples, expected)


def test_near_silence_of_every_kind_at_every_place(recogniser):
    options = dict(minutes=[], gaps=[], leads=[], near_silence=[0.4, 1.5], rights=[])
    _, *rows = rows_of(recogniser, UTTERANCES[:1], **options)
    cells = {row["name"]: row["changed"] for row in rows}
    assert len(cells) == 2 * len(kinds()) * len(PLACES) + len(channels(RATE))
    # The first word after a second of silence is the one that this recogniser loses.
    for name in ("zeros", "noise of 1e-05", "steps of 24 bits"):
        assert cells[f"1.5 s of {name} before"] == 1
        assert cells[f"0.4 s of {name} before"] == cells[f"1.5 s of {name} behind"] == 0
    assert rows[0]["audio_seconds"] == pytest.approx(0.9 + 0.4)


def test_live_rows_are_named_by_what_is_ahead(recogniser, monkeypatch):
    class Stream:
        def __init__(self, recogniser, right):
            self.right, self.text = right, ""

        def push(self, samples):
            silence = np.flatnonzero(samples)[0] // RATE
            self.text = " ".join(["four"] * round(self.right) + ["mm"] * silence)
            yield "word"

        def finish(self):
            yield "word"

    monkeypatch.setattr(long_form, "Stream", Stream)
    options = dict(minutes=[], near_silence=[], leads=[], rights=[1.0, 2.0])
    _, one, two = rows_of(recogniser, UTTERANCES[1:2], **options)
    assert changes_of(one) == ("live, 1 s ahead", 0)
    assert changes_of(two) == ("live, 2 s ahead", 1) and two["word_error_rate"] == 1.0
    options = dict(minutes=[], near_silence=[], leads=[0.5, 3.0], rights=[1.0])
    *_, none, three = rows_of(recogniser, UTTERANCES[1:2], **options)
    assert changes_of(none) == ("live, 1 s ahead", 0)
    assert changes_of(three) == ("live, 1 s ahead, after 3 s", 3)
    recogniser.config = models.config(durations=None, ctc=True, predictor=None, joint=None)
    rows = rows_of(recogniser, UTTERANCES[1:2], **options)
    assert not any(row["name"].startswith("live") for row in rows)
    causal = SimpleNamespace(is_causal=True)
    recogniser.config = SimpleNamespace(
        encoder=causal, predictor=1, features=models.config().features
    )
    rows = rows_of(recogniser, UTTERANCES[1:2], **options)
    assert not any(row["name"].startswith("live") for row in rows)


def test_the_command(recogniser, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tdt_jax.checkpoints.loading.load", lambda name: recogniser)
    for i, utterance in enumerate(UTTERANCES):
        with wave.open(f"{tmp_path}/{i}.wav", "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((utterance.samples * 32767).astype("<i2").tobytes())
    (tmp_path / "3.wav").write_bytes(b"no audio")
    lines = [{"audio_filepath": f"{i}.wav", "text": "one"} for i in range(4)]
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    command = ["benchmark", "long", "model", str(manifest), "--minutes", "0.1", "--json"]
    command += ["--right", "", "--near-silence", ""]
    assert main.main([*command, "--gap", "0", "--lead", "1"]) == 1
    output, errors = capsys.readouterr()
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["changed_utterances"] for row in rows] == [0, 0, 3, 3]
    assert "not counted" in errors and "3.wav" in errors
    for mistake in (["--lead", "-1"], ["--gap", "nan"], ["--minutes", "inf"], ["--minutes", "0"]):
        assert main.main([*command, *mistake]) == 2
        assert "must not be negative" in capsys.readouterr().err
