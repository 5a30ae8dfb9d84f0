"""Audio files to samples: float32, mono, at one rate; what is wrong with a file is an AudioError.

libsndfile decodes what it knows (wav, flac, ogg, opus, mp3, aiff, au, ...), audioread the rest if
it finds a decoder, and soxr resamples block by block: hours of audio cost their samples only.
"""

import contextlib
import functools
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 1 << 18  # samples decoded at a time, all channels together
RATES = (4_000, 768_000)  # Hz; outside, the header is damaged
MAX_CHANNELS = 32
LOUDEST = 1e10  # of samples; integers taken for floats stay below
UNKNOWN_BYTES = 0x7FFFF000  # a size this large in a header: written to a pipe, length unknown
UNKNOWN_FRAMES = 1 << 62  # libsndfile's count for a FLAC of unknown length, at whose end it fails
UNRECOGNISED = 1  # libsndfile's error code for a format it does not know


class AudioError(ValueError):
    """An audio file or array that cannot be used; the message names it and says why."""


def read_audio(path: str | os.PathLike, sample_rate: int = 16000) -> np.ndarray:
    """Decode an audio file to mono samples at `sample_rate` Hz.

    Channels are averaged and integer formats scaled to [-1, 1). A file that holds less than its
    header promises is an error, not a shorter utterance. (Formats made for streams promise nothing:
    an Ogg file cut between two pages, or an MP3 without a length header, is read as it is.)

    Returns: [S] float32, writable.
    Raises: AudioError naming the file, if it is missing, a folder, empty, not audio, truncated,
    without samples, or holds NaN or infinite samples.
    """
    samples = bytearray()
    for block in _file_blocks(path, sample_rate):
        samples += block.tobytes()
    return np.frombuffer(samples, np.float32)


def audio_blocks(audio, sample_rate: int = 16000) -> Iterator[np.ndarray]:
    """What `as_samples` gives, block by block: a file of any length in bounded memory.

    A fault in a file may show after some blocks only.
    """
    if isinstance(audio, (str, os.PathLike)):
        yield from _file_blocks(audio, sample_rate)
    elif hasattr(audio, "audio_blocks"):
        yield from audio.audio_blocks(sample_rate)
    else:
        samples = as_samples(audio, sample_rate)
        yield from (samples[i : i + BLOCK] for i in range(0, len(samples), BLOCK))


def _file_blocks(path: str | os.PathLike, sample_rate: int) -> Iterator[np.ndarray]:
    import soxr

    path = _checked(path)
    stream, num_samples = None, 0
    for rate, block in _readable(path):
        _require_finite(block, path)
        if rate != sample_rate:
            stream = stream or soxr.ResampleStream(rate, sample_rate, 1)
            block = stream.resample_chunk(block)
        num_samples += len(block)
        yield block
    if stream:
        block = stream.resample_chunk(np.zeros(0, np.float32), last=True)
        num_samples += len(block)
        yield block
    if not num_samples:
        raise AudioError(f"{path} holds no samples")


def as_samples(audio, sample_rate: int = 16000) -> np.ndarray:
    """Mono float32 samples of a file, or of an array that is already at `sample_rate` Hz.

    Arrays: [S] or [S, channels]; floats with full scale 1, or PCM as int8, uint8, int16 or int32.
    A function is called with the rate, and returns such an array. What has `audio_blocks`, as a
    `tdt_jax.audio.segment.Segment`, gives its samples by that.

    Returns: [S] float32.
    Raises: AudioError as `read_audio`, and for arrays of another shape or type.
    """
    if isinstance(audio, (str, os.PathLike)):
        return read_audio(audio, sample_rate)
    if hasattr(audio, "audio_blocks"):
        return np.concatenate(list(audio.audio_blocks(sample_rate)))
    samples = np.asarray(audio(sample_rate) if callable(audio) else audio)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS):
        raise AudioError(
            f"samples must be [S] or [S, channels] with at most {MAX_CHANNELS} channels, "
            f"got shape {samples.shape}"
        )
    if samples.size == 0:
        raise AudioError(f"the array holds no samples: shape {samples.shape}")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype in (np.int8, np.int16, np.int32):
        samples = samples.astype(np.float32) / (-float(np.iinfo(samples.dtype).min))
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"samples must be floats, int8, uint8, int16 or int32, got {samples.dtype}"
        )
    samples = samples.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    _require_finite(samples, "the array")
    return samples


def audio_seconds(path: str | os.PathLike) -> float:
    """The length of an audio file in seconds: its header's word, or counted where that is silent.

    Raises: AudioError naming the file, if it is missing, a folder, empty or not audio.
    """
    seconds = header_seconds(path)
    if seconds is None:
        path = Path(path)
        seconds = sum(len(block) / rate for rate, block in _blocks(path))
    return seconds


def header_seconds(path: str | os.PathLike) -> float | None:
    """The length of an audio file in seconds, if its header says it. Errors as `audio_seconds`."""
    import soundfile

    path = _checked(path)
    with contextlib.suppress(soundfile.SoundFileError, TypeError), _opened(path) as (file, length):
        return None if length is None else length / file.samplerate
    return None


def _checked(path: str | os.PathLike) -> Path:
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
    return path if str(path) != "-" else path.absolute()  # libsndfile would take standard input


def _require_finite(samples: np.ndarray, name) -> None:
    if not np.isfinite(samples).all():
        bad = samples[~np.isfinite(samples)]
        raise AudioError(f"{name} holds {len(bad)} samples that are not finite (such as {bad[0]})")
    if samples.size and (peak := np.abs(samples).max()) > LOUDEST:
        raise AudioError(f"{name} holds samples of up to {peak:.3g}; full scale is 1")


def _readable(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    try:
        yield from _blocks(path)
    except OSError as error:  # no permission, a disk that fails
        raise AudioError(f"{path} cannot be read: {error.strerror or error}") from None


def _blocks(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (rate, mono float32 block): by libsndfile, or by audioread if that cannot."""
    import soundfile

    try:
        with _opened(path) as (file, num_frames):
            if file.frames < UNKNOWN_FRAMES:
                yield from _soundfile_blocks(path, file, num_frames)
                return
            reason = "its header does not say how long it is"
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a name that ends in .raw
        reason = str(error)
        if getattr(error, "code", UNRECOGNISED) != UNRECOGNISED:
            raise AudioError(f"{path} is damaged or not audio ({reason})") from None
    yield from _audioread_blocks(path, reason)


def _soundfile_blocks(path: Path, file, num_frames: int | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (rate, block); AudioError if the file ends before its header says (`num_frames`)."""
    import soundfile

    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise AudioError(f"{path} has an impossible sample rate: {file.samplerate} Hz")
    if missing := _missing(file.extra_info) or _missing_of_ogg(path):
        raise AudioError(f"{path} is truncated: {missing}")
    buffer = np.empty((max(1, BLOCK // file.channels), file.channels), np.float32)
    done = 0
    while True:
        try:
            block = file.read(out=buffer)
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"{path} is truncated or damaged: decoding fails after {done} of {file.frames} "
                f"frames ({str(error) or 'no reason given'})"
            ) from None
        if not len(block):
            break
        done += len(block)
        yield file.samplerate, block.mean(axis=1)
    if num_frames is not None and num_frames - done > 0.1 * file.samplerate:
        raise AudioError(
            f"{path} is truncated: its header promises {num_frames} frames, it holds {done}"
        )


def _missing(log: str) -> str | None:
    """What libsndfile's log of a header says is missing at the end of the file, if anything.

    It reads such files as if they were whole. A few bytes are forgiven: writers disagree about
    whether a size counts its own header and the padding.
    """
    for promised, present in re.findall(r" : (\d+) \(should be (\d+)\)", log):
        if int(present) + 64 < int(promised) < UNKNOWN_BYTES:
            return f"its header promises {promised} bytes, it holds {present}"
    return None


def _missing_of_ogg(path: Path) -> str | None:
    """As `_missing`, for an Ogg file that ends inside a page."""
    with open(path, "rb") as file:
        if file.read(4) != b"OggS":
            return None
        file.seek(-min(path.stat().st_size, 1 << 16), os.SEEK_END)  # more than a page
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    num_segments = page[26] if len(page) > 26 else 255
    promised = 27 + num_segments + sum(page[27 : 27 + num_segments])
    if len(page) < promised:
        return f"its last Ogg page has {promised} bytes, {len(page)} are there"
    return None


@contextlib.contextmanager
def _opened(path: Path):
    """The open SoundFile and the frames that its header promises (None: it does not say)."""
    import soundfile

    with open(path, "rb") as file:
        untagged = _is_mp3_without_length(file)
    if untagged:
        with _Overstated(path) as raw, soundfile.SoundFile(raw) as file:
            yield file, None
    else:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            yield file, file.frames if file.frames < UNKNOWN_FRAMES else None


def _is_mp3_without_length(file) -> bool:
    """Whether a file starts as an MP3 whose first frame is no Xing, Info or VBRI length header."""
    head = file.read(10)
    if head[:3] == b"ID3":
        size = functools.reduce(lambda size, byte: size << 7 | byte & 127, head[6:], 0)
        file.seek(10 + size)
    else:
        file.seek(0)
    frame = file.read(512)
    is_layer_3 = len(frame) > 4 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2
    return is_layer_3 and not any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


class _Overstated(io.FileIO):
    """A file that claims to be 64 times as long as it is.

    libsndfile guesses the length of an MP3 without a length header from its size and its first
    frame's bit rate, and stops there: a variable rate would lose most of its audio. From this it
    reads on to the end.
    """

    _at_end = False

    def seek(self, offset, whence=os.SEEK_SET):
        self._at_end = whence == os.SEEK_END
        with contextlib.suppress(OSError):  # a tag looked for before the start of a short file
            super().seek(offset, whence)
        return self.tell()

    def tell(self):
        return super().tell() * (64 if self._at_end else 1)


def _audioread_blocks(path: Path, reason: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (rate, mono float32 block) of what ffmpeg or another installed decoder can read."""
    try:
        import audioread

        with audioread.audio_open(os.fspath(path)) as file:
            for data in file:
                pcm = np.frombuffer(data, "<i2").reshape(-1, file.channels)
                yield file.samplerate, pcm.mean(axis=1, dtype=np.float32) / 32768
    except Exception as error:
        why = f"{reason.rstrip('.')}; audioread: {type(error).__name__}"
        raise AudioError(f"{path} cannot be decoded: not audio, or damaged ({why})") from None
