"""Changes of waveforms: sample rate, inserted silence."""

import numpy as np
import pytest
from media import sine

from tdt_jax.audio.waveform import num_inserted, resample, with_silence

RATE = 16000


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


def speech(seconds, seed=0, quiet=(0.4, 0.5)):
    """Loud noise with a soft 0.2 s, at these shares of the whole."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=round(seconds * RATE)).astype(np.float32)
    start, stop = (round(share * len(samples)) for share in quiet)
    samples[start:stop] *= 0.01
    return samples


def power(samples):
    return np.mean(np.square(samples, dtype=np.float64))


@pytest.mark.parametrize("share", [0.25, 1 / 3, 0.5, 0.75])
def test_silence_is_the_share_and_the_rest_is_untouched(share):
    samples = speech(2.0)
    longer = with_silence(samples, share, seed=1, sample_rate=RATE)
    added = len(longer) - len(samples)
    assert added == num_inserted(len(samples), share)
    assert abs(added - share * len(longer)) < 1
    before, inside, after = (len(part) for part in np.array_split(np.empty(added), 3))
    place = int(np.flatnonzero(longer[before : before + len(samples)] != samples)[0])
    assert 0.4 <= place / len(samples) <= 0.5  # where it is quietest
    kept = [longer[before : before + place], longer[before + place + inside : len(longer) - after]]
    np.testing.assert_array_equal(np.concatenate(kept), samples)


def test_silence_is_as_loud_as_the_quietest_tenth_of_a_second():
    samples = speech(2.0)
    longer = with_silence(samples, 0.5, seed=1, sample_rate=RATE)
    windows = [power(samples[i : i + RATE // 10]) for i in range(len(samples) - RATE // 10 + 1)]
    place = int(np.flatnonzero(longer[10667 : 10667 + len(samples)] != samples)[0])
    middle = longer[10667 + place : 10667 + place + 10667]
    noise = np.concatenate([longer[:10667], middle, longer[-10666:]])
    assert power(noise) == pytest.approx(min(windows), rel=1e-5)
    np.testing.assert_array_equal(longer, with_silence(samples, 0.5, seed=1, sample_rate=RATE))
    assert not np.array_equal(longer, with_silence(samples, 0.5, seed=2, sample_rate=RATE))


def test_silence_sounds_like_the_background():
    """Neighbouring samples of a dull background go together, and so they do in its silence."""
    dull = np.convolve(speech(2.0), np.ones(20) / 20, "same").astype(np.float32)
    noise = with_silence(dull, 0.5, seed=0, sample_rate=RATE)[:10000]
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] > 0.9


def test_silence_of_odd_utterances():
    digital = speech(1.0)
    digital[4000:6000] = 0
    assert np.count_nonzero(
        with_silence(digital, 0.5, seed=0, sample_rate=RATE)
    ) == np.count_nonzero(digital)
    for samples in (digital, digital[:1], digital[:700]):
        np.testing.assert_array_equal(with_silence(samples, 0.0, seed=0, sample_rate=RATE), samples)
        assert len(with_silence(samples, 0.75, seed=0, sample_rate=RATE)) == 4 * len(samples)
