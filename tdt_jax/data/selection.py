"""Which utterances can be trained on, in which bucket, and why the others cannot."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.config import Bucket, ModelConfig
from tdt_jax.data.buckets import FRAME_SAMPLES, fit, num_frames
from tdt_jax.data.manifest import Entry
from tdt_jax.data.prepared.dataset import Record
from tdt_jax.tokenizer import UnknownTextError


class Selection(NamedTuple):
    """The utterances that can be trained on, and what became of the others."""

    entries: list[Entry | Record]
    labels: list[list[int]]
    bucket_index: np.ndarray  # [entries] of the first bucket that each fits
    skipped: dict[str, list[str]]  # reason -> ids

    def report(self) -> str:
        """One line for the log: what was kept, and what was skipped for which reason."""
        hours = sum(entry.seconds for entry in self.entries) / 3600
        line = f"{len(self.entries)} utterances, {hours:.2f} h"
        if self.skipped:
            reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in self.skipped.items())
            line += f"; skipped {sum(map(len, self.skipped.values()))}: {reasons}"
        return line


def select(
    entries: Sequence[Entry | Record],
    tokenizer,
    buckets: Sequence[Bucket],
    *,
    seconds_per_frame: float = 0.08,
    label_limit: Callable[[int], float] = lambda num_frames: math.inf,
    allow_empty: bool = False,
) -> Selection:
    """Encode the texts, give every utterance a bucket, and drop with a reason what has none.

    `label_limit(num_frames)` is the most labels that so many encoder frames can align to, -1 where
    not even silence can (`label_limit`); `allow_empty` keeps utterances without text.
    """
    kept: list[tuple[Entry | Record, list[int], int]] = []
    skipped: dict[str, list[str]] = {}
    for entry in entries:
        reason, labels, bucket = None, [], None
        try:
            labels = tokenizer.encode(entry.text)
        except UnknownTextError:
            reason = "with unknown characters"
        bucket = fit(entry.seconds, len(labels), buckets)
        frames = num_frames(round(FRAME_SAMPLES * entry.seconds / seconds_per_frame))
        if not entry.exists():
            reason = "without a file"
        elif entry.seconds <= 0:
            reason = "without a positive duration"
        elif reason is None and not labels and not allow_empty:
            reason = "without text"
        elif reason is None and bucket is None:
            longest = fit(entry.seconds, 0, buckets) is None
            reason = f"longer than the largest bucket ({'seconds' if longest else 'tokens'})"
        elif reason is None and (frames == 0 or label_limit(frames) < 0):
            reason = "with too few frames for any alignment"
        elif reason is None and len(labels) > label_limit(frames):
            reason = "with more labels than frames allow"
        if reason is None:
            kept.append((entry, labels, bucket))
        else:
            skipped.setdefault(reason, []).append(entry.id)
    return Selection(
        entries=[entry for entry, _, _ in kept],
        labels=[labels for _, labels, _ in kept],
        bucket_index=np.array([bucket for _, _, bucket in kept], dtype=np.int64),
        skipped=skipped,
    )


def label_limit(model: ModelConfig) -> Callable[[int], float]:
    """The most labels that a number of frames can hold; -1 where no alignment exists at all.

    Of a transducer the arcs' durations add up to the frames, the last arc is a blank, and blanks
    have no duration 0. With a duration of 0 for labels any number of them fits where blanks do.
    """
    if model.kind == "CTC":
        return lambda num_frames: num_frames
    if model.durations is None or model.durations[:2] == (0, 1):
        return lambda num_frames: math.inf if num_frames else -1
    is_free = model.durations[0] == 0

    def limit(num_frames: int) -> float:
        arcs = _most_arcs(num_frames, model.durations[is_free:])
        return -1 if arcs < 1 else math.inf if is_free else arcs - 1

    return limit


@functools.cache
def _most_arcs(num_frames: int, durations: tuple[int, ...]) -> float:
    """How many durations above 0 add up to a number of frames at most; below 1 if none do."""
    most = [0.0]
    for frames in range(1, num_frames + 1):
        most.append(
            1 + max((most[frames - d] for d in durations if d <= frames), default=-math.inf)
        )
    return most[-1]
