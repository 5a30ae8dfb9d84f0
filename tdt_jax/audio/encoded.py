"""Audio files as bytes in memory, as the records of a prepared dataset hold them."""

import io

import numpy as np

from tdt_jax.audio.reading import RATES, UNKNOWN_FRAMES, AudioError, as_samples

INTEGERS = {"PCM_16", "PCM_24"}  # libsndfile's names of what FLAC and most WAV files hold


def decode(data: bytes, name: str, sample_rate: int = 16000) -> np.ndarray:
    """Decode the bytes of a FLAC, WAV or Ogg file to mono samples at `sample_rate` Hz.

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
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, num_frames, subtype = file.samplerate, file.frames, file.subtype
            if num_frames >= UNKNOWN_FRAMES:
                raise AudioError(f"{name} does not say how long it is")
            samples = file.read(dtype="float32")
    except soundfile.SoundFileError as error:
        raise AudioError(f"{name} is damaged or not audio ({error})") from None
    if len(samples) < num_frames:
        raise AudioError(
            f"{name} is truncated: its header promises {num_frames} frames, it holds {len(samples)}"
        )
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"{name} has an impossible sample rate: {rate} Hz")
    if subtype in INTEGERS and samples.ndim == 1 and len(samples):
        return samples, rate  # nothing that could be wrong, or has to be copied
    try:
        return as_samples(samples), rate
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from None


def flac(samples: np.ndarray, sample_rate: int) -> bytes:
    """Samples [S] as the bytes of a FLAC file of 16 bits."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
