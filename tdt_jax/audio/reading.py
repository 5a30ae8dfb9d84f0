"""Recordings to samples: float32, mono, at one rate; what is wrong with one is an AudioError.

libsndfile decodes the formats that it knows best (tdt_jax.audio.sndfile), FFmpeg all others
(tdt_jax.audio.container); whichever does, channels are mixed (tdt_jax.audio.downmix) and rates
changed by soxr block by block: hours of audio cost their samples only.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tdt_jax.audio import container, sndfile
from tdt_jax.audio.downmix import mixed
from tdt_jax.audio.items import File, resolved
from tdt_jax.audio.parts import Part, Section, is_mp3, parts
from tdt_jax.audio.request import (
    AudioError,
    AudioWarning,
    Block,
    BrokenError,
    Request,
    UnknownFormatError,
    warn,
)

BLOCK = 1 << 18  # samples yielded at a time of an array
LOUDEST = 1e10  # of samples; integers taken for floats stay below
UNHEARD = 2.0**-24  # between the highest and the lowest sample of a recording without sound

__all__ = ["AudioError", "AudioWarning", "as_samples", "audio_blocks", "audio_seconds",
           "header_seconds", "read_audio"]  # fmt: skip


def read_audio(path, sample_rate: int = 16000, **options) -> np.ndarray:
    """Decode an audio file to mono samples at `sample_rate` Hz.

    Takes what `audio_blocks` takes, options included.

    Returns: [S] float32, writable.
    Raises: as `audio_blocks`.
    """
    samples = bytearray()
    for block in audio_blocks(path, sample_rate, **options):
        samples += block.tobytes()
    return np.frombuffer(samples, np.float32)


def audio_blocks(
    audio,
    sample_rate: int = 16000,
    *,
    array_rate: int | None = None,
    start: float = 0.0,
    stop: float | None = None,
    track: int | None = None,
    damaged: str = "error",
    warn: Callable[[str], object] = warn,
) -> Iterator[np.ndarray]:
    """Yield mono samples at `sample_rate` Hz, block by block: any length in bounded memory.

    Channels are mixed as in a standard down-mix, without letting two sides cancel; integer formats
    are scaled to [-1, 1). Sound stays at its place on the time line. A file that holds less than
    its header promises, or is damaged inside, is an error, not a shorter utterance; a fault may
    show after some blocks only. (Formats made for streams promise nothing: an Ogg file cut between
    two pages, or an MP3 without a length header, is read as it is.)

    Args:
      audio: a path; the bytes of a file; an open binary file, which is read from its beginning;
        an array [S] or [S, channels], also of PyTorch or JAX, of floats with full scale 1 or PCM as
        int8, uint8, int16 or int32; (rate, array) or (array, rate); a dict with array and
        sampling_rate, bytes, or path, as `datasets` has it; or a function that is called with
        `sample_rate` and returns such an array.
      array_rate: of an array that comes without one, in Hz; by default `sample_rate`.
      start, stop: seconds: what is between the two, to the sample (in Matroska, to its clock's
        millisecond); by default everything.
      track: which audio track, from 1; by default the main one, and if there are others, `warn` is
        told.
      damaged: "error", or "skip" for what can be had of a damaged or truncated file, at its place;
        `warn` is told how much is missing.
      warn: takes what should be known of a recording; by default it becomes an AudioWarning.

    Yields: [S] float32 each.
    Raises: AudioError naming the file, if it is missing, a folder, empty, not audio, truncated,
    damaged, without samples, or holds NaN or infinite samples; for arrays of another shape or type.
    """
    if hasattr(audio, "audio_blocks"):  # a Segment
        yield from audio.audio_blocks(sample_rate, track=track, damaged=damaged, warn=warn)
        return
    request = Request(start, stop, track, damaged, warn)
    found = resolved(audio, array_rate or sample_rate)
    name = found.name if isinstance(found, File) else "the array"
    blocks = _file_blocks(found, request) if isinstance(found, File) else _array_blocks(found)
    low, high, num_samples = math.inf, -math.inf, 0

    def watched():
        nonlocal low, high
        for rate, block in mixed(_clipped(blocks, request)):
            _require_usable(block, name)
            low, high = min(low, block.min()), max(high, block.max())
            yield rate, block

    for block in _resampled(watched(), sample_rate):
        num_samples += len(block)
        yield block
    if not num_samples:
        where = f" after {start:g} s" if start else ""
        raise AudioError(f"{name} holds no samples{where}")
    if high - low < UNHEARD:
        warn(f"no sound in {name}")


def as_samples(audio, sample_rate: int = 16000) -> np.ndarray:
    """Mono float32 samples of a recording in any form that `audio_blocks` takes.

    Returns: [S] float32.
    Raises: AudioError as there.
    """
    if hasattr(audio, "audio_blocks"):
        return read_audio(audio, sample_rate)
    found = resolved(audio, sample_rate)
    if isinstance(found, File):
        return read_audio(found, sample_rate)
    parts = []
    for rate, block in mixed([found]):
        _require_usable(block, "the array")
        parts.append((rate, block))
    return np.concatenate(list(_resampled(parts, sample_rate)))


def mono(found: File) -> tuple[np.ndarray, int]:
    """A file's samples [S] at its own rate (of several, the first), and that rate in Hz."""
    parts = []
    for rate, block in mixed(_file_blocks(found, Request())):
        _require_usable(block, found.name)
        parts.append((rate, block))
    if not parts:
        raise AudioError(f"{found.name} holds no samples")
    rate = parts[0][0]
    return np.concatenate(list(_resampled(parts, rate))), rate


def audio_seconds(path) -> float:
    """The length of an audio file in seconds: its header's word, or counted where that is silent.

    Raises: AudioError naming the file, if it is missing, a folder, empty or not audio.
    """
    seconds = header_seconds(path)
    if seconds is None:
        found, request = resolved(path, 0), Request(warn=lambda message: None)
        seconds = sum(len(block.samples) / block.rate for block in _file_blocks(found, request))
        if not seconds:
            raise AudioError(f"{found.name} holds no samples")
    return seconds


def header_seconds(path) -> float | None:
    """The length of an audio file in seconds, if its header says it.

    Raises: AudioError naming the file, if it is missing, a folder or empty.
    """
    found = resolved(path, 0)
    with _reading(found) as file:
        if sndfile.understates(file):
            return None
        lengths = [
            _seconds(source, opened, found.name) for source, opened, _ in _sections(found, file)
        ]
    return None if None in lengths else sum(lengths)


def _seconds(source: Path | BinaryIO, file: BinaryIO, name: str) -> float | None:
    by_sndfile = functools.partial(sndfile.seconds, source)
    by_container = functools.partial(container.seconds, file, name)
    for way in _in_order(file, by_sndfile, by_container):
        with contextlib.suppress(UnknownFormatError):
            return way()
    return None


@contextlib.contextmanager
def _reading(found: File) -> Iterator[BinaryIO]:
    """The open file, at its beginning; what goes wrong with a disk is an AudioError."""
    try:
        with found.opened() as file:
            file.seek(0)
            yield file
    except OSError as error:  # no permission, a disk that fails
        raise AudioError(f"{found.name} cannot be read: {error.strerror or error}") from None


def _file_blocks(found: File, request: Request) -> Iterator[Block]:
    with _reading(found) as file:
        if sndfile.understates(file):
            yield from container.blocks(file, found.name, request, ignore_length=True)
            return
        sections = list(_sections(found, file))
        for _, _, part in sections:
            if part.fault:
                request.lost(f"{found.name} is damaged or truncated: {part.fault}")
        if not (part.is_ended or part.fault):
            request.warn(f"{found.name} has no mark at its end, some of which may be missing")
        offset = end = 0.0
        whole = dataclasses.replace(request, start=0.0, stop=None)
        for source, opened, part in sections:
            wanted = request if len(sections) == 1 else whole
            for block in _decoded(source, opened, found.name, wanted, is_damaged=bool(part.fault)):
                end = offset + block.time + len(block.samples) / block.rate
                yield block._replace(time=offset + block.time)
            offset = end


def _sections(found: File, file: BinaryIO) -> Iterator[tuple[Path | BinaryIO, BinaryIO, Part]]:
    """The files that a file is of: as libsndfile and as FFmpeg should open each."""
    several = parts(file)
    for part in several:
        section = Section(file, part.start, part.end)
        yield (found.source, file, part) if len(several) == 1 else (section, section, part)


def _decoded(
    source: Path | BinaryIO, file: BinaryIO, name: str, request: Request, *, is_damaged: bool
) -> Iterator[Block]:
    """Yield a file's blocks in the first of the ways that know its format."""
    by_sndfile = functools.partial(sndfile.blocks, source, name, request)
    by_container = functools.partial(container.blocks, file, name, request)
    ways = [by_container]
    if not is_damaged and request.track in (None, 1):
        ways = _in_order(file, by_sndfile, by_container)
    reasons = []
    for way in ways:
        try:
            yield from way()
            return
        except UnknownFormatError as error:
            reasons.append(str(error))
        except BrokenError as error:
            if request.damaged == "error":
                raise
            rest = dataclasses.replace(request, start=max(error.seconds, request.start))
            yield from _clipped(container.blocks(file, name, rest), rest)
            return
    raise _undecodable(name, reasons)


def _in_order(file: BinaryIO, by_sndfile: Callable, by_container: Callable) -> list[Callable]:
    """The better way for a file's format, then the other if it may know it."""
    file.seek(0)
    head = file.read(4)
    if is_mp3(head):  # of which libsndfile reads the first part only
        return [by_container]
    return [by_sndfile, by_container] if head in sndfile.MAGIC else [by_container, by_sndfile]


def _undecodable(name: str, reasons: list[str]) -> AudioError:
    why = "; ".join(reason.rstrip(".") for reason in reasons)
    return AudioError(f"{name} is damaged or not audio: it cannot be decoded ({why})")


def _array_blocks(block: Block) -> Iterator[Block]:
    for first in range(0, len(block.samples), BLOCK):
        part = block.samples[first : first + BLOCK]
        yield block._replace(time=first / block.rate, samples=part)


def _clipped(blocks: Iterable[Block], request: Request) -> Iterator[Block]:
    """What of the blocks is between `request.start` and `request.stop`, to the sample."""
    for block in blocks:
        size, first = len(block.samples), round(block.time * block.rate)
        begin = max(round(request.start * block.rate) - first, 0)
        end = size if request.stop is None else round(request.stop * block.rate) - first
        if begin < min(end, size):
            time = block.time + begin / block.rate
            yield block._replace(time=time, samples=block.samples[begin:end])
        if end < size or (end == size and request.stop is not None):
            return


def _resampled(blocks: Iterable[tuple[int, np.ndarray]], sample_rate: int) -> Iterator[np.ndarray]:
    """The blocks at one rate, whatever that of each."""
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


def _require_usable(samples: np.ndarray, name: str) -> None:
    if not np.isfinite(samples).all():
        bad = samples[~np.isfinite(samples)]
        raise AudioError(f"{name} holds {len(bad)} samples that are not finite (such as {bad[0]})")
    if samples.size and (peak := np.abs(samples).max()) > LOUDEST:
        raise AudioError(f"{name} holds samples of up to {peak:.3g}; full scale is 1")
