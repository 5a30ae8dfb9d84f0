"""Training batches of fixed shapes from files, each a pure function of its step.

selection -> an epoch's shuffled plan -> batches[step] -> iterate(batches, start=step)
"""

import functools
import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.waveform import change_speed, insert_silence
from tdt_jax.config import Bucket
from tdt_jax.data.buckets import bucket_samples, num_frames, part_of
from tdt_jax.data.selection import Selection
from tdt_jax.data.utterance import Batch, StoredUtterance, Utterance, collate

log = logging.getLogger(__name__)

ORDER, AUGMENT, REPLACE = range(3)  # streams of random numbers: rng((seed, stream, ...))


class Batches(Protocol):
    """Any object that has a training batch for every step."""

    buckets: tuple[Bucket, ...]  # the shapes of its batches

    def __getitem__(self, step: int) -> Batch: ...

    def bucket_index(self, step: int) -> int:
        """Returns the index of the bucket that the batch of a step belongs to."""
        ...

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """Returns some rows of `batches[step]`, bit for bit, without loading the others."""
        ...


class ManifestBatches:
    """Training batches from files: `batches[step]` depends on the seed and the step alone.

    An epoch permutes the utterances of each bucket, fills the last batch from the start of the same
    permutation, and shuffles the batches of all buckets together, so that every utterance occurs at
    least once. Each utterance is played at a rate drawn from `speed`; with `silence_probability` up
    to `silence_seconds` of silence are inserted, as far as the bucket has room. Both are left out
    where they would leave too few frames for the labels (`label_limit`, as of `select`).

    An utterance that cannot be read, is too long for the bucket of its duration in the manifest, or
    has too few frames for its labels, is logged once, recorded in `failed` (id -> reason) and
    replaced by another of the bucket. The replacement depends on (seed, step, row) alone: not on
    what failed before, nor on the process.
    """

    def __init__(
        self,
        selection: Selection,
        buckets: Sequence[Bucket],
        *,
        seed: int,
        sample_rate: int,
        samples_per_frame: int,
        label_limit: Callable[[int], float] = lambda num_frames: math.inf,
        speed: Sequence[float] = (),
        silence_probability: float = 0.0,
        silence_seconds: float = 1.0,
    ):
        if not selection.entries:
            raise ValueError(f"there is nothing to train on: {selection.report()}")
        self.selection = selection
        self.buckets = tuple(buckets)
        self.seed = seed
        self.sample_rate = sample_rate
        self.samples_per_frame = samples_per_frame
        self.label_limit = label_limit
        self.speed = tuple(speed)
        self.silence_probability = silence_probability
        self.silence_seconds = silence_seconds
        self.failed: dict[str, str] = {}
        self._failed: dict[int, str] = {}  # by index in `selection.entries`, as ids may repeat
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
        """Returns the index of the bucket that the batch of a step belongs to."""
        return self._planned(step)[0]

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """Returns some rows of `batches[step]`, without loading the others."""
        index, members = self._planned(step)
        bucket = part_of(self.buckets[index], rows)
        loaded = [self._load(step, row, index, members[row]) for row in rows]
        utterances, labels = zip(*loaded, strict=True)
        return collate(utterances, labels, bucket, sample_rate=self.sample_rate)

    def _planned(self, step: int) -> tuple[int, np.ndarray]:
        """Returns the bucket of a step, and the utterance of each row."""
        if step < 0:
            raise IndexError(f"step must be >= 0, got {step}")
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._plan(epoch)[position]

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *numbers))

    def _make_plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Returns the epoch's batches in order: (bucket, utterance of each row)."""
        plan = []
        for index, (members, bucket) in enumerate(zip(self._members, self.buckets, strict=True)):
            order = self._rng(ORDER, epoch, index).permutation(members)
            num_batches = -(-len(order) // bucket.batch_size)
            rows = np.resize(order, (num_batches, bucket.batch_size))
            plan += [(index, row) for row in rows]
        shuffle = self._rng(ORDER, epoch, len(self.buckets)).permutation(len(plan))
        return [plan[i] for i in shuffle]

    def _load(self, step: int, row: int, index: int, member: int) -> tuple[Utterance, list[int]]:
        """Returns utterance and labels of one row: the planned ones, or their replacement."""
        width = bucket_samples(self.buckets[index], self.sample_rate)
        for candidate in self._candidates(step, row, index, member):
            if candidate in self._failed:
                continue
            entry, labels = self.selection.entries[candidate], self.selection.labels[candidate]
            try:
                samples = self._read(entry, labels, width)
            except AudioError as error:
                self._fail(candidate, entry, str(error))
                continue
            changed, num_leading = self._augment(samples, width, self._rng(AUGMENT, step, row))
            if not self._can_align(changed, labels):
                changed, num_leading = samples, 0
            return Utterance(entry.id, changed, entry.text, num_leading), labels
        raise ValueError(
            f"none of the {len(self._members[index])} utterances of bucket {index} can be read; "
            f"one: {self._failed[member]}"
        )

    def _candidates(self, step: int, row: int, index: int, member: int) -> Iterator[int]:
        """Yields the planned utterance, then all of the bucket in the order to replace it by."""
        yield int(member)
        yield from self._rng(REPLACE, step, row).permutation(self._members[index]).tolist()

    def _read(self, entry: StoredUtterance, labels: Sequence[int], width: int) -> np.ndarray:
        samples = as_samples(entry.audio, self.sample_rate)
        if len(samples) > width:
            raise AudioError(
                f"{entry.id} has {len(samples)} samples where its bucket holds {width}; its "
                f"manifest or index says {entry.seconds} s"
            )
        if not self._can_align(samples, labels):
            raise AudioError(
                f"{entry.id} has {len(samples)} samples, too few for its {len(labels)} labels; its "
                f"manifest or index says {entry.seconds} s"
            )
        return samples

    def _fail(self, candidate: int, entry: StoredUtterance, reason: str) -> None:
        """Records an utterance that cannot be used; the first of several threads logs it."""
        if self._failed.setdefault(candidate, reason) is reason:
            self.failed[entry.id] = reason
            log.warning("replaced %s: %s", entry.id, reason)

    def _can_align(self, samples: np.ndarray, labels: Sequence[int]) -> bool:
        frames = num_frames(len(samples), self.samples_per_frame)
        return frames > 0 and len(labels) <= self.label_limit(frames)

    def _augment(
        self, samples: np.ndarray, width: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, int]:
        """Returns samples at another speed, with silence, and how much of it is at the start."""
        num_leading = 0
        if self.speed:
            changed = change_speed(samples, self.speed[rng.integers(len(self.speed))])
            samples = changed if 0 < len(changed) <= width else samples
        if rng.random() < self.silence_probability:
            room = (width - len(samples)) / self.sample_rate
            seconds = rng.uniform(0, min(self.silence_seconds, room))
            samples, num_leading = insert_silence(
                samples, seconds, rng, sample_rate=self.sample_rate
            )
        return samples[:width], min(num_leading, width)


def iterate(
    batches: Batches,
    *,
    start: int = 0,
    stop: int | None = None,
    num_threads: int = 2,
    prefetch: int = 4,
    rows_of: Callable[[int], Sequence[int]] | None = None,
) -> Generator[tuple[int, Batch], None, None]:
    """Yields (step, batches[step]) in order from `start` up to `stop`; threads read ahead.

    A batch depends on its step alone: to resume, pass the step to continue from. An exception in a
    thread is raised here. Closing the generator ends the threads.

    Args:
      batches: has a batch for every step.
      start: the first step.
      stop: the step after the last; None: without end.
      num_threads: that read.
      prefetch: batches that are read ahead.
      rows_of: returns the rows to load of a batch of a given size: those of this process, if there
        are several; None: all.
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
