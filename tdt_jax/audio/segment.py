"""Parts of audio files, as a manifest's `offset` and `duration` say them.

    file     |--------------------------------------------|
    segment          |================|~~~|
                  offset         + duration  slack: a file that ends here is read to its end

Durations in manifests are rounded, and rounding must not cut the last word of a file.
"""

import contextlib
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tdt_jax.audio.reading import (
    BLOCK,
    RATES,
    AudioError,
    _checked,
    _opened,
    _readable,
    _require_finite,
    audio_blocks,
    audio_seconds,
)

SLACK = 0.1  # seconds that a segment may lack, or that a file may go on after it and belong to it
NOMINAL_SLACK = 1.0  # the same where a manifest gives no offset
PREROLL = 0.5  # seconds decoded before a segment: an MP3 frame needs what some before it have left
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

    def audio_blocks(self, sample_rate: int = 16000) -> Iterator[np.ndarray]:
        """Yield the samples block by block, mono float32; of a long file only what is needed.

        Raises:
          AudioError: for a file that cannot be read, or that ends before the segment does.
        """
        is_nominal = self.offset is None
        slack, start = NOMINAL_SLACK if is_nominal else SLACK, self.offset or 0.0
        length = math.inf if self.duration is None else round(self.duration * sample_rate)
        most = length + round(slack * sample_rate)
        if is_nominal:
            blocks = audio_blocks(self.path, sample_rate)
        else:
            blocks = _part(self.path, sample_rate, start, start + 0.1 + most / sample_rate)
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
        if not found:
            raise AudioError(f"{self.path} ends before the offset of {start:g} s")
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


def _part(path, sample_rate: int, start: float, stop: float) -> Iterator[np.ndarray]:
    """Blocks of what a file holds from `start` to `stop`, in seconds."""
    import soxr

    path, stream = _checked(path), None
    for rate, block in _sought(path, start, stop):
        _require_finite(block, path)
        if rate != sample_rate:
            stream = stream or soxr.ResampleStream(rate, sample_rate, 1)
            block = stream.resample_chunk(block)
        yield block
    if stream:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _sought(path, start: float, stop: float) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, mono block) of [start, stop): by a seek where libsndfile can, else by reading on.

    What goes to the end is read from the start, by the road that knows how a file is truncated.
    """
    import soundfile

    with contextlib.ExitStack() as stack:
        file, num_frames = None, None
        with contextlib.suppress(soundfile.SoundFileError, TypeError, OSError):  # named below
            file, num_frames = stack.enter_context(_opened(path))
        is_known = file is not None and num_frames is not None and stop < math.inf
        if is_known and file.seekable() and RATES[0] <= file.samplerate <= RATES[1]:
            yield from _seek(path, file, start, stop)
            return
    position = 0
    for rate, block in _readable(path):
        first, last = (round(t * rate) - position for t in (start, min(stop, 1e12)))
        position += len(block)
        if last <= 0:
            break
        if first < len(block):
            yield rate, block[max(0, first) : last]


def _seek(path, file, start: float, stop: float) -> Iterator[tuple[int, np.ndarray]]:
    import soundfile

    rate = file.samplerate
    first, last = (round(min(t * rate, file.frames)) for t in (start, stop))
    position = max(0, first - round(PREROLL * rate))
    most = max(1, BLOCK // file.channels)
    try:
        file.seek(position)
        while position < last:
            block = file.read(min(most, last - position), dtype="float32", always_2d=True)
            if not len(block):
                raise AudioError(
                    f"{path} is truncated: its header promises {file.frames} frames, it ends after "
                    f"{position}"
                )
            if position + len(block) > first:
                yield rate, block[max(0, first - position) :].mean(axis=1)
            position += len(block)
    except soundfile.SoundFileError as error:
        raise AudioError(
            f"{path} is damaged after {position} of {file.frames} frames: {error}"
        ) from None
