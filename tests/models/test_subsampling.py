"""Subsampling: its lengths and bins, and long features in parts."""

import functools
import math

import jax
import models
import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax.models import subsampling
from tdt_jax.models.subsampling import subsampled_bins, subsampled_length
from tdt_jax.models.transducer import abstract_model


def test_subsampled_length_is_three_strided_convolutions():
    for length in range(101):
        expected = length
        for _ in range(3):
            # Windows of 3 that start at -1, 1, 3, ... and have their centre inside.
            expected = len(range(0, expected, 2))
        assert subsampled_length(length) == expected == math.ceil(length / 8)
    lengths = np.arange(101)
    np.testing.assert_array_equal(subsampled_length(lengths), np.ceil(lengths / 8))


def test_causal_subsampling_is_three_convolutions_with_two_zeros_before_and_one_after():
    for length in range(101):
        expected = length
        for _ in range(3):
            # Windows of 3 that start at -2, 0, 2, ..., and end within the zero behind.
            expected = len(range(2, expected + 3, 2)) if length else 0
        assert subsampled_length(length, causal=True) == expected
        assert expected == ((length + 6) // 8 + 1 if length else 0)
    lengths = np.arange(101)
    found = subsampled_length(lengths, causal=True)
    np.testing.assert_array_equal(found[1:], (lengths[1:] + 6) // 8 + 1)
    assert found[0] == 0


def test_bins_of_subsampling():
    """4352 = 256 x 17 inputs of the linear layer tell a causal checkpoint of 128 bins."""
    bins = functools.partial(subsampled_bins, causal=True)
    assert [bins(each) for each in (128, 80, 16)] == [17, 11, 3]
    assert [subsampled_bins(each, causal=False) for each in (128, 80, 16)] == [16, 10, 2]
    for num_mels, width in ((128, 4352), (80, 2816)):
        encoder = models.encoder_config(subsampling_channels=256, causal_subsampling=True)
        config = models.config(encoder=encoder, features=tdt.FeatureConfig(num_mels=num_mels))
        shape = abstract_model(config).encoder.subsampling.output.kernel.shape
        assert shape == (width, 16)


@pytest.mark.parametrize("causal", [False, True])
def test_long_features_are_subsampled_in_parts(causal, monkeypatch):
    """Parts of 8 or 24 features give what the whole gives, padding between them or not."""
    lengths = np.array([60, 17, 24, 0], np.int32)
    x = np.random.default_rng(0).normal(size=(4, 64, 16)).astype(np.float32)
    x[np.arange(64)[None] >= lengths[:, None]] = np.nan
    config = models.config(encoder=models.encoder_config(causal_subsampling=causal))
    layers = models.transducer(config).encoder.subsampling

    def run():
        return jax.device_get(jax.jit(lambda: layers(x, lengths))())

    whole, num_frames = run()
    np.testing.assert_array_equal(num_frames, [9, 3, 4, 0] if causal else [8, 3, 3, 0])
    for size in (8, 24):
        monkeypatch.setattr(subsampling, "MAX_FEATURES", size)
        parts, again = run()
        np.testing.assert_array_equal(again, num_frames)
        assert parts.shape == whole.shape
        for b, length in enumerate(num_frames):
            np.testing.assert_allclose(parts[b, :length], whole[b, :length], atol=1e-6)
