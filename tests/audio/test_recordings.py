"""Recordings as people have them: each is read whole, its words at their places.

All but two say the same words, so that one of them says what the others should sound like.
"""

import io
import shutil

import numpy as np
import pytest
import soundfile
from media import bursts
from paths import RECORDINGS

from tdt_jax.audio.errors import AudioError, AudioWarning
from tdt_jax.audio.reading import audio_seconds, read_audio

FOLDER = RECORDINGS
SECONDS = 5.042  # of what is said


@pytest.fixture(scope="module")
def words():
    """What is said, from a lossless recording."""
    return read_audio(FOLDER / "a_flac.ogg")


def likeness(samples, words, at=0.0):
    """Correlation of `words` with the samples from `at` (s) on, within 30 ms of there."""
    first = round(at * 16000)
    found = []
    for shift in range(max(first - 480, 0), first + 481, 4):
        part = samples[shift : shift + len(words)]
        size = min(len(part), len(words))
        found.append(np.corrcoef(part[:size], words[:size])[0, 1])
    return max(found)


@pytest.mark.parametrize(
    ("name", "seconds", "tolerance"),
    [
        ("a.m4a", SECONDS, 0.01),
        ("film51.mkv", SECONDS, 0.02),
        ("film30.m4a", SECONDS, 0.01),
        ("a_alac.caf", 4.9646, 0.001),
        ("a_flac.ogg", SECONDS, 0.001),
    ],
)
def test_containers_and_layouts(words, name, seconds, tolerance):
    samples = read_audio(FOLDER / name)
    assert len(samples) / 16000 == pytest.approx(seconds, abs=tolerance)
    assert likeness(samples, words) > 0.95
    assert audio_seconds(FOLDER / name) == pytest.approx(seconds, abs=0.1)


def test_joined_mp3_is_read_to_its_end(words):
    samples = read_audio(FOLDER / "cat.mp3")
    assert 11.5 < len(samples) / 16000 < 11.7
    assert likeness(samples, words) > 0.95
    assert np.sqrt(np.mean(samples[6 * 16000 :] ** 2)) > 0.03  # the second date


def test_sound_that_starts_late_stays_there(words):
    samples = read_audio(FOLDER / "delay.mkv")
    assert len(samples) / 16000 == pytest.approx(9.956, abs=0.001)
    assert not samples[: round(4.85 * 16000)].any()
    assert likeness(samples, words, 4.9) > 0.95


def test_two_sides_that_cancel_are_one_side():
    sides, _ = soundfile.read(FOLDER / "inverted.flac", dtype="float32")
    np.testing.assert_array_equal(sides[:, 1], -sides[:, 0])
    np.testing.assert_array_equal(read_audio(FOLDER / "inverted.flac"), sides[:, 0])


@pytest.mark.parametrize(
    "name",
    ["2026-05-01T10:30:00.m4a", "a Audio: b.m4a", "x\ny.m4a", "-x.m4a", "file:x.m4a", "%03d.m4a",
     "pipe:0", "caf\udce9.m4a"],
)  # fmt: skip
def test_odd_names(words, tmp_path, monkeypatch, name):
    shutil.copy(FOLDER / "a.m4a", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert likeness(read_audio(name), words) > 0.95


def wav(words):
    data = io.BytesIO()
    soundfile.write(data, words, 16000, format="WAV", subtype="PCM_16")
    return bytearray(data.getvalue())


@pytest.mark.parametrize("size", [0, 32000, 0xFFFFFFFF])
def test_a_recorder_that_crashed(tmp_path, words, size):
    """The size of the data is still 0, or that of the first second, or unknown."""
    data = wav(words)
    place = data.index(b"data") + 4
    data[place : place + 4] = size.to_bytes(4, "little")
    data[4:8] = min(size + 36, 0xFFFFFFFF).to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    samples = read_audio(tmp_path / "a.wav")
    assert len(samples) == len(words) and likeness(samples, words) > 0.99
    assert audio_seconds(tmp_path / "a.wav") == pytest.approx(SECONDS, abs=0.001)


def test_a_wav_without_data_is_not_sound_of_its_other_chunks(tmp_path):
    data = wav(np.zeros(0)) + b"LIST" + (200).to_bytes(4, "little") + b"INFO" + bytes(196)
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(AudioError, match="holds no samples"):
        read_audio(tmp_path / "a.wav")


def test_a_missing_end_is_an_error_or_said(tmp_path, words):
    data = wav(words)
    (tmp_path / "cut.wav").write_bytes(data[: 44 + (len(data) - 44) * 9 // 10])
    missing = r"cut\.wav is truncated: .*0\.50 s of 5\.04 s are missing"
    with pytest.raises(AudioError, match=missing):
        read_audio(tmp_path / "cut.wav")
    with pytest.warns(AudioWarning, match=missing):
        samples = read_audio(tmp_path / "cut.wav", damaged="skip")
    assert len(samples) == len(words) * 9 // 10
    assert bursts(samples)[0] == bursts(words)[0]
