"""libsndfile's way to decode a file: fast and exact, for the formats of MAGIC."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tdt_jax.audio.request import (
    TOLERANCE,
    Block,
    BrokenError,
    Request,
    UnknownFormatError,
    check_rate,
)

MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"fLaC", b"OggS", b"NIST")
BLOCK = 1 << 18  # samples decoded at a time, all channels together
MOST_CHANNELS = 2  # of more, libsndfile does not tell which is which
UNKNOWN_BYTES = 0x7FFFF000  # a size this large in a header: written to a pipe, length unknown
UNKNOWN_FRAMES = 1 << 62  # libsndfile's count for a FLAC of unknown length, at whose end it fails
# Of chunks, in libsndfile's log of a header; bytes per second ("Bytes/sec") are corrected alike.
SIZES = re.compile(r"^[\w ]+: (\d+) \(should be (\d+)\)", re.MULTILINE)
FORGIVEN = 64  # bytes: writers disagree about whether a size counts its own header and padding
PATHS = (str, os.PathLike)


def blocks(source: Path | BinaryIO, name: str, request: Request) -> Iterator[Block]:
    """Yield the blocks of a file from `request.start` on, or from where it can be decoded.

    Raises: UnknownFormatError before the first block; BrokenError if decoding fails; as
    `request.lost`, if the file ends before its header says.
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
    """The length that a file's header says. Raises UnknownFormatError."""
    with _opened(source) as file:
        return file.frames / file.samplerate


@contextlib.contextmanager
def _opened(source: Path | BinaryIO):
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
    """What libsndfile's log of a header says is missing at the end of the file, if anything.

    It reads such files as if they were whole, as long as `seconds`.
    """
    found = None
    for promised, present in SIZES.findall(log):
        if int(present) + FORGIVEN < int(promised) < UNKNOWN_BYTES:
            whole = seconds * int(promised) / max(int(present), 1)
            found = (
                f"its header promises {promised} bytes, it holds {present} "
                f"({whole - seconds:.2f} s of {whole:.2f} s are missing)"
            )
    return found


def understates(file: BinaryIO) -> bool:
    """Whether a WAV file goes on behind its data, as if the size had never been filled in.

    The size of what a crashed recorder wrote is 0, or that of an earlier moment; that of more than
    4 GiB has overflown.
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
        if len(chunk) < 8 or end + FORGIVEN > length:
            return False
    file.seek(end)
    chunk = file.read(8)
    is_chunk = chunk[:4].isascii() and chunk[:4].decode("ascii").isprintable()
    return not is_chunk or end + int.from_bytes(chunk[4:], "little") > length + FORGIVEN
