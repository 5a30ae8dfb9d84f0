"""The shapes that utterances are batched in (`tdt_jax.config.Bucket`)."""

import dataclasses
import math
from collections.abc import Sequence

from tdt_jax.config import Bucket

FRAME_SAMPLES = 1280  # of one encoder frame: 8 hops of 160 samples


def bucket_samples(bucket: Bucket, sample_rate: int = 16000) -> int:
    """Samples in a row of the bucket's batches: its seconds, rounded up to whole encoder frames."""
    return math.ceil(round(bucket.seconds * sample_rate) / FRAME_SAMPLES) * FRAME_SAMPLES


def num_frames(num_samples: int, samples_per_frame: int = FRAME_SAMPLES) -> int:
    """Encoder frames of so many samples: of eight feature frames one, and one of what is left.

    A single feature frame counts as none: normalised, nothing but zeros is left of it, and the
    gradient of an encoder that sees nothing else is beyond float32.
    """
    num_features = 8 * num_samples // samples_per_frame
    return math.ceil(num_features / 8) if num_features > 1 else 0


def fit(
    seconds: float, num_labels: int, buckets: Sequence[Bucket], *, sample_rate: int = 16000
) -> int | None:
    """Index of the first bucket whose rows hold `seconds` of audio and `num_labels`, or None."""
    num_samples = round(seconds * sample_rate)
    for index, bucket in enumerate(buckets):
        if num_samples <= bucket_samples(bucket, sample_rate) and num_labels <= bucket.tokens:
            return index
    return None


def part_of(bucket: Bucket, rows: Sequence[int]) -> Bucket:
    """The bucket of some rows."""
    if not len(rows) or not all(0 <= row < bucket.batch_size for row in rows):
        raise IndexError(f"there are no rows {list(rows)} among {bucket.batch_size}")
    return dataclasses.replace(bucket, batch_size=len(rows))
