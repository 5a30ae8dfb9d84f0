"""A file's samples by libsndfile: fast and exact, for the formats of MAGIC."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tdt_jax.audio.errors import BrokenError, UnknownFormatError, check_rate
from tdt_jax.audio.request import TOLERANCE, Block, Request

MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"fLaC", b"OggS", b"NIST")
BLOCK = 1 << 18  # samples decoded at a time, all channels together
MOST_CHANNELS = 2  # libsndfile does not name the channels of files with more
UNKNOWN_BYTES = 0x7FFFF000  # a size from here on in a header: written to a pipe, length unknown
UNKNOWN_FRAMES = 1 << 62  # libsndfile's count for a FLAC of unknown length, at whose end it fails
# Sizes of chunks in libsndfile's log of a header; it corrects "Bytes/sec" in the same form.
SIZES = re.compile(r"^[\w ]+: (\d+) \(should be (\d+)\)", re.MULTILINE)
SIZE_SLACK = 64  # bytes: writers disagree whether a size counts its own header and padding
PATHS = (str, os.PathLike)


def blocks(source: Path | BinaryIO, name: str, request: Request) -> Iterator[Block]:
    """Yields the blocks of a file from `request.start` on; from 0 if it cannot seek.

    Raises: UnknownFormatError before the first block; BrokenError if decoding fails; what
    `request.lost` raises if the file ends before its header says.
    """
    import soundfile

    with _opened(source) as file:
        rate, num_frames = file.samplerate, file.frames
        check_rate(rate, name)
        is_needed = request.stop is None or request.stop * rate > num_frames
        if is_needed and (missing := _missing(file.extra_info, num_frames / rate)):
            request.lost(f"{name} is truncated: {missing}")
        if file.channels > MOST_CHANNELS:
            raise UnknownFormatError(f"libsndfile: {file.channels} channels")
        done = min(round(request.start * rate), num_frames) if file.seekable() else 0
        if done:
            file.seek(done)
        buffer = np.empty((max(1, BLOCK // file.channels), file.channels), np.float32)
        layout = ("FC",) if file.channels == 1 else ("FL", "FR")
        while True:
            try:
                block = file.read(out=buffer)
            except soundfile.SoundFileError as error:
                raise BrokenError(
                    f"{name} is truncated or damaged: decoding fails after {done} of {num_frames} "
                    f"frames ({str(error) or 'no reason given'})",
                    done / rate,
                ) from None
            if not len(block):
                break
            yield Block(done / rate, rate, block.copy(), layout)
            done += len(block)
    if num_frames - done > TOLERANCE * rate:
        request.lost(
            f"{name} is truncated: its header promises {num_frames} frames, it holds {done}"
        )


def seconds(source: Path | BinaryIO) -> float:
    """Returns the length of a file by its header, in seconds.

    Raises: UnknownFormatError.
    """
    with _opened(source) as file:
        return file.frames / file.samplerate


def understates(file: BinaryIO) -> bool:
    """Returns whether a WAV file has more data than its header says.

    A recorder that crashed leaves the size at 0 or at that of an earlier moment; the size of more
    than 4 GiB overflows.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    head, end = file.read(12), 12
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return False
    name = b""
    while name != b"data":
        file.seek(end)
        chunk = file.read(8)
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        end += 8 + size + size % 2
        if len(chunk) < 8 or end + SIZE_SLACK > length:
            return False
    file.seek(end)
    chunk = file.read(8)
    is_chunk = chunk[:4].isascii() and chunk[:4].decode("ascii").isprintable()
    return not is_chunk or end + int.from_bytes(chunk[4:], "little") > length + SIZE_SLACK


@contextlib.contextmanager
def _opened(source: Path | BinaryIO):
    """Opens a file with libsndfile within the context."""
    import soundfile

    if not isinstance(source, PATHS):
        source.seek(0)
    elif str(source) == "-":
        source = Path(source).absolute()  # libsndfile would take standard input
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a name that ends in .raw
        reason = getattr(error, "error_string", str(error))
        raise UnknownFormatError(f"libsndfile: {reason}") from None
    with file:
        if file.frames >= UNKNOWN_FRAMES:
            raise UnknownFormatError("libsndfile: its header does not say how long it is")
        yield file


def _missing(log: str, seconds: float) -> str | None:
    """Returns how much is missing at the end of a file, if anything, by libsndfile's header log.

    libsndfile reads a truncated file as if it were complete, and `seconds` long.
    """
    message = None
    for promised, present in SIZES.findall(log):
        if int(present) + SIZE_SLACK < int(promised) < UNKNOWN_BYTES:
            whole = seconds * int(promised) / max(int(present), 1)
            message = (
                f"its header promises {promised} bytes, it holds {present} "
                f"({whole - seconds:.2f} s of {whole:.2f} s are missing)"
            )
    return message
