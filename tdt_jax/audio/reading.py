"""Any recording to mono float32 samples at one rate; AudioError if that is impossible.

libsndfile (tdt_jax.audio.sndfile) decodes the formats that it knows best, FFmpeg
(tdt_jax.audio.ffmpeg) all others. Their blocks are mixed to one channel (tdt_jax.audio.downmix) and
resampled one by one, so that hours of audio take no more memory than their samples.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tdt_jax.audio import ffmpeg, sndfile
from tdt_jax.audio.concatenated import Part, is_mp3, open_part, parts
from tdt_jax.audio.downmix import mix
from tdt_jax.audio.errors import AudioError, BrokenError, UnknownFormatError, warn
from tdt_jax.audio.inputs import File, resolve, resolve_file
from tdt_jax.audio.request import Block, Request
from tdt_jax.audio.waveform import resample_blocks

BLOCK = 1 << 18  # samples of an array that are yielded at a time
LOUDEST = 1e10  # a larger sample is an error; integers taken for floats are below
NO_SOUND = 2.0**-24  # range of the samples of a recording in which nothing can be heard


def read_audio(audio: Any, sample_rate: int = 16000, **options) -> np.ndarray:
    """Returns the mono samples of a recording at `sample_rate` Hz: [S] float32, writable.

    Takes the recordings and options of `audio_blocks`, and raises its errors.
    """
    samples = bytearray()
    for block in audio_blocks(audio, sample_rate, **options):
        samples += block.tobytes()
    return np.frombuffer(samples, np.float32)


def audio_blocks(
    audio: Any,
    sample_rate: int = 16000,
    *,
    array_rate: int | None = None,
    start: float = 0.0,
    stop: float | None = None,
    track: int | None = None,
    damaged: str = "error",
    warn: Callable[[str], object] = warn,
) -> Iterator[np.ndarray]:
    """Yields the mono samples of a recording at `sample_rate` Hz in blocks, in bounded memory.

    Channels are mixed as in a standard down-mix, without letting two sides cancel. Integer formats
    are scaled to [-1, 1). Sound stays at its place on the time line. A file that ends before its
    header promises, or is damaged inside, is an error, not a shorter recording; the error may come
    after some blocks. (Formats made for streams promise nothing: an Ogg file cut between two pages,
    or an MP3 without a length header, is read as it is.)

    Args:
      audio: a path; the bytes of a file; an open binary file, which is read from its beginning;
        an array [S] or [S, channels], also of PyTorch or JAX, of floats with full scale 1 or PCM as
        int8, uint8, int16 or int32; (rate, array) or (array, rate); a dict with array and
        sampling_rate, bytes, or path, as `datasets` has it; a function that is called with
        `sample_rate` and returns such an array; or a `tdt_jax.audio.segment.Segment`, which has its
        own `start` and `stop`.
      array_rate: of an array that comes without a rate, in Hz; by default `sample_rate`.
      start, stop: limits in seconds, exact to the sample (in Matroska, to the millisecond of its
        clock); by default the whole recording.
      track: the audio track, from 1; by default the main one, with a warning if there are others.
      damaged: "error", or "skip" to keep what can be decoded of a damaged or truncated file, at its
        place, with a warning of how much is missing.
      warn: called with the text of each warning; by default it issues an AudioWarning.

    Yields: [S] float32 each.
    Raises: AudioError naming the file, if it is missing, a folder, empty, not audio, truncated,
    damaged, without samples, or holds NaN or infinite samples; for arrays of another shape or type.
    """
    if hasattr(audio, "audio_blocks"):  # a Segment
        yield from audio.audio_blocks(sample_rate, track=track, damaged=damaged, warn=warn)
        return
    request = Request(start, stop, track, damaged, warn)
    source = resolve(audio, array_rate or sample_rate)
    name = source.name if isinstance(source, File) else "the array"
    blocks = _file_blocks(source, request) if isinstance(source, File) else _array_blocks(source)
    low, high, num_samples = math.inf, -math.inf, 0

    def checked():
        nonlocal low, high
        for rate, block in mix(_clip(blocks, request)):
            _require_usable(block, name)
            low, high = min(low, block.min()), max(high, block.max())
            yield rate, block

    for block in resample_blocks(checked(), sample_rate):
        num_samples += len(block)
        yield block
    if not num_samples:
        where = f" after {start:g} s" if start else ""
        raise AudioError(f"{name} holds no samples{where}")
    if high - low < NO_SOUND:
        warn(f"no sound in {name}")


def as_samples(audio: Any, sample_rate: int = 16000) -> np.ndarray:
    """Returns the mono samples of a recording at `sample_rate` Hz: [S] float32.

    Takes the recordings of `audio_blocks`, and raises its errors. An array without sound is
    returned without a warning.
    """
    if hasattr(audio, "audio_blocks"):  # a Segment
        return read_audio(audio, sample_rate)
    source = resolve(audio, sample_rate)
    if isinstance(source, File):
        return read_audio(source, sample_rate)
    blocks = _usable_blocks([source], "the array")
    return np.concatenate(list(resample_blocks(blocks, sample_rate)))


def read_at_own_rate(file: File) -> tuple[np.ndarray, int]:
    """Returns a file's mono samples [S] at its own rate (if it has several, the first), and it."""
    blocks = _usable_blocks(_file_blocks(file, Request()), file.name)
    if not blocks:
        raise AudioError(f"{file.name} holds no samples")
    rate = blocks[0][0]
    return np.concatenate(list(resample_blocks(blocks, rate))), rate


def audio_seconds(audio: Any) -> float:
    """Returns the length of an audio file in seconds; decodes it if its header does not say.

    Raises: AudioError naming the file, if it is missing, a folder, empty or not audio.
    """
    seconds = header_seconds(audio)
    if seconds is None:
        file, request = resolve_file(audio), Request(warn=lambda message: None)
        seconds = sum(len(block.samples) / block.rate for block in _file_blocks(file, request))
        if not seconds:
            raise AudioError(f"{file.name} holds no samples")
    return seconds


def header_seconds(audio: Any) -> float | None:
    """Returns the length of an audio file in seconds, or None if its header does not say.

    Raises: AudioError naming the file, if it is missing, a folder or empty.
    """
    file = resolve_file(audio)
    total = 0.0
    with _reading(file) as opened:
        if sndfile.understates(opened):
            return None
        for source, section, _ in _sections(file, opened):
            seconds = _header_seconds(source, section, file.name)
            if seconds is None:
                return None
            total += seconds
    return total


def _header_seconds(source: Path | BinaryIO, file: BinaryIO, name: str) -> float | None:
    by_sndfile = functools.partial(sndfile.seconds, source)
    by_ffmpeg = functools.partial(ffmpeg.seconds, file, name)
    for seconds in _in_order(file, by_sndfile, by_ffmpeg):
        with contextlib.suppress(UnknownFormatError):
            return seconds()
    return None


@contextlib.contextmanager
def _reading(file: File) -> Iterator[BinaryIO]:
    """Opens a file at its beginning; an OSError within the context becomes an AudioError."""
    try:
        with file.opened() as opened:
            opened.seek(0)
            yield opened
    except OSError as error:  # no permission, a disk that fails
        raise AudioError(f"{file.name} cannot be read: {error.strerror or error}") from None


def _file_blocks(file: File, request: Request) -> Iterator[Block]:
    """Yields the blocks of a file, of all its parts one after another."""
    with _reading(file) as opened:
        if sndfile.understates(opened):
            yield from ffmpeg.blocks(opened, file.name, request, ignore_length=True)
            return
        sections = list(_sections(file, opened))
        for _, _, part in sections:
            if part.fault:
                request.lost(f"{file.name} is damaged or truncated: {part.fault}")
        if not (part.is_ended or part.fault):
            request.warn(f"{file.name} has no mark at its end, some of which may be missing")
        offset = end = 0.0
        whole = dataclasses.replace(request, start=0.0, stop=None)
        for source, section, part in sections:
            wanted = request if len(sections) == 1 else whole
            for block in _decode(source, section, file.name, wanted, is_damaged=bool(part.fault)):
                end = offset + block.time + len(block.samples) / block.rate
                yield block._replace(time=offset + block.time)
            offset = end


def _sections(file: File, opened: BinaryIO) -> Iterator[tuple[Path | BinaryIO, BinaryIO, Part]]:
    """Yields the parts of a file: what libsndfile opens, what FFmpeg reads, and the part."""
    several = parts(opened)
    if len(several) == 1:
        yield file.source, opened, several[0]
        return
    for part in several:
        section = open_part(opened, part)
        yield section, section, part


def _decode(
    source: Path | BinaryIO, file: BinaryIO, name: str, request: Request, *, is_damaged: bool
) -> Iterator[Block]:
    """Yields a file's blocks from the first decoder that knows its format."""
    by_sndfile = functools.partial(sndfile.blocks, source, name, request)
    by_ffmpeg = functools.partial(ffmpeg.blocks, file, name, request)
    decoders = [by_ffmpeg]
    if not is_damaged and request.track in (None, 1):
        decoders = _in_order(file, by_sndfile, by_ffmpeg)
    reasons = []
    for blocks in decoders:
        try:
            yield from blocks()
            return
        except UnknownFormatError as error:
            reasons.append(str(error).rstrip("."))
        except BrokenError as error:
            if request.damaged == "error":
                raise
            rest = dataclasses.replace(request, start=max(error.seconds, request.start))
            yield from _clip(ffmpeg.blocks(file, name, rest), rest)
            return
    raise AudioError(f"{name} is damaged or not audio: it cannot be decoded ({'; '.join(reasons)})")


def _in_order(file: BinaryIO, by_sndfile: Callable, by_ffmpeg: Callable) -> list[Callable]:
    """Returns the better decoder for a file's format first, then the other if it may know it."""
    file.seek(0)
    head = file.read(4)
    if is_mp3(head):  # of which libsndfile reads the first part only
        return [by_ffmpeg]
    return [by_sndfile, by_ffmpeg] if head in sndfile.MAGIC else [by_ffmpeg, by_sndfile]


def _array_blocks(block: Block) -> Iterator[Block]:
    for first in range(0, len(block.samples), BLOCK):
        part = block.samples[first : first + BLOCK]
        yield block._replace(time=first / block.rate, samples=part)


def _clip(blocks: Iterable[Block], request: Request) -> Iterator[Block]:
    """Yields the samples between `request.start` and `request.stop`, exact to the sample."""
    for block in blocks:
        size, first = len(block.samples), round(block.time * block.rate)
        begin = max(round(request.start * block.rate) - first, 0)
        end = size if request.stop is None else round(request.stop * block.rate) - first
        if begin < min(end, size):
            time = block.time + begin / block.rate
            yield block._replace(time=time, samples=block.samples[begin:end])
        if end < size or (end == size and request.stop is not None):
            return


def _usable_blocks(blocks: Iterable[Block], name: str) -> list[tuple[int, np.ndarray]]:
    """Returns (rate, mono samples) of each block, checked."""
    mono = list(mix(blocks))
    for _, samples in mono:
        _require_usable(samples, name)
    return mono


def _require_usable(samples: np.ndarray, name: str) -> None:
    if not np.isfinite(samples).all():
        bad = samples[~np.isfinite(samples)]
        raise AudioError(f"{name} holds {len(bad)} samples that are not finite (such as {bad[0]})")
    if samples.size and (peak := np.abs(samples).max()) > LOUDEST:
        raise AudioError(f"{name} holds samples of up to {peak:.3g}; full scale is 1")
