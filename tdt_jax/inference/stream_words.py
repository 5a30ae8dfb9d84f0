"""The words of a stream, from the labels of one step after another: certain, or pending.

All engines of streams (`windowed.py`, `cached.py`) decode steps; what becomes of their labels is
decided here. An *utterance* is what the encoder sees as one: from the start of a stream, or from
`finish_turn`, to the next. A *turn* ends with an `EndOfUtterance`; several may follow one another
in an utterance.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.long_form import LONG_WORD
from tdt_jax.inference.transcript import (
    PAUSE,
    TimedWord,
    Word,
    commonest,
    drop_tags,
    timed_words,
    to_word,
)
from tdt_jax.recogniser import Recogniser


@dataclass(frozen=True)
class StreamedWord(Word):
    """A word, its times in seconds from the stream's start."""

    @property
    def begins(self) -> bool:
        """`space_before`; also False if it continues the word before."""
        return self.space_before


StreamEvent = StreamedWord | EndOfUtterance


class Decoded(NamedTuple):
    """What a step of a stream has decoded."""

    hypothesis: Hypothesis | None  # times in frames of the utterance; None: no frames, or silence
    num_frames: int  # decoded of the utterance
    num_samples: int  # received of the utterance


class StreamWords:
    """The words of a stream; attributes as of `LiveText`.

    Attributes:
      rule: by which a turn is over; may be set at any time.
    """

    def __init__(self, recogniser: Recogniser, *, keep_tags: bool, end_of_turn: EndOfTurn | None):
        self._recogniser, self._keep_tags, self.rule = recogniser, keep_tags, end_of_turn
        self._frame = recogniser.config.seconds_per_frame
        self._rate = recogniser.config.features.sample_rate
        self._longest = max(recogniser.config.durations or (1,))
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._before = 0  # samples before the utterance
        self._languages: Counter[str] = Counter()
        self._text: list[str] = []
        self._events: list[StreamEvent] = []  # to be emitted
        self.pending = ""
        self._start_utterance()

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def seconds(self) -> float:
        """Length of the audio decoded."""
        return self._before / self._rate + self._num_frames * self._frame

    @property
    def language(self) -> str | None:
        return commonest(self._languages)

    def add(self, decoded: Decoded) -> None:
        """Takes what a step has decoded."""
        hypothesis, self._num_frames, self._num_samples = decoded
        if hypothesis is not None:
            self._count_silence(hypothesis)
        if hypothesis is not None and len(hypothesis.labels):
            self._languages.update(self._recogniser.tokenizer.languages(hypothesis.labels.tolist()))
            for part, ends_turn in self._parts(hypothesis):
                self._tail.add(part)
                if ends_turn:
                    self._end_turn("token")
        self._settle(self._num_frames * self._frame)
        if self._is_over():
            self._end_turn("silence")

    def end_turn(self) -> None:
        """Ends the turn. All its words are certain; the utterance goes on."""
        self._end_turn("finish_turn")

    def end(self) -> None:
        """Ends the utterance. All its words are certain; the next begins where it ends."""
        self.end_turn()
        self._before += self._num_samples
        self._start_utterance()

    def take(self) -> list[StreamEvent]:
        """Returns what has become certain since the last call."""
        events, self._events = self._events, []
        return events

    def _start_utterance(self) -> None:
        self._num_frames = self._num_samples = 0
        self._tail = Tail(self._recogniser, self._keep_tags)
        self._silent_from = self._num_blanks = 0  # the frame after the last label; steps since
        self._start_turn()

    def _start_turn(self) -> None:
        self._turn: list[StreamedWord] = []  # certain
        self._last: TimedWord | None = None  # of the turn, certain or not

    def _parts(self, hypothesis: Hypothesis) -> Iterator[tuple[Hypothesis, bool]]:
        """Yields a hypothesis up to each label that ends a turn, and the rest."""
        labels, ends = hypothesis.labels.tolist(), self._recogniser.tokenizer.end_of_utterance
        first = 0
        for stop, label in enumerate(labels, 1):
            if self.rule is not None and label in ends:
                yield _cut(hypothesis, first, stop), True
                first = stop
        yield _cut(hypothesis, first, len(labels)), False

    def _count_silence(self, hypothesis: Hypothesis) -> None:
        if len(hypothesis.labels):
            self._num_blanks = 0
            self._silent_from = int(hypothesis.times[-1]) + max(int(hypothesis.durations[-1]), 1)
        self._num_blanks += int(hypothesis.num_steps) - len(hypothesis.labels)

    def _is_over(self) -> bool:
        if self.rule is None or self._last is None:
            return False
        silent = max(self._num_frames - self._silent_from, 0)
        tokens = self._last.tokens
        certainty = sum(token.confidence for token in tokens) / len(tokens)
        reach = min(silent / max(self._num_blanks, 1) / self._longest, 1.0)
        return self.rule.is_over(silent * self._frame, certainty, reach)

    def _end_turn(self, reason: str) -> None:
        self._settle(math.inf)
        if self.rule is not None and self._turn:
            text = "".join(" " * word.space_before + word.text for word in self._turn).lstrip()
            start, end = self._turn[0].start, max(word.end for word in self._turn)
            time = (self._before + self._num_samples) / self._rate
            self._events.append(EndOfUtterance(text, start, end, time, reason))
        self._start_turn()

    def _settle(self, decoded: float) -> None:
        """Takes the words that are certain when `decoded` seconds of the utterance are decoded."""
        certain, rest = self._tail.settle(decoded, self._num_samples / self._rate)
        for word in certain:
            self._emit(word)
        self.pending = "".join(self._spaced(each) for each in rest)
        if self.rule is not None and (words := [*certain, *rest]):
            self._last = words[-1] if self._turn or _is_spoken(words[-1].text) else None

    def _emit(self, timed: TimedWord) -> None:
        word, before = to_word(timed), self._before / self._rate
        word = replace(word, start=before + word.start, end=before + word.end)
        word = StreamedWord(**vars(word))
        self._events.append(word)
        self._text.append(self._spaced(timed))
        if self.rule is not None and (self._turn or _is_spoken(word.text)):
            self._turn.append(word)

    def _spaced(self, word: TimedWord) -> str:
        return " " + word.text if word.space_before and self._text else word.text


class LiveText:
    """What has been decoded of a stream.

    Attributes:
      text: all words emitted.
      pending: the words decoded but not certain yet; `text` + `pending` is everything decoded.
      seconds: length of the audio decoded.
      language: the one that tags have named most often; None without any.
      end_of_turn: the rule by which a turn is over, if any; may be set at any time.
    """

    _words: StreamWords

    @property
    def end_of_turn(self) -> EndOfTurn | None:
        return self._words.rule

    @end_of_turn.setter
    def end_of_turn(self, rule: EndOfTurn | None) -> None:
        self._words.rule = rule

    @property
    def text(self) -> str:
        return self._words.text

    @property
    def pending(self) -> str:
        return self._words.pending

    @property
    def seconds(self) -> float:
        return self._words.seconds

    @property
    def language(self) -> str | None:
        return self._words.language


def _cut(hypothesis: Hypothesis, first: int, stop: int) -> Hypothesis:
    """Returns the labels from `first` to `stop` of one utterance's hypothesis."""
    return Hypothesis(*(x[first:stop] if np.ndim(x) else x for x in hypothesis))


def _is_spoken(text: str) -> bool:
    """Returns whether a word is more than punctuation, which may follow the end of a turn."""
    return any(character.isalnum() for character in text)


class Tail:
    """The labels that are not certain yet, with times in frames of the stream."""

    def __init__(self, recogniser: Recogniser, keep_tags: bool = False):
        whole, real, zero = np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((), np.int32)
        self._hypothesis = Hypothesis(whole, zero, whole, whole, real, real, zero)
        self._before: list[int] = []  # the last dropped label that is not whitespace
        self._rest: list[TimedWord] = []  # as `settle` has returned it
        self._due = math.inf  # seconds decoded after which it is certain; minus: there are labels
        self._recogniser, self._keep_tags = recogniser, keep_tags

    def add(self, hypothesis: Hypothesis) -> None:
        """Takes one utterance's hypothesis of a chunk."""
        if not self._keep_tags:
            hypothesis = drop_tags(hypothesis, self._recogniser.tokenizer.tags)
        both = zip(self._hypothesis, hypothesis, strict=True)
        self._hypothesis = Hypothesis(
            *(np.append(*pair) if pair[1].ndim else pair[1] for pair in both)
        )
        self._due = -math.inf

    def settle(self, decoded: float, duration: float) -> tuple[list[TimedWord], list[TimedWord]]:
        """Drops the words that are certain when `decoded` seconds are decoded.

        Returns them, and those that are not certain: one or none.
        """
        certain: list[TimedWord] = []
        if decoded >= self._due:
            certain, self._rest = self._settle(decoded, duration)
            self._due = self._rest[0].end + PAUSE if self._rest else math.inf
        return certain, self._rest

    def _settle(self, decoded: float, duration: float) -> tuple[list[TimedWord], list[TimedWord]]:
        tokenizer, labels = self._recogniser.tokenizer, self._hypothesis.labels.tolist()
        options = dict(keep_tags=self._keep_tags)
        words = timed_words(self._hypothesis, self._recogniser, duration, **options)
        if not words:
            self._cut(max(0, len(labels) - 1))  # the last may be the space before a word
            return [], []
        places = [word.positions for word in tokenizer.words(labels, **options)]
        words[0] = replace(words[0], space_before=self._space_before(labels))
        *words, last = words
        if decoded - last.end >= PAUSE:
            self._drop(places[-1][-1] + 1)
            return [*words, last], []
        if last.end - last.start > LONG_WORD:
            head, tail = (
                tokenizer.decode(part, **options) for part in (last.labels[:-1], last.labels[-1:])
            )
            if head and tail and head + tail == last.text:
                self._drop(places[-1][-1])
                part = replace(last, labels=last.labels[:-1], tokens=last.tokens[:-1], text=head)
                rest = TimedWord(last.labels[-1:], last.tokens[-1:], tail, space_before=False)
                return [*words, part], [rest]
        if words:
            self._drop(places[-2][-1] + 1)
        return words, [last]

    def _space_before(self, labels: list[int]) -> bool:
        """Returns whether a space is before the first word of labels, after the dropped ones."""
        words = self._recogniser.tokenizer.words(self._before + labels, keep_tags=self._keep_tags)
        first = next(word for word in words if word.positions[-1] >= len(self._before))
        continues = first.positions[0] < len(self._before)
        return first.space_before and not continues

    def _drop(self, count: int) -> None:
        """Drops labels, but keeps whitespace at their end: it parts them from the next."""
        decode = self._recogniser.tokenizer.decode
        dropped = self._hypothesis.labels[:count].tolist()
        while dropped and not decode(dropped[-1:], keep_tags=True):
            dropped.pop()
        if dropped:
            self._before = dropped[-1:]
            self._cut(len(dropped))

    def _cut(self, count: int) -> None:
        self._hypothesis = Hypothesis(*(x[count:] if x.ndim else x for x in self._hypothesis))
