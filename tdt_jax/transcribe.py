"""Audio to transcripts: batches of fixed shapes, long audio in pieces, times and confidence."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from tdt_jax.audio import AudioError, as_samples
from tdt_jax.config import Bucket, ModelConfig
from tdt_jax.data.batches import Utterance, collate
from tdt_jax.data.buckets import fit
from tdt_jax.decode import Hypothesis
from tdt_jax.evaluation import take
from tdt_jax.recogniser import Recogniser
from tdt_jax.training import eval_step

LENGTHS = (2.56, 5.12, 10.24, 20.48, 30.72)  # seconds of the batches' shapes
PAUSE = 1.0  # seconds of silence that end a segment


@dataclass(frozen=True)
class Token:
    text: str  # the piece
    start: float  # seconds
    end: float
    confidence: float  # probability under the token head


@dataclass(frozen=True)
class Word:
    text: str
    start: float  # seconds
    end: float
    confidence: float  # of its least certain token


@dataclass(frozen=True)
class Segment:
    text: str
    start: float  # seconds
    end: float


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording, and when."""

    text: str
    tokens: list[Token]
    words: list[Word]
    segments: list[Segment]
    duration: float  # seconds of audio


def transcribe(
    recogniser: Recogniser,
    audio: Sequence[str | Path | np.ndarray],
    *,
    batch_size: int = 8,
    decoder: str = "",
    failed: dict[int, str] | None = None,
) -> list[Transcript | None]:
    """Transcribe files, or arrays of samples at the recogniser's sample rate.

    Audio longer than 30 s is cut at its quietest places; with local attention
    (`tdt_jax.with_attention_context`) audio of up to two hours goes through in one piece. Batches
    have one of a few fixed shapes, so that few programs are compiled.

    Args:
      recogniser: from `tdt_jax.load`.
      audio: paths, or arrays [S] or [S, channels].
      batch_size: pieces at a time.
      decoder: "transducer" or "ctc", for a model that has both; by default the transducer if any.
      failed: takes the position and the reason of what cannot be read; its transcript is None.

    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: for a decoder that the model has not.
    """
    recogniser.check_decoder(decoder)
    rate = recogniser.config.features.sample_rate
    longest = round(shape_lengths(recogniser.config)[-1] * rate)
    durations: list[float | None] = []
    pieces: list[tuple[int, float, np.ndarray]] = []  # (position, offset in seconds, samples)
    for position, item in enumerate(audio):
        try:
            samples = as_samples(item, rate)
        except AudioError as error:
            if failed is None:
                raise
            failed[position] = str(error)
            durations.append(None)
            continue
        durations.append(len(samples) / rate)
        cuts = [0, *cut_points(samples, longest, rate), len(samples)]
        pieces += [
            (position, start / rate, samples[start:stop])
            for start, stop in itertools.pairwise(cuts)
        ]
    samples = [piece for _, _, piece in pieces]
    hypotheses = _decode(recogniser, samples, batch_size, decoder)
    tokens: list[list[tuple[int, Token]]] = [[] for _ in audio]
    for (position, offset, piece), hypothesis in zip(pieces, hypotheses, strict=True):
        timed = _timed(hypothesis, recogniser, len(piece) / rate)
        tokens[position] += [(label, _moved(token, offset)) for label, token in timed]
    return [
        None if duration is None else _assemble(labelled, recogniser, duration)
        for duration, labelled in zip(durations, tokens, strict=True)
    ]


def to_transcript(hypothesis: Hypothesis, recogniser: Recogniser, duration: float) -> Transcript:
    """The transcript of one utterance's hypothesis (without the batch dimension)."""
    return _assemble(_timed(hypothesis, recogniser, duration), recogniser, duration)


def cut_points(samples: np.ndarray, longest: int, sample_rate: int) -> list[int]:
    """Where to cut samples [S] so that no piece has more than `longest` of them.

    Each cut is at the quietest 0.2 s of the last third of its piece.
    """
    window = sample_rate // 5
    cuts, start = [], 0
    while len(samples) - start > longest:
        first = start + 2 * longest // 3
        power = np.concatenate(
            [[0.0], np.cumsum(np.square(samples[first : start + longest], dtype=np.float64))]
        )
        quietest = int(np.argmin(power[window:] - power[:-window]))
        start = first + quietest + window // 2
        cuts.append(start)
    return cuts


def shape_lengths(config: ModelConfig) -> tuple[float, ...]:
    """The lengths in seconds of the shapes that audio is padded to; the last is the longest piece.

    With full attention half a minute, with local attention two hours.
    """
    if config.encoder.attention_context is None:
        return LENGTHS
    return (*LENGTHS, *(LENGTHS[-1] * 2**k for k in range(1, 9)))


def _decode(
    recogniser: Recogniser, pieces: list[np.ndarray], batch_size: int, decoder: str
) -> list[Hypothesis]:
    """The hypothesis of every piece, in order; batches are taken from pieces of like length."""
    rate, lengths = recogniser.config.features.sample_rate, shape_lengths(recogniser.config)
    shapes = [Bucket(seconds, 1, 1) for seconds in lengths]
    by_shape: dict[int, list[int]] = {}
    for index, piece in enumerate(pieces):
        by_shape.setdefault(fit(len(piece) / rate, 0, shapes, sample_rate=rate), []).append(index)
    found: list[Hypothesis | None] = [None] * len(pieces)
    for shape, indices in by_shape.items():
        # Of what is longer than the longest common shape, fewer at a time.
        size = max(1, min(batch_size, int(batch_size * LENGTHS[-1] / lengths[shape])))
        for start in range(0, len(indices), size):
            members = indices[start : start + size]
            rows = min(size, 1 << (len(members) - 1).bit_length())  # 1, 2, 4, ...
            utterances = [Utterance(str(index), pieces[index], "") for index in members]
            bucket = Bucket(lengths[shape], 1, rows)
            batch = collate(utterances, None, bucket, sample_rate=rate)
            arrays = jax.device_put((batch.samples, batch.num_samples))
            hypothesis = jax.device_get(eval_step(recogniser.model, *arrays, decoder=decoder))
            for row, index in enumerate(members):
                found[index] = take(hypothesis, row)
    return found


def _timed(
    hypothesis: Hypothesis, recogniser: Recogniser, duration: float
) -> list[tuple[int, Token]]:
    """Labels with their tokens: from the frame of emission, for the predicted duration.

    A label of duration 0 (all of an RNN-T's) lasts one frame, but not into the next label's; a
    piece of punctuation has no length and stands at the end of the token before it.
    """
    frame = recogniser.config.seconds_per_frame
    pieces = recogniser.tokenizer.pieces
    starts = hypothesis.times * frame
    ends = (hypothesis.times + np.maximum(hypothesis.durations, 1)) * frame
    later = np.append(starts[1:], np.inf)
    ends = np.where(hypothesis.durations == 0, np.minimum(ends, np.maximum(later, starts)), ends)
    timed: list[tuple[int, Token]] = []
    for label, start, end, score in zip(
        hypothesis.labels.tolist(), starts.tolist(), ends.tolist(), hypothesis.scores, strict=True
    ):
        if timed and _is_punctuation(pieces[label]):
            start = end = timed[-1][1].end
        start, end = min(start, duration), min(end, duration)
        timed.append((label, Token(pieces[label], start, end, float(np.exp(score)))))
    return timed


def _is_punctuation(piece: str) -> bool:
    text = piece.replace("▁", "").strip()
    return bool(text) and text != "'" and not any(character.isalnum() for character in text)


def _moved(token: Token, offset: float) -> Token:
    return Token(token.text, token.start + offset, token.end + offset, token.confidence)


def _assemble(
    labelled: list[tuple[int, Token]], recogniser: Recogniser, duration: float
) -> Transcript:
    labels, tokens = [label for label, _ in labelled], [token for _, token in labelled]
    words = [
        Word(
            text,
            start=tokens[positions[0]].start,
            end=max(tokens[i].end for i in positions),
            confidence=min(tokens[i].confidence for i in positions),
        )
        for text, positions in recogniser.tokenizer.words(labels)
    ]
    groups: list[list[Word]] = []
    for word in words:
        if not groups or word.start - groups[-1][-1].end >= PAUSE:
            groups.append([])
        groups[-1].append(word)
    segments = [
        Segment(" ".join(word.text for word in group), group[0].start, group[-1].end)
        for group in groups
    ]
    return Transcript(recogniser.tokenizer.decode(labels), tokens, words, segments, duration)
