"""Silence that is not quite silent, and narrow channels: what should change no word."""

import functools
import io
from collections.abc import Callable

import numpy as np

from tdt_jax.audio.silence import QUIET
from tdt_jax.audio.waveform import quietest

STEP = {16: 2.0**-15, 24: 2.0**-23}  # of so many bits, full scale = 1
LEVELS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # standard deviations of noise
OFFSET = 0.01
PLACES = ("before", "behind", "between")
CODECS = {"A-law": ("WAV", "ALAW"), "Opus": ("OGG", "OPUS")}  # formats of libsndfile


def kinds() -> dict[str, Callable[[int, np.random.Generator], np.ndarray]]:
    """Returns functions of (size, rng) that make silence [size] float32, by name.

    Those of CODECS are zeros: `with_near_silence` sends the whole recording through the codec.
    """

    def zeros(size, rng):
        return np.zeros(size)

    def steps(bits: int):
        return lambda size, rng: rng.integers(-1, 2, size) * STEP[bits]

    def noise(level: float):
        return lambda size, rng: level * rng.standard_normal(size)

    return {
        "zeros": zeros,
        "steps of 16 bits": steps(16),
        "steps of 24 bits": steps(24),
        "a constant": lambda size, rng: np.full(size, OFFSET),
        **{f"noise of {level:g}": noise(level) for level in LEVELS},
        **dict.fromkeys(CODECS, zeros),
    }


def coded(samples: np.ndarray, rate: int, format: str, subtype: str) -> np.ndarray:
    """Returns samples [S] after a lossy format of libsndfile: [S]."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    file.seek(0)
    found, _ = soundfile.read(file, dtype="float32")
    return found[: len(samples)]


def with_near_silence(
    samples: np.ndarray, kind: str, place: str, seconds: float, *, seed: int, sample_rate: int
) -> np.ndarray:
    """Puts so many seconds of a kind of silence before samples [S], behind them, or between words.

    Between is the middle of the quietest 0.1 s from the first to the last tenth.
    """
    silence = kinds()[kind](round(seconds * sample_rate), np.random.default_rng(seed))
    tenth, window = len(samples) // 10, round(QUIET * sample_rate)
    middle = tenth + quietest(samples[tenth : len(samples) - tenth], window) + window // 2
    cut = {"before": 0, "behind": len(samples), "between": middle}[place]
    longer = np.concatenate([samples[:cut], silence, samples[cut:]], dtype=np.float32)
    return coded(longer, sample_rate, *CODECS[kind]) if kind in CODECS else longer


def channels(sample_rate: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns functions of samples [S] that send them through a channel, by name."""
    import soxr

    def narrow(samples: np.ndarray, codec: tuple[str, str] | None = None) -> np.ndarray:
        low = soxr.resample(samples, sample_rate, 8000)
        if codec:
            low = coded(low, 8000, *codec)
        return soxr.resample(low, 8000, sample_rate)

    return {
        "8 kHz": narrow,
        "8 kHz, A-law": functools.partial(narrow, codec=("WAV", "ALAW")),
        "8 kHz, µ-law": functools.partial(narrow, codec=("WAV", "ULAW")),
        "8 kHz, Opus": functools.partial(narrow, codec=("OGG", "OPUS")),
        "A-law": functools.partial(coded, rate=sample_rate, format="WAV", subtype="ALAW"),
        "Opus": functools.partial(coded, rate=sample_rate, format="OGG", subtype="OPUS"),
    }
