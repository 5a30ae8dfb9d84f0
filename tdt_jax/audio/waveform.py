"""Changes to an utterance's samples: rate, speed, silence, noise. The length may change."""

from collections.abc import Iterable, Iterator

import numpy as np

from tdt_jax.audio.silence import QUIET

TRIM_FLOOR = 1e-5  # silence is quieter than this share of the power of a recording's loudest 10 ms
TRIM_MARGIN = 0.03  # seconds of silence that `trim` keeps


def resample(samples: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """Returns samples [S] resampled from `rate` to `new_rate` Hz: [about S * new_rate / rate]."""
    import soxr

    return samples if rate == new_rate else soxr.resample(samples, rate, new_rate)


class Resampler:
    """Resamples samples that come block by block, without end."""

    def __init__(self, rate: int, new_rate: int):
        import soxr

        self._stream = None if rate == new_rate else soxr.ResampleStream(rate, new_rate, 1)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes samples [S] float32. Returns those that are known now; about 20 ms are not yet."""
        return self._stream.resample_chunk(samples) if self._stream else samples

    def rest(self) -> np.ndarray:
        """Returns the last samples [S]. Nothing may be pushed after it."""
        empty = np.zeros(0, np.float32)
        return self._stream.resample_chunk(empty, last=True) if self._stream else empty


def resample_blocks(
    blocks: Iterable[tuple[int, np.ndarray]], sample_rate: int
) -> Iterator[np.ndarray]:
    """Yields consecutive samples at `sample_rate` Hz from blocks of (rate, samples [S])."""
    import soxr

    stream, stream_rate = None, sample_rate
    for rate, block in blocks:
        if rate != stream_rate:
            if stream:
                yield stream.resample_chunk(block[:0], last=True)
            stream = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1)
            stream_rate = rate
        yield stream.resample_chunk(np.ascontiguousarray(block)) if stream else block
    if stream:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def change_speed(samples: np.ndarray, rate: float) -> np.ndarray:
    """Returns samples [S] at `rate` times the speed, pitch included: [about S / rate]."""
    return resample(samples, rate, 1.0)


def insert_silence(
    samples: np.ndarray, seconds: float, rng: np.random.Generator, *, sample_rate: int
) -> tuple[np.ndarray, int]:
    """Inserts `seconds` of background at the start, at the end, or at the quietest point inside.

    The three places are equally likely. The background is white noise as loud as the utterance's
    quietest 20 ms; where these are digital silence, so is the background.

    Returns:
      the samples, and how many of them precede the utterance.
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
    """Returns samples [S] without the silence at both ends (`sound`), but for 0.03 s of it."""
    start, end = sound(samples, sample_rate)
    margin = round(TRIM_MARGIN * sample_rate)
    return samples[max(0, start - margin) : end + margin]


def sound(samples: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """Returns where the sound in samples [S] starts and ends, by the power of 10 ms frames.

    The power of the first difference is added: it raises the hiss at the ends of "six" and "f".
    """
    frame = sample_rate // 100
    size = len(samples) // frame * frame
    power = samples[:size] ** 2 + np.diff(samples[:size], prepend=0) ** 2
    power = power.reshape(-1, frame).sum(axis=1)
    loud = np.flatnonzero(power > TRIM_FLOOR * power.max())
    return int(loud[0]) * frame, (int(loud[-1]) + 1) * frame


def add_noise(samples: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Returns samples [S] with white to pink noise, `snr` dB below the speech: [S] float32.

    The level of the speech is measured without its digital silence.
    """
    speech = samples[samples != 0]
    level = np.sqrt(np.mean(speech**2)) * 10 ** (-snr / 20)
    noisy = samples + level * noise(len(samples), rng)
    return (noisy / max(1.0, np.abs(noisy).max())).astype(np.float32)


def noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns white to pink noise of mean square 1: [size]."""
    white = rng.standard_normal(1 << size.bit_length(), dtype=np.float32)
    spectrum = np.fft.rfft(white)
    tilt = rng.uniform(0, 0.5)  # the amplitude falls with frequency to the -tilt: 0.5 is pink
    tilted = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** tilt)[:size]
    return tilted / np.sqrt(np.mean(tilted**2))


def with_silence(samples: np.ndarray, share: float, *, seed: int, sample_rate: int) -> np.ndarray:
    """Returns samples [S] with silence inserted: [S + num_inserted(S, share)].

    A third goes before the utterance, a third after it, and a third into the middle of the
    quietest 0.1 s between its first and its last tenth. The silence is `background`. The samples
    keep their values and their order.
    """
    window = min(len(samples), round(QUIET * sample_rate))
    size = num_inserted(len(samples), share)
    silence = background(samples, size, seed=seed, sample_rate=sample_rate)
    before, inside, after = np.array_split(silence, 3)
    tenth = min(len(samples) // 10, (len(samples) - window) // 2)
    place = tenth + quietest(samples[tenth : len(samples) - tenth], window) + window // 2
    return np.concatenate([before, samples[:place], inside, samples[place:], after])


def num_inserted(num_samples: int, share: float) -> int:
    """Returns how many samples of silence to insert so that they are `share` of the result."""
    return round(num_samples * share / (1 - share))


def background(samples: np.ndarray, size: int, *, seed: int, sample_rate: int) -> np.ndarray:
    """Returns Gaussian noise [size] with the spectrum and mean power of the quietest 0.1 s.

    It is digital silence if, and only if, these are.
    """
    window = min(len(samples), round(QUIET * sample_rate))
    lowest = quietest(samples, window)
    quiet = samples[lowest : lowest + window]
    white = np.random.default_rng(seed).standard_normal(size + window)
    shaped = np.fft.irfft(np.fft.rfft(white) * np.fft.rfft(quiet, len(white)), len(white))[:size]
    power, wanted = (np.mean(np.square(x, dtype=np.float64)) if size else 0.0
                     for x in (shaped, quiet))  # fmt: skip
    return (shaped * np.sqrt(wanted / power if power else 0.0)).astype(np.float32)


def quietest(samples: np.ndarray, window: int) -> int:
    """Returns where the `window` consecutive samples of [S] with the least power begin."""
    power = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(power[window:] - power[:-window]))
