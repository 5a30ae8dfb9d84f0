"""What is done to an utterance's samples before the batch: its length may change."""

import numpy as np

from tdt_jax.audio.silence import QUIET

TRIM_FLOOR = 1e-5  # edges quieter than this share of a recording's loudest 10 ms are silence
TRIM_MARGIN = 0.03  # seconds kept before and after what is not


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


def trim(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Drop the silence at both edges, by the energy of 10 ms frames.

    The energy of the first difference counts too: it lifts the hiss at the ends of "six" and "f".
    """
    frame = sample_rate // 100
    size = len(samples) // frame * frame
    power = samples[:size] ** 2 + np.diff(samples[:size], prepend=0) ** 2
    power = power.reshape(-1, frame).sum(axis=1)
    loud = np.flatnonzero(power > TRIM_FLOOR * power.max())
    margin = round(TRIM_MARGIN * sample_rate)
    return samples[max(0, loud[0] * frame - margin) : (loud[-1] + 1) * frame + margin]


def add_noise(samples: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Add white to pink noise, `snr` dB below the speech (its digital silence not counted)."""
    speech = samples[samples != 0]
    level = np.sqrt(np.mean(speech**2)) * 10 ** (-snr / 20)
    noisy = samples + level * noise(len(samples), rng)
    return (noisy / max(1.0, np.abs(noisy).max())).astype(np.float32)


def noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """White to pink noise [size] of mean square 1."""
    white = rng.standard_normal(1 << size.bit_length(), dtype=np.float32)
    spectrum = np.fft.rfft(white)
    tilt = rng.uniform(0, 0.5)  # the amplitude falls with frequency to the -tilt: 0.5 is pink
    found = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** tilt)[:size]
    return found / np.sqrt(np.mean(found**2))


def quietest(samples: np.ndarray, window: int) -> int:
    """Where the `window` samples [S] with the least power begin."""
    power = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(power[window:] - power[:-window]))


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
