"""Audio files as bytes in memory, as prepared datasets hold them; FLAC and lossy codecs."""

import io
import os

import numpy as np

from tdt_jax.audio.errors import AudioError, check_rate
from tdt_jax.audio.inputs import File
from tdt_jax.audio.reading import read_at_own_rate
from tdt_jax.audio.request import TOLERANCE
from tdt_jax.audio.sndfile import UNKNOWN_FRAMES
from tdt_jax.audio.waveform import resample


def decode(data: bytes, name: str, sample_rate: int) -> np.ndarray:
    """Returns the mono samples of an audio file's bytes at `sample_rate` Hz: [S] float32.

    Raises: AudioError naming `name`, if the bytes are not audio, truncated, without samples, of an
    impossible rate, or hold NaN or infinite samples.
    """
    samples, rate = _decode(data, name)
    return resample(samples, rate, sample_rate)


def length(data: bytes, name: str) -> tuple[int, int]:
    """Returns an audio file's own sample rate (Hz) and its samples; raises as `decode` does."""
    samples, rate = _decode(data, name)
    return rate, len(samples)


def flac(samples: np.ndarray, sample_rate: int) -> bytes:
    """Returns samples [S] or [S, channels] as the bytes of a FLAC file of 16 bits."""
    return _encode(samples, sample_rate, "FLAC", "PCM_16")


def flac_segment(path: str | os.PathLike, offset: float, duration: float) -> bytes:
    """Returns `duration` seconds of a file from `offset` on as the bytes of a FLAC file.

    Channels and sample rate are those of the file; samples of 16 bits are copied exactly. The file
    must be of a format that libsndfile can seek in, such as WAV and FLAC.

    Raises: AudioError if the file cannot be read, or ends more than 0.1 s before the segment does.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            file.seek(round(offset * rate))
            samples = file.read(round(duration * rate), dtype="int16")
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path} cannot be read at {offset} s: {error}") from None
    if len(samples) < (duration - TOLERANCE) * rate:
        raise AudioError(f"{path} ends before {offset} s + {duration} s")
    return flac(samples, rate)


def through_codec(samples: np.ndarray, sample_rate: int, format: str, subtype: str) -> np.ndarray:
    """Encodes samples [S], decodes them again, and returns the result: [S] float32.

    Args:
      format, subtype: a format of libsndfile, such as "WAV" and "ALAW", or "OGG" and "OPUS".
    """
    import soundfile

    data = io.BytesIO(_encode(samples, sample_rate, format, subtype))
    return soundfile.read(data, dtype="float32")[0][: len(samples)]


def _decode(data: bytes, name: str) -> tuple[np.ndarray, int]:
    if data[:4] != b"fLaC":
        return read_at_own_rate(File(io.BytesIO(data), name))
    import soundfile

    try:  # the fast way, for mono FLAC, which large corpora hold
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, num_frames, channels = file.samplerate, file.frames, file.channels
            if num_frames >= UNKNOWN_FRAMES:
                raise AudioError(f"{name} does not say how long it is")
            if channels > 1 or not num_frames:
                return read_at_own_rate(File(io.BytesIO(data), name))
            samples = file.read(dtype="float32")
    except soundfile.SoundFileError as error:
        raise AudioError(f"{name} is damaged or not audio ({error})") from None
    if len(samples) < num_frames:
        raise AudioError(
            f"{name} is truncated: its header promises {num_frames} frames, it holds {len(samples)}"
        )
    check_rate(rate, name)
    return samples, rate


def _encode(samples: np.ndarray, sample_rate: int, format: str, subtype: str) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=format, subtype=subtype)
    return file.getvalue()
