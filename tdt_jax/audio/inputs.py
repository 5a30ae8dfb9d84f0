"""The forms of a recording in Python: paths, open files, bytes, arrays with a rate."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.request import Block

MAX_CHANNELS = 32
INTEGERS = (np.int8, np.int16, np.int32)
# Suffixes of audio. In a folder other files are left out; a file that is named itself is not.
SUFFIXES = set(
    # sound
    ".wav .wave .w64 .rf64 .bwf .flac .ogg .oga .opus .spx .mp1 .mp2 .mp3 .mpa .m4a .m4b .m4r .aac "
    ".adts .ac3 .eac3 .ec3 .dts .aif .aiff .aifc .au .snd .caf .wma .mka .weba .amr .awb .3ga .dss "
    ".gsm .g722 .qcp .sph .nist .ape .tta .wv .tak .mpc .shn .ra .voc .dsf .dff .oma "
    # film
    ".mp4 .m4v .mov .qt .mkv .mk3d .webm .avi .divx .wmv .asf .ts .m2ts .mts .m2t .mpg .mpeg .vob "
    ".flv .f4v .f4a .ogv .ogm .3gp .3g2 .rm .rmvb .mxf .dv .wtv".split()
)


class File(NamedTuple):
    """An audio file, by path or open, with the name that messages give it."""

    source: Path | BinaryIO
    name: str

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Opens the file within the context; one that was already open stays open after it."""
        if isinstance(self.source, Path):
            with open(self.source, "rb") as file:
                yield file
        else:
            yield self.source


def resolve(audio: Any, sample_rate: int) -> File | Block:
    """Returns what `tdt_jax.audio.reading.audio_blocks` takes as a file, or as samples with a rate.

    Args:
      sample_rate: of arrays that come without one, in Hz.

    Raises: AudioError for anything else.
    """
    try:
        return _resolve(audio, sample_rate)
    except AudioError:
        raise
    except Exception as error:  # of another library's object
        raise AudioError(
            f"the {type(audio).__name__} cannot be read as audio ({type(error).__name__}: {error})"
        ) from error


def resolve_file(audio: Any) -> File:
    """Returns a path, an open file or bytes as a `File`; raises AudioError for anything else."""
    file = resolve(audio, 0)
    if not isinstance(file, File):
        raise AudioError(f"the {type(audio).__name__} is not an audio file")
    return file


def is_single(audio: Any) -> bool:
    """Returns whether an object is one recording rather than a collection of them."""
    if isinstance(audio, str | os.PathLike | bytes | bytearray | memoryview | Mapping):
        return True
    if isinstance(audio, tuple) and len(audio) == 2:
        return sum(_is_rate(part) for part in audio) == 1
    if hasattr(audio, "__array__") or hasattr(audio, "__dlpack__"):
        return getattr(getattr(audio, "dtype", None), "kind", "") not in ("O", "U", "S")
    return hasattr(audio, "read") or _is_decoder(audio) or not isinstance(audio, Iterable)


def _resolve(audio: Any, sample_rate: int) -> File | Block:
    if isinstance(audio, File):
        return audio
    if isinstance(audio, str | os.PathLike):
        return _from_path(audio)
    if isinstance(audio, bytes | bytearray | memoryview):
        if not len(audio):
            raise AudioError("the bytes are empty")
        return File(io.BytesIO(audio), "the file in memory")
    if isinstance(audio, Mapping):
        return _from_datasets(audio, sample_rate)
    if hasattr(audio, "read"):
        return _from_open_file(audio)
    if _is_decoder(audio):
        decoded = audio.get_all_samples()
        return _block_of(decoded.data, decoded.sample_rate)
    if isinstance(audio, tuple) and len(audio) == 2:
        rates = [part for part in audio if _is_rate(part)]
        if len(rates) == 1:
            samples = audio[1] if _is_rate(audio[0]) else audio[0]
            return _block_of(samples, rates[0])
    if callable(audio):
        return _block_of(audio(sample_rate), sample_rate)
    return _block_of(audio, sample_rate)


def _block_of(audio: Any, rate: Any) -> Block:
    """Returns an array [S] or [S, channels] (of PyTorch also [channels, S]) scaled to full scale 1.

    Raises: AudioError for another shape or type, and for an empty array.
    """
    if not 0 < rate == int(rate):
        raise AudioError(f"a sample rate is a whole number of Hz, got {rate}")
    samples = _array(audio)
    if samples.ndim == 0:
        raise AudioError(f"an object of type {type(audio).__name__} is not audio")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS):
        raise AudioError(
            f"samples must be [S] or [S, channels] with at most {MAX_CHANNELS} channels, "
            f"got shape {samples.shape}"
        )
    if samples.size == 0:
        raise AudioError(f"the array holds no samples: shape {samples.shape}")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype in INTEGERS:
        samples = samples.astype(np.float32) / (-float(np.iinfo(samples.dtype).min))
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"samples must be floats, int8, uint8, int16 or int32, got {samples.dtype}"
        )
    samples = samples.astype(np.float32)
    return Block(0.0, int(rate), samples[:, None] if samples.ndim == 1 else samples)


def _array(audio) -> np.ndarray:
    if not type(audio).__module__.startswith("torch"):
        samples = np.asarray(audio)
        # bfloat16 is no subtype of NumPy's floats
        return samples.astype(np.float32) if samples.dtype.name == "bfloat16" else samples
    audio = audio.detach().cpu()
    samples = (audio.float() if audio.is_floating_point() else audio).numpy()
    return samples.T if samples.ndim == 2 and len(samples) < samples.shape[1] else samples


def _is_rate(value) -> bool:
    is_number = isinstance(value, int | float | np.integer | np.floating)
    return is_number and not isinstance(value, bool)


def _is_decoder(audio) -> bool:
    """Returns whether an object is an AudioDecoder of torchcodec or `datasets`."""
    return hasattr(audio, "get_all_samples")


def _from_datasets(audio: Mapping, sample_rate: int) -> File | Block:
    """Resolves a record of Hugging Face's `datasets`, decoded or not."""
    if audio.get("array") is not None:
        rate = audio.get("sampling_rate")
        return _block_of(audio["array"], sample_rate if rate is None else rate)
    for key in ("bytes", "path"):
        if audio.get(key) is not None:
            return _resolve(audio[key], sample_rate)
    raise AudioError(
        "a dict needs array and sampling_rate, bytes, or path, got "
        + (", ".join(map(str, audio)) or "nothing")
    )


def _from_path(path: str | os.PathLike) -> File:
    path = Path(path)
    try:
        if path.is_dir():
            raise AudioError(f"{path} is a folder, not an audio file")
        if path.exists() and not path.is_file():
            raise AudioError(f"{path} is not a regular file")
        if not path.is_file():
            raise AudioError(f"no audio file at {path}")
        if path.stat().st_size == 0:
            raise AudioError(f"{path} is empty")
    except OSError as error:  # no permission, a name that is too long
        raise AudioError(f"{path} cannot be read: {error.strerror or error}") from None
    return File(path, str(path))


def _from_open_file(file) -> File:
    """Rewinds an open file; one that cannot seek is copied to a temporary file first."""
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else "the open file"
    if not (hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable())):
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(file, copy)
        file = copy
    file.seek(0, os.SEEK_END)
    if not file.tell():
        raise AudioError(f"{name} is empty")
    file.seek(0)
    if not isinstance(file.read(1), bytes):
        raise AudioError(f"{name} is open as text; open it with mode 'rb'")
    return File(file, name)
