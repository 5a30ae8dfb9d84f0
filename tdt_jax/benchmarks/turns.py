"""How soon a stream detects that a turn is over, against how often it is wrong.

Recordings are joined by pauses of 0.2 to 2 s into one stream; each is a turn. An `EndOfUtterance`
belongs to the turn in which its last word was emitted. If it comes before the end of the turn's
speech it is a false cut, otherwise it ends the turn. The end of a turn is missed if no event has
come when the next turn starts.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tdt_jax.audio.waveform import background
from tdt_jax.benchmarks.live import (
    Clock,
    Recording,
    blocks,
    milliseconds,
    read_recordings,
    spread,
    with_lookaheads,
)
from tdt_jax.benchmarks.report import Report
from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.streaming import Stream
from tdt_jax.recogniser import Recogniser

PAUSES = (0.2, 2.0)  # seconds
LONG_PAUSE = 1.0  # seconds
AFTER = 5.0  # seconds of silence after the last recording


class Turns(NamedTuple):
    """Recordings joined: samples, and in seconds when somebody speaks."""

    samples: np.ndarray  # [S]
    starts: np.ndarray  # [n] of each recording's speech
    ends: np.ndarray  # [n]
    pauses: np.ndarray  # [m, 2] between words of a recording that are LONG_PAUSE or more apart


def turn_reports(
    recogniser: Recogniser,
    items: Sequence,
    *,
    rules: Sequence[EndOfTurn],
    lookaheads: Sequence[float] = (),
    real_time: bool = False,
    failed: dict[str, str] | None = None,
) -> Iterator[Report]:
    """Streams joined recordings, and yields a report of one row for each look-ahead and rule.

    A row holds the lookahead (None: of a model that is not causal) and the rule's silence and
    shortest, in seconds; the number of turns, and of those that are missed; long_turns, followed by
    a pause of a second or more, and missed_long of them; false_cuts, and cuts_in_long_pauses: those
    of them in a pause of a second or more inside a recording, where the manifest has `words`; and
    delay, the median, p95 and p99 in seconds from the end of speech to the event, computation
    included.

    Args:
      recogniser: the one to measure.
      items: as of `live.live_reports`, which see for `lookaheads`, `real_time` and `failed`.
      rules: to try.

    Raises: as `live.live_reports`.
    """
    variants = list(with_lookaheads(recogniser, lookaheads))
    rate = recogniser.config.features.sample_rate
    turns = join(read_recordings(items, rate, failed), rate)
    heading = _heading(turns, rate)
    for lookahead, variant in variants:
        for rule in rules:
            stream = Stream(variant, end_of_turn=rule)
            stream.warm_up()
            events = _events(stream, turns.samples, Clock(real_time=real_time), rate)
            row = {"lookahead": lookahead, "silence": rule.silence, "shortest": rule.shortest}
            row |= count(events, turns)
            yield Report([row], heading + _line(row))
            heading = ""


def join(recordings: Sequence[Recording], sample_rate: int) -> Turns:
    """Returns recordings in a random order, with their own background in the pauses between."""
    rng = np.random.default_rng(0)
    parts, position = [], 0.0
    starts, ends, pauses = [], [], []
    for i in rng.permutation(len(recordings)):
        _, samples, _, words, start, end = recordings[i]
        starts.append(position + start)
        ends.append(position + end)
        for word, following in itertools.pairwise(words):
            if following.start - word.end >= LONG_PAUSE:
                pauses.append((position + word.end, position + following.start))
        size = round(rng.uniform(*PAUSES) * sample_rate)
        parts += [samples, background(samples, size, seed=int(i), sample_rate=sample_rate)]
        position += (len(samples) + size) / sample_rate
    silences = np.array(pauses).reshape(-1, 2)
    return Turns(np.concatenate(parts), np.array(starts), np.array(ends), silences)


def _events(stream: Stream, samples: np.ndarray, clock: Clock, rate: int) -> np.ndarray:
    """Returns when each event came, and when the last word before it was emitted: [n, 2]."""
    times, emitted = [], 0.0
    for spoken, block in blocks(samples, len(samples) / rate + AFTER, rate):
        clock.wait_until(spoken)
        for event in clock.run(stream.push, block):
            if isinstance(event, EndOfUtterance):
                times.append((clock.now, emitted))
            else:
                emitted = event.start
    return np.array(times).reshape(-1, 2)


def count(events: np.ndarray, turns: Turns) -> dict[str, Any]:
    """Returns the figures of events [n, 2], as of `_events`; see `turn_reports`."""
    times, emitted = events.T
    following = np.append(turns.starts[1:], np.inf)
    turn = np.maximum(np.searchsorted(turns.starts, emitted) - 1, 0)
    is_cut = times < turns.ends[turn]
    detected = np.full(len(turns.ends), np.inf)
    np.minimum.at(detected, turn[~is_cut], times[~is_cut])
    missed = detected >= following
    is_long = following - turns.ends >= LONG_PAUSE
    cuts = times[is_cut]
    before, after = (turns.pauses[:, i : i + 1] for i in (0, 1))
    in_long = ((before < cuts) & (cuts < after)).any(axis=0)
    return {
        "turns": len(turns.ends),
        "missed": int(missed.sum()),
        "long_turns": int(is_long.sum()),
        "missed_long": int((missed & is_long).sum()),
        "false_cuts": len(cuts),
        "cuts_in_long_pauses": int(in_long.sum()),
        "delay": spread((detected - turns.ends)[~missed].tolist()),
    }


def _heading(turns: Turns, rate: int) -> str:
    return (
        f"{len(turns.ends)} turns in {len(turns.samples) / rate:.0f} s on "
        f"{jax.devices()[0].device_kind}; {len(turns.pauses)} pauses of {LONG_PAUSE:g} s or more "
        "inside them\n"
        f"look-ahead   silence  shortest   delay, median/p95      missed  of long pauses"
        "   false cuts  in long pauses\n"
    )


def _line(row: dict[str, Any]) -> str:
    lookahead = "" if row["lookahead"] is None else f"{1000 * row['lookahead']:.0f} ms"
    delay = milliseconds(row["delay"])
    return (
        f"{lookahead:>10s}{row['silence']:8.2f} s{row['shortest']:8.2f} s"
        f"{delay:>20s}"
        f"{row['missed']:6d} of {row['turns']:d}{row['missed_long']:8d} of {row['long_turns']:d}"
        f"{row['false_cuts']:13d}{row['cuts_in_long_pauses']:16d}"
    )
