"""Recordings as Python programs have them."""

import io
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from media import sine
from paths import RECORDINGS

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.inputs import is_single
from tdt_jax.audio.reading import as_samples, audio_seconds, read_audio


@pytest.fixture(scope="module")
def data():
    """A WAV file of a second."""
    file = io.BytesIO()
    soundfile.write(file, sine(), 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()


class Stream(io.RawIOBase):
    """What comes through a pipe: it cannot be read twice."""

    def __init__(self, data):
        self._file = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._file.readinto(buffer)


def test_files_in_memory_and_open_files(data, tmp_path):
    expected = sine().astype(np.float32)
    (tmp_path / "a.wav").write_bytes(data)
    at_end = io.BytesIO()
    at_end.write(data)
    with open(tmp_path / "a.wav", "rb") as file:
        file.read(100)
        for audio in (data, bytearray(data), memoryview(data), io.BytesIO(data), at_end, file,
                      Stream(data), tmp_path / "a.wav", str(tmp_path / "a.wav")):  # fmt: skip
            np.testing.assert_array_equal(as_samples(audio), expected)
            assert is_single(audio)
        assert not file.closed and audio_seconds(file) == 1.0


def test_a_compressed_file_in_memory():
    data = (RECORDINGS / "a.m4a").read_bytes()
    for audio in (data, io.BytesIO(data), Stream(data), {"bytes": data, "path": None}):
        assert len(as_samples(audio)) == 80677


def test_arrays_with_their_rates():
    slow = sine(1.0, 8000).astype(np.float32)
    expected = as_samples((slow, 8000))
    assert len(expected) == 16000
    np.testing.assert_allclose(expected[1000:-1000], sine()[1000:-1000], atol=1e-3)
    for audio in (
        (8000, slow),
        (np.int64(8000), slow),
        (slow, 8000.0),
        (slow.tolist(), 8000),
        (jnp.asarray(slow), 8000),
        {"array": slow, "sampling_rate": 8000},
        {"array": slow.tolist(), "sampling_rate": 8000, "path": "gone.wav"},
    ):
        np.testing.assert_array_equal(as_samples(audio), expected)
        assert is_single(audio)
    np.testing.assert_array_equal(read_audio(slow, array_rate=8000), expected)
    np.testing.assert_array_equal(as_samples({"array": slow}, 8000), slow)


def test_records_that_are_not_decoded(data, tmp_path):
    (tmp_path / "a.wav").write_bytes(data)
    for audio in ({"bytes": data, "path": "gone.wav"},
                  {"bytes": None, "path": str(tmp_path / "a.wav")}):  # fmt: skip
        np.testing.assert_array_equal(as_samples(audio), sine().astype(np.float32))


def test_arrays_of_other_libraries():
    samples = sine().astype(np.float32)
    np.testing.assert_array_equal(as_samples(jnp.asarray(samples)), samples)
    half = as_samples(jnp.asarray(samples, jnp.bfloat16))
    np.testing.assert_allclose(half, samples, atol=2e-3)
    np.testing.assert_array_equal(as_samples(Tensor(samples)), samples)
    channels_first = np.stack([samples, 0 * samples])
    np.testing.assert_allclose(as_samples(Tensor(channels_first)), samples / 2)
    integers = (samples * 32768).astype(np.int16)
    np.testing.assert_array_equal(as_samples(Tensor(integers)), integers / np.float32(32768))


class Tensor:
    """What is used of a torch.Tensor, which is [channels, S]."""

    def __init__(self, array):
        self._array = array

    def detach(self):
        return self

    cpu = float = detach

    def is_floating_point(self):
        return self._array.dtype.kind == "f"

    def numpy(self):
        return self._array

    __array__ = None


Tensor.__module__ = "torch"


class Decoder:
    """What is used of torchcodec's AudioDecoder, which `datasets` has."""

    class Samples:
        data, sample_rate = Tensor(np.stack([sine(1.0, 8000)] * 2).astype(np.float32)), 8000

    def get_all_samples(self):
        return self.Samples


def test_a_decoder():
    assert len(as_samples(Decoder())) == 16000 and is_single(Decoder())


def test_one_or_many():
    samples = np.zeros(9)
    for one in (samples, jnp.zeros(9), (16000, samples), {"path": "a.wav"}, None, 5, Path("a.wav"),
                "a.wav", b"RIFF", io.BytesIO(), lambda rate: samples):  # fmt: skip
        assert is_single(one)
    for many in ([samples], (samples, samples), ("a.wav", "b.wav"), [(16000, samples)], [], (),
                 iter([samples]), np.array(["a.wav", "b.wav"]), ("a.wav",), {"a.wav"}):  # fmt: skip
        assert not is_single(many)


class Unreadable:
    def read(self, size=-1):
        raise RuntimeError("the network is down")

    def seek(self, *_):
        raise RuntimeError("the network is down")


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (None, "an object of type NoneType is not audio"), ("", "is a folder"),
        (b"", "the bytes are empty"),
        (io.BytesIO(), "is empty"), (io.StringIO("text"), "the open file is open as text"),
        (Unreadable(), "the network is down"), (object(), "of type object is not audio"),
        ((i for i in range(3)), "of type generator is not audio"),
        ({}, "a dict needs array and sampling_rate"),
        ({"text": 1}, "a dict needs array and sampling_rate, bytes, or path, got text"),
        ((0, np.zeros(9)), "a sample rate is a whole number of Hz, got 0"),
        ((1.5, np.zeros(9)), "a sample rate is a whole number of Hz, got 1.5"),
        (([1, 2], "x"), "cannot be read as audio|samples must be"), ("a\0b", "a.b"),
        ([[1.0], [1.0, 2.0]], "the list cannot be read as audio"), (["a.wav"], "samples must be"),
        (lambda rate: 1 / 0, "ZeroDivisionError"), (3, "of type int is not audio"),
        (b"RIFF", "the file in memory is damaged or not audio"),
        ({"array": None, "sampling_rate": 8000}, "a dict needs"),
        (np.zeros(9, bool), "samples must be floats"),
    ],
)  # fmt: skip
def test_whatever_else_is_an_audio_error(audio, message):
    with pytest.raises(AudioError, match=message):
        as_samples(audio)


def test_a_closed_file_is_an_audio_error(data, tmp_path):
    (tmp_path / "a.wav").write_bytes(data)
    with open(tmp_path / "a.wav", "rb") as file:
        pass
    with pytest.raises(AudioError, match="closed file"):
        as_samples(file)
    with open(os.devnull, "rb") as file, pytest.raises(AudioError, match="is empty"):
        as_samples(file)
