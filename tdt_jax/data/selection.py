"""Which utterances can be trained on, in which bucket, and why the others cannot."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.config import Bucket, ModelConfig
from tdt_jax.data.buckets import fit, num_frames
from tdt_jax.data.utterance import StoredUtterance
from tdt_jax.tokenizer import Tokenizer, UnknownTextError


class Selection(NamedTuple):
    """The utterances that can be trained on, and the reasons why the others were skipped."""

    entries: list[StoredUtterance]
    labels: list[list[int]]
    bucket_index: np.ndarray  # [entries], of the first bucket that each fits
    skipped: dict[str, list[str]]  # reason -> ids

    def report(self) -> str:
        """Returns one line for the log: how much was kept, and how many skipped for each reason."""
        hours = sum(entry.seconds for entry in self.entries) / 3600
        line = f"{len(self.entries)} utterances, {hours:.2f} h"
        if self.skipped:
            reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in self.skipped.items())
            line += f"; skipped {sum(map(len, self.skipped.values()))}: {reasons}"
        return line


def select(
    entries: Sequence[StoredUtterance],
    tokenizer: Tokenizer,
    buckets: Sequence[Bucket],
    *,
    sample_rate: int,
    samples_per_frame: int,
    label_limit: Callable[[int], float] = lambda num_frames: math.inf,
) -> Selection:
    """Encodes the texts, assigns a bucket to every utterance, and skips those that have none.

    Args:
      entries: are not read.
      sample_rate: of the model, in Hz.
      samples_per_frame: of the model's encoder.
      label_limit: returns the most labels that can be aligned to a number of encoder frames, and
        -1 if nothing can (see the function `label_limit`).
    """
    kept: list[tuple[StoredUtterance, list[int], int]] = []
    skipped: dict[str, list[str]] = {}
    for entry in entries:
        bucket = None
        try:
            labels = tokenizer.encode(entry.text)
        except UnknownTextError:
            labels = None
        frames = num_frames(round(entry.seconds * sample_rate), samples_per_frame)
        if not entry.exists():
            reason = "without a file"
        elif entry.seconds <= 0:
            reason = "without a positive duration"
        elif labels is None:
            reason = "with unknown characters"
        elif not labels:
            reason = "without text"
        elif fit(entry.seconds, 0, buckets, sample_rate=sample_rate) is None:
            reason = "longer than the largest bucket (seconds)"
        elif (bucket := fit(entry.seconds, len(labels), buckets, sample_rate=sample_rate)) is None:
            reason = "longer than the largest bucket (tokens)"
        elif frames == 0 or label_limit(frames) < 0:
            reason = "with too few frames for any alignment"
        elif len(labels) > label_limit(frames):
            reason = "with more labels than frames allow"
        else:
            kept.append((entry, labels, bucket))
            continue
        skipped.setdefault(reason, []).append(entry.id)
    return Selection(
        entries=[entry for entry, _, _ in kept],
        labels=[labels for _, labels, _ in kept],
        bucket_index=np.array([bucket for _, _, bucket in kept], dtype=np.int64),
        skipped=skipped,
    )


def label_limit(model: ModelConfig) -> Callable[[int], float]:
    """Returns a function: the most labels that can be aligned to a number of frames, -1 if none.

    For a transducer the durations of the arcs of an alignment add up to the number of frames, the
    last arc is a blank, and no blank has the duration 0. If labels may have the duration 0, any
    number of labels can be aligned to frames that blanks alone can be aligned to.
    """
    if model.kind == "CTC":
        return lambda num_frames: num_frames
    durations = model.durations
    if durations is None or durations[:2] == (0, 1):
        return lambda num_frames: math.inf if num_frames else -1
    has_zero = durations[0] == 0
    positive = durations[1:] if has_zero else durations

    def limit(num_frames: int) -> float:
        num_arcs = _most_arcs(num_frames, positive)
        return -1 if num_arcs < 1 else math.inf if has_zero else num_arcs - 1

    return limit


@functools.cache
def _most_arcs(num_frames: int, durations: tuple[int, ...]) -> float:
    """Returns the largest number of durations > 0 that add up to `num_frames`; < 1 if none do."""
    most = [0.0]
    for frames in range(1, num_frames + 1):
        most.append(
            1 + max((most[frames - d] for d in durations if d <= frames), default=-math.inf)
        )
    return most[-1]
