"""Live audio: PCM and WAV from pipes, and a microphone that is not there."""

import io
import struct
import sys
import types

import numpy as np
import pytest
import soundfile
import soxr
from models import noise

from tdt_jax.audio.live import microphone, pcm_blocks
from tdt_jax.audio.reading import AudioError

# PCM and WAV


class Pipe(io.RawIOBase):
    """Returns so many bytes at a time, in turn."""

    def __init__(self, data, sizes):
        self.data, self.sizes = data, list(sizes)

    def readable(self):
        return True

    def readinto(self, buffer):
        size = min(self.sizes.pop(0), len(buffer))
        self.sizes.append(size)
        part, self.data = self.data[:size], self.data[size:]
        buffer[: len(part)] = part
        return len(part)


def pcm(samples):
    return np.round(samples * 32768).astype("<i2")


def wav(data, *, tag=1, channels=1, rate=16000, bits=16, size=None, before=b"", extra=b""):
    size = len(data) if size is None else size
    form = struct.pack("<HHIIHH", tag, channels, rate, 0, 0, bits) + extra
    head = b"RIFF" + struct.pack("<I", size) + b"WAVE" + before
    head += b"fmt " + struct.pack("<I", len(form)) + form
    return head + b"data" + struct.pack("<I", size) + data


def read(data, **options):
    return np.concatenate([*pcm_blocks(io.BytesIO(data), **options)])


SAMPLES = pcm(noise(0.5))
FLOATS = SAMPLES.astype(np.float32) / 32768


def test_raw_pcm():
    np.testing.assert_array_equal(read(SAMPLES.tobytes()), FLOATS)
    np.testing.assert_array_equal(read(SAMPLES.tobytes() + b"\x01"), FLOATS)  # half a sample more
    np.testing.assert_array_equal(read(SAMPLES[:2].tobytes()), FLOATS[:2])
    sizes = [len(block) for block in pcm_blocks(io.BytesIO(SAMPLES.tobytes()), block_seconds=0.05)]
    assert max(sizes) == 800 and sum(sizes) == len(SAMPLES)


@pytest.mark.parametrize("buffered", [True, False])
def test_samples_are_taken_as_they_come(buffered):
    """Blocks are as long as what came, and samples may come in halves."""
    for data in (SAMPLES.tobytes(), wav(SAMPLES.tobytes())):
        pipe = Pipe(data, [1, 7, 200, 2001])
        blocks = [*pcm_blocks(io.BufferedReader(pipe) if buffered else pipe)]
        np.testing.assert_array_equal(np.concatenate(blocks), FLOATS)
        assert all(block.dtype == np.float32 for block in blocks)
        assert len(blocks) > 10


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_of_any_size_in_its_header(size):
    listed = b"LIST" + struct.pack("<I", 5) + b"words\0"
    np.testing.assert_array_equal(read(wav(SAMPLES.tobytes(), size=size, before=listed)), FLOATS)


def test_what_follows_the_samples_of_a_wav_is_left_out():
    listed = b"LIST" + struct.pack("<I", 6) + b"words."
    np.testing.assert_array_equal(read(wav(SAMPLES.tobytes()) + listed), FLOATS)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_wav_as_others_write_it(kind, subtype):
    """Plain and extensible; two channels are averaged, another rate is resampled."""
    stereo = np.stack([noise(0.5, 1), noise(0.5, 2)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, stereo, 24000, format=kind, subtype=subtype)
    found = read(file.getvalue())
    expected = soxr.resample(stereo.mean(axis=1), 24000, 16000)
    assert abs(len(found) - len(expected)) <= 1
    size = min(len(found), len(expected))
    np.testing.assert_allclose(found[:size], expected[:size], atol=1e-3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the input holds no samples"),
        (b"\0", "the input holds no samples"),
        (wav(b""), "the input holds no samples"),
        (wav(b"\0" * 20)[:30], "ends inside its WAV header"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "no format before its samples"),
        (b"RIFF\0\0\0\0WAVEfmt \2\0\0\0\1\0", "takes 16 bytes, this one has 2"),
        (wav(b"\0" * 20, tag=6, bits=8), r"16-bit PCM .* got format 6 of 8 bits"),
        (wav(b"\0" * 20, bits=24), "got format 1 of 24 bits"),
        (wav(b"\0" * 20, channels=0), "damaged: 0 channels at 16000 Hz"),
        (wav(b"\0" * 20, rate=1), "damaged: 1 channels at 1 Hz"),
        (b"fLaC" + b"\0" * 20, "must be PCM or WAV, got FLAC"),
        (b"ID3\4" + b"\0" * 20, "must be PCM or WAV, got MP3"),
    ],
)
def test_bad_input_is_named(data, message):
    with pytest.raises(AudioError, match=message):
        read(data)


# The microphone


class FakeStream:
    """Calls back with three blocks, and is gone."""

    def __init__(self, *, callback, finished_callback, blocksize, samplerate, channels, dtype):
        assert (samplerate, channels, dtype) == (16000, 1, "float32")
        self.blocksize, self.callback, self.finished = blocksize, callback, finished_callback

    def __enter__(self):
        for i in range(3):
            self.callback(np.full((self.blocksize, 1), i, np.float32), self.blocksize, None, None)
        self.finished()

    def __exit__(self, *_):
        pass


@pytest.fixture
def sounddevice(monkeypatch):
    fake = types.ModuleType("sounddevice")
    fake.PortAudioError = type("PortAudioError", (Exception,), {})
    fake.InputStream = FakeStream
    fake.check_input_settings = lambda **options: None
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def test_the_microphone_gives_blocks_until_it_is_gone(sounddevice):
    blocks = [*microphone(16000, 0.02)]
    assert [len(block) for block in blocks] == [320] * 3
    assert [block[0] for block in blocks] == [0, 1, 2]


def test_a_microphone_that_is_missing_is_named(sounddevice, monkeypatch):
    def refuse(**options):
        raise sounddevice.PortAudioError("Error querying device -1")

    sounddevice.check_input_settings = refuse
    with pytest.raises(ValueError, match="no microphone that records at 8000 Hz: Error querying"):
        microphone(8000)
    sounddevice.check_input_settings, sounddevice.InputStream = (lambda **options: None), refuse
    with pytest.raises(ValueError, match="the microphone fails: Error querying"):
        next(microphone())
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ValueError, match=r"pip install 'tdt-jax\[listen\]'"):
        microphone()


def test_portaudio_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(ValueError, match=r"libportaudio2\): PortAudio library not found"):
        microphone()
