"""Audio: every format, rate and depth reads as the same sine; every bad file is a clear error."""

import os
import warnings

import numpy as np
import pytest
import soundfile
from media import sine

from tdt_jax.audio import sndfile
from tdt_jax.audio.errors import AudioError, AudioWarning
from tdt_jax.audio.reading import (
    as_samples,
    audio_seconds,
    read_audio,
)


def measure(samples, rate=16000):
    """Frequency (Hz) and level of the sine in the middle of `samples`."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 18))
    return np.argmax(spectrum) * rate / (1 << 18), np.sqrt(2 * np.mean(middle**2))


@pytest.mark.parametrize(
    ("name", "format", "subtype", "tolerance"),
    [
        ("a.wav", "WAV", "PCM_U8", 1e-2),
        ("a.wav", "WAV", "PCM_16", 1e-4),
        ("a.wav", "WAV", "PCM_24", 1e-6),
        ("a.wav", "WAV", "PCM_32", 1e-6),
        ("a.wav", "WAV", "FLOAT", 1e-6),
        ("a.wav", "WAV", "DOUBLE", 1e-6),
        ("a.wav", "WAV", "ULAW", 3e-2),
        ("a.flac", "FLAC", "PCM_16", 1e-4),
        ("a.flac", "FLAC", "PCM_24", 1e-6),
        ("a.aiff", "AIFF", "PCM_16", 1e-4),
        ("a.ogg", "OGG", "VORBIS", 5e-2),
        ("a.opus", "OGG", "OPUS", 5e-2),
        ("a.mp3", "MP3", "MPEG_LAYER_III", 5e-2),
    ],
)
def test_formats_at_16_khz(tmp_path, name, format, subtype, tolerance):
    expected = sine()
    soundfile.write(tmp_path / name, expected, 16000, format=format, subtype=subtype)
    samples = read_audio(tmp_path / name)
    assert samples.dtype == np.float32 and samples.shape == expected.shape
    assert samples.flags.writeable
    middle = slice(2000, -2000)  # codecs ring at the edges
    np.testing.assert_allclose(samples[middle], expected[middle], atol=tolerance)
    assert audio_seconds(tmp_path / name) == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("block", [1 << 18, 1000])
def test_resampling_keeps_frequency_level_and_length(tmp_path, monkeypatch, rate, block):
    monkeypatch.setattr(sndfile, "BLOCK", block)
    soundfile.write(tmp_path / "a.wav", sine(2.0, rate), rate, subtype="FLOAT")
    samples = read_audio(tmp_path / "a.wav")
    hertz, level = measure(samples)
    assert abs(len(samples) - 32000) <= 1
    assert hertz == pytest.approx(440, abs=0.5)
    assert level == pytest.approx(0.5, abs=1e-3)
    assert audio_seconds(tmp_path / "a.wav") == pytest.approx(2.0)


def test_resampling_removes_what_the_new_rate_cannot_hold(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(1.0, 48000, hertz=10000), 48000)
    assert np.abs(read_audio(tmp_path / "a.wav")[1000:-1000]).max() < 1e-3


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([sine(), 0.2 * sine()], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), 0.6 * sine(), atol=1e-6)


def test_silence_is_legal(tmp_path):
    """And said."""
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    with pytest.warns(AudioWarning, match=r"^no sound in .*a\.wav$"):
        samples = read_audio(tmp_path / "a.wav")
    assert samples.shape == (16000,) and not samples.any()
    soundfile.write(tmp_path / "a.flac", np.full((8000, 2), 0.25), 8000)
    with pytest.warns(AudioWarning, match=r"^no sound in .*a\.flac$"):
        read_audio(tmp_path / "a.flac")
    quiet = np.zeros(8000)
    quiet[4000] = 2**-15
    soundfile.write(tmp_path / "a.wav", quiet, 8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_audio(tmp_path / "a.wav")
        as_samples(np.zeros(100))  # which may be a moment of a stream


def test_mp3_behind_a_large_tag(tmp_path):
    soundfile.write(tmp_path / "a.mp3", sine(), 16000, format="MP3")
    tag = b"ID3\x04\x00\x00\x00\x00\x10\x00" + bytes(2048)  # sizes have 7 bits a byte
    (tmp_path / "a.mp3").write_bytes(tag + (tmp_path / "a.mp3").read_bytes())
    assert len(read_audio(tmp_path / "a.mp3")) == 16000


def untagged_mp3(path, samples, rate):
    """An MP3 of variable bit rate without the header frame that says how long it is."""
    soundfile.write(path, samples, rate, format="MP3", bitrate_mode="VARIABLE")
    data = path.read_bytes()
    start = max(data.find(b"Xing"), data.find(b"Info"))
    assert start > 0
    path.write_bytes(data[data.index(data[:2], start) :])


def test_mp3_without_length_header_is_read_to_its_end(tmp_path):
    rng = np.random.default_rng(0)
    loud, quiet = rng.normal(0, 0.2, 48000), rng.normal(0, 1e-4, 6 * 48000)
    untagged_mp3(tmp_path / "a.mp3", np.concatenate([loud, quiet, loud]), 48000)
    assert soundfile.info(tmp_path / "a.mp3").duration < 4  # what libsndfile would stop at
    samples = read_audio(tmp_path / "a.mp3")
    assert len(samples) / 16000 == pytest.approx(8, abs=0.1)
    assert np.abs(samples[-12000:-4000]).mean() > 0.05
    assert audio_seconds(tmp_path / "a.mp3") == pytest.approx(8, abs=0.1)


def test_wav_written_to_a_pipe_is_whole(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = data[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "a.wav")) == 16000


@pytest.mark.parametrize(
    ("name", "format", "subtype"),
    [
        ("a.wav", "WAV", "PCM_16"),
        ("a.wav", "RF64", "PCM_16"),
        ("a.aiff", "AIFF", "PCM_16"),
        ("a.au", "AU", "PCM_16"),
        ("a.flac", "FLAC", "PCM_16"),
        ("a.ogg", "OGG", "VORBIS"),
        ("a.opus", "OGG", "OPUS"),
        ("a.mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_errors(tmp_path, name, format, subtype, share):
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 16000)
    soundfile.write(tmp_path / name, noise, 16000, format=format, subtype=subtype)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: round(len(data) * share)])
    with pytest.raises(AudioError, match=name):
        read_audio(tmp_path / name)


def test_truncation_names_both_numbers(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(), 16000)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[:10044])
    with pytest.raises(AudioError, match=r"truncated: its header promises \d+ bytes, it holds \d+"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.wav", b""),
        ("text.wav", b"not audio at all " * 300),
        ("text.txt", b"not audio at all " * 300),
        ("text.mp3", b"not audio at all " * 300),
        ("text.raw", b"not audio at all " * 300),
        ("text.flac", b"not audio at all " * 300),
        ("zeros.wav", bytes(5000)),
        ("tag.mp3", b"ID3"),
        ("noise.opus", np.random.default_rng(0).bytes(5000)),
        ("header.wav", b"RIFF\x24\x00\x00\x00WAVEfmt "),
    ],
)
def test_files_that_are_not_audio(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    for function in (read_audio, audio_seconds):
        with pytest.raises(AudioError, match=name):
            function(tmp_path / name)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(AudioError, match=r"no audio file at .*nowhere\.wav"):
        read_audio(tmp_path / "nowhere.wav")
    with pytest.raises(AudioError, match="is a folder"):
        read_audio(tmp_path)


def test_no_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    with pytest.raises(AudioError, match="holds no samples"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_samples_that_are_not_finite(tmp_path, value, rate):
    samples = sine(rate=rate)
    samples[rate // 2] = value
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        read_audio(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="not finite"):
        as_samples(samples)


@pytest.mark.parametrize(
    ("dtype", "low", "middle"),
    [("uint8", 0, 128), ("int8", -128, 0), ("int16", -(2**15), 0), ("int32", -(2**31), 0)],
)
def test_integer_arrays_are_scaled(dtype, low, middle):
    samples = as_samples(np.array([low, middle], dtype))
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, [-1, 0])


def test_arrays(tmp_path):
    np.testing.assert_array_equal(as_samples(np.array([[0.5, 0.0], [0.25, 0.75]])), [0.25, 0.5])
    soundfile.write(tmp_path / "a.wav", sine(), 16000)
    np.testing.assert_array_equal(as_samples(tmp_path / "a.wav"), read_audio(tmp_path / "a.wav"))
    for bad in (np.zeros((2, 16000)), np.zeros((1, 2, 3)), np.zeros(0), np.zeros(4, complex)):
        with pytest.raises(AudioError):
            as_samples(bad)


def test_what_cannot_be_opened_is_an_audio_error(tmp_path, monkeypatch):
    with pytest.raises(AudioError, match=r"cannot be read: .*too long"):
        read_audio("x" * 5000)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match=r"pipe is not a regular file"):
        read_audio(tmp_path / "pipe")
    soundfile.write(tmp_path / "a.wav", np.zeros(99), 16000)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(AudioError, match=r"a\.wav cannot be read: Permission denied"):
        read_audio(tmp_path / "a.wav")


def test_samples_beyond_all_measure_are_refused():
    with pytest.raises(AudioError, match=r"holds samples of up to 1e\+30; full scale is 1"):
        as_samples(np.full(99, 1e30))
    assert as_samples(np.full(9, 32767.0)).max() == 32767  # integers taken for floats
