"""Live audio: blocks from a microphone, and PCM or WAV from a pipe."""

import queue
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tdt_jax.audio.errors import RATES, AudioError
from tdt_jax.audio.inputs import MAX_CHANNELS
from tdt_jax.audio.sndfile import UNKNOWN_BYTES
from tdt_jax.audio.waveform import resample_blocks

INSTALL = "pip install 'tdt-jax[listen]'"
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags of a WAV header
OTHERS = {  # first bytes of files that must not be taken for PCM
    b"RF64": "RF64",
    b"RIFX": "RIFX",
    b"FORM": "AIFF",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
}


def microphone(sample_rate: int = 16000, block_seconds: float = 0.1) -> Iterator[np.ndarray]:
    """Yields blocks [S] float32 from the default input device until it is disconnected.

    The device is opened when the first block is requested. Audio that arrives while the caller
    works on a block is queued.

    Raises:
      ValueError: at once, if sounddevice, PortAudio or a device of this rate is missing.
    """
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]  (optional)
    except ImportError:
        raise ValueError(f"the microphone needs sounddevice: {INSTALL}") from None
    except OSError as error:
        raise ValueError(
            f"the microphone needs the PortAudio library (apt install libportaudio2): {error}"
        ) from None
    options: dict[str, Any] = dict(samplerate=sample_rate, channels=1, dtype="float32")
    try:
        sounddevice.check_input_settings(**options)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ValueError(f"no microphone that records at {sample_rate} Hz: {error}") from None
    options["blocksize"] = max(1, round(block_seconds * sample_rate))
    return _record(sounddevice, options)


def _record(sounddevice, options: dict) -> Iterator[np.ndarray]:
    blocks = queue.SimpleQueue()
    try:
        with sounddevice.InputStream(
            **options,
            callback=lambda samples, *_: blocks.put(samples[:, 0].copy()),
            finished_callback=lambda: blocks.put(None),
        ):
            while (block := blocks.get()) is not None:
                yield block
    except sounddevice.PortAudioError as error:
        raise ValueError(f"the microphone fails: {error}") from None


class Format(NamedTuple):
    """The format of PCM data."""

    sample_rate: int  # Hz
    num_channels: int
    dtype: str  # "<i2" or "<f4"


def pcm_blocks(
    file: BinaryIO, sample_rate: int = 16000, block_seconds: float = 0.1
) -> Iterator[np.ndarray]:
    """Yields mono samples [S] float32 at `sample_rate` Hz, as they arrive from a pipe.

    The pipe carries a WAV (16-bit PCM or float32, any rate, channels are averaged) or, without a
    header, 16-bit little-endian mono PCM at `sample_rate`. A block lasts `block_seconds`, or less
    if less has arrived. Sizes of 0 or 0xFFFFFFFF in the header, as programs write to a pipe, mean
    "to the end". An incomplete sample at the end is dropped.

    Raises:
      AudioError: for a header that is damaged or of another format, and a pipe without samples.
    """
    head = _read(file, 12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        form, num_bytes = _wav_header(file)
        blocks = _blocks(file, form, num_bytes, b"", block_seconds)
    else:
        if (kind := OTHERS.get(head[:4]) or OTHERS.get(head[:3])) is not None:
            raise AudioError(f"live audio must be PCM or WAV, got {kind}")
        form = Format(sample_rate, 1, "<i2")
        blocks = _blocks(file, form, None, head, block_seconds)
    num_samples = 0
    for block in resample_blocks(((form.sample_rate, block) for block in blocks), sample_rate):
        num_samples += len(block)
        yield block
    if not num_samples:
        raise AudioError("the input holds no samples")


def _blocks(
    file: BinaryIO, form: Format, num_bytes: int | None, rest: bytes, block_seconds: float
) -> Iterator[np.ndarray]:
    """Yields mono blocks of `rest` and of the next `num_bytes` (None: all) of the file."""
    read = getattr(file, "read1", file.read)  # read1 returns what has arrived
    size = np.dtype(form.dtype).itemsize * form.num_channels
    most = max(1, round(block_seconds * form.sample_rate)) * size
    while True:
        if whole := len(rest) // size * size:
            values = np.frombuffer(rest[:whole], form.dtype).reshape(-1, form.num_channels)
            full = 32768 if form.dtype == "<i2" else 1
            yield values.mean(axis=1, dtype=np.float32) / np.float32(full)
            rest = rest[whole:]
        if not (data := read(most if num_bytes is None else min(most, num_bytes))):
            return
        if num_bytes is not None:
            num_bytes -= len(data)
        rest += data


def _wav_header(file: BinaryIO) -> tuple[Format, int | None]:
    """Reads up to the samples; returns their format and their bytes (None: unknown)."""
    form = None
    while True:
        name, size = struct.unpack("<4sI", _exactly(file, 8))
        if name == b"data":
            break
        left = size + size % 2
        if name == b"fmt ":
            body = _exactly(file, min(size, 40))
            form = _format(body)
            left -= len(body)
        while left:
            left -= len(_exactly(file, min(left, 1 << 16)))
    if form is None:
        raise AudioError("the WAV header has no format before its samples")
    return form, None if size == 0 or size >= UNKNOWN_BYTES else size


def _format(body: bytes) -> Format:
    if len(body) < 16:
        raise AudioError(f"the format in a WAV header takes 16 bytes, this one has {len(body)}")
    tag, num_channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == EXTENSIBLE and len(body) == 40:
        (tag,) = struct.unpack_from("<H", body, 24)
    if (tag, bits) not in ((PCM, 16), (FLOAT, 32)):
        raise AudioError(
            "a WAV from a pipe must be 16-bit PCM (format 1) or 32-bit float (3), "
            f"got format {tag} of {bits} bits"
        )
    if not 1 <= num_channels <= MAX_CHANNELS or not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"the WAV header is damaged: {num_channels} channels at {rate} Hz")
    return Format(rate, num_channels, "<i2" if tag == PCM else "<f4")


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = _read(file, size)
    if len(data) < size:
        raise AudioError("the input ends inside its WAV header")
    return data


def _read(file: BinaryIO, size: int) -> bytes:
    """Returns the next `size` bytes, or all that are left."""
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
