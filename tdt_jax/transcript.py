"""What was said and when: from the labels of a hypothesis to tokens, words and segments.

Times are in seconds from the start of the audio: a token starts at the frame of its emission and
lasts for its predicted duration, as in NeMo. Confidence comes from the decoder's own outputs:

    confidence  = ((V + 1) exp(-H) - 1) / V, from the entropy H of the token head's V + 1
                  probabilities: 1 where it is certain, 0 where all are equally probable
                  (Gibbs entropy, normalised exponentially; Laptev & Ginsburg, 2022,
                  arXiv 2212.08703)
    probability = that of the token that was chosen

A word has those of its least certain token, a segment those of its least certain word.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tdt_jax.decode import Hypothesis

PAUSE = 1.0  # seconds of silence that end a segment
SENTENCE_ENDS = ".?!…。？！।؟"  # noqa: RUF001
CLOSING = "\"'”’»)]"  # noqa: RUF001, may stand behind a sentence's end
ABBREVIATION = re.compile(r"(Mrs?|Ms|Dr|Prof|St|[A-Z])\.")


@dataclass(frozen=True)
class Token:
    text: str  # the piece
    start: float  # seconds
    end: float
    confidence: float
    probability: float


@dataclass(frozen=True)
class Word:
    text: str
    start: float  # seconds
    end: float
    confidence: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """Words up to the end of a sentence, or up to a pause."""

    text: str
    start: float  # seconds
    end: float
    confidence: float
    probability: float
    words: list[Word]


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording, and when."""

    text: str
    tokens: list[Token]  # that spell the words
    words: list[Word]
    segments: list[Segment]
    duration: float  # seconds of audio


@dataclass(frozen=True)
class Spoken:
    """A word with what it is made of, or a part of one."""

    labels: tuple[int, ...]
    tokens: tuple[Token, ...]
    text: str
    begins: bool = True  # False: goes on with the word before
    is_part: bool = False  # of a word that was split

    @property
    def start(self) -> float:
        return self.tokens[0].start

    @property
    def end(self) -> float:
        return max(token.end for token in self.tokens)

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2

    @property
    def confidence(self) -> float:
        return min(token.confidence for token in self.tokens)


def to_transcript(hypothesis: Hypothesis, recogniser, duration: float) -> Transcript:
    """The transcript of one utterance's hypothesis.

    Args:
      hypothesis: of numpy arrays without the batch dimension, cut to its labels.
      recogniser: a `tdt_jax.Recogniser`.
      duration: seconds of the audio; no time is beyond.
    """
    return assemble(spoken(hypothesis, recogniser, duration), duration)


def spoken(hypothesis: Hypothesis, recogniser, duration: float) -> list[Spoken]:
    """The words of one utterance's hypothesis; arguments as of `to_transcript`."""
    tokens = _tokens(hypothesis, recogniser, duration)
    labels = hypothesis.labels.tolist()
    return [
        Spoken(tuple(labels[i] for i in positions), tuple(tokens[i] for i in positions), text)
        for text, positions in recogniser.tokenizer.words(labels)
    ]


def assemble(words: Sequence[Spoken], duration: float) -> Transcript:
    """The transcript of words, in order, in a recording of `duration` seconds."""
    found = [Word(word.text, word.start, word.end, *_least(word.tokens)) for word in words]
    groups: list[list[Word]] = []
    for word in found:
        if not groups or _ends_segment(groups[-1][-1], word):
            groups.append([])
        groups[-1].append(word)
    segments = [
        Segment(
            " ".join(word.text for word in group),
            group[0].start,
            max(word.end for word in group),
            *_least(group),
            group,
        )
        for group in groups
    ]
    tokens = [token for word in words for token in word.tokens]
    return Transcript(" ".join(word.text for word in found), tokens, found, segments, duration)


def moved(word: Spoken, seconds: float) -> Spoken:
    """The same word, so much later."""
    tokens = [
        replace(token, start=token.start + seconds, end=token.end + seconds)
        for token in word.tokens
    ]
    return replace(word, tokens=tuple(tokens))


def _tokens(hypothesis: Hypothesis, recogniser, duration: float) -> list[Token]:
    """From the frame of emission, for the predicted duration.

    A label of duration 0 (all of an RNN-T's) lasts one frame, but not into the next label's.
    Punctuation has no length and stands at the end of the token before it.
    """
    frame, vocab_size = recogniser.config.seconds_per_frame, recogniser.config.vocab_size
    starts = hypothesis.times * frame
    ends = (hypothesis.times + np.maximum(hypothesis.durations, 1)) * frame
    later = np.append(starts[1:], np.inf)
    ends = np.where(hypothesis.durations == 0, np.minimum(ends, np.maximum(later, starts)), ends)
    certainty = np.exp(-hypothesis.entropies.astype(np.float64))
    confidences = np.clip(((vocab_size + 1) * certainty - 1) / vocab_size, 0.0, 1.0)
    probabilities = np.exp(np.minimum(hypothesis.scores.astype(np.float64), 0.0))
    pieces, found = recogniser.tokenizer.pieces, []
    for i, label in enumerate(hypothesis.labels.tolist()):
        start, end = float(starts[i]), float(ends[i])
        if found and _is_punctuation(pieces[label]):
            start = end = found[-1].end
        start, end = min(start, duration), min(end, duration)
        certain = float(confidences[i]), float(probabilities[i])
        found.append(Token(pieces[label], start, end, *certain))
    return found


def _is_punctuation(piece: str) -> bool:
    """Whether a piece is punctuation alone; an apostrophe that begins a word is said with it."""
    text = piece.replace("▁", "").strip()
    return bool(text) and piece != "▁'" and not any(character.isalnum() for character in text)


def _least(parts: Sequence[Token | Word]) -> tuple[float, float]:
    """The least confidence and the least probability; one that is not a number shows."""

    def least(values):
        return min(values, key=lambda value: -math.inf if math.isnan(value) else value)

    return least([p.confidence for p in parts]), least([p.probability for p in parts])


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends with a word; abbreviations such as "Mr." end none."""
    ends = text.rstrip(CLOSING).endswith(tuple(SENTENCE_ENDS))
    return ends and not ABBREVIATION.fullmatch(text)


def _ends_segment(word: Word, following: Word) -> bool:
    """Whether a segment ends between two words."""
    return ends_sentence(word.text) or following.start - word.end >= PAUSE
