"""A process that decodes uploaded files to samples: python upload_worker.py RATE SECONDS.

Reads from standard input, again and again, the size of a file (8 bytes) and the file. Writes to
standard output blocks of samples, float32 with the number of their bytes (4 bytes) before them; 0
after the last; and a line: empty, or why the file cannot be read.

It imports tdt_jax.audio and not tdt_jax, so neither JAX nor the model is in it, and what a hostile
file does to it, it does to this process only.
"""

import contextlib
import io
import struct
import sys
import tempfile
import types
from pathlib import Path
from typing import BinaryIO

SIZE, LENGTH = struct.Struct("<Q"), struct.Struct("<I")
MEMORY = 8 << 30  # bytes of address space
BLOCK = 1 << 20


def main() -> None:
    """Decodes files until standard input ends."""
    rate, longest = int(sys.argv[1]), float(sys.argv[2])
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may write into the replies
    _limit()
    _widen(requests, replies)
    package = types.ModuleType("tdt_jax")
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules["tdt_jax"] = package
    from tdt_jax.audio.errors import AudioError
    from tdt_jax.audio.inputs import File
    from tdt_jax.audio.reading import audio_blocks

    while head := requests.read(SIZE.size):
        (size,) = SIZE.unpack(head)
        with io.BytesIO() if size <= BLOCK else tempfile.TemporaryFile() as file:
            _copy(requests, file, size)
            file.seek(0)
            count, reason = 0, ""
            try:
                for block in audio_blocks(File(file, "the file"), rate, warn=lambda message: None):
                    count += len(block)
                    if count > longest * rate:
                        raise AudioError(f"the recording is longer than {longest:g} s")
                    data = block.tobytes()
                    replies.write(LENGTH.pack(len(data)) + data)
            except AudioError as error:
                reason = str(error) or "it is no audio"
            except MemoryError:
                reason = "it takes too much memory to decode"
            except Exception as error:
                reason = f"it cannot be decoded ({type(error).__name__})"
        replies.write(LENGTH.pack(0) + " ".join(reason.split()).encode() + b"\n")
        replies.flush()


def _copy(source: BinaryIO, target, size: int) -> None:
    while size:
        data = source.read(min(BLOCK, size))
        if not data:
            raise SystemExit(0)  # the server has ended
        target.write(data)
        size -= len(data)


def _limit() -> None:
    """Limits memory, and writes no core file."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _widen(*pipes: BinaryIO) -> None:
    """Makes pipes hold a block, on Linux, so that their other ends read it in one turn."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        for pipe in pipes:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, BLOCK)


if __name__ == "__main__":
    main()
