"""How well and how soon a model transcribes live, as a voice agent needs it.

A recording is pushed into a stream in blocks of 20 ms, as by a microphone, and silence follows it.
The caller's voice-activity detector (VAD) is simulated: it notices the end of speech `stop_secs`
late, and then calls `finish_turn()`.

The clock is the machine's, or it is simulated: then waiting takes no time, and a call takes as long
as it has taken on this machine, so that blocks queue behind a slow one as they do in real time.

A manifest's `words` say when words and speech end. A recording without them is taken to end where
its sound ends (`tdt_jax.audio.silence`), and its words are not timed.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.silence import stretches
from tdt_jax.benchmarks.recordings import read_each
from tdt_jax.benchmarks.report import Report
from tdt_jax.data.utterance import SpokenWord, Utterance
from tdt_jax.inference import metrics
from tdt_jax.inference.normalizers import make_normalizer
from tdt_jax.inference.stream_words import StreamedWord, StreamEvent
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.streams import Streams
from tdt_jax.inference.transcript import Word
from tdt_jax.inference.transcription import transcribe_each
from tdt_jax.recogniser import Recogniser, with_lookahead

BLOCK = 0.02  # seconds
STATISTICS = ("median", "p95", "p99")
COLUMNS = {  # of a row: what the table calls it
    "ttfs": "TTFS",
    "first_partial": "first partial",
    "decoded": "word decoded",
    "final": "word final",
    "label_delay": "label delay",
    "offline_label_delay": "offline",
}
R = TypeVar("R")
Normalize = Callable[[str], str]


class Recording(NamedTuple):
    """What is played, and when somebody speaks in it."""

    id: str
    samples: np.ndarray  # [S] float32
    text: str
    words: tuple[SpokenWord, ...]
    start: float  # of speech, in seconds
    end: float


class Change(NamedTuple):
    """What a stream shows from a time on, in seconds from the start of the recording."""

    time: float
    text: str  # words that are certain
    shown: str  # with those that are pending


class Played(NamedTuple):
    """A recording with its transcript as it grew."""

    recording: Recording
    words: list[Word]
    changes: list[Change]  # the last one is the final transcript


class Clock:
    """Seconds since it was made, on this machine or simulated.

    Attributes:
      busy: seconds that `run` has taken.
    """

    def __init__(self, *, real_time: bool):
        self._start = time.perf_counter() if real_time else None
        self._now = self.busy = 0.0

    @property
    def now(self) -> float:
        return self._now if self._start is None else time.perf_counter() - self._start

    def wait_until(self, seconds: float) -> None:
        if self._start is None:
            self._now = max(self._now, seconds)
        else:
            time.sleep(max(0.0, seconds - self.now))

    def run(self, function: Callable[..., R], *arguments: Any) -> R:
        """Calls a function, which takes the clock as long as it takes this machine."""
        start = time.perf_counter()
        result = function(*arguments)
        seconds = time.perf_counter() - start
        self.busy += seconds
        self._now += seconds
        return result


def live_reports(
    recogniser: Recogniser,
    items: Sequence,
    *,
    lookaheads: Sequence[float] = (),
    stop_secs: float = 0.2,
    real_time: bool = False,
    num_streams: int = 1,
    normalizer: str = "none",
    failed: dict[str, str] | None = None,
) -> Iterator[Report]:
    """Streams recordings, and yields a report of one row for each look-ahead.

    A row holds the lookahead in seconds (None: of a model that is not causal); the number of
    streams, recordings and timed_words; audio_seconds, up to the ends of turns; word_error_rate of
    the stream, and offline_word_error_rate of `transcribe` in the same context; real_time_factor,
    the computing seconds of a second of audio; largest_delay, the seconds from when a block is
    spoken to when it is processed; and in seconds the median, p95 and p99 of

      ttfs: from the end of speech to the final transcript; `stop_secs` of it is the VAD's
      first_partial: from the start of speech to the first text, certain or pending
      decoded: from the end of a word to its being in the text, certain or pending
      final: from the end of a word to its being certain
      label_delay: from the end of a word to the frame that emitted its first label, in the audio's
        time; offline_label_delay, the same of `transcribe`

    or None where there is nothing to measure. The last four are of words that are right, by the
    alignment of transcript and reference, and whose ends the manifest knows. Each stream has played
    one recording before, which is not counted.

    Args:
      recogniser: the one to measure.
      items: utterances, or what has `id`, `audio` and `text`, as a manifest's entries; all are held
        in memory.
      lookaheads: of a causal model, in seconds; by default all that it has.
      stop_secs: seconds from the end of speech to the call of `finish_turn()`.
      real_time: whether the clock is the machine's; otherwise it is simulated.
      num_streams: callers at the same time, in one `Streams`; each plays a part of the recordings.
      normalizer: one of `normalizers.NORMALIZERS`, over references and transcripts.
      failed: takes the id and the reason of what cannot be read.

    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: for impossible options, and if there is nothing to transcribe.
    """
    if not 0 <= stop_secs < math.inf:
        raise ValueError(f"stop_secs must be finite and not negative, got {stop_secs}")
    variants = list(with_lookaheads(recogniser, lookaheads))
    normalize = make_normalizer(normalizer)
    rate = recogniser.config.features.sample_rate
    recordings = read_recordings(items, rate, failed)
    if num_streams > len(recordings):
        raise ValueError(f"{num_streams} streams need as many recordings, got {len(recordings)}")
    heading = _heading(recordings, stop_secs, real_time, rate)
    for lookahead, variant in variants:
        callers = Callers(variant, num_streams)
        callers.play(recordings[:1], Clock(real_time=False), stop_secs)
        clock = Clock(real_time=real_time)
        played, largest_delay = callers.play(recordings, clock, stop_secs)
        row = {"lookahead": lookahead, "streams": num_streams, "recordings": len(played)}
        row["audio_seconds"] = sum(each.recording.end + stop_secs for each in played)
        row |= _accuracy_and_delays(variant, played, normalize)
        row["real_time_factor"] = clock.busy / row["audio_seconds"]
        row["largest_delay"] = largest_delay
        yield Report([row], heading + _line(row))
        heading = ""


def with_lookaheads(
    recogniser: Recogniser, lookaheads: Sequence[float]
) -> Iterator[tuple[float | None, Recogniser]]:
    """Yields the recogniser with each look-ahead, by default all that a causal model has.

    Raises ValueError for a look-ahead that it does not have.
    """
    for each in lookaheads or sorted(recogniser.config.lookaheads) or [None]:
        yield each, recogniser if each is None else with_lookahead(recogniser, each)


def read_recordings(
    items: Sequence, sample_rate: int, failed: dict[str, str] | None
) -> list[Recording]:
    """Returns recordings to play; arguments as of `live_reports`, which also raises alike."""
    recordings = [_recording(each, sample_rate) for each in read_each(items, sample_rate, failed)]
    if not recordings:
        raise ValueError(f"there is nothing to transcribe: none of {len(items)} recordings")
    return recordings


def _recording(utterance: Utterance, rate: int) -> Recording:
    _, samples, text, _, words = utterance
    if words:
        start, end = words[0].start, words[-1].end
    else:
        sounds = stretches(samples, longest=len(samples), sample_rate=rate)
        start, end = (
            (sounds[0][0] / rate, sounds[-1][1] / rate) if sounds else (0.0, len(samples) / rate)
        )
    return Recording(utterance.id, samples, text, words, start, end)


# Playing


def blocks(samples: np.ndarray, end: float, rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the blocks of samples that are spoken by `end`, with the seconds at which each is.

    Silence follows the samples.
    """
    size = round(BLOCK * rate)
    for position in itertools.count(0, size):
        spoken = (position + size) / rate
        if spoken > end:
            return
        block = samples[position : position + size]
        yield spoken, np.pad(block, (0, size - len(block)))


class Callers:
    """Callers, each with a stream; several streams are stepped together."""

    def __init__(self, recogniser: Recogniser, size: int):
        self._rate = recogniser.config.features.sample_rate
        if size == 1:
            stream = Stream(recogniser)
            stream.warm_up()
            self._streams: list[Any] = [stream]
            self._step = list  # push decodes
        else:
            streams = Streams(recogniser, slots=size)
            streams.warm_up()
            self._streams = [streams.open() for _ in range(size)]
            self._step = streams.step

    def play(
        self, recordings: Sequence[Recording], clock: Clock, stop_secs: float
    ) -> tuple[list[Played], float]:
        """Plays recordings, of which each caller has a part. The callers begin within a second.

        Returns the recordings with their transcripts, and the largest delay of a block in seconds.
        """
        size, largest = len(self._streams), 0.0
        callers = {
            stream: Caller(stream, recordings[i::size], i / size, stop_secs, self._rate)
            for i, stream in enumerate(self._streams)
        }
        while math.isfinite(first := min(caller.due for caller in callers.values())):
            clock.wait_until(first)
            now = max(first, clock.now)
            due = [caller for caller in callers.values() if caller.due <= now]
            for caller in due:
                events = clock.run(caller.act)
                if events is not None:
                    caller.take(events, clock.now)
            while stepped := clock.run(self._step):
                for stream, events in stepped:
                    callers[stream].take(events, clock.now)
            largest = max(largest, clock.now - first)
            for caller in due:
                caller.go_on(clock.now)
        return [played for caller in callers.values() for played in caller.played], largest


class Caller:
    """Plays recordings into a stream, one after another.

    Attributes:
      due: the clock's time of the next block, or of the end of the turn; infinite after the last.
      played: the recordings that are over.
    """

    def __init__(
        self,
        stream: Any,
        recordings: Sequence[Recording],
        start: float,
        stop_secs: float,
        sample_rate: int,
    ):
        self._stream, self._recordings = stream, iter(recordings)
        self._stop_secs, self._rate = stop_secs, sample_rate
        self.played: list[Played] = []
        self._begin(start)

    def act(self) -> list[StreamEvent] | None:
        """Pushes the block that is due, or ends the turn. Returns what the stream returns."""
        if self._block is None:
            return self._stream.finish_turn()
        return self._stream.push(self._block)

    def take(self, events: Sequence[StreamEvent], now: float) -> None:
        """Notes words that have become certain, and what the stream shows."""
        self._words += (event for event in events if isinstance(event, StreamedWord))
        text = self._stream.text
        self._changes.append(Change(now - self._start, text, text + self._stream.pending))

    def go_on(self, now: float) -> None:
        """Goes on to what is due after `act`."""
        if self._block is not None:
            self._next()
            return
        self.played.append(Played(self._recording, self._words, self._changes))
        self._stream.reset()
        self._begin(now)

    def _begin(self, start: float) -> None:
        """Begins with the next recording."""
        recording = next(self._recordings, None)
        if recording is None:
            self.due = math.inf
            return
        self._recording, self._start = recording, start
        self._words: list[Word] = []
        self._changes: list[Change] = []
        self._blocks = blocks(recording.samples, recording.end + self._stop_secs, self._rate)
        self._next()

    def _next(self) -> None:
        end = self._recording.end + self._stop_secs, None
        seconds, self._block = next(self._blocks, end)
        self.due = self._start + seconds


# Figures


def spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Returns the median, p95 and p99; None without any."""
    if not len(seconds):
        return None
    return dict(zip(STATISTICS, np.percentile(seconds, (50, 95, 99)).tolist(), strict=True))


def _accuracy_and_delays(
    recogniser: Recogniser, played: Sequence[Played], normalize: Normalize
) -> dict[str, Any]:
    def error_rate(texts: Sequence[str]) -> float:
        references = [normalize(each.recording.text) for each in played]
        return metrics.word_error_rate(references, [normalize(text) for text in texts]).rate

    offline = transcribed(recogniser, [each.recording.samples for each in played])
    delays: dict[str, list[float]] = {name: [] for name in COLUMNS}
    num_timed = 0
    for each, (_, offline_words) in zip(played, offline, strict=True):
        recording, changes = each.recording, each.changes
        delays["ttfs"].append(changes[-1].time - recording.end)
        if seconds := [change.time for change in changes if change.shown.strip()]:
            delays["first_partial"].append(seconds[0] - recording.start)
        words = emitted(each.words)
        certain = [(change.time, change.text.split()) for change in changes]
        shown = [(change.time, change.shown.split()) for change in changes]
        for end, j in timed(recording.words, [text for text, *_ in words], normalize):
            num_timed += 1
            delays["decoded"].append(first_time(shown, j, words[j][0]) - end)
            delays["final"].append(first_time(certain, j, words[j][0]) - end)
            delays["label_delay"].append(words[j][1] - end)
        words = emitted(offline_words)
        for end, j in timed(recording.words, [text for text, *_ in words], normalize):
            delays["offline_label_delay"].append(words[j][1] - end)
    return {
        "timed_words": num_timed,
        "word_error_rate": error_rate([each.changes[-1].text for each in played]),
        "offline_word_error_rate": error_rate([text for text, _ in offline]),
        **{name: spread(seconds) for name, seconds in delays.items()},
    }


def transcribed(
    recogniser: Recogniser, audio: Sequence[np.ndarray]
) -> list[tuple[str, list[Word]]]:
    """Returns the text and the words of each recording [S], transcribed as a whole."""
    results = []
    for _, result in sorted(transcribe_each(recogniser, audio)):
        if isinstance(result, AudioError):
            raise result
        results.append((result.transcript.text, result.transcript.words))
    return results


def emitted(words: Sequence[Word]) -> list[SpokenWord]:
    """Returns what spaces separate, with the times of its labels."""
    parts: list[SpokenWord] = []
    for word in words:
        if parts and not word.space_before:
            text, start, _ = parts.pop()
            parts.append(SpokenWord(text + word.text, start, word.end))
        else:
            parts.append(SpokenWord(word.text, word.start, word.end))
    return parts


def timed(
    spoken: Sequence[SpokenWord], words: Sequence[str], normalize: Normalize
) -> Iterator[tuple[float, int]]:
    """Yields when a word ends, and its place in `words`, of those words that are right."""
    ends: list[tuple[str, float | None]] = []
    for text, _, end in spoken:
        *before, last = text.split() or [text]
        ends += [*((each, None) for each in before), (last, end)]  # spoken together
    reference, transcript = (
        [normalize(text).replace(" ", "") or text for text in texts]
        for texts in ([text for text, _ in ends], words)
    )
    i = j = 0
    for left, right in metrics.aligned_words(" ".join(reference), " ".join(transcript)):
        if left == right and (end := ends[i][1]) is not None:
            yield end, j
        i, j = i + bool(left), j + bool(right)


def first_time(states: Sequence[tuple[float, list[str]]], place: int, word: str) -> float:
    """Returns the first time at which a word is at its place."""
    return next((t for t, words in states if words[place : place + 1] == [word]), states[-1][0])


# Tables


def _heading(recordings: Sequence[Recording], stop_secs: float, real_time: bool, rate: int) -> str:
    audio = sum(len(each.samples) for each in recordings) / rate
    timed = sum(bool(each.words) for each in recordings)
    return (
        f"{len(recordings)} recordings ({timed} with times of words), {audio:.0f} s, in "
        f"{'real' if real_time else 'simulated'} time on {jax.devices()[0].device_kind}; "
        f"finish_turn() {stop_secs:g} s after the end of speech\n"
        "median/p95 in ms; TTFS: median/p95/p99 from the end of speech to the final transcript\n"
        f"look-ahead  streams{'WER':>9s}{'offline':>9s}"
        + "".join(f"{name:>15s}" for name in COLUMNS.values())
        + "   of real time   largest delay\n"
    )


def milliseconds(seconds: dict[str, float] | None, *, count: int = 2) -> str:
    """Returns the first statistics of `spread`, such as "203/210"; "-" without any."""
    values = [] if seconds is None else [seconds[key] for key in STATISTICS[:count]]
    return "/".join(f"{1000 * value:.0f}" for value in values) or "-"


def _line(row: dict[str, Any]) -> str:
    lookahead = "" if row["lookahead"] is None else f"{1000 * row['lookahead']:.0f} ms"
    cells = [milliseconds(row[name], count=3 if name == "ttfs" else 2) for name in COLUMNS]
    return (
        f"{lookahead:>10s}{row['streams']:9d}{100 * row['word_error_rate']:7.2f} %"
        f"{100 * row['offline_word_error_rate']:7.2f} %"
        + "".join(f"{cell:>15s}" for cell in cells)
        + f"{row['real_time_factor']:15.3f}{1000 * row['largest_delay']:13.0f} ms"
    )
