"""Builds transcripts: from the labels of a hypothesis to tokens, words and segments with times.

Times are in seconds from the start of the audio: a token starts at the frame of its emission and
lasts for its predicted duration, as in NeMo. Confidence comes from the decoder's own outputs:

    confidence  = ((V + 1) exp(-H) - 1) / V, from the entropy H of the token head's V + 1
                  probabilities: 1 where it is certain, 0 where all are equally probable
                  (Gibbs entropy, normalised exponentially; Laptev & Ginsburg, 2022,
                  arXiv 2212.08703)
    probability = that of the chosen token

A word has those of its least certain token, a segment those of its least certain word.

tdt_jax.tokenizer and tdt_jax.orthography define what a word is, and which labels are tags.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.recogniser import Recogniser

PAUSE = 1.0  # seconds of silence that end a segment
SENTENCE_ENDS = ".?!…。．？！｡।॥؟۔።។៕။‼⁇⁈⁉"
CLOSING = "\"'”’“‘»«›‹)]}）］｝」』】〉》〕〙〛"  # may follow the mark that ends a sentence
ABBREVIATION = re.compile(r"(Mrs?|Ms|Dr|Prof|St|[A-Z])\.")


@dataclass(frozen=True)
class Token:
    """A label of the tokenizer, as it was emitted."""

    text: str  # the piece
    start: float  # seconds
    end: float
    confidence: float
    probability: float


@dataclass(frozen=True)
class Word:
    """A word, its punctuation included."""

    text: str
    start: float  # seconds
    end: float
    confidence: float
    probability: float
    space_before: bool = True  # False: follows the word before without a space


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
    """The text of one recording, with times and confidence."""

    text: str
    tokens: list[Token]  # that spell the words
    words: list[Word]
    segments: list[Segment]
    duration: float  # seconds of audio
    language: str | None = None  # of the tags ("en", "pt-BR"); of several the commonest


@dataclass(frozen=True)
class TimedWord:
    """A word with its labels and tokens, or a part of one."""

    labels: tuple[int, ...]
    tokens: tuple[Token, ...]
    text: str
    begins: bool = True  # False: continues the part before
    is_part: bool = False  # of a word that was split
    space_before: bool = True  # as of Word

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


def to_transcript(
    hypothesis: Hypothesis, recogniser: Recogniser, duration: float, *, keep_tags: bool = False
) -> Transcript:
    """Returns the transcript of one utterance's hypothesis.

    Args:
      hypothesis: of numpy arrays without the batch dimension, cut to its labels.
      recogniser: which has decoded it.
      duration: seconds of the audio; no time is beyond.
      keep_tags: tags are words, of no length.
    """
    words = timed_words(hypothesis, recogniser, duration, keep_tags=keep_tags)
    languages = recogniser.tokenizer.languages(hypothesis.labels.tolist())
    return build_transcript(words, duration, commonest(languages))


def build_transcript(
    words: Sequence[TimedWord], duration: float, language: str | None = None
) -> Transcript:
    """Returns the transcript of words, in order, in a recording of `duration` seconds."""
    public = [to_word(word) for word in words]
    groups: list[list[Word]] = []
    for word in public:
        if not groups or _ends_segment(groups[-1][-1], word):
            groups.append([])
        groups[-1].append(word)
    segments = []
    for group in groups:
        end = max(word.end for word in group)
        segments.append(Segment(_joined(group), group[0].start, end, *_least(group), group))
    tokens = [token for word in words for token in word.tokens]
    return Transcript(_joined(public), tokens, public, segments, duration, language)


def timed_words(
    hypothesis: Hypothesis, recogniser: Recogniser, duration: float, *, keep_tags: bool = False
) -> list[TimedWord]:
    """Returns the words of one utterance's hypothesis; arguments as of `to_transcript`."""
    if not keep_tags:
        hypothesis = drop_tags(hypothesis, recogniser.tokenizer.tags)
    labels = hypothesis.labels.tolist()
    words = recogniser.tokenizer.words(labels, keep_tags=keep_tags)
    tokens = _tokens(hypothesis, recogniser, duration, [word.positions for word in words])
    return [
        TimedWord(
            tuple(labels[i] for i in word.positions),
            tuple(tokens[i] for i in word.positions),
            word.text,
            space_before=word.space_before,
        )
        for word in words
    ]


def to_word(word: TimedWord) -> Word:
    """Returns the word without its labels and tokens."""
    confidence, probability = _least(word.tokens)
    return Word(word.text, word.start, word.end, confidence, probability, word.space_before)


def shifted(word: TimedWord, offset: Callable[[float], float]) -> TimedWord:
    """Returns the word with its tokens later by `offset` of their starts, in seconds."""
    tokens = []
    for token in word.tokens:
        seconds = offset(token.start)
        tokens.append(replace(token, start=token.start + seconds, end=token.end + seconds))
    return replace(word, tokens=tuple(tokens))


def drop_tags(hypothesis: Hypothesis, tags: Collection[int]) -> Hypothesis:
    """Returns one utterance's hypothesis without the labels that are tags."""
    stay = [label not in tags for label in hypothesis.labels.tolist()]
    if all(stay):
        return hypothesis
    return Hypothesis(*(x[stay] if np.ndim(x) else x for x in hypothesis))


def commonest(languages: Iterable[str]) -> str | None:
    """Returns the most frequent language, the first of equally frequent ones; None without any."""
    return next((language for language, _ in Counter(languages).most_common(1)), None)


def is_blank(piece: str) -> bool:
    """Returns whether a piece is whitespace alone."""
    return not piece.replace("▁", "").strip()


def ends_sentence(text: str) -> bool:
    """Returns whether a sentence ends with a word; abbreviations such as "Mr." end none."""
    ends = text.rstrip(CLOSING).endswith(tuple(SENTENCE_ENDS))
    return ends and not ABBREVIATION.fullmatch(text)


def _joined(words: Sequence[Word]) -> str:
    return "".join(" " * word.space_before + word.text for word in words).lstrip()


def _tokens(
    hypothesis: Hypothesis, recogniser: Recogniser, duration: float, words: Sequence[Sequence[int]]
) -> list[Token]:
    """Returns the tokens: each from the frame of its emission, for the predicted duration.

    A label of duration 0 (all of an RNN-T's) lasts one frame, but not into the next label's.

    Labels that are not spoken (punctuation, tags, a lone "▁") have no length: they stand at the end
    of the token before; at the beginning of a word, where its first spoken label starts. Only a
    "▁" that its word follows at once keeps its time, and the word begins with it.

    Args:
      words: positions of the labels of each word.
    """
    frame, vocab_size = recogniser.config.seconds_per_frame, recogniser.config.vocab_size
    tags, all_pieces = recogniser.tokenizer.tags, recogniser.tokenizer.pieces
    labels = hypothesis.labels.tolist()
    pieces = [all_pieces[label] for label in labels]
    starts = hypothesis.times * frame
    ends = (hypothesis.times + np.maximum(hypothesis.durations, 1)) * frame
    later = np.append(starts[1:], np.inf)
    ends = np.where(hypothesis.durations == 0, np.minimum(ends, np.maximum(later, starts)), ends)
    last = None
    for positions in words:
        spoken = [i for i in positions if labels[i] not in tags and _is_spoken(pieces[i])]
        onset = spoken[0] if spoken else -1  # where the word begins
        if onset - 1 in positions and is_blank(pieces[onset - 1]):
            onset -= bool(ends[onset - 1] >= starts[onset])
        for i in positions:
            if i in spoken:
                last = i
            elif i < onset:
                starts[i] = ends[i] = starts[onset]
            elif i > onset and last is None:
                last = i
            elif i > onset:
                starts[i] = ends[i] = ends[last]
    starts, ends = np.minimum(starts, duration), np.minimum(ends, duration)
    certainty = np.exp(-hypothesis.entropies.astype(np.float64))
    confidences = np.clip(((vocab_size + 1) * certainty - 1) / vocab_size, 0.0, 1.0)
    probabilities = np.exp(np.minimum(hypothesis.scores.astype(np.float64), 0.0))
    numbers = zip(*(x.tolist() for x in (starts, ends, confidences, probabilities)), strict=True)
    return [Token(piece, *each) for piece, each in zip(pieces, numbers, strict=True)]


def _is_spoken(piece: str) -> bool:
    """Returns whether a piece is more than punctuation; an apostrophe that begins a word is."""
    text = piece.replace("▁", "").strip()
    return piece == "▁'" or any(unicodedata.category(character)[0] != "P" for character in text)


def _least(parts: Sequence[Token | Word]) -> tuple[float, float]:
    """Returns the least confidence and the least probability; NaN is less than any number."""

    def least(values: Iterable[float]) -> float:
        return min(values, key=lambda value: -math.inf if math.isnan(value) else value)

    return least([p.confidence for p in parts]), least([p.probability for p in parts])


def _ends_segment(word: Word, following: Word) -> bool:
    """Returns whether a segment ends between two words."""
    return ends_sentence(word.text) or following.start - word.end >= PAUSE
