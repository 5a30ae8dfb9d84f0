"""Recognition while it is being said: the encoder hears a window, the decoder goes on.

    |------ left ------|-- chunk --|-- right --|               the encoder hears the whole window,
                |------ left ------|-- chunk --|-- right --|   the decoder takes the chunk alone

An encoder with full attention needs what comes after a frame as well as what came before, so a
chunk waits for `right` seconds more. The decoder's state is carried from chunk to chunk: it makes
of the frames what it would make of them all at once.

A window starts at a whole frame `first`, that is 8 feature frames: its feature m is centred where
feature 8 first + m of the whole is, and its frame t, subsampled from its features 8t - 7 to 8t + 7,
is frame first + t of the whole.

Digital silence before and after the sound that a chunk is part of is not heard, nor what sounds on
the other side of more than `pieces.SILENCE` seconds of it: the window is that much shorter. A chunk
without any sound is left out.
"""

import functools
import math
from collections import Counter
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.silence import stretches
from tdt_jax.decoding.greedy import decode_chunk, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis, take
from tdt_jax.inference.long_form import LONG_WORD, SILENCE
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
from tdt_jax.models.transducer import encode
from tdt_jax.recogniser import PIECE_SECONDS, Recogniser


@dataclass(frozen=True)
class StreamedWord(Word):
    """A word, its times in seconds from the stream's start."""

    @property
    def begins(self) -> bool:
        """`space_before`; False also where it goes on with the word before."""
        return self.space_before


_start = jax.jit(start_decoding, static_argnames="batch_size")


@functools.partial(jax.jit, static_argnames="size")
def _hear(model, samples, num_samples, first, count, state, *, size: int):
    """Decode the frames [first, first + count) of a window of samples [1, S], those that it has.

    Returns the Hypothesis, its times counted from `first`, and the decoder's state after `count`
    frames, of which there are `size` at most.
    """
    frames, num_frames = encode(model, *log_mel(samples, num_samples, model.config.features))
    chunk = jax.lax.dynamic_slice_in_dim(frames, first, size, axis=1)
    num_here = (num_frames - first).clip(0, count)
    hypothesis, state = decode_chunk(
        model, chunk, num_here, state, max_symbols=model.config.max_symbols
    )
    return hypothesis, _later(state, count - num_here)


def _later(state: DecoderState, count) -> DecoderState:
    """The state after `count` frames [] or [B] that nothing is said in."""
    return state._replace(skip=jnp.maximum(state.skip - count, 0))


class Stream:
    """What is said in a stream of samples, word by word.

        stream = Stream(recogniser)
        for samples in blocks:
            for word in stream.push(samples):
                ...
        for word in stream.finish():
            ...

    A word is given when it is certain: the next has begun, a second of silence follows, or the
    stream ends. One of more than two seconds, such as a telephone number, is given in parts.
    How the samples are cut into blocks makes no difference. Memory is bounded, but for the text.

    Attributes:
      text: all words given.
      pending: what was heard of the next, as it goes on from `text`: their sum is all there is.
      seconds: of audio that are decoded.
      language: that tags have named most often; None if there was none.
      latency: seconds from a sound to its decoding, computation left out: chunk + right.
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
        """Start a stream.

        Args:
          recogniser: with a transducer.
          chunk: seconds that are decoded at a time.
          left: seconds that the encoder hears before a chunk; None: 8, or for a model trained on
            shorter pieces what is left of them.
          right: seconds that it hears after. All three are rounded to whole frames.
          keep_tags: as of `tdt_jax.inference.transcription`.
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
        self._words: list[StreamedWord] = []  # certain, to be given
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
        """Compile what `push` needs."""
        jax.block_until_ready(self._step(self._window[0, :0], 0, 0, self._state))

    def push(self, samples) -> list[StreamedWord]:
        """Take an array of samples [S] of any length and of the types that `transcribe` takes.

        Returns:
          the words that are certain by now.
        Raises:
          AudioError: if they cannot be used.
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
        return self._given()

    def finish(self) -> list[StreamedWord]:
        """End the stream: hear what is left of it. Returns the words not given yet."""
        self._ended = True
        end = self._first + subsampled_length(self._filled // self._hop)
        while self._decoded < end:
            self._decode(min(self._chunk, end - self._decoded))
        self._settle(math.inf)
        return self._given()

    def _step(self, sound: np.ndarray, first: int, count: int, state: DecoderState):
        """Decode `count` frames of samples [S] from frame `first` on."""
        samples = np.zeros_like(self._window)
        samples[0, : len(sound)] = sound
        given = samples, np.full(1, len(sound), np.int32), np.int32(first), np.int32(count)
        return _hear(self._recogniser.model, *given, state, size=self._chunk)

    def _listen(self, num_frames: int) -> tuple[Hypothesis | None, DecoderState]:
        """What is said in the next frames, None if they are silent, and the state after them."""
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
            return None, _later(self._state, num_frames)
        first, stop = sounds[0][0], sounds[-1][1]
        begin, silent = max(first, begin), max(first - begin, 0)
        hypothesis, state = self._step(
            window[first * frame : stop], begin - first, end - begin, _later(self._state, silent)
        )
        found = take(jax.device_get(hypothesis), 0)
        return found._replace(times=found.times + self._first + begin), state

    def _decode(self, num_frames: int) -> None:
        """Decode the next frames, and move the window on."""
        found, state = self._listen(num_frames)
        decoded = self._decoded + num_frames
        leaving = max(0, decoded - self._left - self._first)
        kept = self._window[0, leaving * 8 * self._hop : self._filled].copy()
        # From here on all at once: an interrupt must not have a chunk decoded twice.
        self._state, self._decoded = state, decoded
        self._filled, self._first = len(kept), self._first + leaving
        self._window[0, : len(kept)] = kept
        if found is not None:
            self._languages.update(self._recogniser.tokenizer.languages(found.labels))
            self._tail.add(found)
        self._settle(self.seconds)

    def _settle(self, heard: float) -> None:
        """Take the words that are certain when `heard` seconds are decoded."""
        duration = self._num_samples / self._recogniser.config.features.sample_rate
        certain, rest = self._tail.settle(heard, duration)
        for word in certain:
            self._words.append(StreamedWord(**vars(to_word(word))))
            self._text.append(self._spaced(word))
        self.pending = "".join(self._spaced(each) for each in rest)

    def _spaced(self, word: TimedWord) -> str:
        return " " + word.text if word.space_before and self._text else word.text

    def _given(self) -> list[StreamedWord]:
        words, self._words = self._words, []
        return words


class _Tail:
    """The labels that are not certain yet, in frames of the stream."""

    def __init__(self, recogniser: Recogniser, keep_tags: bool = False):
        whole, real, zero = np.zeros(0, np.int32), np.zeros(0, np.float32), np.int32(0)
        self._hypothesis = Hypothesis(whole, zero, whole, whole, real, real, zero)
        self._before: list[int] = []  # the last label dropped that is no whitespace
        self._recogniser, self._keep_tags = recogniser, keep_tags

    def add(self, hypothesis: Hypothesis) -> None:
        """Take the labels of a chunk, cut to those it has."""
        if not self._keep_tags:
            hypothesis = drop_tags(hypothesis, self._recogniser.tokenizer)
        both = zip(self._hypothesis, hypothesis, strict=True)
        self._hypothesis = Hypothesis(
            *(np.append(*pair) if pair[1].ndim else pair[1] for pair in both)
        )

    def settle(self, heard: float, duration: float) -> tuple[list[TimedWord], list[TimedWord]]:
        """Drop the words that are certain when `heard` seconds are decoded.

        Returns them, and those that are not: one or none.
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
        if heard - last.end >= PAUSE:
            self._drop(places[-1][-1] + 1)
            return [*words, last], []
        head, tail = (
            tokenizer.decode(part, **options) for part in (last.labels[:-1], last.labels[-1:])
        )
        if last.end - last.start > LONG_WORD and head and tail and head + tail == last.text:
            self._drop(places[-1][-1])
            given = replace(last, labels=last.labels[:-1], tokens=last.tokens[:-1], text=head)
            rest = TimedWord(last.labels[-1:], last.tokens[-1:], tail, space_before=False)
            return [*words, given], [rest]
        if words:
            self._drop(places[-2][-1] + 1)
        return words, [last]

    def _space_before(self, labels: list[int]) -> bool:
        """Whether a space is before the first word of labels, after what was dropped."""
        words = self._recogniser.tokenizer.words(self._before + labels, keep_tags=self._keep_tags)
        first = next(word for word in words if word.positions[-1] >= len(self._before))
        goes_on = first.positions[0] < len(self._before)
        return first.space_before and not goes_on

    def _drop(self, count: int) -> None:
        """Drop so many labels, but for whitespace at their end: what follows is apart by it."""
        decode = self._recogniser.tokenizer.decode
        dropped = self._hypothesis.labels[:count].tolist()
        while dropped and not decode(dropped[-1:], keep_tags=True):
            dropped.pop()
        if dropped:
            self._before = dropped[-1:]
            self._cut(len(dropped))

    def _cut(self, count: int) -> None:
        self._hypothesis = Hypothesis(*(x[count:] if x.ndim else x for x in self._hypothesis))
