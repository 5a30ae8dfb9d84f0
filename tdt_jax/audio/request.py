"""Which part of a recording is wanted, what happens if it is damaged, and what decoders yield."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tdt_jax.audio.errors import AudioError, warn

TOLERANCE = 0.1  # seconds that may be missing at the end


class Block(NamedTuple):
    """Consecutive samples of a recording, as they are decoded."""

    time: float  # of the first sample, in seconds
    rate: int  # Hz
    samples: np.ndarray  # [S, channels] float32, S >= 1
    layout: tuple[str, ...] = ()  # FFmpeg's names of the channels, such as FL and FC; (): unknown


@dataclass(frozen=True)
class Request:
    """The part of a recording that is wanted, and what happens if it is damaged.

    Raises:
      ValueError: for fields that contradict each other, and unknown values of `damaged`.
    """

    start: float = 0.0  # seconds
    stop: float | None = None  # seconds; None: the end
    track: int | None = None  # from 1, among the file's audio tracks; None: its main one
    damaged: str = "error"  # or "skip": decode the rest
    warn: Callable[[str], object] = warn

    def __post_init__(self):
        if self.damaged not in ("error", "skip"):
            raise ValueError(f"damaged must be 'error' or 'skip', got {self.damaged!r}")
        if self.track is not None and self.track < 1:
            raise ValueError(f"tracks are counted from 1, got {self.track}")
        if not 0 <= self.start < (float("inf") if self.stop is None else self.stop):
            raise ValueError(f"nothing is between start {self.start} and stop {self.stop}")

    def lost(self, message: str) -> None:
        """Reports that a part of the recording is missing: raises AudioError, or warns to skip."""
        if self.damaged == "error":
            raise AudioError(message)
        self.warn(message)
