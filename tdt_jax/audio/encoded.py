"""Audio files as bytes in memory, as the records of a prepared dataset hold them."""

import io

import numpy as np

from tdt_jax.audio.items import File
from tdt_jax.audio.reading import mono
from tdt_jax.audio.request import AudioError, check_rate
from tdt_jax.audio.sndfile import UNKNOWN_FRAMES


def decode(data: bytes, name: str, sample_rate: int = 16000) -> np.ndarray:
    """Decode the bytes of an audio file to mono samples at `sample_rate` Hz.

    Returns: [S] float32.
    Raises: AudioError naming `name`, if they are not audio, truncated, without samples, of an
    impossible rate, or hold NaN or infinite samples.
    """
    import soxr

    samples, rate = _decoded(data, name)
    return samples if rate == sample_rate else soxr.resample(samples, rate, sample_rate)


def length(data: bytes, name: str) -> tuple[int, int]:
    """The sample rate (Hz) and the number of samples of what `decode` decodes; errors as there."""
    samples, rate = _decoded(data, name)
    return rate, len(samples)


def _decoded(data: bytes, name: str) -> tuple[np.ndarray, int]:
    if data[:4] != b"fLaC":
        return mono(File(io.BytesIO(data), name))
    import soundfile

    try:  # what large corpora are of: nothing that has to be mixed, copied or looked for
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, num_frames, channels = file.samplerate, file.frames, file.channels
            if num_frames >= UNKNOWN_FRAMES:
                raise AudioError(f"{name} does not say how long it is")
            if channels > 1 or not num_frames:
                return mono(File(io.BytesIO(data), name))
            samples = file.read(dtype="float32")
    except soundfile.SoundFileError as error:
        raise AudioError(f"{name} is damaged or not audio ({error})") from None
    if len(samples) < num_frames:
        raise AudioError(
            f"{name} is truncated: its header promises {num_frames} frames, it holds {len(samples)}"
        )
    check_rate(rate, name)
    return samples, rate


def flac(samples: np.ndarray, sample_rate: int) -> bytes:
    """Samples [S] as the bytes of a FLAC file of 16 bits."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
