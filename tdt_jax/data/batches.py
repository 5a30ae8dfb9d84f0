"""Batches of fixed shapes; a training batch is a pure function of its step.

utterances -> buckets -> an epoch's shuffled plan -> batches[step] -> iterate(batches, start=step)
"""

import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from tdt_jax.audio.reading import AudioError, as_samples
from tdt_jax.audio.waveform import change_speed, insert_silence
from tdt_jax.config import Bucket
from tdt_jax.data.buckets import FRAME_SAMPLES, bucket_samples, num_frames, part_of
from tdt_jax.data.manifest import Entry
from tdt_jax.data.prepared.dataset import Record
from tdt_jax.data.selection import Selection
from tdt_jax.data.utterance import Batch, Utterance, collate

log = logging.getLogger(__name__)

ORDER, AUGMENT, REPLACE = range(3)  # streams of random numbers: rng((seed, stream, ...))


class Batches(Protocol):
    """A source of training batches: any object with a batch for every step."""

    buckets: tuple[Bucket, ...]  # whose shapes its batches have

    def __getitem__(self, step: int) -> Batch: ...

    def bucket_index(self, step: int) -> int:
        """Which bucket the batch of a step has."""

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """Those rows of `batches[step]`, bit for bit, without loading the others."""


class ManifestBatches:
    """Training batches from files: `batches[step]` is the same whenever and wherever it is asked.

    An epoch permutes each bucket's utterances, fills the last batch from the start of the same
    permutation, and shuffles the batches of all buckets together: every utterance is seen at least
    once. `speed` rates are drawn per utterance, and silence is inserted with `silence_probability`,
    up to `silence_seconds`, as far as the bucket has room, and unless no alignment would be left
    (`label_limit`, as of `select`).

    An utterance that cannot be read, is too long for the bucket that its manifest puts it in, or
    has too few frames for its labels, is logged once, recorded in `failed` (id -> reason) and
    replaced by another of the bucket: one that (seed, step, row) decide, whatever failed before and
    whichever process asks.
    """

    def __init__(
        self,
        selection: Selection,
        buckets: Sequence[Bucket],
        *,
        seed: int,
        sample_rate: int = 16000,
        speed: Sequence[float] = (),
        silence_probability: float = 0.0,
        silence_seconds: float = 1.0,
        samples_per_frame: int = FRAME_SAMPLES,
        label_limit: Callable[[int], float] = lambda num_frames: math.inf,
    ):
        if not selection.entries:
            raise ValueError(f"there is nothing to train on: {selection.report()}")
        self.selection = selection
        self.buckets = tuple(buckets)
        self.seed = seed
        self.sample_rate = sample_rate
        self.speed = tuple(speed)
        self.silence_probability = silence_probability
        self.silence_seconds = silence_seconds
        self.samples_per_frame = samples_per_frame
        self.label_limit = label_limit
        self.failed: dict[str, str] = {}
        self._bad: dict[int, str] = {}  # by position, as ids may repeat
        self._members = [
            np.flatnonzero(selection.bucket_index == index) for index in range(len(self.buckets))
        ]
        self.steps_per_epoch = sum(
            -(-len(members) // bucket.batch_size)
            for members, bucket in zip(self._members, self.buckets, strict=True)
        )
        self._plan = functools.lru_cache(maxsize=2)(self._make_plan)

    def __getitem__(self, step: int) -> Batch:
        return self.rows(step, range(self.buckets[self.bucket_index(step)].batch_size))

    def bucket_index(self, step: int) -> int:
        """Which bucket the batch of a step has."""
        return self._planned(step)[0]

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """Those rows of `batches[step]`, without loading the others."""
        index, members = self._planned(step)
        bucket = part_of(self.buckets[index], rows)
        rows = [self._load(step, row, index, members[row]) for row in rows]
        utterances, labels = zip(*rows, strict=True)
        return collate(utterances, labels, bucket, sample_rate=self.sample_rate)

    def _planned(self, step: int) -> tuple[int, np.ndarray]:
        if step < 0:
            raise IndexError(f"step must be >= 0, got {step}")
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._plan(epoch)[position]

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *numbers))

    def _make_plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The epoch's batches in order: (bucket, utterances)."""
        plan = []
        for index, (members, bucket) in enumerate(zip(self._members, self.buckets, strict=True)):
            order = self._rng(ORDER, epoch, index).permutation(members)
            num_batches = -(-len(order) // bucket.batch_size)
            rows = np.resize(order, (num_batches, bucket.batch_size))
            plan += [(index, row) for row in rows]
        shuffle = self._rng(ORDER, epoch, len(self.buckets)).permutation(len(plan))
        return [plan[i] for i in shuffle]

    def _load(self, step: int, row: int, index: int, member: int) -> tuple[Utterance, list[int]]:
        """Utterance and labels of one row: the planned ones, or their replacement."""
        width = bucket_samples(self.buckets[index], self.sample_rate)

        def candidates():
            yield member
            yield from self._rng(REPLACE, step, row).permutation(self._members[index])

        for candidate in candidates():
            entry = self.selection.entries[candidate]
            if candidate in self._bad:
                continue
            labels = self.selection.labels[candidate]
            try:
                samples = _fitting(entry, width, self.sample_rate)
                if not self._can_align(samples, labels):
                    raise AudioError(
                        f"{entry.id} has {len(samples)} samples, too few for its {len(labels)} "
                        f"labels; its manifest or index says {entry.seconds} s"
                    )
            except AudioError as error:
                reason = str(error)
                if self._bad.setdefault(int(candidate), reason) is reason:  # of threads, the first
                    self.failed[entry.id] = reason
                    log.warning("replaced %s: %s", entry.id, reason)
                continue
            changed, lead = self._augment(samples, width, self._rng(AUGMENT, step, row))
            if not self._can_align(changed, labels):
                changed, lead = samples, 0
            return Utterance(entry.id, changed, entry.text, lead), labels
        reason = self._bad[int(member)]
        raise ValueError(
            f"none of the {len(self._members[index])} utterances of bucket {index} can be read; "
            f"one: {reason}"
        )

    def _can_align(self, samples: np.ndarray, labels: Sequence[int]) -> bool:
        frames = num_frames(len(samples), self.samples_per_frame)
        return frames > 0 and len(labels) <= self.label_limit(frames)

    def _augment(self, samples: np.ndarray, width: int, rng) -> tuple[np.ndarray, int]:
        lead = 0
        if self.speed:
            changed = change_speed(samples, self.speed[rng.integers(len(self.speed))])
            samples = changed if 0 < len(changed) <= width else samples
        if rng.random() < self.silence_probability:
            room = (width - len(samples)) / self.sample_rate
            seconds = rng.uniform(0, min(self.silence_seconds, room))
            samples, lead = insert_silence(samples, seconds, rng, sample_rate=self.sample_rate)
        return samples[:width], min(lead, width)


def iterate(
    batches: Batches,
    *,
    start: int = 0,
    stop: int | None = None,
    num_threads: int = 2,
    prefetch: int = 4,
    rows_of: Callable[[int], Sequence[int]] | None = None,
) -> Iterator[tuple[int, Batch]]:
    """Yield (step, batches[step]) from `start` up to `stop`, read ahead by threads but in order.

    Nothing but the step decides what comes: to resume, pass the step to go on from. An exception
    in a thread is raised here. Closing the iterator ends the threads. Of a batch of a size
    only the rows `rows_of(size)` are loaded, where that is given: a process's own.
    """
    import grain

    def load(step):
        if rows_of is None:
            return step, batches[step]
        bucket = batches.buckets[batches.bucket_index(step)]
        return step, batches.rows(step, rows_of(bucket.batch_size))

    steps = grain.MapDataset.range(start, (1 << 62) if stop is None else stop)
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads)
    )
    iterator = iter(steps.map(load).to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def _fitting(entry: Entry | Record, width: int, sample_rate: int) -> np.ndarray:
    samples = as_samples(entry.audio, sample_rate)
    if len(samples) > width:
        raise AudioError(
            f"{entry.id} has {len(samples)} samples where its bucket holds {width}; its manifest "
            f"or index says {entry.seconds} s"
        )
    return samples
