"""Silence that is not quite silent, and narrow channels: neither should change a word."""

import functools
from collections.abc import Callable

import numpy as np

from tdt_jax.audio.encoded import through_codec
from tdt_jax.audio.silence import QUIET
from tdt_jax.audio.waveform import quietest, resample

STEP = {16: 2.0**-15, 24: 2.0**-23}  # of so many bits; full scale is 1
LEVELS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # standard deviations of noise
OFFSET = 0.01
PLACES = ("before", "behind", "between")
CODECS = {"A-law": ("WAV", "ALAW"), "Opus": ("OGG", "OPUS")}  # formats of libsndfile


def kinds() -> dict[str, Callable[[int, np.random.Generator], np.ndarray]]:
    """Returns functions of (size, rng) that make silence [size], by name.

    Those of CODECS make zeros: `with_near_silence` encodes the whole recording.
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


def with_near_silence(
    samples: np.ndarray, kind: str, place: str, seconds: float, *, seed: int, sample_rate: int
) -> np.ndarray:
    """Returns samples [S] with so many seconds of a kind of silence, in float32.

    Args:
      samples: a recording.
      kind: one of `kinds`.
      place: "before" the samples, "behind" them, or "between" words: in the middle of the quietest
        0.1 s from the first to the last tenth.
      seconds: length of the silence.
      seed: of the noise.
      sample_rate: in Hz.
    """
    silence = kinds()[kind](round(seconds * sample_rate), np.random.default_rng(seed))
    tenth, window = len(samples) // 10, round(QUIET * sample_rate)
    middle = tenth + quietest(samples[tenth : len(samples) - tenth], window) + window // 2
    cut = {"before": 0, "behind": len(samples), "between": middle}[place]
    longer = np.concatenate([samples[:cut], silence, samples[cut:]], dtype=np.float32)
    return through_codec(longer, sample_rate, *CODECS[kind]) if kind in CODECS else longer


def channels(sample_rate: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns functions that send samples [S] through a channel, by name."""

    def narrow(samples: np.ndarray, codec: tuple[str, str] | None = None) -> np.ndarray:
        low = resample(samples, sample_rate, 8000)
        if codec:
            low = through_codec(low, 8000, *codec)
        return resample(low, 8000, sample_rate)

    def wide(samples: np.ndarray, codec: tuple[str, str]) -> np.ndarray:
        return through_codec(samples, sample_rate, *codec)

    return {
        "8 kHz": narrow,
        "8 kHz, A-law": functools.partial(narrow, codec=("WAV", "ALAW")),
        "8 kHz, µ-law": functools.partial(narrow, codec=("WAV", "ULAW")),
        "8 kHz, Opus": functools.partial(narrow, codec=("OGG", "OPUS")),
        "A-law": functools.partial(wide, codec=("WAV", "ALAW")),
        "Opus": functools.partial(wide, codec=("OGG", "OPUS")),
    }
