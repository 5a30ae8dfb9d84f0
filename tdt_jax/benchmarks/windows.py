"""Whether a stream in windows has the words and times of the whole recording, wherever it is cut.

A recording is streamed with a different length of its own background noise before it each time, so
that the borders of chunks fall on other places of its words. As much noise follows it as a window
waits for, so that every word is decoded with no more than `right` seconds after its chunk. The
words are compared with those of `transcribe` for the same audio as a whole.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tdt_jax.audio.waveform import background
from tdt_jax.benchmarks.live import Recording, emitted, read_recordings, transcribed
from tdt_jax.benchmarks.report import Report
from tdt_jax.inference import metrics
from tdt_jax.inference.stream_words import StreamedWord
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcript import Word
from tdt_jax.recogniser import Recogniser

WRONG: tuple[str, ...] = ("lost", "inserted", "substituted")
COUNTS: tuple[str, ...] = ("words", "changed", *WRONG, "doubled")


class Sizes(NamedTuple):
    """A window, in seconds."""

    left: float
    chunk: float
    right: float


def window_reports(
    recogniser: Recogniser,
    items: Sequence,
    *,
    windows: Sequence[Sizes],
    cuts: int = 1000,
    failed: dict[str, str] | None = None,
) -> Iterator[Report]:
    """Streams recordings cut at many positions, and yields a report of one row for each window.

    A row holds left, chunk, right and latency in seconds; the number of cuts, and of changed ones,
    whose words differ from the whole recording's; the number of words there, and how many of them
    are lost or substituted; how many words are inserted, of which doubled ones equal the word
    beside them; the number of late words: those that agree, with a start or an end more than a
    frame off; difference, the p95 and the maximum of these distances in frames; and
    real_time_factor, the computing seconds of a second of audio.

    Args:
      recogniser: the one to measure.
      items: utterances, or what has `id`, `audio` and `text`, as a manifest's entries; all are held
        in memory.
      windows: to try.
      cuts: number of cut positions, evenly spread over a chunk and the recordings.
      failed: takes the id and the reason of what cannot be read.

    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: for a causal model or one without a transducer, for impossible sizes, and if there
        is nothing to transcribe.
    """
    streams = [Stream(recogniser, **sizes._asdict()) for sizes in windows]
    rate = recogniser.config.features.sample_rate
    recordings = read_recordings(items, rate, failed)
    heading = _heading(min(cuts, len(recordings)), cuts)
    for sizes, stream in zip(windows, streams, strict=True):
        row = {**sizes._asdict(), "latency": stream.latency, "cuts": cuts}
        row |= _figures(recogniser, stream, _cut(recordings, cuts, sizes, rate))
        yield Report([row], heading + _line(row))
        heading = ""


def _cut(recordings: Sequence[Recording], cuts: int, sizes: Sizes, rate: int) -> list[np.ndarray]:
    """Returns samples [S] of recordings with noise of up to a chunk before them, and after them."""
    leads = np.random.default_rng(0).permutation(cuts) * (sizes.chunk / cuts)
    audio = []
    for i, (lead, recording) in enumerate(zip(leads, itertools.cycle(recordings), strict=False)):
        before, behind = round(lead * rate), round((sizes.chunk + sizes.right) * rate)
        noise = background(recording.samples, before + behind, seed=i, sample_rate=rate)
        audio.append(np.concatenate([noise[:before], recording.samples, noise[before:]]))
    return audio


def _figures(recogniser: Recogniser, stream: Stream, audio: Sequence[np.ndarray]) -> dict[str, Any]:
    """Returns the figures of a row from the audio of its cuts."""
    config = recogniser.config
    stream.warm_up()
    streamed, seconds = [], 0.0
    for samples in audio:
        start = time.perf_counter()
        events = [*stream.push(samples), *stream.finish()]
        seconds += time.perf_counter() - start
        streamed.append([event for event in events if isinstance(event, StreamedWord)])
        stream.reset()
    counts = dict.fromkeys(COUNTS, 0)
    differences: list[float] = []
    for (_, whole), words in zip(transcribed(recogniser, audio), streamed, strict=True):
        compared = compare(whole, words)
        for name, count in compared.counts.items():
            counts[name] += count
        differences += compared.differences
    frames = np.array(differences) / config.seconds_per_frame
    return {
        **counts,
        "late": int(np.count_nonzero(frames > 1 + 1e-3)),
        "difference": _largest(frames),
        "real_time_factor": seconds * config.features.sample_rate / sum(map(len, audio)),
    }


def _largest(frames: np.ndarray) -> dict[str, float] | None:
    """Returns the p95 and the maximum; None without any."""
    if not len(frames):
        return None
    return dict(zip(("p95", "max"), np.percentile(frames, (95, 100)).tolist(), strict=True))


class Compared(NamedTuple):
    """Words of a stream beside those of the whole recording."""

    counts: dict[str, int]  # of COUNTS
    differences: list[float]  # seconds, of each word that agrees


def compare(whole: Sequence[Word], streamed: Sequence[Word]) -> Compared:
    """Compares the words of a stream with those of the whole recording."""
    ours, theirs = emitted(streamed), emitted(whole)
    texts = [word.text for word in ours]
    counts = dict.fromkeys(COUNTS, 0)
    counts["words"] = len(theirs)
    differences = []
    i = j = 0
    pairs = metrics.aligned_words(" ".join(word.text for word in theirs), " ".join(texts))
    for left, right in pairs:
        if left == right:
            starts, ends = (abs(a - b) for a, b in zip(theirs[i][1:], ours[j][1:], strict=True))
            differences.append(max(starts, ends))
        elif left and right:
            counts["substituted"] += 1
        elif left:
            counts["lost"] += 1
        else:
            counts["inserted"] += 1
            counts["doubled"] += right in (*texts[max(j - 1, 0) : j], *texts[j + 1 : j + 2])
        i, j = i + bool(left), j + bool(right)
    counts["changed"] = int(any(counts[name] for name in WRONG))
    return Compared(counts, differences)


def _heading(num_recordings: int, cuts: int) -> str:
    return (
        f"{cuts} cut positions in {num_recordings} recordings on {jax.devices()[0].device_kind}; "
        "differences of times in frames\n"
        "left-chunk-right   latency   changed   lost  doubled  inserted  substituted   of words"
        "   p95   max  more than a frame   of real time\n"
    )


def _line(row: dict[str, Any]) -> str:
    sizes = "-".join(f"{row[name]:g}" for name in ("left", "chunk", "right"))
    p95, largest = (f"{x:.1f}" for x in row["difference"].values()) if row["difference"] else "--"
    return (
        f"{sizes:>16s}{row['latency']:8.2f} s{row['changed']:10d}{row['lost']:7d}"
        f"{row['doubled']:9d}{row['inserted']:10d}{row['substituted']:13d}{row['words']:11d}"
        f"{p95:>6s}{largest:>6s}{row['late']:19d}{row['real_time_factor']:15.3f}"
    )
