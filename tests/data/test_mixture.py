"""Two sources of batches: each keeps its order, and the second has its share of the steps."""

import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax.data.mixture import Mixture


class Named:
    """Batches that are their own names."""

    buckets = (tdt.Bucket(1.0, 1, 2),)

    def __init__(self, name, failed=None):
        self.name = name
        if failed:
            self.failed = failed

    def __getitem__(self, step):
        return self.name, step

    def bucket_index(self, step):
        return step

    def rows(self, step, rows):
        return self.name, step, tuple(rows)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.3, 0.5, 0.9])
def test_both_keep_their_order_and_share(share):
    mixture = Mixture(Named("new"), Named("old"), share)
    batches = [mixture[step] for step in range(200)]
    for name in ("new", "old"):
        own = [step for source, step in batches if source == name]
        assert own == list(range(len(own)))
    is_old = np.array([source == "old" for source, _ in batches])
    assert is_old.sum() in (round(200 * share), round(200 * share) - 1)
    counts = np.convolve(is_old, np.ones(20), "valid")
    assert np.all(np.abs(counts - 20 * share) <= 1)


def test_rows_and_buckets_are_those_of_the_source():
    mixture = Mixture(Named("new", {"a": "damaged"}), Named("old"), 0.5)
    assert mixture[3] == ("old", 1) and mixture.bucket_index(3) == 1
    assert mixture.rows(3, [0, 1]) == ("old", 1, (0, 1))
    assert mixture.rows(2, [1]) == ("new", 1, (1,))
    assert mixture.failed == {"a": "damaged"} and mixture.buckets == Named.buckets


def test_other_buckets_are_refused():
    other = Named("old")
    other.buckets = (tdt.Bucket(2.0, 1, 2),)
    with pytest.raises(ValueError, match="different buckets"):
        Mixture(Named("new"), other, 0.5)
