"""Changes of waveforms: sample rate, speed, silence, edges, noise."""

import numpy as np
import pytest
from media import sine

from tdt_jax.audio.waveform import add_noise, change_speed, insert_silence, resample, trim


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


def test_noise_has_the_asked_level():
    rng = np.random.default_rng(0)
    speech = 0.2 * rng.standard_normal(16000).astype(np.float32)
    samples = np.concatenate([np.zeros(16000, np.float32), speech])
    for snr in (10.0, 30.0):
        noise = add_noise(samples, snr, rng) - samples
        measured = 10 * np.log10(np.mean(speech**2) / np.mean(noise**2))
        assert measured == pytest.approx(snr, abs=0.7)
