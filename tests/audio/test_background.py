"""Silence that is inserted sounds like the background, and leaves the rest as it is."""

import numpy as np
import pytest

from tdt_jax.audio.waveform import num_inserted, with_silence

RATE = 16000


def speech(seconds, seed=0, quiet=(0.4, 0.5)):
    """Loud noise with a soft 0.2 s, at these shares of the whole."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=round(seconds * RATE)).astype(np.float32)
    start, stop = (round(share * len(samples)) for share in quiet)
    samples[start:stop] *= 0.01
    return samples


def power(samples):
    return np.mean(np.square(samples, dtype=np.float64))


def silenced(samples, share, seed):
    return with_silence(samples, share, seed=seed, sample_rate=RATE)


@pytest.mark.parametrize("share", [0.25, 1 / 3, 0.5, 0.75])
def test_silence_is_the_share_and_the_rest_is_untouched(share):
    samples = speech(2.0)
    longer = silenced(samples, share, seed=1)
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
    longer = silenced(samples, 0.5, seed=1)
    windows = [power(samples[i : i + RATE // 10]) for i in range(len(samples) - RATE // 10 + 1)]
    place = int(np.flatnonzero(longer[10667 : 10667 + len(samples)] != samples)[0])
    middle = longer[10667 + place : 10667 + place + 10667]
    noise = np.concatenate([longer[:10667], middle, longer[-10666:]])
    assert power(noise) == pytest.approx(min(windows), rel=1e-5)
    np.testing.assert_array_equal(longer, silenced(samples, 0.5, seed=1))
    assert not np.array_equal(longer, silenced(samples, 0.5, seed=2))


def test_silence_sounds_like_the_background():
    """Neighbouring samples of a dull background go together, and so they do in its silence."""
    dull = np.convolve(speech(2.0), np.ones(20) / 20, "same").astype(np.float32)
    noise = silenced(dull, 0.5, seed=0)[:10000]
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] > 0.9


def test_silence_of_odd_utterances():
    digital = speech(1.0)
    digital[4000:6000] = 0
    assert np.count_nonzero(silenced(digital, 0.5, seed=0)) == np.count_nonzero(digital)
    for samples in (digital, digital[:1], digital[:700]):
        np.testing.assert_array_equal(silenced(samples, 0.0, seed=0), samples)
        assert len(silenced(samples, 0.75, seed=0)) == 4 * len(samples)
