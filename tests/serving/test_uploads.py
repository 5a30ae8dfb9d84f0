"""Files are decoded in processes of their own, which may crash or hang."""

import asyncio
import io
import sys

import numpy as np
import pytest
from clients import AUDIO, wav_of
from models import speech

from tdt_jax.audio.reading import read_audio
from tdt_jax.serving import uploads
from tdt_jax.serving.settings import Settings
from tdt_jax.serving.uploads import UploadError, Uploads


def run(work, **settings):
    """Runs `work(uploads)`."""

    async def main():
        pool = Uploads(Settings(decoders=1, **settings), 16000)
        try:
            return await work(pool)
        finally:
            await pool.stop()

    return asyncio.run(main())


def test_samples_are_those_of_the_file():
    files = [wav_of(AUDIO[0]), b"no audio", wav_of(speech(30.0), 44100)]

    async def work(pool):
        found = []
        for content in files:
            try:
                found.append(await pool.decode(io.BytesIO(content), len(content)))
            except UploadError as error:
                found.append(str(error))
        return found

    first, reason, last = run(work)
    np.testing.assert_array_equal(first, read_audio(files[0]))
    np.testing.assert_array_equal(last, read_audio(files[2]))
    assert "not audio" in reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", "cannot be decoded"),
        ("import time; time.sleep(60)", "too long"),
        ("import sys; sys.stdin.buffer.read(9); sys.exit(1)", "cannot be decoded"),
    ],
)
def test_a_process_that_crashes_or_hangs_is_replaced(tmp_path, monkeypatch, program, reason):
    """Only the request with this file fails."""
    wav = wav_of(AUDIO[2])

    async def work(pool):
        command, pool._command = pool._command, [sys.executable, "-c", program]
        with pytest.raises(UploadError, match=reason):
            await pool.decode(io.BytesIO(wav), len(wav))
        pool._command = command
        pool._settings = Settings()
        return await pool.decode(io.BytesIO(wav), len(wav))

    np.testing.assert_array_equal(run(work, decode_timeout=0.5), read_audio(wav))


def test_the_processes_have_no_jax():
    """They import tdt_jax.audio, and nothing that imports JAX."""
    program = (
        "import sys, io, types; sys.argv = ['', '16000', '9']; sys.stdin = io.TextIOWrapper("
        "io.BytesIO(b'')); import runpy; sys.path.pop(0); "
        f"runpy.run_path({str(uploads.PROGRAM)!r}, run_name='__main__'); "
        "assert 'tdt_jax.audio.reading' in sys.modules; assert 'jax' not in sys.modules"
    )

    async def main():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        return await process.wait()

    assert asyncio.run(main()) == 0
