"""Audio to transcripts: batches of few fixed shapes, audio of any length in bounded memory.

Recordings are read block by block and cut into windows (tdt_jax.inference.long_form); windows of
like length share a batch, whatever recording they are of; a transcript is put together when its
last window has been decoded.
"""

import concurrent.futures
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax

from tdt_jax.audio.errors import AudioError, warn
from tdt_jax.audio.inputs import is_single
from tdt_jax.audio.reading import audio_blocks
from tdt_jax.audio.request import Request
from tdt_jax.config import Bucket, ModelConfig
from tdt_jax.data.buckets import bucket_samples
from tdt_jax.data.utterance import Utterance, collate
from tdt_jax.decoding.hypothesis import Hypothesis, take
from tdt_jax.inference import long_form as cutting
from tdt_jax.inference.long_form import Piece
from tdt_jax.inference.recognition import decode_samples_on_mesh, devices_of
from tdt_jax.inference.transcript import (
    TimedWord,
    Transcript,
    build_transcript,
    commonest,
    shifted,
    timed_words,
)
from tdt_jax.models.encoder import subsampled_length
from tdt_jax.recogniser import PIECE_SECONDS, Recogniser

# Seconds of the batches' shapes, below that of the longest piece.
LENGTHS = (2.56, 5.12, 10.24, 20.48, *(PIECE_SECONDS * 2**k for k in range(8)))
LONGEST = PIECE_SECONDS * 2**8  # with local attention, about two hours
OVERLAP = 4.0  # seconds that a piece hears beyond its core, on both sides, at most
BATCH_SECONDS = {"cpu": 10.24}  # of audio in a batch; a CPU gains little from more
BATCH_SECONDS_ELSEWHERE = 491.52
AHEAD = 4  # pieces read while the batch before is at work


class RecordingResult(NamedTuple):
    """One recording."""

    transcript: Transcript
    num_steps: int  # of the decoder
    num_frames: int  # that the decoder went through: twice what two pieces hear, no digital silence
    num_labels: int  # likewise


def transcribe(
    recogniser: Recogniser,
    audio,
    *,
    batch_seconds: float | None = None,
    piece_seconds: float | None = None,
    decoder: str = "",
    keep_tags: bool = False,
    sample_rate: int | None = None,
    track: int | None = None,
    damaged: str = "error",
    failed: dict[int, str] | None = None,
) -> list[Transcript | None] | Transcript | None:
    """Transcribe one recording, or many: files, or arrays of samples.

    A recording is a path; an open binary file, or the bytes of one; an array [S] or [S, channels]
    of NumPy, PyTorch ([channels, S] too) or JAX; (rate, array) or (array, rate); or a dict with
    array and sampling_rate, bytes, or path, as `datasets` has it. Anything else that can be
    iterated over is many of them.

    Audio longer than a piece (half a minute, or what the model was trained on) is cut at its pauses
    into pieces that overlap by up to eight seconds; with local attention
    (`tdt_jax.with_attention_context`) up to two hours go through in one piece. Digital silence at
    both ends of a recording is not heard, nor more than two seconds of it inside. Batches have one
    of a few fixed shapes (`shapes`), so that few programs are compiled. A recogniser that was
    loaded onto several devices (`tdt_jax.runtime.sharding.replicated`) has all of them share every
    batch.

    Args:
      recogniser: from `tdt_jax.load`.
      audio: a recording, or an iterable of them.
      batch_seconds: audio in a batch, padding included, on each device; by default as suits it.
      piece_seconds: the longest piece; by default as suits the model.
      decoder: "transducer" or "ctc", for a model that has both; by default the transducer if any.
      keep_tags: what the model says beside words ("<|en|>", "<unk>") are words as well.
      sample_rate: of arrays that come without one, in Hz; by default the recogniser's.
      track: which of a file's audio tracks, from 1; by default the main one, which an AudioWarning
        names if there are others.
      damaged: "error", or "skip" for what can be had of damaged and truncated files, words at their
        places; an AudioWarning says how much is missing.
      failed: takes the position and the reason of what cannot be read; its transcript is None.

    Returns: the transcript of one recording, a list of those of many.
    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: for a decoder that the model has not.
    """
    is_one = is_single(audio)
    audio = [audio] if is_one else list(audio)
    found: list[Transcript | None] = [None] * len(audio)
    options = dict(
        batch_seconds=batch_seconds,
        piece_seconds=piece_seconds,
        decoder=decoder,
        keep_tags=keep_tags,
        sample_rate=sample_rate,
        track=track,
        damaged=damaged,
    )
    for position, heard in transcribe_each(recogniser, audio, **options):
        if isinstance(heard, RecordingResult):
            found[position] = heard.transcript
        elif failed is None:
            raise heard
        else:
            failed[position] = str(heard)
    return found[0] if is_one else found


def transcribe_each(
    recogniser: Recogniser,
    audio: Iterable,
    *,
    batch_seconds: float | None = None,
    piece_seconds: float | None = None,
    decoder: str = "",
    keep_tags: bool = False,
    sample_rate: int | None = None,
    track: int | None = None,
    damaged: str = "error",
    progress: Callable[[float], object] = lambda seconds: None,
    warn: Callable[[str], object] = warn,
) -> Iterator[tuple[int, RecordingResult | AudioError]]:
    """Yield (position, what was heard or why not), each as soon as it is known; see `transcribe`.

    Recordings are read in a thread, while the device is at work. `progress` is called with seconds
    of audio that are done, `warn` with what should be known of a recording, whose name it holds.
    """
    recogniser.check_decoder(decoder)
    reading = dict(array_rate=sample_rate, track=track, damaged=damaged)
    Request(track=track, damaged=damaged)  # an error comes early
    rate = recogniser.config.features.sample_rate
    table = _shapes(recogniser, batch_seconds, piece_seconds)
    rows = {seconds: [] for seconds in sorted({bucket.seconds for bucket in table})}
    for bucket in table:
        rows[bucket.seconds].append(bucket.batch_size)
    recordings: dict[int, _Recording] = {}
    waiting: dict[float, list[_Task]] = {seconds: [] for seconds in rows}
    running: deque[tuple[list[_Task], Hypothesis]] = deque()
    # A batch that fills slowly starts when this many pieces came after its first.
    patience, count, since = 4 * max(sizes[-1] for sizes in rows.values()), 0, {}

    def start(seconds: float) -> None:
        tasks, waiting[seconds] = waiting[seconds], []
        del since[seconds]
        utterances = [Utterance(str(i), task.piece.samples, "") for i, task in enumerate(tasks)]
        size = min(number for number in rows[seconds] if number >= len(tasks))
        batch = collate(utterances, None, Bucket(seconds, 1, size), sample_rate=rate)
        arrays = batch.samples, batch.num_samples
        running.append((tasks, decode_samples_on_mesh(recogniser.model, *arrays, decoder=decoder)))

    def finished(most_running: int) -> Iterator[tuple[int, RecordingResult]]:
        while len(running) > most_running:
            tasks, hypothesis = running.popleft()
            hypothesis = jax.device_get(hypothesis)
            for row, (position, number, piece) in enumerate(tasks):
                progress((piece.last - piece.first) / rate)
                if position in recordings:  # or it was broken further on
                    omitted = [(place / rate, size / rate) for place, size in piece.omitted]
                    times = piece.start / rate, piece.last / rate
                    part = _Part(*times, len(piece.samples), omitted, take(hypothesis, row))
                    recordings[position].heard[number] = part
                    yield from completed(position)

    def completed(position: int) -> Iterator[tuple[int, RecordingResult]]:
        recording = recordings[position]
        if recording.num_pieces == len(recording.heard):
            yield position, _put_together(recordings.pop(position), recogniser, keep_tags)

    for item in _ahead(_read(audio, table[-1].seconds, rate, reading)):
        recording = recordings.setdefault(item.position, _Recording())
        if isinstance(item, _End):
            for message in item.warnings:
                warn(message)
            recording.num_pieces = item.num_pieces
            if item.error is None:
                yield from completed(item.position)
            else:
                del recordings[item.position]
                yield item.position, item.error
        else:
            num_samples = len(item.piece.samples)
            seconds = next(s for s in rows if num_samples <= bucket_samples(Bucket(s, 1, 1), rate))
            waiting[seconds].append(item)
            count += 1
            since.setdefault(seconds, count)
            for each in [s for s in since if count - since[s] >= patience]:
                start(each)
            if len(waiting[seconds]) == rows[seconds][-1]:
                start(seconds)
        yield from finished(1)
    for seconds in rows:
        if waiting[seconds]:
            start(seconds)
            yield from finished(1)
    yield from finished(0)


def shapes(
    config: ModelConfig, batch_seconds: float | None = None, piece_seconds: float | None = None
) -> list[Bucket]:
    """The shapes that audio is padded to: for each length, one row, and a whole batch of them.

    Each is one compiled program of the encoder and the decoder, and there are no others. The
    longest is the longest piece; options as of `transcribe`.
    """
    if batch_seconds is None:
        batch_seconds = BATCH_SECONDS.get(jax.default_backend(), BATCH_SECONDS_ELSEWHERE)
    is_local = config.encoder.attention_context is not None
    if piece_seconds is None:
        piece_seconds = LONGEST if is_local else config.piece_seconds or PIECE_SECONDS
    if not (0 < batch_seconds < math.inf and 1 <= piece_seconds < math.inf):
        raise ValueError(
            "batch_seconds must be above 0 and piece_seconds at least 1, both finite, got "
            f"{batch_seconds} and {piece_seconds}"
        )
    lengths = [seconds for seconds in LENGTHS if seconds < piece_seconds] + [piece_seconds]
    return [
        Bucket(seconds, 1, rows)
        for seconds in lengths
        for rows in sorted({1, max(1, int(batch_seconds / seconds))})
    ]


def _shapes(recogniser: Recogniser, batch_seconds, piece_seconds) -> list[Bucket]:
    """`shapes`, of all devices that the recogniser lies on together."""
    number = devices_of(recogniser.model)
    return [
        replace(bucket, batch_size=number * bucket.batch_size)
        for bucket in shapes(recogniser.config, batch_seconds, piece_seconds)
    ]


def warm_up(
    recogniser: Recogniser,
    *,
    batch_seconds: float | None = None,
    piece_seconds: float | None = None,
    decoder: str = "",
) -> Iterator[Bucket]:
    """Compile what `transcribe` may need, and yield each shape when it is done.

    Shapes of more than half a minute, of local attention, are left to when they are needed.
    """
    recogniser.check_decoder(decoder)
    rate = recogniser.config.features.sample_rate
    for bucket in _shapes(recogniser, batch_seconds, piece_seconds):
        if bucket.seconds <= PIECE_SECONDS:
            batch = collate([], None, bucket, sample_rate=rate)
            arrays = batch.samples, batch.num_samples
            jax.block_until_ready(
                decode_samples_on_mesh(recogniser.model, *arrays, decoder=decoder)
            )
            yield bucket


class _Part(NamedTuple):
    """A piece that was heard; its samples are gone."""

    start: float  # seconds
    last: float  # seconds, the end of its core
    num_samples: int
    omitted: list[tuple[float, float]]  # as of a Piece, in seconds
    hypothesis: Hypothesis

    def later(self, seconds: float) -> float:
        """How much later than in the piece a moment of it is in the recording, in seconds."""
        return self.start + max((k for place, k in self.omitted if place <= seconds), default=0.0)


@dataclass
class _Recording:
    """What is known of one recording so far."""

    num_pieces: int | None = None  # unknown until it is read to its end
    heard: dict[int, _Part] = field(default_factory=dict)


class _Task(NamedTuple):
    position: int
    number: int
    piece: Piece


class _End(NamedTuple):
    position: int
    num_pieces: int | None
    error: AudioError | None
    warnings: list[str]


def _read(audio: Iterable, longest: float, rate: int, options: dict) -> Iterator[_Task | _End]:
    """Yield the pieces of every recording, and after its last piece its end."""
    overlap = _overlap(longest)
    sizes = dict(longest=round(longest * rate), overlap=round(overlap * rate), sample_rate=rate)
    for position, item in enumerate(audio):
        number, warnings = 0, []
        try:
            blocks = audio_blocks(item, rate, warn=warnings.append, **options)
            for piece in cutting.cut(blocks, **sizes):
                yield _Task(position, number, piece)
                number += 1
            yield _End(position, number, None, warnings)
        except AudioError as error:
            yield _End(position, None, error, warnings)
        except Exception as error:  # of somebody's object, or of a decoder
            why = f"a recording cannot be read ({type(error).__name__}: {error})"
            yield _End(position, None, AudioError(why), warnings)


def _overlap(longest: float) -> float:
    """Seconds that pieces of at most `longest` hear beyond a cut."""
    return min(OVERLAP, longest / 5)


def _ahead(items: Iterable) -> Iterator:
    """The same items, the next few of them made in a thread meanwhile."""
    iterator, end = iter(items), object()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, iterator, end) for _ in range(AHEAD))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, iterator, end))
                yield item
        finally:
            for each in pending:
                each.cancel()


def _put_together(
    recording: _Recording, recogniser: Recogniser, keep_tags: bool
) -> RecordingResult:
    """The transcript of a recording from what was heard of all its pieces."""
    parts = [recording.heard[number] for number in range(recording.num_pieces)]
    duration, hop = parts[-1].last, recogniser.config.features.hop_length
    words: list[list[TimedWord]] = []
    languages: list[str] = []
    for part in parts:
        room = duration - part.later(math.inf)
        found = timed_words(part.hypothesis, recogniser, room, keep_tags=keep_tags)
        words.append([shifted(word, part.later) for word in found])
        languages += recogniser.tokenizer.languages(part.hypothesis.labels)
    cuts = [part.last for part in parts[:-1]]
    rate = recogniser.config.features.sample_rate
    extents = [(part.start, part.num_samples / rate + part.later(math.inf)) for part in parts]
    joined = cutting.join(words, cuts, extents, recogniser.tokenizer.decode)
    return RecordingResult(
        build_transcript(joined, duration, commonest(languages)),
        sum(int(part.hypothesis.num_steps) for part in parts),
        sum(subsampled_length(part.num_samples // hop) for part in parts),
        sum(int(part.hypothesis.num_labels) for part in parts),
    )
