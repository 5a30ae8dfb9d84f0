"""Changes of waveforms: sample rate."""

import numpy as np
import pytest
from media import sine

from tdt_jax.audio.waveform import resample


@pytest.mark.parametrize("rate, new_rate", [(8000, 16000), (16000, 8000), (1.1, 1.0)])
def test_resampling_keeps_the_sound(rate, new_rate):
    samples = sine(1.0, 16000, hertz=440.0)
    resampled = resample(samples, rate, new_rate)
    assert abs(len(resampled) - 16000 * new_rate / rate) <= 1
    expected = sine(2.0, 16000 * new_rate / rate, hertz=440.0)[: len(resampled)]
    np.testing.assert_allclose(resampled[500:-500], expected[500:-500], atol=1e-3)


def test_the_same_rate_changes_nothing():
    samples = sine()
    assert resample(samples, 16000, 16000) is samples
