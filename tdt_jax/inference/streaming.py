"""Transcribes audio while it comes: the encoder sees a window, the decoder continues.

    |------ left ------|-- chunk --|-- right --|               the window is encoded,
                |------ left ------|-- chunk --|-- right --|   the chunk's frames are decoded

An encoder with full attention needs the audio after a frame as well as before it, so a chunk waits
for `right` more seconds. The decoder's state is carried from chunk to chunk: its output is that of
all frames decoded at once.

A window starts at a whole frame `first`, that is 8 feature frames: its feature m is feature
8 first + m of the stream, and its frame t, subsampled from its features 8t - 7 to 8t + 7, is frame
first + t of the stream.

A window is shortened to the sound that its chunk is part of: digital silence at both ends is left
out, and so are sounds beyond more than `long_form.SILENCE` seconds of silence. A chunk without any
sound is not decoded.
"""

import functools
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.silence import stretches
from tdt_jax.decoding.greedy import decode_chunk, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis, take
from tdt_jax.inference.long_form import LONG_WORD, PIECE_SECONDS, SILENCE
from tdt_jax.inference.transcript import (
    PAUSE,
    TimedWord,
    Word,
    commonest,
    drop_tags,
    timed_words,
    to_word,
)
from tdt_jax.models.encoder import subsampled_length
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import Transducer, encode
from tdt_jax.recogniser import Recogniser


@dataclass(frozen=True)
class StreamedWord(Word):
    """A word, its times in seconds from the stream's start."""

    @property
    def begins(self) -> bool:
        """`space_before`; also False if it continues the word before."""
        return self.space_before


_start = jax.jit(start_decoding, static_argnames="batch_size")


@functools.partial(jax.jit, static_argnames="size")
def _decode_window(
    model: Transducer,
    samples: jax.Array,
    num_samples: jax.Array,
    first: jax.Array,
    count: jax.Array,
    state: DecoderState,
    *,
    size: int,
) -> tuple[Hypothesis, DecoderState]:
    """Encodes a window of samples [1, S] and decodes its frames [first, first + count).

    `count` is `size` at most, and may be more than the window has.

    Returns the Hypothesis, its times counted from `first`, and the decoder's state after `count`
    frames.
    """
    frames, num_frames = encode(model, *log_mel(samples, num_samples, model.config.features))
    chunk = jax.lax.dynamic_slice_in_dim(frames, first, size, axis=1)
    num_here = (num_frames - first).clip(0, count)
    hypothesis, state = decode_chunk(
        model, chunk, num_here, state, max_symbols=model.config.max_symbols
    )
    return hypothesis, _after_silence(state, count - num_here)


def _after_silence(state: DecoderState, count: jax.Array | int) -> DecoderState:
    """Returns the state after `count` frames [] or [B] of silence."""
    return state._replace(skip=jnp.maximum(state.skip - count, 0))


class Stream:
    """Transcribes a stream of samples word by word.

        stream = Stream(recogniser)
        for samples in blocks:
            for word in stream.push(samples):
                ...
        for word in stream.finish():
            ...

    A word is emitted when it is certain: the next has begun, a second of silence follows, or the
    stream ends. A word of more than two seconds, such as a telephone number, is emitted in parts.
    The sizes of the blocks make no difference. Memory is bounded, but for the text.

    Attributes:
      text: all words emitted.
      pending: the words decoded but not certain yet; `text` + `pending` is everything decoded.
      seconds: length of the audio decoded.
      language: the one that tags have named most often; None without any.
      latency: seconds from a sound to its decoding, without computation: chunk + right.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        chunk: float = 1.6,
        left: float | None = None,
        right: float = 1.6,
        keep_tags: bool = False,
    ):
        """Starts a stream. `chunk`, `left` and `right` are rounded to whole frames.

        Args:
          recogniser: with a transducer.
          chunk: seconds that are decoded at a time.
          left: seconds that the encoder sees before a chunk; None: 8, or less for a model trained
            on shorter audio than left + chunk + right.
          right: seconds that it sees after a chunk.
          keep_tags: as of `tdt_jax.transcribe`.

        Raises: ValueError for a CTC model, a chunk of less than a frame, or a negative length.
        """
        config = recogniser.config
        if config.predictor is None:
            raise ValueError("streaming needs a transducer, and this is a CTC model")
        frame = config.seconds_per_frame
        if left is None:
            left = min(8.0, max(0.0, (config.piece_seconds or PIECE_SECONDS) - chunk - right))
        if not (frame <= chunk < math.inf and 0 <= left < math.inf and 0 <= right < math.inf):
            raise ValueError(
                f"chunk must be at least a frame ({frame:g} s), left and right at least 0, got "
                f"chunk {chunk}, left {left} and right {right}"
            )
        self._recogniser = recogniser
        self._chunk, self._left, self._right = (round(x / frame) for x in (chunk, left, right))
        self.latency = (self._chunk + self._right) * frame
        self._hop = config.features.hop_length
        self._silence = round(SILENCE * config.features.sample_rate)
        num_frames = self._left + self._chunk + self._right
        self._window = np.zeros((1, num_frames * 8 * self._hop), np.float32)
        self._filled = 0  # samples of the window
        self._first = 0  # frame that the window starts at
        self._decoded = 0  # frames
        self._num_samples = 0
        self._ended = False
        self._state = _start(recogniser.model, batch_size=1)
        self._tail = _Tail(recogniser, keep_tags)
        self._languages: Counter[str] = Counter()
        self._words: list[StreamedWord] = []  # certain, to be emitted
        self._text: list[str] = []
        self.pending = ""

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def seconds(self) -> float:
        return self._decoded * self._recogniser.config.seconds_per_frame

    @property
    def language(self) -> str | None:
        return commonest(self._languages)

    def warm_up(self) -> None:
        """Compiles the program that `push` runs."""
        jax.block_until_ready(self._step(self._window[0, :0], 0, 0, self._state))

    def push(self, samples: Any) -> list[StreamedWord]:
        """Takes samples [S] of any length and of the types that `transcribe` takes.

        Returns: the words that have become certain.
        Raises:
          AudioError: if the samples cannot be used.
          ValueError: after `finish`.
        """
        if self._ended:
            raise ValueError("samples were pushed after finish()")
        if len(samples):
            samples = as_samples(samples, self._recogniser.config.features.sample_rate)
        while len(samples):
            wanted = (self._decoded - self._first + self._chunk + self._right) * 8 * self._hop
            part, samples = np.split(samples, [wanted - self._filled])
            self._window[0, self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            self._num_samples += len(part)
            if self._filled == wanted:
                self._decode(self._chunk)
        return self._emitted()

    def finish(self) -> list[StreamedWord]:
        """Ends the stream and decodes the rest of it. Returns the words not emitted yet."""
        self._ended = True
        end = self._first + subsampled_length(self._filled // self._hop)
        while self._decoded < end:
            self._decode(min(self._chunk, end - self._decoded))
        self._settle(math.inf)
        return self._emitted()

    def _step(
        self, sound: np.ndarray, first: int, count: int, state: DecoderState
    ) -> tuple[Hypothesis, DecoderState]:
        """Decodes `count` frames of samples [S] from frame `first` on."""
        samples = np.zeros_like(self._window)
        samples[0, : len(sound)] = sound
        arrays = samples, np.full(1, len(sound), np.int32), np.int32(first), np.int32(count)
        return _decode_window(self._recogniser.model, *arrays, state, size=self._chunk)

    def _decode_next(self, num_frames: int) -> tuple[Hypothesis | None, DecoderState]:
        """Decodes the next frames. Returns None if they are silent, and the state after them."""
        frame, begin = 8 * self._hop, self._decoded - self._first  # from here on in the window
        end = begin + num_frames
        window = self._window[0, : self._filled]
        rate = self._recogniser.config.features.sample_rate
        sounds = [
            (start // frame, stop)
            for start, stop in stretches(window, longest=self._silence, sample_rate=rate)
            if start < end * frame and stop > begin * frame
        ]
        if not sounds:
            return None, _after_silence(self._state, num_frames)
        first, stop = sounds[0][0], sounds[-1][1]
        begin, silent = max(first, begin), max(first - begin, 0)
        state = _after_silence(self._state, silent)
        hypothesis, state = self._step(
            window[first * frame : stop], begin - first, end - begin, state
        )
        hypothesis = take(jax.device_get(hypothesis), 0)
        return hypothesis._replace(times=hypothesis.times + self._first + begin), state

    def _decode(self, num_frames: int) -> None:
        """Decodes the next frames, and moves the window on."""
        hypothesis, state = self._decode_next(num_frames)
        decoded = self._decoded + num_frames
        leaving = max(0, decoded - self._left - self._first)
        kept = self._window[0, leaving * 8 * self._hop : self._filled].copy()
        # All at once, lest a chunk be decoded twice after an interrupt.
        self._state, self._decoded = state, decoded
        self._filled, self._first = len(kept), self._first + leaving
        self._window[0, : len(kept)] = kept
        if hypothesis is not None:
            self._languages.update(self._recogniser.tokenizer.languages(hypothesis.labels.tolist()))
            self._tail.add(hypothesis)
        self._settle(self.seconds)

    def _settle(self, decoded: float) -> None:
        """Takes the words that are certain when `decoded` seconds are decoded."""
        duration = self._num_samples / self._recogniser.config.features.sample_rate
        certain, rest = self._tail.settle(decoded, duration)
        for word in certain:
            self._words.append(StreamedWord(**vars(to_word(word))))
            self._text.append(self._spaced(word))
        self.pending = "".join(self._spaced(each) for each in rest)

    def _spaced(self, word: TimedWord) -> str:
        return " " + word.text if word.space_before and self._text else word.text

    def _emitted(self) -> list[StreamedWord]:
        words, self._words = self._words, []
        return words


class _Tail:
    """The labels that are not certain yet, with times in frames of the stream."""

    def __init__(self, recogniser: Recogniser, keep_tags: bool = False):
        whole, real, zero = np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((), np.int32)
        self._hypothesis = Hypothesis(whole, zero, whole, whole, real, real, zero)
        self._before: list[int] = []  # the last dropped label that is not whitespace
        self._recogniser, self._keep_tags = recogniser, keep_tags

    def add(self, hypothesis: Hypothesis) -> None:
        """Takes one utterance's hypothesis of a chunk."""
        if not self._keep_tags:
            hypothesis = drop_tags(hypothesis, self._recogniser.tokenizer.tags)
        both = zip(self._hypothesis, hypothesis, strict=True)
        self._hypothesis = Hypothesis(
            *(np.append(*pair) if pair[1].ndim else pair[1] for pair in both)
        )

    def settle(self, decoded: float, duration: float) -> tuple[list[TimedWord], list[TimedWord]]:
        """Drops the words that are certain when `decoded` seconds are decoded.

        Returns them, and those that are not certain: one or none.
        """
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
        head, tail = (
            tokenizer.decode(part, **options) for part in (last.labels[:-1], last.labels[-1:])
        )
        if last.end - last.start > LONG_WORD and head and tail and head + tail == last.text:
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
