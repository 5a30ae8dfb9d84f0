"""Uploaded files to samples, in processes of their own.

A file may be made to crash or to hang a decoder. So it is decoded in a process that has nothing
else, with a limit on time and memory; if that ends or is too slow, it is replaced, and only the
request with this file fails.
"""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tdt_jax.serving.settings import Settings
from tdt_jax.serving.upload_worker import BLOCK, LENGTH, SIZE

PROGRAM = Path(__file__).with_name("upload_worker.py")


class UploadError(Exception):
    """An uploaded file cannot be decoded; the message says why."""


class Uploads:
    """Processes that decode files; as many as `settings.decoders`, each started when needed."""

    def __init__(self, settings: Settings, sample_rate: int):
        self._settings = settings
        self._command = [
            sys.executable, "-P", str(PROGRAM), str(sample_rate), str(settings.max_seconds)
        ]  # fmt: skip
        self._free = asyncio.Semaphore(settings.decoders)
        self._idle: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        """Starts the first process, so that the first request need not wait for it."""
        self._idle.append(await self._new())

    async def decode(self, file: BinaryIO, size: int) -> np.ndarray:
        """Returns the samples [S] of a file of `size` bytes.

        Raises: UploadError if it is no audio, too long, or cannot be decoded in time.
        """
        async with self._free:
            process = self._idle.pop() if self._idle else await self._new()
            if process.returncode is not None:
                process = await self._new()
            try:
                async with asyncio.timeout(self._settings.decode_timeout):
                    samples, reason = await _exchange(process, file, size)
            except TimeoutError:
                raise UploadError("it takes too long to decode") from None
            except (asyncio.IncompleteReadError, ConnectionError):
                raise UploadError("it cannot be decoded") from None
            else:
                self._idle.append(process)
                process = None
            finally:
                if process is not None:
                    await _end(process)
        if reason:
            raise UploadError(reason)
        return samples

    async def stop(self) -> None:
        """Ends all idle processes."""
        while self._idle:
            await _end(self._idle.pop())

    async def _new(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL,
            limit=BLOCK, start_new_session=True,
        )  # fmt: skip


async def _exchange(
    process: asyncio.subprocess.Process, file: BinaryIO, size: int
) -> tuple[np.ndarray, str]:
    """Sends a file to a process. Returns its samples [S], and why there are none."""
    sending = asyncio.create_task(_send(process, file, size))
    try:
        assert process.stdout
        samples = bytearray()
        while length := LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))[0]:
            samples += await process.stdout.readexactly(length)
        reason = (await process.stdout.readline()).decode().strip()
        await sending
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await sending
    return np.frombuffer(samples, np.float32), reason


async def _send(process: asyncio.subprocess.Process, file: BinaryIO, size: int) -> None:
    assert process.stdin
    file.seek(0)
    process.stdin.write(SIZE.pack(size))
    if size <= BLOCK:  # it is in memory
        process.stdin.write(file.read())
    else:
        while data := await asyncio.to_thread(file.read, BLOCK):
            process.stdin.write(data)
            await process.stdin.drain()
    await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
