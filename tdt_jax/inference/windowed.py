"""Streams of models that encode audio as a whole: a window is encoded, a chunk of it decoded.

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

A model with `encoder.unified_contexts` was trained for such windows: the attention in them has the
same (left, chunk, right). Its chunks are counted from the window's first frame, so windows start at
the start of a chunk.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.advice.guide import Guide
from tdt_jax.audio.silence import stretches
from tdt_jax.config import ModelConfig
from tdt_jax.decoding.advice import Advice
from tdt_jax.decoding.greedy import decode_chunk, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis, take
from tdt_jax.inference.advised import batch_advice
from tdt_jax.inference.long_form import PIECE_SECONDS, SILENCE
from tdt_jax.inference.stream_words import Decoded
from tdt_jax.models.attention import attention_mask
from tdt_jax.models.features import log_mel
from tdt_jax.models.subsampling import subsampled_length
from tdt_jax.models.transducer import Transducer, encode
from tdt_jax.recogniser import Recogniser

# Seconds, where the caller gives none. What they cost is in docs/benchmarks.md.
CHUNK, LEFT, RIGHT = 1.6, 8.0, 1.6

_start = jax.jit(start_decoding, static_argnames="batch_size")


@functools.partial(jax.jit, static_argnames=("size", "context"))
def _decode_window(
    model: Transducer,
    samples: jax.Array,
    num_samples: jax.Array,
    first: jax.Array,
    count: jax.Array,
    advice: Advice | None,
    state: DecoderState,
    *,
    size: int,
    context: tuple[int, int, int] | None,
) -> tuple[Hypothesis, DecoderState]:
    """Encodes a window of samples [1, S] and decodes its frames [first, first + count).

    `count` is `size` at most, and may be more than the window has. `context` is as of `encode`.

    Returns the Hypothesis, its times counted from `first`, and the decoder's state after `count`
    frames.
    """
    features = log_mel(samples, num_samples, model.config.features)
    frames, num_frames = encode(model, *features, context=context)
    chunk = jax.lax.dynamic_slice_in_dim(frames, first, size, axis=1)
    num_here = (num_frames - first).clip(0, count)
    hypothesis, state = decode_chunk(
        model, chunk, num_here, state, max_symbols=model.config.max_symbols, advice=advice
    )
    return hypothesis, _after_silence(state, count - num_here)


def _after_silence(state: DecoderState, count: jax.Array | int) -> DecoderState:
    """Returns the state after `count` frames [] or [B] of silence."""
    return state._replace(skip=jnp.maximum(state.skip - count, 0))


class Windowed:
    """Decodes a stream in windows.

    Attributes:
      latency: seconds from a sound to its decoding, without computation: chunk + right.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        chunk: float | None,
        left: float | None,
        right: float | None,
        guide: Guide | None = None,
    ):
        """Starts a stream with the advice of `guide`; arguments as of `Stream`."""
        config = recogniser.config
        self._advice = batch_advice([guide], config.vocab_size)
        self._model = recogniser.model
        self._chunk, self._left, self._right, self._context = _sizes(config, chunk, left, right)
        self.latency = (self._chunk + self._right) * config.seconds_per_frame
        self._hop = config.features.hop_length
        self._rate = config.features.sample_rate
        num_frames = self._left + self._chunk + self._right
        self._window = np.zeros((1, num_frames * 8 * self._hop), np.float32)
        self.reset()

    def reset(self) -> None:
        """Starts a new utterance. Forgets the samples of the present one."""
        self._filled = 0  # samples of the window
        self._first = 0  # frame that the window starts at
        self._decoded = 0  # frames
        self._num_samples = 0
        self._state = _start(self._model, batch_size=1, advice=self._advice)

    def warm_up(self) -> None:
        """Compiles the program that `push` runs."""
        jax.block_until_ready(self._step(self._window[0, :0], 0, 0, self._state))

    def push(self, samples: np.ndarray) -> Iterator[Decoded]:
        """Takes samples [S] of any length. Yields what they complete."""
        while len(samples):
            wanted = (self._decoded - self._first + self._chunk + self._right) * 8 * self._hop
            part, samples = np.split(samples, [wanted - self._filled])
            self._window[0, self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            self._num_samples += len(part)
            if self._filled == wanted:
                yield self._decode(self._chunk)

    def end(self) -> Iterator[Decoded]:
        """Yields the rest of the utterance, and starts a new one."""
        end = self._first + subsampled_length(self._filled // self._hop)
        while self._decoded < end:
            yield self._decode(min(self._chunk, end - self._decoded))
        rest = Decoded(None, self._decoded, self._num_samples)
        self.reset()
        yield rest

    def _step(
        self, sound: np.ndarray, first: int, count: int, state: DecoderState
    ) -> tuple[Hypothesis, DecoderState]:
        """Decodes `count` frames of samples [S] from frame `first` on."""
        samples = np.zeros_like(self._window)
        samples[0, : len(sound)] = sound
        arrays = samples, np.full(1, len(sound), np.int32), np.int32(first), np.int32(count)
        options = dict(size=self._chunk, context=self._context)
        return _decode_window(self._model, *arrays, self._advice, state, **options)

    def _decode_next(self, num_frames: int) -> tuple[Hypothesis | None, DecoderState]:
        """Decodes the next frames. Returns None if they are silent, and the state after them."""
        frame, begin = 8 * self._hop, self._decoded - self._first  # from here on in the window
        end = begin + num_frames
        unit = 1 if self._context is None else self._chunk  # frames, where a window may start
        window = self._window[0, : self._filled]
        longest = round(SILENCE * self._rate)
        sounds = [
            (start // (frame * unit) * unit, stop)
            for start, stop in stretches(window, longest=longest, sample_rate=self._rate)
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

    def _decode(self, num_frames: int) -> Decoded:
        """Decodes the next frames, and moves the window on."""
        hypothesis, state = self._decode_next(num_frames)
        decoded = self._decoded + num_frames
        leaving = max(0, decoded - self._left - self._first)
        kept = self._window[0, leaving * 8 * self._hop : self._filled].copy()
        # All at once, lest a chunk be decoded twice after an interrupt.
        self._state, self._decoded = state, decoded
        self._filled, self._first = len(kept), self._first + leaving
        self._window[0, : len(kept)] = kept
        return Decoded(hypothesis, decoded, self._num_samples)


def _sizes(
    config: ModelConfig, chunk: float | None, left: float | None, right: float | None
) -> tuple[int, int, int, tuple[int, int, int] | None]:
    """Returns the frames of chunk, left and right, and the context of attention in the window."""
    frame, unified = config.seconds_per_frame, config.encoder.unified_contexts
    if unified:
        defaults = tuple(max(choices) * frame for choices in unified)
    else:
        defaults = (LEFT, CHUNK, RIGHT)
    chunk = defaults[1] if chunk is None else chunk
    right = defaults[2] if right is None else right
    if left is None and unified:
        left = defaults[0]
    elif left is None:
        longest = config.piece_seconds or PIECE_SECONDS
        left = min(defaults[0], max(0.0, longest - chunk - right))
    if not (frame <= chunk < math.inf and 0 <= left < math.inf and 0 <= right < math.inf):
        raise ValueError(
            f"chunk must be at least a frame ({frame:g} s), left and right at least 0, got "
            f"chunk {chunk}, left {left} and right {right}"
        )
    left, chunk, right = (round(x / frame) for x in (left, chunk, right))
    if not unified:
        return chunk, left, right, None
    context = left, chunk, right
    attention_mask(config.encoder, context)  # raises ValueError if the model does not have it
    return chunk, left // chunk * chunk, right, context
