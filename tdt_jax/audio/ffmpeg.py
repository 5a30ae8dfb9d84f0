"""A file's samples by FFmpeg (PyAV): any container and codec, placed on the time line.

Sound keeps its place: where the time stamps leave a gap, before the first sample or between two,
there are zeros. Time 0 is the beginning of the container's time line; in broadcasts, whose clocks
are arbitrary, it is the beginning of the first stream.

    picture  |=====================================|
    sound          |~~~~~~~~~|      |~~~~~~~~~~~~~~|
    blocks   |00000|~~~~~~~~~|000000|~~~~~~~~~~~~~~|
"""

import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from tdt_jax.audio.concatenated import tag_size
from tdt_jax.audio.errors import AudioError, UnknownFormatError, check_rate
from tdt_jax.audio.request import TOLERANCE, Block, Request

BLOCK = 1 << 16  # samples of a channel that are yielded at a time
BUFFER = 1 << 16  # bytes read at a time
MOST_PROBED = 50_000_000, 60_000_000  # bytes and microseconds searched for an audio stream
GAP = 0.1  # seconds; a shorter gap is jitter of the time stamps
HOLE = 0.005  # the same for formats whose time stamps count samples, and after damage
RESTART = 1.0  # seconds; a clock that steps back further has begun anew
LONGEST_GAP = 6 * 3600.0  # seconds; a longer gap is an error of the time stamps
CUT = 10.0  # seconds; a longer gap in a broadcast is a part that was cut out
TOLERANCE_OF_MANY = 0.5  # seconds, as TOLERANCE, if a length is that of the longest stream
PREROLL = 1.0  # seconds decoded before the wanted ones, for codecs that depend on earlier packets
# By FFmpeg's names of formats:
FROM_ZERO = {"mov", "matroska", "nut"}  # the time line begins at 0
BROADCAST = {"mpegts", "mpeg", "wtv"}
SPARSE = FROM_ZERO | BROADCAST | {"asf", "flv", "mxf", "gxf"}  # a gap is silence
DENSE = {"ogg", "flac"}  # a gap is damage; in all other formats time stamps only count samples
SEEKABLE = {"mov", "matroska"}  # seeking is exact with any codec
PROMISING = FROM_ZERO | {"ogg", "flac", "avi", "asf", "flv", "wav", "w64", "aiff", "au", "caf",
                         "ape", "tta", "wv", "tak", "mpc", "mpc8"}  # fmt: skip
SAFE_PLANES = 8  # PyAV reads beyond the pointers of a frame of this many planes
CHECKED = {"flac", "wavpack", "tta", "ac3", "eac3", "truehd"}  # codecs with checksums
SCALES = {"u8": 2**7, "s16": 2**15, "s32": 2**31, "s64": 2**63}
TIMED = ("audio", "video", "subtitle")  # streams whose packets show how far a file goes
MOST_FAILURES = 100  # consecutive failures to read a packet
MOST_PADDING = 4096  # samples that an encoder may add at the end
MP3_TAGS = b"Xing", b"Info", b"VBRI", b"APETAGEX", b"LYRICSBEGIN", b"TAG"
CORRUPT = "marked as corrupt"
# Names of dispositions of tracks that are not the main one.
SPECIAL = {"comment", "visual_impaired", "hearing_impaired", "dub", "karaoke", "descriptions"}


def blocks(
    file: BinaryIO, name: str, request: Request, *, ignore_length: bool = False
) -> Iterator[Block]:
    """Yields the blocks of a file's audio track, from `request.start` or before to its end.

    Args:
      ignore_length: read a WAV file to its end, whatever size its header gives.

    Raises: UnknownFormatError before the first block; AudioError for a file without the wanted
    track; what `request.lost` raises for damage and a missing end.
    """
    with _open(file, ignore_length=ignore_length) as container:
        track = _choose_track(container, name, request)
        reader = _Reader(container, track, name, request, file)
        reader.is_promising &= not ignore_length
        yield from _collect(reader.blocks())


def seconds(file: BinaryIO, name: str) -> float | None:
    """Returns the length of a file by its header, in seconds; None if it does not say.

    Raises: UnknownFormatError.
    """
    with _open(file) as container:
        track = _choose_track(container, name, Request(warn=lambda message: None))
        return _promised_seconds(container, track, file)[0]


def _open(
    file: BinaryIO, *, ignore_length: bool = False, probed: tuple[int, int] | None = None
) -> Any:
    """Opens a file as a PyAV container; raises UnknownFormatError."""
    import av
    from av.error import FFmpegError

    # No protocol: a playlist must not open other files, or addresses.
    options = {"protocol_whitelist": "none"}
    if ignore_length:
        options["ignore_length"] = "1"
    if probed:
        options |= {"probesize": str(probed[0]), "analyzeduration": str(probed[1])}
    # From version 19 PyAV reads tags whatever their bytes.
    is_strict = int(av.__version__.split(".")[0]) < 19
    replacing: Any = {"metadata_errors": "replace"} if is_strict else {}
    file.seek(0)
    try:
        container = av.open(file, options=options, buffer_size=BUFFER, **replacing)
    except (FFmpegError, ValueError) as error:
        raise UnknownFormatError(f"FFmpeg: {_reason(error)}") from None
    if container.streams.audio or probed or not container.streams.video:
        return container
    container.close()  # a film's audio may begin late
    return _open(file, probed=MOST_PROBED)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _family(container) -> str:
    return container.format.name.split(",")[0]


def _choose_track(container, name: str, request: Request):
    """Returns the wanted audio stream; warns if it was chosen among several."""
    tracks = container.streams.audio
    if not tracks:
        kinds = sorted({stream.type for stream in container.streams})
        raise UnknownFormatError(
            f"FFmpeg: it holds no sound, only {' and '.join(kinds)}"
            if kinds
            else "FFmpeg: it holds nothing"
        )
    if request.track is not None:
        if request.track > len(tracks):
            raise AudioError(f"{name} has no audio track {request.track}; it has {len(tracks)}")
        return tracks[request.track - 1]
    chosen = max(tracks, key=_rank)
    if len(tracks) > 1:
        request.warn(
            f"{name} has {len(tracks)} audio tracks; read is {tracks.index(chosen) + 1}"
            + (f" ({chosen.language})" if chosen.language else "")
        )
    return chosen


def _rank(stream) -> tuple[bool, bool, bool]:
    """Ranks tracks: those that can be decoded, are no commentary, and are marked as default."""
    kinds = _kinds(stream)
    return stream.codec_context is not None, not kinds & SPECIAL, "default" in kinds


def _kinds(stream) -> set[str]:
    """Returns FFmpeg's names of a stream's dispositions, such as "default"."""
    from av.stream import Disposition

    return {str(kind.name) for kind in Disposition if kind & stream.disposition}


def _promised_seconds(container, track, file: BinaryIO) -> tuple[float | None, float]:
    """Returns the seconds to the recording's end by its header, or None, and their tolerance."""
    import av

    family = _family(container)
    if family == "mov":
        if not track.duration:
            return None, 0.0
        return float((max(track.start_time or 0, 0) + track.duration) * track.time_base), TOLERANCE
    if not container.duration or track.codec_context is None:
        return None, 0.0
    seconds = container.duration / av.time_base
    if family == "avi":  # FFmpeg shortens the duration of a truncated file, but not this count
        seconds = max(seconds, float(track.frames * track.time_base))
    if family == "caf" and track.codec_context.name.startswith("pcm"):
        seconds = max(seconds, track.frames / track.codec_context.sample_rate)
    if family == "mp3":
        counted = _xing_seconds(file, track.codec_context.sample_rate)
        return counted and min(counted, seconds), TOLERANCE
    alone = len(container.streams) == 1 and family not in ("avi", "asf", "flv")
    return seconds if family in PROMISING else None, TOLERANCE if alone else TOLERANCE_OF_MANY


def _xing_seconds(file: BinaryIO, rate: int) -> float | None:
    """Returns the length by the header in an MP3's first frame, which counts its frames."""
    position = file.tell()
    file.seek(0)
    file.seek(tag_size(file.read(10)) or 0)
    frame = file.read(256)
    file.seek(position)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or not frame[place + 7] & 1:
        return None
    samples = 1152 if frame[1] & 0x08 else 576  # of a frame: MPEG 1, or 2
    return int.from_bytes(frame[place + 8 : place + 12]) * samples / rate


class _Reader:
    """Decodes a track and places it on the time line."""

    def __init__(self, container, track, name: str, request: Request, file: BinaryIO):
        self._container, self._track, self._name, self._request = container, track, name, request
        self._family = _family(container)
        self._promised, self._tolerance = _promised_seconds(container, track, file)
        self.is_promising = self._family in PROMISING  # its header says where the file ends
        self._origin = self._first_time()
        self._shift = 0.0  # seconds from the clock of the current part to the time line
        self._position = 0.0  # of the next sample, in seconds
        self._is_placed = False  # a frame was decoded, so that `_position` counts
        self._reached = 0.0  # end of the packets of other streams, in seconds
        # Time, seconds and reason of a fault after which there was no sound yet.
        self._pending: tuple[float, float, str] | None = None
        self._begun = False  # there was sound
        self._lost = 0.0  # seconds in all
        self._fault: tuple[float, str] | None = None  # time and reason of the first loss

    def blocks(self) -> Iterator[Block]:
        """Yields the blocks of the track, and reports what is missing."""
        import av
        from av.error import FFmpegError

        codec = self._track.codec_context
        if codec is None:
            raise AudioError(f"{self._name} holds sound that FFmpeg has no decoder for")
        if codec.name in CHECKED:
            codec.options = {"err_detect": "crccheck+explode"}
        sought = self._family in SEEKABLE and self._request.start > PREROLL
        if sought:
            target = self._request.start - PREROLL + self._origin
            self._container.seek(round(target * av.time_base))
        padding: list[Block] = []  # beyond the promised end, unless more follows
        for packet in self._packets():
            if packet.stream is not self._track:
                continue
            try:
                frames = packet.decode()
            except FFmpegError as error:
                self._note(packet, _reason(error))
                continue
            for frame in frames:
                if not frame.samples:
                    continue
                if not self._is_placed:
                    self._is_placed = True
                    self._position = self._start(frame) if sought else 0.0
                    check_rate(frame.sample_rate, self._name)
                for block in self._place(frame):
                    padding.append(block)
                    yield from self._inside(padding)
            if packet.is_corrupt and self._pending is None:
                self._pending = self._position, 0.0, CORRUPT
        self._finish()

    def _first_time(self) -> float:
        """Returns where on the container's clock the time line begins, in seconds."""
        starts = [
            float(stream.start_time * stream.time_base)
            for stream in self._container.streams
            if stream.type in ("audio", "video")
            and stream.start_time is not None
            and "attached_pic" not in _kinds(stream)
        ]
        first = min(starts, default=0.0)
        return min(first, 0.0) if self._family in FROM_ZERO else first

    def _packets(self) -> Iterator:
        """Yields the packets of the track, and of other streams if they show where a file ends."""
        from av.error import FFmpegError
        from av.stream import Discard

        streams = [self._track]
        if self._promised is not None and self._family != "mov":
            streams = [stream for stream in self._container.streams if stream.type in TIMED]
        for stream in self._container.streams:
            if stream not in streams:
                stream.discard = Discard.all
        failures = 0
        while failures < MOST_FAILURES:
            try:
                for packet in self._container.demux(streams):
                    failures = 0
                    if packet.stream is not self._track and packet.pts is not None:
                        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                        self._reached = max(self._reached, end - self._origin)
                    yield packet
                return
            except FFmpegError as error:
                failures += 1
                self._pending = self._pending or (self._position, 0.0, _reason(error))
            except IndexError:  # of PyAV, for a stream that begins later than the others
                failures += 1

    def _note(self, packet, reason: str) -> None:
        """Remembers a fault until it is known whether sound follows."""
        if self._family == "mp3" and any(tag in bytes(packet)[:64] for tag in MP3_TAGS):
            return  # the tag of a file that was joined to another
        time, seconds, reason = self._pending or (self._position, 0.0, reason)
        seconds += float((packet.duration or 0) * (packet.time_base or 0))
        self._pending = time, seconds, reason

    def _start(self, frame) -> float:
        """Returns the position of the first frame after seeking, in seconds."""
        time = self._request.start if frame.time is None else frame.time - self._origin
        return max(min(time, self._request.start), 0.0)

    def _place(self, frame) -> Iterator[Block]:
        """Yields a frame, preceded by zeros for a gap."""
        rate, samples, layout = frame.sample_rate, _samples(frame), _layout(frame)
        gap, least = 0.0, HOLE if self._family in DENSE or self._pending else GAP
        if self._family not in SPARSE | DENSE:
            gap = self._pending[1] if self._pending and self._begun else 0.0
        elif frame.time is not None:
            gap = frame.time - self._origin + self._shift - self._position
        if gap < -RESTART or (gap > least and not self._is_credible(gap)):
            self._shift -= gap
            if gap > 0:
                self._request.warn(
                    f"the time stamps of {self._name} jump by {gap:.0f} s at "
                    f"{self._position:.2f} s; what comes is taken to follow on"
                )
                if self._promised is not None:
                    self._promised = max(self._promised - gap, 0.0)
                self._reached = self._position
            gap = 0.0
        if was_pending := self._pending:
            if self._begun or self.is_promising:
                self._lose(*self._pending)
            self._pending = None
        self._begun = True
        if gap > least:
            if self._family in DENSE and not was_pending:
                self._lose(self._position, gap, "a part is missing")
            remaining = round(gap * rate)
            while remaining:
                size = min(remaining, BLOCK)
                zeros = np.zeros((size, samples.shape[1]), np.float32)
                yield Block(self._position, rate, zeros, layout)
                self._position += size / rate
                remaining -= size
        yield Block(self._position, rate, samples, layout)
        self._position += len(samples) / rate

    def _is_credible(self, gap: float) -> bool:
        """Returns whether a gap may be silence, rather than an error of the time stamps."""
        if self._family in BROADCAST and self._begun and gap > CUT:
            return False
        end = math.inf if self._promised is None else self._promised + self._tolerance
        return gap <= LONGEST_GAP and self._position + gap <= end

    def _inside(self, held: list[Block]) -> list[Block]:
        """Removes the samples from `held` that are not padding at the end, and returns them."""
        if self._family != "mov" or self._promised is None:
            inside, held[:] = list(held), []
            return inside
        block = held.pop()
        size = max(round((self._promised - block.time) * block.rate), 0)
        if size >= len(block.samples):
            return [block]
        time = block.time + size / block.rate
        held.append(block._replace(time=time, samples=block.samples[size:]))
        inside = [block._replace(samples=block.samples[:size])] if size else []
        if sum(len(each.samples) for each in held) > MOST_PADDING:
            inside, held[:] = inside + held, []
        return inside

    def _lose(self, time: float, seconds: float, reason: str) -> None:
        """Raises AudioError for damage in the wanted part, or counts it."""
        if time + seconds < self._request.start:
            return
        if self._request.damaged == "error":
            raise AudioError(f"{self._name} is damaged at {time:.2f} s ({reason})")
        self._lost += seconds
        self._fault = self._fault or (time, reason)

    def _finish(self) -> None:
        """Reports a missing end and the damage that was skipped."""
        if not self._is_placed:
            if self._pending:
                raise UnknownFormatError(f"FFmpeg: {self._pending[2]}")
            return
        reached = max(self._position, self._reached)
        if self._promised is not None and self._promised - reached > self._tolerance:
            self._request.lost(
                f"{self._name} is truncated: its header promises {self._promised:.2f} s, it holds "
                f"{reached:.2f} s"
            )
        elif self._pending and self._pending[2] != CORRUPT:
            if self.is_promising:
                self._lose(*self._pending)
            else:  # cut at any place, as such files are
                _, seconds, why = self._pending
                self._request.warn(f"{self._name} is damaged in its last {seconds:.2f} s ({why})")
        if self._fault:
            time, why = self._fault
            self._request.warn(
                f"{self._name} is damaged: {self._lost:.2f} s of {self._position:.2f} s could not "
                f"be read, from {time:.2f} s on ({why})"
            )


def _samples(frame) -> np.ndarray:
    """Returns a frame's samples [S, channels] float32, of full scale 1."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels >= SAFE_PLANES:
        frame = _interleave(frame)
    kind, samples = frame.format.name.removesuffix("p"), frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if kind == "u8":
        return (samples.astype(np.float32) - 128) / 128
    if kind in SCALES:
        return samples.astype(np.float32) / SCALES[kind]
    return samples.astype(np.float32)


def _interleave(frame):
    import av

    converter = av.AudioResampler("flt", frame.layout, frame.sample_rate)
    return converter.resample(frame)[0]


_layouts: dict[str, tuple[str, ...]] = {}


def _layout(frame) -> tuple[str, ...]:
    """Returns the names of a frame's channels, or () unless all have one."""
    layout = frame.layout
    if layout.name not in _layouts:
        names = tuple(channel.name for channel in layout.channels)
        _layouts[layout.name] = () if "NONE" in names else names
    return _layouts[layout.name]


def _collect(blocks: Iterator[Block]) -> Iterator[Block]:
    """Yields the same samples in blocks of about BLOCK."""
    held: list[Block] = []
    for block in blocks:
        if held and (
            (held[0].rate, held[0].layout) != (block.rate, block.layout)
            or held[0].samples.shape[1] != block.samples.shape[1]
            or sum(len(each.samples) for each in held) + len(block.samples) > BLOCK
        ):
            yield _join(held)
            held = []
        held.append(block)
    if held:
        yield _join(held)


def _join(blocks: list[Block]) -> Block:
    return blocks[0]._replace(samples=np.concatenate([block.samples for block in blocks]))
