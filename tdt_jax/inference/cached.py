"""Streams of causal models: every chunk is encoded once, its past is kept in a state.

    samples of a chunk -> log_mel_chunk -> encode_chunk -> decode_chunk -> labels

One program decodes a step of several utterances, rows of one state that are at any place of theirs.
A step of an utterance is a chunk of C = R + 1 frames, of which the last R are looked ahead at. Its
k-th chunk needs the features up to 8 (k C + R), and so 1280 (k C + R) + 200 samples: the first step
takes 1280 R + 200 of them, each later one 1280 C. A chunk is decoded as soon as its last sample has
come.
"""

import enum
import functools
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.advice.guide import Guide
from tdt_jax.config import ModelConfig
from tdt_jax.decoding.advice import Advice
from tdt_jax.decoding.greedy import decode_chunk, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis, take
from tdt_jax.inference.advised import batch_advice, kinds_of
from tdt_jax.inference.stream_words import Decoded
from tdt_jax.models.encoder import EncoderState
from tdt_jax.models.features import FeatureState, log_mel_chunk, start_log_mel
from tdt_jax.models.transducer import (
    Transducer,
    encode_chunk,
    start_encoding,
    with_separate_blocks,
)
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime import backend

MANY = 1 << 19  # frames, 11.6 hours


class StepState(NamedTuple):
    """What a step leaves to the next."""

    features: FeatureState
    encoder: EncoderState
    decoder: DecoderState

    def restart(self, rows: jax.Array, start: DecoderState) -> "StepState":
        """Returns the state with a new utterance in the rows where `rows` [B] is True."""
        return StepState(
            self.features.restart(rows),
            self.encoder.restart(rows),
            self.decoder.restart(rows, start),
        )

    def bounded(self, samples_per_frame: int) -> "StepState":
        """Returns the state with counts that an int32 holds, however long an utterance is.

        What follows depends only on their differences, once there are more than the cache holds.
        """
        features, encoder = self.features, self.encoder
        excess = jnp.where(encoder.num_frames >= 2 * MANY, MANY, 0)
        features = features._replace(
            num_samples=features.num_samples - samples_per_frame * excess,
            num_features=features.num_features - 8 * excess,
        )
        encoder = encoder._replace(
            num_features=encoder.num_features - 8 * excess,
            num_frames=encoder.num_frames - excess,
        )
        return self._replace(features=features, encoder=encoder)


@functools.partial(jax.jit, static_argnames="batch_size")
def start_steps(model: Transducer, batch_size: int) -> StepState:
    """Returns the state before the first step of `batch_size` utterances."""
    return StepState(
        start_log_mel(batch_size, model.config.features),
        start_encoding(model, batch_size),
        start_decoding(model, batch_size),
    )


def decode_step(
    model: Transducer,
    samples: jax.Array,
    num_samples: jax.Array,
    last: jax.Array,
    restart: jax.Array,
    advice: Advice | None,
    state: StepState,
) -> tuple[Hypothesis, jax.Array, StepState]:
    """Decodes the next chunk of each utterance.

    Args:
      model: causal.
      samples: [B, S], those that complete the chunk.
      num_samples: [B], how many; 0 for a row that waits.
      last: [B] bool, True in rows whose utterance ends with these samples.
      restart: [B] bool, True in rows where an utterance begins with these samples.
      advice: of each row.
      state: after the step before.

    Returns the Hypothesis of the chunk, its times counted from the chunk's start; the frames
    decoded, [B]; and the state.
    """
    state = _restarted(model, restart, advice, state)
    return _decode(model, samples, num_samples, last, advice, state)


def _decode_flush(
    model: Transducer,
    samples: jax.Array,
    num_samples: jax.Array,
    rows: jax.Array,
    restart: jax.Array,
    advice: Advice | None,
    state: StepState,
) -> tuple[Hypothesis, jax.Array, StepState]:
    """Decodes, in the `rows` [B], as if the utterance ended with these samples; but it goes on.

    Features and encoder stay as they were before these samples, which come again in the next step.
    The decoder skips the frames that were decoded here, when they have been encoded again with the
    audio that follows.

    The other arguments, and what is returned, are those of `decode_step`.
    """
    state = _restarted(model, restart, advice, state)
    arrays = samples, num_samples, rows
    hypothesis, num_frames, (_, _, decoder) = _decode(model, *arrays, advice, state)
    decoder = decoder._replace(skip=decoder.skip + num_frames)
    return hypothesis, num_frames, state._replace(decoder=decoder)


def _restarted(
    model: Transducer, rows: jax.Array, advice: Advice | None, state: StepState
) -> StepState:
    start = start_decoding(model, 1)._replace(advice=advice.start() if advice else ())
    return state.restart(rows, start).bounded(model.config.samples_per_frame)


def _decode(model, samples, num_samples, last, advice, state):
    (features, encoder, decoder), config = state, model.config
    mels, num_mels, features = log_mel_chunk(samples, num_samples, features, config.features, last)
    frames, num_frames, encoder = encode_chunk(model, mels, num_mels, encoder, last)
    frames = frames[:, : encoder.chunk]  # a step completes one chunk at most
    hypothesis, decoder = decode_chunk(
        model, frames, num_frames, decoder, max_symbols=config.max_symbols, advice=advice
    )
    return hypothesis, num_frames, StepState(features, encoder, decoder)


_step = jax.jit(decode_step)
_donating_step = jax.jit(decode_step, donate_argnames="state")
_flush = jax.jit(_decode_flush)
_donating_flush = jax.jit(_decode_flush, donate_argnames="state")


class Mark(enum.Enum):
    """What happens to an utterance after some samples."""

    END = enum.auto()
    FLUSH = enum.auto()


class Feed:
    """The samples of a stream that wait to be decoded, with marks where utterances end in them.

    Attributes:
      first, step: samples of an utterance's first step, and of each later one.
      num_samples, num_frames: decoded of the utterance.
      is_new: whether the next step begins an utterance, whatever the state holds.
      guide: advice for the stream.
    """

    def __init__(self, config: ModelConfig, guide: Guide | None = None):
        self.guide = guide
        _, lookahead = config.encoder.chunked_contexts[0]
        self.first = config.samples_per_frame * lookahead + config.features.window_length // 2
        self.step = config.samples_per_frame * (lookahead + 1)
        self.reset()

    def reset(self) -> None:
        """Starts a new utterance. Forgets the samples that wait."""
        self._parts: deque[np.ndarray] = deque()
        self._num_waiting = 0
        self._marks: deque[tuple[int, Mark]] = deque()  # after so many of the samples that wait
        self._start_utterance()

    @property
    def is_ready(self) -> bool:
        """Whether the samples of the next step have come, or those before the next mark."""
        return bool(self._marks) or self._num_waiting >= self._wanted

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, no mark either."""
        return not self._marks and not self._num_waiting

    @property
    def _wanted(self) -> int:
        return self.step if self.num_samples else self.first

    def push(self, samples: np.ndarray) -> None:
        """Takes samples [S]."""
        if len(samples):
            self._parts.append(samples)
            self._num_waiting += len(samples)

    def mark(self, mark: Mark) -> None:
        """Ends or flushes the utterance after the samples pushed so far."""
        self._marks.append((self._num_waiting, mark))

    def forget_flush(self) -> None:
        """Takes back the last mark, if it is a flush that has not been reached."""
        if self._marks and self._marks[-1][1] is Mark.FLUSH:
            self._marks.pop()

    def next(self) -> tuple[np.ndarray, Mark | None]:
        """Returns the samples of the next step, and the mark behind them if there is one.

        A flush comes with less than the samples of a step: those of a whole step come before it.
        """
        place, mark = self._marks[0] if self._marks else (self._num_waiting, None)
        missing = count = min(place, self._wanted)
        parts = [np.zeros(0, np.float32)]
        while missing:
            part = self._parts.popleft()
            if len(part) > missing:
                self._parts.appendleft(part[missing:])
            parts.append(part[:missing])
            missing -= len(parts[-1])
        samples = np.concatenate(parts)
        self._parts.appendleft(samples)
        is_reached = count == place and not (mark is Mark.FLUSH and count == self._wanted)
        return samples, mark if is_reached else None

    def advance(self, mark: Mark | None, hypothesis: Hypothesis | None, num_frames: int) -> Decoded:
        """Drops the samples and the mark that `next` has returned, but not the samples of a flush.

        They were decoded to `num_frames` frames, and the times of the hypothesis, of one utterance,
        count from the first of these.
        """
        count = len(self._parts[0])
        if hypothesis is not None:
            hypothesis = hypothesis._replace(times=hypothesis.times + self.num_frames)
        decoded = Decoded(hypothesis, self.num_frames + num_frames, self.num_samples + count)
        self.is_new = self.is_new and not count
        if mark is not None:
            self._marks.popleft()
        if mark is Mark.FLUSH:
            return decoded
        self._parts.popleft()
        self._num_waiting -= count
        self._marks = deque((place - count, mark) for place, mark in self._marks)
        self.num_samples += count
        self.num_frames += num_frames
        if mark is Mark.END:
            self._start_utterance()
        return decoded

    def _start_utterance(self) -> None:
        self.num_samples = self.num_frames = 0
        self.is_new = True


class Part(NamedTuple):
    """The samples of a stream that a step decodes."""

    row: int
    feed: Feed
    samples: np.ndarray  # [S]
    mark: Mark | None  # what happens to the utterance after them


class Slots:
    """Streams as rows of one state, decoded together step by step.

    Attributes:
      feeds: of each row; None: no stream. A row with a new Feed starts a new utterance.
      latency: seconds from a frame to its decoding, without computation: the look-ahead and half a
        window of the features.
      state: after the last step.
    """

    def __init__(self, recogniser: Recogniser, size: int, *, donate: bool):
        """Starts `size` rows without streams.

        With `donate` a step reuses the memory of the state, which is lost if it is interrupted.

        Raises: ValueError unless half a window of the features is at least a hop, less than two:
        otherwise the end of an utterance would complete more or fewer features than a step expects.
        """
        config = recogniser.config
        half, hop = config.features.window_length // 2, config.features.hop_length
        if not hop <= half < 2 * hop:
            raise ValueError(
                "streaming with a cache needs features with hop_length <= window_length // 2 < "
                f"2 * hop_length, got hop_length {hop} and window_length "
                f"{config.features.window_length}"
            )
        is_on_cpu = backend.current() == "cpu"
        model = recogniser.model
        self._model = with_separate_blocks(model) if is_on_cpu else model
        self._step, self._flush = (_donating_step, _donating_flush) if donate else (_step, _flush)
        self._step_size = Feed(config).step
        self._vocab_size, self._guides, self._advice = config.vocab_size, [], None
        self.feeds: list[Feed | None] = [None] * size
        self.latency = config.lookaheads[0] + half / config.features.sample_rate
        self.state = self.start()

    def start(self) -> StepState:
        """Returns the state before the first step."""
        return start_steps(self._model, batch_size=len(self.feeds))

    def warm_up(self) -> None:
        """Compiles the programs of a step and of a flush."""
        for program in (self._step, self._flush):
            self._run(program, [])

    def next(self) -> list[Part]:
        """Returns what the next step of every row that is ready decodes."""
        return [
            Part(row, feed, *feed.next())
            for row, feed in enumerate(self.feeds)
            if feed is not None and feed.is_ready
        ]

    def decode(self, parts: list[Part]) -> list[tuple[Hypothesis | None, int]]:
        """Decodes a step. Returns the hypothesis of each part, from the step's start, and frames.

        A part without samples has no hypothesis: what came before it is decoded.
        """
        results: dict[int, tuple[Hypothesis | None, int]] = {}
        for program, is_flush in ((self._step, False), (self._flush, True)):
            chosen = [
                part
                for part in parts
                if len(part.samples) and (part.mark is Mark.FLUSH) == is_flush
            ]
            if chosen:
                hypothesis, num_frames = self._run(program, chosen)
                for row in (part.row for part in chosen):
                    results[row] = take(hypothesis, row), int(num_frames[row])
        return [results.get(part.row, (None, 0)) for part in parts]

    def _run(self, program, parts: list[Part]) -> tuple[Hypothesis, np.ndarray]:
        size = len(self.feeds)
        samples = np.zeros((size, self._step_size), np.float32)
        num_samples = np.zeros(size, np.int32)
        marked, restart = np.zeros(size, bool), np.zeros(size, bool)
        for row, feed, part, mark in parts:
            samples[row, : len(part)] = part
            num_samples[row], marked[row], restart[row] = len(part), mark is not None, feed.is_new
        self._follow_guides()
        arrays = samples, num_samples, marked, restart
        *results, state = program(self._model, *arrays, self._advice, self.state)
        hypothesis, num_frames = jax.device_get(results)
        self.state = state  # not before, lest a chunk be decoded twice after an interrupt
        return hypothesis, num_frames

    def _follow_guides(self) -> None:
        """Takes the advice of streams that have come, and forgets that of those that have gone."""
        guides = [feed and feed.guide for feed in self.feeds]
        if guides == self._guides:
            return
        advice, decoder = batch_advice(guides, self._vocab_size), self.state.decoder
        before = dict(zip(kinds_of(self._guides), decoder.advice, strict=True))
        starts = zip(kinds_of(guides), advice.start() if advice else (), strict=True)
        states = tuple(before.get(kind, start) for kind, start in starts)
        self.state = self.state._replace(decoder=decoder._replace(advice=states))
        self._guides, self._advice = guides, advice


class Cached:
    """Decodes one stream of a causal model; `latency` as of `Slots`."""

    def __init__(self, recogniser: Recogniser, guide: Guide | None = None):
        # The state is not donated: Ctrl-C may interrupt a step, and the stream can be finished.
        self._slots = Slots(recogniser, 1, donate=False)
        self._feed = Feed(recogniser.config, guide)
        self._slots.feeds[0] = self._feed
        self.latency = self._slots.latency

    def reset(self) -> None:
        """Starts a new utterance. Forgets the samples of the present one."""
        self._feed.reset()

    def warm_up(self) -> None:
        """Compiles the program that `push` runs."""
        self._slots.warm_up()

    def push(self, samples: np.ndarray) -> Iterator[Decoded]:
        """Takes samples [S] of any length. Yields what they complete."""
        self._feed.push(samples)
        return self._decoded()

    def end(self) -> Iterator[Decoded]:
        """Yields the rest of the utterance, and starts a new one."""
        self._feed.mark(Mark.END)
        return self._decoded()

    def flush(self) -> Iterator[Decoded]:
        """Yields the rest of what has come, decoded as if the utterance ended; but it goes on."""
        self._feed.mark(Mark.FLUSH)
        try:
            yield from self._decoded()
        except BaseException:  # such as Ctrl-C: as if there had been no flush
            self._feed.forget_flush()
            raise

    def _decoded(self) -> Iterator[Decoded]:
        while parts := self._slots.next():
            ((hypothesis, num_frames),) = self._slots.decode(parts)
            yield self._feed.advance(parts[0].mark, hypothesis, num_frames)
