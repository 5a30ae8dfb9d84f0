"""Audio files in memory: encoded, cut from files, and sent through codecs."""

import numpy as np
import pytest
import soundfile
from media import sine

from tdt_jax.audio.encoded import decode, flac, flac_segment, length, through_codec
from tdt_jax.audio.errors import AudioError


def test_flac_keeps_16_bits():
    samples = np.arange(-(2**15), 2**15, dtype=np.int16)
    floats = samples / np.float32(2**15)
    for data in (flac(samples, 8000), flac(floats, 8000)):
        np.testing.assert_array_equal(decode(data, "x", 8000), floats)
        assert length(data, "x") == (8000, len(samples))


@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_segment_is_cut_exactly(num_channels, tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (8000, num_channels), np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    (tmp_path / "part.flac").write_bytes(flac_segment(tmp_path / "a.wav", 0.25, 0.5))
    part, rate = soundfile.read(tmp_path / "part.flac", dtype="int16", always_2d=True)
    assert rate == 8000
    np.testing.assert_array_equal(part, samples[2000:6000])


def test_a_segment_that_is_not_there(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(1.0, 8000), 8000)
    assert length(flac_segment(tmp_path / "a.wav", 0.5, 0.55), "x") == (8000, 4000)
    with pytest.raises(AudioError, match=r"a\.wav ends before 0\.5 s \+ 0\.7 s"):
        flac_segment(tmp_path / "a.wav", 0.5, 0.7)
    with pytest.raises(AudioError, match=r"a\.wav cannot be read at 2 s"):
        flac_segment(tmp_path / "a.wav", 2, 0.5)
    with pytest.raises(AudioError, match=r"b\.wav cannot be read"):
        flac_segment(tmp_path / "b.wav", 0.0, 0.5)


@pytest.mark.parametrize("codec", [("WAV", "ALAW"), ("WAV", "ULAW"), ("OGG", "OPUS")])
def test_a_lossy_codec_changes_samples_a_little(codec):
    samples = sine(0.5, 8000).astype(np.float32)
    coded = through_codec(samples, 8000, *codec)
    assert coded.shape == samples.shape and coded.dtype == np.float32
    error = np.sqrt(np.mean((coded - samples) ** 2))
    assert 1e-4 < error < 0.05
