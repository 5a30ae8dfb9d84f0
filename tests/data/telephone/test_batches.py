"""Batches of telephone speech: pure functions of seed and step that fill their buckets."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tdt_jax.config import Bucket, TelephoneConfig
from tdt_jax.data.buckets import bucket_samples
from tdt_jax.data.telephone import grammar
from tdt_jax.data.telephone.batches import TelephoneBatches
from tdt_jax.data.telephone.compose import Telephone, is_test_text

RATE = 16000
SPEED = (0.9, 1.1)
ALL = TelephoneConfig(kinds=tuple(grammar.KINDS), speed=SPEED)
BUCKETS = (Bucket(2.5, 40, 4), Bucket(5.0, 80, 3), Bucket(8.0, 120, 2))


def make(config):
    return Telephone(config, sample_rate=RATE)


class Characters:
    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 32 for letter in text]


@pytest.fixture(scope="module")
def telephone():
    return make(ALL)


def test_batches_are_a_function_of_seed_and_step():
    one, two = (TelephoneBatches(make(ALL), Characters(), BUCKETS, seed=5) for _ in range(2))
    two[3]  # what was asked before does not matter
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(one.__getitem__, range(8)))
    for step, batch in enumerate(threaded):
        again = two[step]
        for array, same in zip(batch, again, strict=True):
            np.testing.assert_array_equal(array, same)
    other = TelephoneBatches(make(ALL), Characters(), BUCKETS, seed=6)
    assert {text for i in range(8) for text in other[i].texts} != {
        text for batch in threaded for text in batch.texts
    }
    assert len({text for batch in threaded for text in batch.texts}) > 15
    with pytest.raises(IndexError, match="-1"):
        one[-1]


def test_rows_are_those_of_the_whole_batch(telephone):
    batches = TelephoneBatches(telephone, Characters(), BUCKETS, seed=5)
    for step in range(4):
        size = BUCKETS[batches.bucket_index(step)].batch_size
        whole, half = batches[step], batches.rows(step, range(size // 2, size))
        for array, part in zip(whole, half, strict=True):
            np.testing.assert_array_equal(array[size // 2 :], part)
    with pytest.raises(IndexError):
        batches.rows(0, [])


def test_batches_fill_their_bucket(telephone):
    batches = TelephoneBatches(telephone, Characters(), BUCKETS, seed=0)
    seen = set()
    for step in range(24):
        batch, index = batches[step], batches.bucket_index(step)
        bucket = BUCKETS[index]
        seen.add(index)
        assert batch.samples.shape == (bucket.batch_size, bucket_samples(bucket, RATE))
        assert batch.labels.shape == (bucket.batch_size, bucket.tokens)
        assert (batch.num_samples <= bucket.seconds * RATE).all()
        if index:
            assert (batch.num_samples >= 0.9 * BUCKETS[index - 1].seconds * RATE).all()
        for row, text in enumerate(batch.texts):
            assert batch.labels[row, : batch.num_labels[row]].tolist() == Characters().encode(text)
            assert batch.samples[row].any() and not is_test_text(text)
    assert seen == {0, 1, 2}


def test_texts_with_too_many_tokens_are_replaced(telephone):
    tight = (Bucket(5.0, 12, 8),)
    batch = TelephoneBatches(telephone, Characters(), tight, seed=0)[0]
    assert (batch.num_labels <= 12).all() and (batch.num_labels > 0).all()
    impossible = (Bucket(5.0, 1, 1),)
    digits = TelephoneConfig(kinds=("digits",), speed=SPEED, phrase_probability=0.0)
    with pytest.raises(ValueError, match="as few tokens"):
        TelephoneBatches(make(digits), Characters(), impossible, seed=0)[0]


def test_curriculum_opens_the_buckets_one_by_one(telephone):
    batches = TelephoneBatches(
        telephone, Characters(), BUCKETS, seed=0, curriculum=((0, 0), (100, 1), (200, 2))
    )
    drawn = [batches.bucket_index(step) for step in range(400)]
    assert set(drawn[:100]) == {0}
    assert set(drawn[100:200]) == {0, 1}
    assert set(drawn[200:]) == {0, 1, 2}
    assert batches[0].samples.shape[1] == bucket_samples(BUCKETS[0], RATE)
    with pytest.raises(ValueError, match="allows bucket 3 from step 7 on, but there are 3"):
        TelephoneBatches(telephone, Characters(), BUCKETS, seed=0, curriculum=((7, 3),))
