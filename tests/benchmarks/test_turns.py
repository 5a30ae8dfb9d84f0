"""The benchmark of ends of turns: what is joined, and what counts as missed and as cut."""

import json
from types import SimpleNamespace

import models
import numpy as np
import pytest

from tdt_jax.benchmarks import turns
from tdt_jax.benchmarks.live import Recording
from tdt_jax.cli import main
from tdt_jax.data.utterance import SpokenWord, Utterance
from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.streaming import StreamedWord

RATE = 16000


def recording(level, *, pause=0.5):
    """Two words of 0.4 s at a level, with a pause between and 0.3 s of silence around."""
    word, edge = np.full(round(0.4 * RATE), level), np.zeros(round(0.3 * RATE))
    samples = np.concatenate([edge, word, np.zeros(round(pause * RATE)), word, edge])
    words = (SpokenWord("one", 0.3, 0.7), SpokenWord("two", pause + 0.7, pause + 1.1))
    return Utterance(str(level), samples.astype(np.float32), "one two", words=words)


RECORDINGS = [recording(0.1), recording(0.2), recording(0.3, pause=1.2)]


def joined():
    return turns.join(
        [Recording(r.id, r.samples, r.text, r.words, r.words[0].start, r.words[-1].end)
         for r in RECORDINGS],
        RATE,
    )  # fmt: skip


def test_recordings_are_joined_with_pauses():
    result = joined()
    sounds = np.flatnonzero(np.diff((result.samples > 0).astype(int))) / RATE
    starts, ends = sounds[::4], sounds[3::4]
    assert result.starts == pytest.approx(starts, abs=1e-3)
    assert result.ends == pytest.approx(ends, abs=1e-3)
    gaps = starts[1:] - ends[:-1] - 0.6
    assert np.all((gaps > 0.2 - 1e-3) & (gaps < 2.0 + 1e-3)) and gaps[0] != gaps[1]
    assert len(result.pauses) == 1 and np.diff(result.pauses) == pytest.approx(1.2)
    np.testing.assert_array_equal(result.samples, joined().samples)


def test_events_are_ends_or_cuts_or_too_late():
    three = turns.Turns(
        np.zeros(0), np.array([1.0, 4.0, 6.0]), np.array([2.0, 5.5, 9.0]), np.array([[7.0, 8.5]])
    )

    def counted(*events):
        row = turns.count(np.array(events).reshape(-1, 2), three)
        delay = row.pop("delay")
        return list(row.values()), delay and delay["median"]

    # turns, missed, long turns, missed of them, false cuts, those in long pauses
    assert counted() == ([3, 3, 2, 2, 0, 0], None)
    events = (2.6, 1.8), (5.8, 5.4), (9.4, 8.8)
    figures, delay = counted(*events)
    assert figures == [3, 0, 2, 0, 0, 0] and delay == pytest.approx(0.4)
    cuts = (1.6, 1.2), (7.8, 6.8)  # in a word, in a long pause
    assert counted(*sorted([*events, *cuts])) == ([3, 0, 2, 0, 2, 1], delay)
    late = (4.2, 1.8), (6.3, 5.4), (9.4, 8.8)  # when the next turn has begun
    assert counted(*late)[0] == [3, 2, 2, 1, 0, 0]
    twice = (2.6, 1.8), (3.0, 2.7), (5.8, 5.4), (9.4, 8.8)  # a word is decoded after the end
    assert counted(*twice) == (figures, delay)


class Stream:
    """Emits a word where sound ends, and ends a turn after `shortest` seconds of silence."""

    def __init__(self, recogniser, end_of_turn):
        self.shortest, self.now, self.sounded = end_of_turn.shortest, 0.0, None

    def warm_up(self):
        pass

    def push(self, samples):
        self.now += len(samples) / RATE
        if samples.any():
            self.sounded = self.now
        elif self.sounded is not None and self.now >= self.sounded + self.shortest - 1e-6:
            emitted, self.sounded = self.sounded - 0.05, None
            return [
                StreamedWord("one", emitted, emitted, 1.0, 1.0),
                EndOfUtterance("one", emitted, emitted, self.now, "silence"),
            ]
        return []


@pytest.fixture
def recogniser(monkeypatch):
    monkeypatch.setattr(turns, "Stream", Stream)
    return SimpleNamespace(config=models.config())


def test_a_row_for_each_rule(recogniser):
    rules = [EndOfTurn(0.6, 0.6), EndOfTurn(1.0, 0.75)]
    one, two = turns.turn_reports(recogniser, RECORDINGS, rules=rules)
    for report, rule in zip((one, two), rules, strict=True):
        (row,) = report.rows
        assert (row["silence"], row["shortest"]) == (rule.silence, rule.shortest)
        assert row["turns"] == 3 and row["lookahead"] is None
        assert row["false_cuts"] == row["cuts_in_long_pauses"] == 1
        assert row["missed"] == 0
        assert row["delay"]["median"] == pytest.approx(rule.shortest, abs=0.03)
    assert "3 turns" in str(one) and "0.60 s" in str(one) and "3 turns" not in str(two)
    (often,) = turns.turn_reports(recogniser, RECORDINGS, rules=[EndOfTurn(0.4, 0.3)])
    assert often.rows[0]["false_cuts"] == 3 and often.rows[0]["cuts_in_long_pauses"] == 1
    (never,) = turns.turn_reports(recogniser, RECORDINGS, rules=[EndOfTurn(9.0, 9.0)])
    assert never.rows[0]["missed"] == 3 and never.rows[0]["delay"] is None
    assert " - " in str(never)


def test_the_command(recogniser, monkeypatch, capsys):
    monkeypatch.setattr("tdt_jax.checkpoints.loading.load", lambda name: recogniser)
    monkeypatch.setattr("tdt_jax.data.sources.read_source", lambda name: RECORDINGS)
    command = ["benchmark", "live", "model", "manifest", "--json", "--end-of-turn", "0.8,1.4:0.6"]
    assert main.main(command) == 0
    rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(row["silence"], row["shortest"]) for row in rows] == [(0.8, 0.4), (1.4, 0.6)]
