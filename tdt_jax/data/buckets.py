"""The shapes that utterances are batched in (`tdt_jax.config.Bucket`), in samples and frames."""

import dataclasses
import math
from collections.abc import Sequence

from tdt_jax.config import Bucket

ROW_MULTIPLE = 1280  # samples in a row of a batch: 8 hops of 160 samples make an encoder frame


def bucket_samples(bucket: Bucket, sample_rate: int) -> int:
    """Returns the samples in a row of the bucket's batches: its seconds, and what pads them."""
    return math.ceil(round(bucket.seconds * sample_rate) / ROW_MULTIPLE) * ROW_MULTIPLE


def fit(
    seconds: float, num_labels: int, buckets: Sequence[Bucket], *, sample_rate: int
) -> int | None:
    """Returns the index of the first bucket whose rows hold the utterance, or None."""
    num_samples = round(seconds * sample_rate)
    for index, bucket in enumerate(buckets):
        if num_samples <= bucket_samples(bucket, sample_rate) and num_labels <= bucket.tokens:
            return index
    return None


def part_of(bucket: Bucket, rows: Sequence[int]) -> Bucket:
    """Returns the bucket of some rows of a batch."""
    if not len(rows) or not all(0 <= row < bucket.batch_size for row in rows):
        raise IndexError(f"there are no rows {list(rows)} among {bucket.batch_size}")
    return dataclasses.replace(bucket, batch_size=len(rows))


def num_frames(num_samples: int, samples_per_frame: int) -> int:
    """Returns the number of encoder frames: one for every eight feature frames, rounded up.

    A single feature frame counts as none: normalized, it is all zeros, and the gradient of an
    encoder whose whole input is zero is not finite in float32.
    """
    num_features = 8 * num_samples // samples_per_frame
    return math.ceil(num_features / 8) if num_features > 1 else 0
