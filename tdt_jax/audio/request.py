"""What is asked of a recording, and what may be wrong with it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TOLERANCE = 0.1  # seconds that may be missing at the end
RATES = (4_000, 768_000)  # Hz; outside, the header is damaged


class AudioError(ValueError):
    """An audio file or array that cannot be used; the message names it and says why."""


class AudioWarning(UserWarning):
    """Something about a recording that its transcript does not show; the message names it."""


class UnknownFormatError(AudioError):
    """A file that this way of reading does not know, but another may."""


class BrokenError(AudioError):
    """A file whose decoding fails in the middle."""

    def __init__(self, message: str, seconds: float):
        super().__init__(message)
        self.seconds = seconds  # that were decoded before


def check_rate(rate: int, name: str) -> None:
    """Raise AudioError for a sample rate that only a damaged header has."""
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"{name} has an impossible sample rate: {rate} Hz")


class Block(NamedTuple):
    """Samples of a recording as they are decoded."""

    time: float  # seconds, of the first of them
    rate: int  # Hz
    samples: np.ndarray  # [S, channels] float32, S >= 1
    layout: tuple[str, ...] = ()  # FFmpeg's names of the channels, such as FL and FC; (): unknown


def warn(message: str) -> None:
    """Issue an AudioWarning."""
    warnings.warn(message, AudioWarning, stacklevel=2)


@dataclass(frozen=True)
class Request:
    """Which part of a recording is wanted, and what becomes of damage."""

    start: float = 0.0  # seconds
    stop: float | None = None  # seconds; None: to the end
    track: int | None = None  # from 1, among the file's audio tracks; None: its main one
    damaged: str = "error"  # or "skip": what can be had
    warn: Callable[[str], object] = warn

    def __post_init__(self):
        if self.damaged not in ("error", "skip"):
            raise ValueError(f"damaged must be 'error' or 'skip', got {self.damaged!r}")
        if self.track is not None and self.track < 1:
            raise ValueError(f"tracks are counted from 1, got {self.track}")
        if not 0 <= self.start < (float("inf") if self.stop is None else self.stop):
            raise ValueError(f"nothing is between start {self.start} and stop {self.stop}")

    def lost(self, message: str) -> None:
        """Say that something of the recording is missing: an AudioError, or a warning."""
        if self.damaged == "error":
            raise AudioError(message)
        self.warn(message)
