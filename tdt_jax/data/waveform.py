"""Augmentation that changes an utterance's length, and so must come before the batch."""

import numpy as np


def change_speed(samples: np.ndarray, rate: float) -> np.ndarray:
    """Play `samples` at `rate` times the speed, pitch included: [S] -> [about S / rate]."""
    import soxr

    return samples if rate == 1 else soxr.resample(samples, rate, 1.0)


def insert_silence(
    samples: np.ndarray, seconds: float, rng: np.random.Generator, *, sample_rate: int = 16000
) -> tuple[np.ndarray, int]:
    """Insert `seconds` of background at the start, at the end or at the quietest point inside.

    The three places are equally likely. The background is white noise as loud as the utterance's
    quietest 20 ms, so digital silence stays digital silence.

    Returns:
      the samples, and how many of them were put before the start.
    """
    window = sample_rate // 50
    num_windows = len(samples) // window
    windows = samples[: num_windows * window].reshape(num_windows, window)
    loudness = np.sqrt(np.mean(windows**2, axis=1)) if num_windows else np.zeros(1, np.float32)
    edge = num_windows // 10 + 1
    inner = loudness[edge:-edge]
    places = [0, len(samples)]
    if len(inner):
        places.append((edge + int(np.argmin(inner))) * window + window // 2)
    place = places[rng.integers(len(places))]
    background = rng.standard_normal(round(seconds * sample_rate), np.float32) * loudness.min()
    longer = np.concatenate([samples[:place], background, samples[place:]])
    return longer, 0 if place else len(background)
