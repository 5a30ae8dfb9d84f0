"""Changes of waveforms: sample rate, speed, silence, edges, noise."""

import numpy as np
import pytest
from media import sine

from tdt_jax.audio.waveform import (
    add_noise,
    change_speed,
    insert_silence,
    num_inserted,
    resample,
    sound,
    trim,
    with_silence,
)

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


def test_change_speed_moves_pitch_and_length():
    sine = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    faster = change_speed(sine, 1.1)
    assert faster.dtype == np.float32 and abs(len(faster) - 16000 / 1.1) <= 1
    hertz = np.argmax(np.abs(np.fft.rfft(faster, 160000))) / 10
    assert hertz == pytest.approx(484, abs=1)
    assert change_speed(sine, 1.0) is sine


def test_inserted_silence_goes_to_three_places():
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.3, 16000).astype(np.float32)
    speech[9600:10240] = 0.001  # a pause
    starts = set()
    for seed in range(20):
        longer, lead = insert_silence(speech, 0.5, np.random.default_rng(seed), sample_rate=16000)
        assert longer.dtype == np.float32 and len(longer) == 24000
        quiet = np.abs(longer) < 0.01
        runs = [i for i in range(16001) if quiet[i : i + 8000].all()]
        assert runs, "the inserted samples are quiet"
        start = runs[0]
        assert start in (0, 16000) or 9600 <= start <= 10240
        assert lead == (8000 if start == 0 else 0)
        starts.add(0 if start == 0 else 2 if start == 16000 else 1)
        # what is left without it is the utterance
        rest = np.delete(longer, np.s_[start : start + 8000])
        np.testing.assert_allclose(rest, speech, atol=0.02)
    assert starts == {0, 1, 2}
    assert not insert_silence(np.zeros(16000, np.float32), 0.5, rng, sample_rate=16000)[0].any()
    assert len(insert_silence(np.ones(10, np.float32), 0.5, rng, sample_rate=16000)[0]) == 8010


def test_trim_keeps_a_faint_hiss_at_the_end():
    rng = np.random.default_rng(0)
    vowel = np.sin(np.arange(4800) * 0.05)
    hiss = 0.01 * rng.standard_normal(3200)
    silence = 1e-4 * rng.standard_normal(8000)
    samples = np.concatenate([silence, vowel, silence[:2400], hiss, silence]).astype(np.float32)
    kept = trim(samples, 16000)
    assert len(kept) == pytest.approx(4800 + 2400 + 3200 + 2 * 480, abs=320)
    assert sound(samples, 16000) == (8000, 8000 + 4800 + 2400 + 3200)


def test_noise_has_the_asked_level():
    rng = np.random.default_rng(0)
    speech = 0.2 * rng.standard_normal(16000).astype(np.float32)
    samples = np.concatenate([np.zeros(16000, np.float32), speech])
    for snr in (10.0, 30.0):
        noise = add_noise(samples, snr, rng) - samples
        measured = 10 * np.log10(np.mean(speech**2) / np.mean(noise**2))
        assert measured == pytest.approx(snr, abs=0.7)


# Silence that sounds like the background


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
