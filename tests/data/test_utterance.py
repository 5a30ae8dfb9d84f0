"""Utterances padded to a bucket's shape."""

import numpy as np
import pytest

from tdt_jax.config import Bucket
from tdt_jax.data.utterance import Utterance, collate

BUCKET = Bucket(0.5, 3, 3)


def test_collate():
    first = Utterance("x", np.ones(5, np.float32), "ab", num_leading_samples=3)
    utterances = [first, Utterance("y", np.ones(2), "c")]
    batch = collate(utterances, [[0, 1], [2]], BUCKET, sample_rate=16000)
    assert (batch.samples.shape, batch.labels.shape) == ((3, 8960), (3, 3))
    assert batch.samples.sum(axis=1).tolist() == [5, 2, 0]
    assert batch.labels.tolist() == [[0, 1, 0], [2, 0, 0], [0, 0, 0]]
    assert batch.num_samples.tolist() == [5, 2, 0] and batch.num_labels.tolist() == [2, 1, 0]
    assert batch.num_leading_samples.tolist() == [3, 0, 0]
    assert batch.ids == ("x", "y", "") and batch.texts == ("ab", "c", "")
    dtypes = [array.dtype for array in batch[:5]]
    assert dtypes == [np.float32, np.int32, np.int32, np.int32, np.int32]


def test_collate_errors():
    short = Utterance("x", np.zeros(5, np.float32), "")
    long = Utterance("long", np.zeros(8961, np.float32), "")
    with pytest.raises(
        ValueError, match=r"long has 8961 samples and 0 labels; .* holds 8960 and 3"
    ):
        collate([long], None, BUCKET, sample_rate=16000)
    with pytest.raises(ValueError, match="x has 5 samples and 4 labels"):
        collate([short], [[0] * 4], BUCKET, sample_rate=16000)
    with pytest.raises(ValueError, match="4 utterances and 4 labels for 3 rows"):
        collate([short] * 4, None, BUCKET, sample_rate=16000)
    with pytest.raises(ValueError, match="2 utterances and 1 labels"):
        collate([short] * 2, [[]], BUCKET, sample_rate=16000)
