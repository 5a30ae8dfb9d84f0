"""Streams of causal models: every chunk is encoded once, its past is kept in a state.

    samples of a chunk -> log_mel_chunk -> encode_chunk -> decode_chunk -> labels

One program decodes a step of several utterances, rows of one state that are at any place of theirs.
A step of an utterance is a chunk of C = R + 1 frames, of which the last R are looked ahead at. Its
k-th chunk needs the features up to 8 (k C + R), and so 1280 (k C + R) + 200 samples: the first step
takes 1280 R + 200 of them, each later one 1280 C. A chunk is decoded as soon as its last sample has
come.
"""

import copy
import functools
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.config import ModelConfig
from tdt_jax.decoding.greedy import decode_chunk, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis, take
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
def _start(model: Transducer, batch_size: int) -> StepState:
    return StepState(
        start_log_mel(batch_size, model.config.features),
        start_encoding(model, batch_size),
        start_decoding(model, batch_size),
    )


def _decode_step(
    model: Transducer,
    samples: jax.Array,
    num_samples: jax.Array,
    last: jax.Array,
    restart: jax.Array,
    state: StepState,
) -> tuple[Hypothesis, jax.Array, StepState]:
    """Decodes the next chunk of each utterance.

    Args:
      model: causal.
      samples: [B, S], those that complete the chunk.
      num_samples: [B], how many; 0 for a row that waits.
      last: [B] bool, True in rows whose utterance ends with these samples.
      restart: [B] bool, True in rows where an utterance begins with these samples.
      state: after the step before.

    Returns the Hypothesis of the chunk, its times counted from the chunk's start; the frames
    decoded, [B]; and the state.
    """
    config = model.config
    state = state.restart(restart, start_decoding(model, 1)).bounded(config.samples_per_frame)
    features, encoder, decoder = state
    mels, num_mels, features = log_mel_chunk(samples, num_samples, features, config.features, last)
    frames, num_frames, encoder = encode_chunk(model, mels, num_mels, encoder, last)
    frames = frames[:, : encoder.chunk]  # a step completes one chunk at most
    hypothesis, decoder = decode_chunk(
        model, frames, num_frames, decoder, max_symbols=config.max_symbols
    )
    return hypothesis, num_frames, StepState(features, encoder, decoder)


_step = jax.jit(_decode_step)
_donating_step = jax.jit(_decode_step, donate_argnames="state")


class Feed:
    """The samples of a stream that wait to be decoded, and where its utterances end in them.

    Attributes:
      num_samples, num_frames: decoded of the utterance.
      is_new: whether the next step begins an utterance, whatever the state holds.
    """

    def __init__(self, config: ModelConfig):
        _, lookahead = config.encoder.chunked_contexts[0]
        self._first = config.samples_per_frame * lookahead + config.features.window_length // 2
        self.step = config.samples_per_frame * (lookahead + 1)  # samples of a step but the first
        self.reset()

    def reset(self) -> None:
        """Starts a new utterance. Forgets the samples that wait."""
        self._parts: deque[np.ndarray] = deque()
        self._num_waiting = 0
        self._ends: deque[int] = deque()  # of utterances, as numbers of samples that wait
        self._start_utterance()

    @property
    def is_ready(self) -> bool:
        """Whether the samples of the next step, or the last of the utterance, have come."""
        return bool(self._ends) or self._num_waiting >= self._wanted

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, no end either."""
        return not self._ends and not self._num_waiting

    @property
    def _wanted(self) -> int:
        return self.step if self.num_samples else self._first

    def push(self, samples: np.ndarray) -> None:
        """Takes samples [S]."""
        if len(samples):
            self._parts.append(samples)
            self._num_waiting += len(samples)

    def end(self) -> None:
        """Ends the utterance after the samples pushed so far."""
        self._ends.append(self._num_waiting)

    def next(self) -> tuple[np.ndarray, bool]:
        """Returns the samples of the next step, and whether the utterance ends with them."""
        end = self._ends[0] if self._ends else self._num_waiting
        missing = count = min(end, self._wanted)
        parts = [np.zeros(0, np.float32)]
        while missing:
            part = self._parts.popleft()
            if len(part) > missing:
                self._parts.appendleft(part[missing:])
            parts.append(part[:missing])
            missing -= len(parts[-1])
        samples = np.concatenate(parts)
        self._parts.appendleft(samples)
        return samples, bool(self._ends) and count == end

    def advance(self, is_last: bool, hypothesis: Hypothesis | None, num_frames: int) -> Decoded:
        """Drops the samples that `next` has returned, which were decoded to `num_frames` frames.

        The times of the hypothesis, of one utterance, count from the first of these frames.
        """
        samples = self._parts.popleft()
        if hypothesis is not None:
            hypothesis = hypothesis._replace(times=hypothesis.times + self.num_frames)
        self._num_waiting -= len(samples)
        self._ends = deque(end - len(samples) for end in self._ends)
        self.num_samples += len(samples)
        self.num_frames += num_frames
        decoded = Decoded(hypothesis, self.num_frames, self.num_samples)
        self.is_new = self.is_new and not len(samples)
        if is_last:
            self._ends.popleft()
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
    is_last: bool  # the utterance ends with them


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
        self._program = _donating_step if donate else _step
        self._step_size = Feed(config).step
        self.feeds: list[Feed | None] = [None] * size
        self.latency = config.lookaheads[0] + half / config.features.sample_rate
        self.state = self.start()

    def start(self) -> StepState:
        """Returns the state before the first step."""
        return _start(self._model, batch_size=len(self.feeds))

    def warm_up(self) -> None:
        """Compiles the program of a step."""
        self._run([])

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
        if not any(len(part.samples) for part in parts):
            return [(None, 0)] * len(parts)
        hypothesis, num_frames = self._run(parts)
        return [
            (take(hypothesis, part.row), int(num_frames[part.row]))
            if len(part.samples)
            else (None, 0)
            for part in parts
        ]

    def _run(self, parts: list[Part]) -> tuple[Hypothesis, np.ndarray]:
        size = len(self.feeds)
        samples = np.zeros((size, self._step_size), np.float32)
        num_samples = np.zeros(size, np.int32)
        last, restart = np.zeros(size, bool), np.zeros(size, bool)
        for row, feed, part, is_last in parts:
            samples[row, : len(part)] = part
            num_samples[row], last[row], restart[row] = len(part), is_last, feed.is_new
        arrays = samples, num_samples, last, restart
        *results, state = self._program(self._model, *arrays, self.state)
        hypothesis, num_frames = jax.device_get(results)
        self.state = state  # not before, lest a chunk be decoded twice after an interrupt
        return hypothesis, num_frames


class Cached:
    """Decodes one stream of a causal model; `latency` as of `Slots`."""

    def __init__(self, recogniser: Recogniser):
        # The state is not donated: Ctrl-C may interrupt a step, and the stream can be finished.
        self._slots = Slots(recogniser, 1, donate=False)
        self._feed = Feed(recogniser.config)
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
        self._feed.end()
        return self._decoded()

    def flush(self) -> Iterator[Decoded]:
        """Yields the rest of what has come, decoded as if the utterance ended; but it goes on.

        A copy of the stream ends. The decoder goes on from the end of the copy: it skips the frames
        that were decoded there, which are encoded again with the audio that follows.
        """
        if self._feed.is_new:
            self._slots.state = self._slots.start()
        feed, state = copy.deepcopy(self._feed), self._slots.state
        decoder = state.decoder
        try:
            ended = list(self.end())
            num_flushed = ended[-1].num_frames - feed.num_frames
            decoder = self._slots.state.decoder
            skip = jnp.asarray(jax.device_get(decoder.skip) + np.int32(num_flushed))
            decoder = decoder._replace(skip=skip)
            feed.is_new = False
        finally:  # an interrupted flush leaves the stream as it was
            self._slots.state = state._replace(decoder=decoder)
            self._feed = self._slots.feeds[0] = feed
        yield from ended

    def _decoded(self) -> Iterator[Decoded]:
        while parts := self._slots.next():
            ((hypothesis, num_frames),) = self._slots.decode(parts)
            yield self._feed.advance(parts[0].is_last, hypothesis, num_frames)
