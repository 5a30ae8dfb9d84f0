"""The benchmark of live streams: its clock, what it plays, and which delays it counts."""

import json
import wave
from types import SimpleNamespace

import models
import numpy as np
import pytest

from tdt_jax.benchmarks import live
from tdt_jax.cli import main
from tdt_jax.data.utterance import SpokenWord, Utterance
from tdt_jax.inference.streaming import StreamedWord
from tdt_jax.inference.transcript import Transcript, Word
from tdt_jax.inference.transcription import RecordingResult

RATE = 16000
WORDS = "zero one two three four five six seven eight nine".split()


def spoken(*numbers):
    """Words of 0.1 s at a level of their own, each between 0.1 s of digital silence."""
    quiet = np.zeros(RATE // 10, np.float32)
    tone = 1 + 0.001 * (-1.0) ** np.arange(RATE // 10, dtype=np.float32)
    parts = [(quiet, (n + 1) / 20 * tone, quiet) for n in numbers]
    samples = np.concatenate([each for part in parts for each in part])
    words = [
        SpokenWord(WORDS[n], round(0.3 * i + 0.1, 3), round(0.3 * i + 0.2, 3))
        for i, n in enumerate(numbers)
    ]
    return Utterance(f"{numbers}", samples, " ".join(w.text for w in words), words=tuple(words))


def heard(samples):
    """Returns the words of samples as (text, start, end); nine is heard as eight."""
    edges = np.diff(np.concatenate([[0], samples, [0]]))
    starts = np.flatnonzero(edges > 0.01)
    ends = np.flatnonzero(edges < -0.01)
    words = [WORDS[min(round(samples[start] * 20) - 1, 8)] for start in starts]
    return [(w, s / RATE, e / RATE) for w, s, e in zip(words, starts, ends, strict=False)]


class Machine:
    """A clock that goes on only where something waits or is computed."""

    def __init__(self, push, finish):
        self.now, self.push, self.finish = 100.0, push, finish

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Stream:
    """Shows a word 0.11 s after its end, and is certain of it when it shows the next."""

    machine: Machine

    def __init__(self, recogniser):
        self.reset()

    def reset(self):
        self.samples, self.words = np.zeros(0, np.float32), []

    def warm_up(self):
        pass

    @property
    def text(self):
        return " ".join(word.text for word in self.words)

    def push(self, samples):
        self.machine.now += self.machine.push
        self.samples = np.append(self.samples, samples)
        seen = [word for word in heard(self.samples) if word[2] + 0.11 <= len(self.samples) / RATE]
        self.pending = " ".join(["", *(word for word, *_ in seen[-1:])])
        return self._certain(seen[:-1])

    def finish_turn(self):
        self.machine.now += self.machine.finish
        self.pending = ""
        return self._certain(heard(self.samples))

    def _certain(self, words):
        new = [StreamedWord(w, s + 0.02, e, 1.0, 1.0) for w, s, e in words[len(self.words) :]]
        self.words += new
        return new


@pytest.fixture
def machine(monkeypatch):
    machine = Stream.machine = Machine(0.0, 0.0)
    monkeypatch.setattr(live, "time", machine)
    return machine


@pytest.fixture
def recogniser(monkeypatch, machine):
    def transcribe_each(recogniser, audio):
        for i, samples in reversed(list(enumerate(audio))):
            words = [Word(w, s + 0.05, e, 1.0, 1.0) for w, s, e in heard(samples)]
            text = " ".join(word.text for word in words)
            yield i, RecordingResult(Transcript(text, [], words, [], 0.0), 0, 0, 0)

    monkeypatch.setattr(live, "transcribe_each", transcribe_each)
    monkeypatch.setattr(live, "Stream", Stream)
    return SimpleNamespace(config=models.config())


UTTERANCES = [spoken(1, 2, 3), spoken(4), spoken(5, 6)]


def row_of(recogniser, items, **options):
    (report,) = live.live_reports(recogniser, items, **options)
    (row,) = report.rows
    return row


def medians(row):
    return {name: row[name] and round(row[name]["median"], 3) for name in live.COLUMNS}


def test_delays_on_an_infinitely_fast_machine(recogniser):
    row = row_of(recogniser, UTTERANCES)
    assert row["recordings"] == 3 and row["timed_words"] == 6 and row["lookahead"] is None
    assert row["word_error_rate"] == row["offline_word_error_rate"] == 0
    assert row["real_time_factor"] == row["largest_delay"] == pytest.approx(0)
    assert row["audio_seconds"] == pytest.approx(0.8 + 0.2 + 0.5 + 3 * 0.2)
    assert medians(row) == {
        "ttfs": 0.2,
        "first_partial": 0.22,  # 0.1 s after the end of the word, in the next block
        "decoded": 0.12,
        "final": 0.31,  # of three words when the next is shown, of three at the end
        "label_delay": -0.08,
        "offline_label_delay": -0.05,
    }


def test_computation_counts_and_queues(recogniser, machine):
    machine.push, machine.finish = 0.01, 0.03
    row = row_of(recogniser, UTTERANCES[1:2])
    # The last block has come at the same time, and is decoded first.
    assert medians(row)["ttfs"] == 0.24 and row["largest_delay"] == pytest.approx(0.04)
    assert medians(row)["decoded"] == 0.13
    assert row["real_time_factor"] == pytest.approx((20 * 0.01 + 0.03) / 0.4)
    machine.push = 0.05
    row = row_of(recogniser, UTTERANCES[1:2])
    finished = 0.02 + 20 * 0.05 + 0.03  # the blocks up to 0.4 s, one after another
    assert row["ttfs"]["p99"] == pytest.approx(finished - 0.2)
    assert row["largest_delay"] == pytest.approx(finished - 0.4)


def test_real_time_gives_what_is_simulated(recogniser, machine):
    machine.push, machine.finish = 0.015, 0.04
    start = machine.now
    simulated = row_of(recogniser, UTTERANCES)
    between = machine.now
    real = row_of(recogniser, UTTERANCES, real_time=True)
    assert machine.now - between > between - start + 0.5
    for name in live.COLUMNS:
        assert real[name] == pytest.approx(simulated[name], abs=1e-6)


def test_only_right_words_with_known_ends_are_timed(recogniser):
    wrong = spoken(9, 1)  # heard as eight one
    row = row_of(recogniser, [wrong])
    assert row["timed_words"] == 1 and row["word_error_rate"] == 0.5
    together = wrong._replace(text="eight one", words=(SpokenWord("eight one", 0.1, 0.5),))
    assert row_of(recogniser, [together])["timed_words"] == 1
    untimed = wrong._replace(words=())
    row = row_of(recogniser, [untimed])
    assert row["timed_words"] == 0 and medians(row)["ttfs"] == 0.2
    assert medians(row)["first_partial"] == 0.22  # from where sound starts
    assert row["decoded"] is row["label_delay"] is row["offline_label_delay"] is None
    assert " - " in str(next(live.live_reports(recogniser, [untimed])))


def test_streams_play_all_recordings(recogniser, machine, monkeypatch):
    class Handle:
        def __init__(self):
            self.stream, self.waiting = Stream(None), []

        text = property(lambda self: self.stream.text)
        pending = property(lambda self: self.stream.pending)

        def push(self, samples):
            self.waiting.append(lambda: self.stream.push(samples))

        def finish_turn(self):
            self.waiting.append(self.stream.finish_turn)

        def reset(self):
            assert not self.waiting
            self.stream.reset()

    class Streams:
        def __init__(self, recogniser, slots):
            self.handles = []

        def warm_up(self):
            pass

        def open(self):
            self.handles.append(Handle())
            return self.handles[-1]

        def step(self):
            ready = [each for each in self.handles if each.waiting]
            machine.now += 0.004 * bool(ready)
            return [(each, each.waiting.pop(0)()) for each in ready]

    monkeypatch.setattr(live, "Streams", Streams)
    items = [*UTTERANCES, spoken(7, 8, 0)]
    row = row_of(recogniser, items, num_streams=2, stop_secs=0.21)
    assert row["streams"] == 2 and row["recordings"] == 4 and row["timed_words"] == 9
    assert row["word_error_rate"] == 0
    assert row["ttfs"]["median"] == pytest.approx(0.214)  # a step decodes the end
    assert 0.004 <= row["largest_delay"] < 0.009  # another step may come first
    with pytest.raises(ValueError, match="5 streams need as many recordings, got 4"):
        list(live.live_reports(recogniser, items, num_streams=5))


def test_every_look_ahead_of_a_causal_model(recogniser, monkeypatch):
    recogniser.config = SimpleNamespace(lookaheads=(0.16, 0.0), features=recogniser.config.features)
    chosen = []
    monkeypatch.setattr(live, "with_lookahead", lambda r, each: chosen.append(each) or r)
    first, second = live.live_reports(recogniser, UTTERANCES[:1])
    assert chosen == [first.rows[0]["lookahead"], second.rows[0]["lookahead"]] == [0.0, 0.16]
    assert "look-ahead" in str(first) and str(second).startswith("    160 ms")
    list(live.live_reports(recogniser, UTTERANCES[:1], lookaheads=[0.16]))
    assert chosen[2:] == [0.16]


def test_the_command(recogniser, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tdt_jax.checkpoints.loading.load", lambda name: recogniser)
    lines = []
    for i, utterance in enumerate(UTTERANCES):
        with wave.open(f"{tmp_path}/{i}.wav", "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((utterance.samples * 32767).astype("<i2").tobytes())
        words = [{"word": w.text, "start": w.start, "end": w.end} for w in utterance.words]
        lines.append({"audio_filepath": f"{i}.wav", "text": utterance.text, "words": words})
    (tmp_path / "3.wav").write_bytes(b"no audio")
    lines.append({"audio_filepath": "3.wav", "text": "one"})
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    command = ["benchmark", "live", "model", str(manifest)]
    assert main.main([*command, "--json", "--stop-secs", "0.3"]) == 1
    output, errors = capsys.readouterr()
    (row,) = map(json.loads, output.splitlines())
    assert row["recordings"] == 3 and medians(row)["ttfs"] == 0.3 and row["timed_words"] == 6
    assert "not counted" in errors and "3.wav" in errors
    assert main.main(command) == 1
    assert "200/200/200" in capsys.readouterr().out
    for mistake, message in (
        (["--stop-secs", "-1"], "stop_secs must be finite"),
        (["--stop-secs", "nan"], "stop_secs must be finite"),
        (["--lookahead", "0.08"], "no look-ahead|look-ahead can be chosen"),
        (["--streams", "2", "--end-of-turn", "0.5"], "does not go with --streams"),
        (["--end-of-turn", "0.5:0.9"], "0 < shortest <= silence"),
    ):
        assert main.main([*command, *mistake]) == 2
        error = capsys.readouterr().err
        assert any(part in error for part in message.split("|")), error
    with pytest.raises(SystemExit):
        main.main([*command, "--end-of-turn", "half"])
    assert "'half' is not a list" in capsys.readouterr().err
