"""Parts of audio files, as a manifest's `offset` and `duration` say them.

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

from tdt_jax.audio.reading import audio_blocks, audio_seconds
from tdt_jax.audio.request import AudioError

SLACK = 0.1  # seconds that a segment may lack, or that a file may go on after it and belong to it
NOMINAL_SLACK = 1.0  # the same where a manifest gives no offset
MOST_MENTIONED = 10  # files whose length is not as their manifest says; then no more are named

log = logging.getLogger(__name__)
_mentioned: set[str] = set()


@dataclass(frozen=True)
class Segment:
    """A part of an audio file, which `transcribe` and `as_samples` take like a whole one.

    It lasts for `duration` seconds from `offset` on (None: to the end); its own time begins at 0.

    An offset of None means the file as a whole, of which `duration` is the nominal length. Only
    where it goes on for more than a second after that, is it cut there; that, and a file that is
    shorter by more than a second, is mentioned in the log. (NeMo reads such an entry whole or cuts
    it exactly, depending on its data loader.)

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
        """Whether it is all of its file, of which mostly the header alone is read.

        Raises: AudioError for a file that cannot be read.
        """
        slack = NOMINAL_SLACK if self.offset is None else SLACK
        return not self.offset and (
            self.duration is None or audio_seconds(self.path) <= self.duration + slack
        )

    def audio_blocks(self, sample_rate: int = 16000, **options) -> Iterator[np.ndarray]:
        """Yield the samples block by block, mono float32; of a long file only what is needed.

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
        found, beyond = 0, []
        for block in blocks:
            inside = len(block) if found + len(block) <= length else max(0, length - found)
            if inside:
                yield block[:inside]
            if inside < len(block):
                beyond.append(block[inside:])
            found += len(block)
            if found > most:
                break
        if found <= most:
            yield from beyond
        elif is_nominal:
            _mention(
                f"{self.path} goes on after the {self.duration:g} s that its manifest says; only "
                "those are used"
            )
        if length < math.inf and found < length - slack * sample_rate:
            lasts = found / sample_rate
            if not is_nominal:
                raise AudioError(
                    f"{self.path} is truncated: {self.duration:g} s from {start:g} s on are "
                    f"promised, it holds {lasts:.2f} s of them"
                )
            _mention(f"{self.path} lasts {lasts:.2f} s, its manifest says {self.duration:g} s")


def _mention(text: str) -> None:
    if text not in _mentioned and len(_mentioned) < MOST_MENTIONED:
        _mentioned.add(text)
        log.warning("%s%s", text, " (and so on)" if len(_mentioned) == MOST_MENTIONED else "")
