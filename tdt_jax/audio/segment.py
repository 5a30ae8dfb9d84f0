"""Parts of audio files, by the `offset` and `duration` of a manifest.

    file     |--------------------------------------------|
    segment          |================|~~~|
                  offset         + duration  slack: a file that ends here is read to its end

Durations in manifests are rounded, and rounding must not cut the last word of a file.
"""

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import audio_blocks, audio_seconds

SLACK = 0.1  # seconds that a file may end before the segment does, or after it and still belong
NOMINAL_SLACK = 1.0  # the same if a manifest gives no offset
MOST_WARNINGS = 10  # about files whose length is not that of their manifest

log = logging.getLogger(__name__)
_warnings: set[str] = set()


@dataclass(frozen=True)
class Segment:
    """A part of an audio file, which `transcribe` and `as_samples` accept like a whole file.

    It begins at `offset` and lasts `duration` seconds (None: to the end); its own time begins at 0.

    With an offset of None it is the whole file, and `duration` its nominal length. The file is cut
    there only if it is more than a second longer; a warning is logged then, and if it is more than
    a second shorter. (NeMo reads such an entry whole or cuts it exactly, depending on its data
    loader.)

    Raises:
      ValueError: for an offset below 0, a duration that is not above 0, and what is not finite.
    """

    path: str | os.PathLike
    offset: float | None = 0.0  # seconds
    duration: float | None = None  # seconds

    def __post_init__(self):
        if self.offset is not None and not 0 <= self.offset < math.inf:
            raise ValueError(f"the offset into {self.path} must be >= 0 s, got {self.offset}")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise ValueError(
                f"the duration of a segment of {self.path} must be above 0 s, got {self.duration}"
            )

    def is_whole(self) -> bool:
        """Returns whether this is all of its file, mostly by reading the header alone.

        Raises: AudioError for a file that cannot be read.
        """
        slack = NOMINAL_SLACK if self.offset is None else SLACK
        return not self.offset and (
            self.duration is None or audio_seconds(self.path) <= self.duration + slack
        )

    def audio_blocks(self, sample_rate: int = 16000, **options) -> Iterator[np.ndarray]:
        """Yields mono samples [S] float32; of a long file only what is needed is decoded.

        Options are those of `tdt_jax.audio.reading.audio_blocks`.

        Raises:
          AudioError: for a file that cannot be read, or that ends before the segment does.
        """
        is_nominal = self.offset is None
        slack, start = NOMINAL_SLACK if is_nominal else SLACK, self.offset or 0.0
        length = math.inf if self.duration is None else round(self.duration * sample_rate)
        most = length + round(slack * sample_rate)
        stop = None
        if not is_nominal and self.duration is not None:
            stop = start + 0.1 + most / sample_rate
        blocks = audio_blocks(self.path, sample_rate, start=start, stop=stop, **options)
        num_samples, beyond = 0, []
        for block in blocks:
            inside = (
                len(block) if num_samples + len(block) <= length else max(0, length - num_samples)
            )
            if inside:
                yield block[:inside]
            if inside < len(block):
                beyond.append(block[inside:])
            num_samples += len(block)
            if num_samples > most:
                break
        if num_samples <= most:
            yield from beyond
        elif is_nominal:
            _warn_once(
                f"{self.path} goes on after the {self.duration:g} s that its manifest says; only "
                "those are used"
            )
        if length < math.inf and num_samples < length - slack * sample_rate:
            seconds = num_samples / sample_rate
            if not is_nominal:
                raise AudioError(
                    f"{self.path} is truncated: {self.duration:g} s from {start:g} s on are "
                    f"promised, it holds {seconds:.2f} s of them"
                )
            _warn_once(f"{self.path} lasts {seconds:.2f} s, its manifest says {self.duration:g} s")


def _warn_once(text: str) -> None:
    if text not in _warnings and len(_warnings) < MOST_WARNINGS:
        _warnings.add(text)
        log.warning("%s%s", text, " (and so on)" if len(_warnings) == MOST_WARNINGS else "")
