"""Silence as an utterance has it itself, inserted into the utterance."""

import numpy as np

from tdt_jax.pieces import quietest

QUIET = 0.1  # seconds of the utterance that its silence takes after


def num_inserted(num_samples: int, share: float) -> int:
    """Samples of silence that make up `share` of the result."""
    return round(num_samples * share / (1 - share))


def with_silence(
    samples: np.ndarray, share: float, *, seed: int, sample_rate: int = 16000
) -> np.ndarray:
    """Insert silence [S] -> [S + num_inserted(S, share)], the samples in order and untouched.

    A third goes before the utterance, a third after it, and a third into the middle of the
    quietest 0.1 s between its first and its last tenth. The silence is Gaussian noise of the
    spectrum and the mean power of the utterance's quietest 0.1 s anywhere: digital silence if that
    is zero, and only then.
    """
    window = min(len(samples), round(QUIET * sample_rate))
    size = num_inserted(len(samples), share)
    noise = background(samples, size, seed=seed, sample_rate=sample_rate)
    before, inside, after = np.array_split(noise, 3)
    tenth = min(len(samples) // 10, (len(samples) - window) // 2)
    place = tenth + quietest(samples[tenth : len(samples) - tenth], window) + window // 2
    return np.concatenate([before, samples[:place], inside, samples[place:], after])


def background(
    samples: np.ndarray, size: int, *, seed: int, sample_rate: int = 16000
) -> np.ndarray:
    """Gaussian noise [size] of the spectrum and the mean power of the quietest 0.1 s."""
    window = min(len(samples), round(QUIET * sample_rate))
    lowest = quietest(samples, window)
    quiet = samples[lowest : lowest + window]
    white = np.random.default_rng(seed).standard_normal(size + window)
    noise = np.fft.irfft(np.fft.rfft(white) * np.fft.rfft(quiet, len(white)), len(white))[:size]
    power, wanted = (np.mean(np.square(x, dtype=np.float64)) if size else 0.0
                     for x in (noise, quiet))  # fmt: skip
    return (noise * np.sqrt(wanted / power if power else 0.0)).astype(np.float32)
