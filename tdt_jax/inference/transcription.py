"""Transcribes recordings of any length, files and arrays, in bounded memory.

audio  ->  samples  ->  windows  ->  hypotheses  ->  words  ->  transcripts
           audio/       long_form    scheduler,      transcript, long_form
                                     recognition
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from tdt_jax.advice.guide import LM_WEIGHT, Guide
from tdt_jax.advice.phrases import Phrase
from tdt_jax.audio.errors import AudioError, warn
from tdt_jax.audio.inputs import is_single
from tdt_jax.audio.reading import audio_blocks
from tdt_jax.audio.request import Request
from tdt_jax.config import ModelConfig
from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.inference import long_form
from tdt_jax.inference.advised import batch_advice, guide_for, with_prompt
from tdt_jax.inference.long_form import PIECE_SECONDS, Window
from tdt_jax.inference.recognition import decode_samples_on_mesh, devices_of
from tdt_jax.inference.scheduler import DecodedWindow, Shape, decode_recordings, pad_rows
from tdt_jax.inference.transcript import (
    TimedWord,
    Transcript,
    build_transcript,
    commonest,
    shifted,
    timed_words,
)
from tdt_jax.models.subsampling import subsampled_length
from tdt_jax.recogniser import Recogniser

# Lengths of the batches' rows in seconds, up to that of the longest window.
LENGTHS = (2.56, 5.12, 10.24, 20.48, *(PIECE_SECONDS * 2**k for k in range(8)))
LONGEST = PIECE_SECONDS * 2**8  # seconds of a window with local attention: about two hours
OVERLAP = 4.0  # seconds that a window reaches beyond its core on both sides, at most
BATCH_SECONDS = {"cpu": 10.24}  # of audio in a batch; a CPU gains little from more
BATCH_SECONDS_ELSEWHERE = 491.52


class RecordingResult(NamedTuple):
    """The transcript of one recording, and what it took."""

    transcript: Transcript
    num_steps: int  # of the decoder
    num_frames: int  # decoded: those of two windows count twice, digital silence is left out
    num_labels: int  # likewise


def transcribe(
    recogniser: Recogniser,
    audio: Any,
    *,
    batch_seconds: float | None = None,
    piece_seconds: float | None = None,
    decoder: str = "",
    boost: Iterable[Phrase] | Sequence[list[Phrase] | None] | None = None,
    allowed: str | Iterable[str] | None = None,
    language: str | Sequence[str] | None = None,
    lm: str | os.PathLike | None = None,
    lm_weight: float = LM_WEIGHT,
    keep_tags: bool = False,
    sample_rate: int | None = None,
    track: int | None = None,
    damaged: str = "error",
    failed: dict[int, str] | None = None,
) -> list[Transcript | None] | Transcript | None:
    """Transcribes one recording, or many: files, or arrays of samples.

    A recording is a path; an open binary file, or the bytes of one; an array [S] or [S, channels]
    of NumPy, PyTorch ([channels, S] too) or JAX; (rate, array) or (array, rate); or a dict with
    array and sampling_rate, bytes, or path, as `datasets` has it. Anything else that can be
    iterated over is many of them.

    Audio longer than a window (half a minute, or the length that the model was trained on) is cut
    at its pauses into windows that overlap by up to eight seconds; with local attention
    (`tdt_jax.with_attention_context`) a window holds up to two hours. Digital silence at both ends
    of a recording is left out, and all but two seconds of it inside. Batches have one of a few
    fixed shapes (`shapes`), so that few programs are compiled. The devices that a recogniser was
    loaded onto (`tdt_jax.runtime.sharding.replicated`) share every batch.

    Args:
      recogniser: from `tdt_jax.load`.
      audio: a recording, or an iterable of them.
      batch_seconds: length of the audio in a batch in seconds, padding included, for each device;
        by default as suits the device.
      piece_seconds: length of the longest window in seconds; by default as suits the model.
      decoder: "transducer" or "ctc", for a model that has both; by default the transducer if any.
      boost: phrases that are likely: texts, or tuples of a text and its weight (1 without;
        negative: unlikely). Case makes no difference. Or a list of them for each recording.
      allowed: phrases that alone are transcribed, any number one after another, such as "yes" and
        "no"; or "digits".
      language: code of the language spoken ("de"), or several. A model with a language prompt is
        given it; others emit no letters of other scripts.
      lm: path of an n-gram language model in an ARPA file over the model's labels (`tdt-jax lm`).
      lm_weight: what the logarithms of its probabilities are multiplied with.
      keep_tags: keep labels that are no speech ("<|en|>", "<unk>") as words.
      sample_rate: of arrays that come without one, in Hz; by default the recogniser's.
      track: which of a file's audio tracks, from 1; by default the main one, and an AudioWarning
        names it if there are others.
      damaged: "error", or "skip" to transcribe what can be read of damaged and truncated files,
        with every word at its time; an AudioWarning reports how much is missing.
      failed: takes the position of each recording that cannot be read, and the reason; its
        transcript is None.

    Returns: the transcript of one recording, a list of those of many.
    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: for a decoder that the model does not have, or advice that cannot be followed.
    """
    recogniser, language = with_prompt(recogniser, language)
    is_one = is_single(audio)
    recordings = [audio] if is_one else list(audio)
    transcripts: list[Transcript | None] = [None] * len(recordings)
    for position, result in transcribe_each(
        recogniser,
        recordings,
        batch_seconds=batch_seconds,
        piece_seconds=piece_seconds,
        decoder=decoder,
        guide_of=guides_of(
            recogniser,
            len(recordings),
            decoder=decoder,
            boost=boost,
            allowed=allowed,
            language=language,
            lm=lm,
            lm_weight=lm_weight,
        ),
        keep_tags=keep_tags,
        sample_rate=sample_rate,
        track=track,
        damaged=damaged,
    ):
        if isinstance(result, RecordingResult):
            transcripts[position] = result.transcript
        elif failed is None:
            raise result
        else:
            failed[position] = str(result)
    return transcripts[0] if is_one else transcripts


def transcribe_each(
    recogniser: Recogniser,
    audio: Iterable,
    *,
    batch_seconds: float | None = None,
    piece_seconds: float | None = None,
    decoder: str = "",
    guide_of: Callable[[int], Guide | None] = lambda position: None,
    keep_tags: bool = False,
    sample_rate: int | None = None,
    track: int | None = None,
    damaged: str = "error",
    progress: Callable[[float], object] = lambda seconds: None,
    warn: Callable[[str], object] = warn,
) -> Iterator[tuple[int, RecordingResult | AudioError]]:
    """Transcribes recordings, and yields the result of each as soon as it is known.

    Args:
      recogniser, batch_seconds, piece_seconds, decoder, keep_tags, sample_rate, track, damaged: as
        of `transcribe`.
      audio: the recordings, iterated over in a thread while the device is at work.
      guide_of: returns the advice for the recording at a position.
      progress: called with the seconds of audio that are transcribed.
      warn: called with each warning about a recording, which it names.

    Yields: (position, result or the reason why there is none).
    Raises: ValueError as `transcribe` does.
    """
    recogniser.check_decoder(decoder)
    Request(track=track, damaged=damaged)  # raises ValueError before anything is read
    rate = recogniser.config.features.sample_rate
    table = shapes_on_devices(recogniser, batch_seconds, piece_seconds)
    longest = max(shape.seconds for shape in table)
    warnings: dict[int, list[str]] = {}

    def windows() -> Iterator[Iterator[Window]]:
        for position, recording in enumerate(audio):
            blocks = audio_blocks(
                recording,
                rate,
                array_rate=sample_rate,
                track=track,
                damaged=damaged,
                warn=warnings.setdefault(position, []).append,
            )
            yield cut_windows(blocks, longest, rate)

    for position, decoded in decode_recordings(
        windows(),
        table,
        lambda samples, num_samples, positions: start_decoding(
            recogniser, decoder, samples, num_samples, list(map(guide_of, positions))
        ),
        sample_rate=rate,
        progress=progress,
    ):
        for message in warnings.pop(position):
            warn(message)
        if isinstance(decoded, Exception):
            yield position, _as_audio_error(decoded)
        else:
            yield position, build_result(decoded, recogniser, keep_tags)


def shapes(
    config: ModelConfig, batch_seconds: float | None = None, piece_seconds: float | None = None
) -> list[Shape]:
    """Returns the shapes of all batches: for each length, one row, and a whole batch of rows.

    Each is one compiled program of the encoder and one of the decoder. The longest is that of the
    longest window; options as of `transcribe`.
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
        Shape(seconds, rows)
        for seconds in lengths
        for rows in sorted({1, max(1, int(batch_seconds / seconds))})
    ]


def warm_up(
    recogniser: Recogniser,
    *,
    batch_seconds: float | None = None,
    piece_seconds: float | None = None,
    decoder: str = "",
    longest: float = PIECE_SECONDS,
) -> Iterator[Shape]:
    """Compiles what `transcribe` may need, and yields each shape when it is compiled.

    Shapes that only recordings of more than `longest` seconds need are left to when they are
    needed; with local attention there are shapes of more than half a minute.
    """
    recogniser.check_decoder(decoder)
    table = shapes_on_devices(recogniser, batch_seconds, piece_seconds)
    needed = min([each.seconds for each in table if each.seconds >= longest], default=math.inf)
    for shape in table:
        if shape.seconds <= needed:
            batch = pad_rows([], shape, recogniser.config.features.sample_rate)
            start_decoding(recogniser, decoder, *batch, [None])()
            yield shape


def shapes_on_devices(
    recogniser: Recogniser, batch_seconds: float | None, piece_seconds: float | None
) -> list[Shape]:
    """Returns `shapes` with the rows of all devices that the recogniser lies on."""
    number = devices_of(recogniser.model)
    return [
        replace(shape, rows=number * shape.rows)
        for shape in shapes(recogniser.config, batch_seconds, piece_seconds)
    ]


def cut_windows(blocks: Iterable[np.ndarray], longest: float, sample_rate: int) -> Iterator[Window]:
    """Cuts a recording into windows of at most `longest` seconds."""
    return long_form.cut(
        blocks,
        longest=round(longest * sample_rate),
        overlap=round(min(OVERLAP, longest / 5) * sample_rate),
        sample_rate=sample_rate,
    )


def start_decoding(
    recogniser: Recogniser,
    decoder: str,
    samples: np.ndarray,
    num_samples: np.ndarray,
    guides: Sequence[Guide | None],
) -> Callable[[], Hypothesis]:
    """Starts to decode a batch, and returns what waits for it (`scheduler.StartDecoding`).

    `guides` are of its first rows; rows beyond have the last one's.
    """
    guides = [*guides, *[guides[-1]] * (len(samples) - len(guides))]
    hypothesis = decode_samples_on_mesh(
        recogniser.model,
        samples,
        num_samples,
        decoder=decoder,
        advice=batch_advice(guides, recogniser.config.vocab_size),
    )
    return lambda: jax.device_get(hypothesis)


def guides_of(
    recogniser: Recogniser,
    num_recordings: int,
    *,
    decoder: str = "",
    boost: Iterable[Phrase] | Sequence[list[Phrase] | None] | None = None,
    **options: Any,
) -> Callable[[int], Guide | None]:
    """Returns the function from positions of recordings to their advice.

    Options are those of `transcribe`; a language is that of models without a prompt.

    Raises: ValueError as `transcribe` does.
    """
    lists: list[Any] = [boost]
    if boost is not None and not isinstance(boost, str):
        phrases = list(boost)
        is_own = bool(phrases) and all(each is None or isinstance(each, list) for each in phrases)
        lists = phrases if is_own else [phrases]
        if is_own and len(lists) != num_recordings:
            raise ValueError(
                f"boost has lists for {len(lists)} recordings, and there are {num_recordings}"
            )
    guides = [guide_for(recogniser, decoder, boost=each, **options) for each in lists]
    return lambda position: guides[position if len(guides) > 1 else 0]


def _as_audio_error(error: Exception) -> AudioError:
    if isinstance(error, AudioError):
        return error
    # of an object that is not ours, or of a library that decodes
    return AudioError(f"a recording cannot be read ({type(error).__name__}: {error})")


def build_result(
    windows: Sequence[DecodedWindow], recogniser: Recogniser, keep_tags: bool
) -> RecordingResult:
    """Returns the transcript of a recording, put together from its windows in order."""
    duration, features = windows[-1].last, recogniser.config.features
    causal = recogniser.config.encoder.causal_subsampling
    words: list[list[TimedWord]] = []
    extents: list[tuple[float, float]] = []
    languages: list[str] = []
    for window in windows:
        longest_offset = window.offset(math.inf)
        hypothesis, room = window.hypothesis, duration - longest_offset
        in_window = timed_words(hypothesis, recogniser, room, keep_tags=keep_tags)
        words.append([shifted(word, window.offset) for word in in_window])
        end = window.num_samples / features.sample_rate + longest_offset
        extents.append((window.start, end))
        languages += recogniser.tokenizer.languages(hypothesis.labels.tolist())
    cuts = [window.last for window in windows[:-1]]
    joined = long_form.join(words, cuts, extents, recogniser.tokenizer.decode)
    return RecordingResult(
        build_transcript(joined, duration, commonest(languages)),
        sum(int(window.hypothesis.num_steps) for window in windows),
        sum(
            subsampled_length(window.num_samples // features.hop_length, causal=causal)
            for window in windows
        ),
        sum(int(window.hypothesis.num_labels) for window in windows),
    )
