"""Buckets in samples, and the encoder frames of samples."""

import pytest

from tdt_jax.config import Bucket
from tdt_jax.data.buckets import bucket_samples, fit, num_frames, part_of

BUCKETS = (Bucket(1.0, 4, 2), Bucket(2.0, 8, 2))


def test_bucket_shapes():
    assert bucket_samples(Bucket(16.7, 1, 1), 16000) == 209 * 1280  # 267200 are 208.75 x 1280
    assert bucket_samples(Bucket(1.6, 1, 1), 16000) == 25600
    assert bucket_samples(Bucket(1.6, 1, 1), 8000) == 12800


def test_fit():
    expected = {(1.0, 4): 0, (1.0, 5): 1, (1.04, 1): 0, (1.1, 1): 1, (2.1, 1): None, (1.0, 9): None}
    for (seconds, num_labels), index in expected.items():
        assert fit(seconds, num_labels, BUCKETS, sample_rate=16000) == index
    assert fit(1.1, 1, BUCKETS, sample_rate=8000) == 0  # whose rows hold 1.12 s


def test_num_frames():
    """Of eight feature frames one, rounded up; a single feature frame is none."""
    sizes = {0: 0, 319: 0, 320: 1, 1280: 1, 1439: 1, 1440: 2, 2560: 2}
    assert {size: num_frames(size, 1280) for size in sizes} == sizes
    assert num_frames(1280, 640) == 2


def test_part_of():
    assert part_of(BUCKETS[0], [1]) == Bucket(1.0, 4, 1)
    for rows in ([], [2], [-1]):
        with pytest.raises(IndexError, match="there are no rows"):
            part_of(BUCKETS[0], rows)
