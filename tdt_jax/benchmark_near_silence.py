"""Whether a recogniser minds silence that is not quite silent, and narrow bands.

Silence of many kinds is put before each recording, behind it, and into its quietest pause; nothing
of it should change a word. Recordings are also sent through channels of 8 kHz.
"""

import functools
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax import metrics
from tdt_jax.audio.silence import QUIET, quietest
from tdt_jax.recogniser import Recogniser
from tdt_jax.transcribe import transcribe

STEP = {16: 2.0**-15, 24: 2.0**-23}  # of so many bits, full scale = 1
LEVELS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # standard deviations of noise
OFFSET = 0.01
PLACES = ("before", "behind", "between")
SECONDS = (0.4, 1.0, 2.0, 4.0, 10.0)


class Cell(NamedTuple):
    """One kind of silence at one place for so long, or one channel."""

    kind: str
    place: str  # "": a channel
    seconds: float
    word_error_rate: float
    changed: int  # word edits between what is transcribed without and with it
    words: int  # transcribed without


def kinds() -> dict[str, object]:
    """Functions of (size, rng) that give silence [size], by name; of a codec, one of all samples."""

    def steps(bits: int):
        return lambda size, rng: (rng.integers(-1, 2, size) * STEP[bits]).astype(np.float32)

    def noise(level: float):
        return lambda size, rng: (level * rng.standard_normal(size)).astype(np.float32)

    return {
        "zeros": lambda size, rng: np.zeros(size, np.float32),
        "steps of 16 bits": steps(16),
        "steps of 24 bits": steps(24),
        "constant": lambda size, rng: np.full(size, OFFSET, np.float32),
        **{f"noise {level:g}": noise(level) for level in LEVELS},
        "A-law": lambda size, rng: np.zeros(size, np.float32),
        "Opus": lambda size, rng: np.zeros(size, np.float32),
    }


CODECS = {"A-law": ("WAV", "ALAW"), "Opus": ("OGG", "OPUS")}


def coded(samples: np.ndarray, rate: int, format: str, subtype: str) -> np.ndarray:
    """What comes back of samples [S] from a file of a lossy format: [S]."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    file.seek(0)
    found, _ = soundfile.read(file, dtype="float32")
    return found[: len(samples)]


def with_near_silence(
    samples: np.ndarray, kind: str, place: str, seconds: float, *, seed: int, sample_rate: int
) -> np.ndarray:
    """Samples [S] with so many seconds of a kind of silence before, behind or between their words.

    Between is the middle of the quietest 0.1 s from the first to the last tenth.
    """
    silence = kinds()[kind](round(seconds * sample_rate), np.random.default_rng(seed))
    tenth, window = len(samples) // 10, round(QUIET * sample_rate)
    middle = tenth + quietest(samples[tenth : len(samples) - tenth], window) + window // 2
    cut = {"before": 0, "behind": len(samples), "between": middle}[place]
    longer = np.concatenate([samples[:cut], silence, samples[cut:]])
    return coded(longer, sample_rate, *CODECS[kind]) if kind in CODECS else longer


def channels(sample_rate: int) -> dict[str, object]:
    """Functions of samples that send them through a narrow channel, by name."""
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


def measure(
    recogniser: Recogniser,
    references: Sequence[str],
    audio: Sequence[np.ndarray],
    *,
    seconds: Sequence[float] = SECONDS,
    normalise=str,
    piece_seconds: float | None = None,
) -> Iterator[Cell]:
    """Transcribe recordings with each silence at each place, and through each channel.

    Args:
      recogniser: what is measured.
      references: the texts, normalised.
      audio: [S] each, at the recogniser's rate.
      seconds: of silence.
      normalise: goes over transcripts.
      piece_seconds: as of `transcribe`.
    """
    rate = recogniser.config.features.sample_rate

    def heard(items: list[np.ndarray]) -> list[str]:
        found = transcribe(recogniser, items, piece_seconds=piece_seconds)
        return [normalise(each.text) for each in found]

    alone = heard(list(audio))

    def cell(kind: str, place: str, length: float, items: list[np.ndarray]) -> Cell:
        texts = heard(items)
        edits, lengths = metrics.word_errors(alone, texts)
        rate = metrics.word_error_rate(references, texts).rate
        return Cell(kind, place, length, rate, int(edits.sum()), int(lengths.sum()))

    for kind in kinds():
        for place in PLACES:
            for length in seconds:
                options = dict(sample_rate=rate)
                items = [
                    with_near_silence(x, kind, place, length, seed=i, **options)
                    for i, x in enumerate(audio)
                ]
                yield cell(kind, place, length, items)
    for name, channel in channels(rate).items():
        yield cell(name, "", 0.0, [channel(x) for x in audio])
