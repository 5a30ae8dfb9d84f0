"""Greedy decoding in one `lax.while_loop`, every utterance at a frame of its own.

A decoder step looks at one frame:

    token, duration = argmax of the two heads at (frame t, predictor state)
    label:  emit it, step the predictor, t += duration
    blank:  t += max(duration, 1)

An RNN-T is the same loop with duration 0 for labels and 1 for blanks, so that it takes exactly
frames + labels steps where a TDT jumps (Xu et al., 2023, arXiv 2304.06795, section 4).

A turn of the loop may look at a window of frames with one product: the steps that end in a blank
leave the predictor as it is, so they are followed inside the window up to the next label. A TDT
hardly ever sees a blank after a blank, and an RNN-T most of the time: its window is wider.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis, certainty

WINDOW_TDT, WINDOW_RNNT = 1, 4  # frames a turn; the best measured, `tdt-jax benchmark decode`


class _Loop(NamedTuple):
    time: jax.Array  # [B] the frame each utterance is at
    num_here: jax.Array  # [B] labels emitted at this frame
    predictor: tuple
    projected: jax.Array  # [B, J]
    hypothesis: Hypothesis


class _Seen(NamedTuple):
    """What the joint says of the frames in a window, each [B, W]."""

    token_logits: jax.Array  # [B, W, V + 1]
    token: jax.Array
    duration: jax.Array


def start_decoding(model, batch_size: int) -> DecoderState:
    """The state before the first frame of `batch_size` utterances."""
    blank = jnp.full((batch_size,), model.config.blank, jnp.int32)
    output, state = model.predictor.step(blank, model.predictor.start(batch_size))
    return DecoderState(jnp.zeros_like(blank), state, model.joint.project_states(output))


@functools.partial(jax.jit, static_argnames=("max_symbols", "window"))
def greedy_decode(
    model, frames, num_frames, *, max_symbols: int = 10, window: int | None = None
) -> Hypothesis:
    """The most probable token and duration, step by step.

    After `max_symbols` labels at one frame an utterance moves on by one frame if it is still
    there. An utterance's result depends neither on padding nor on the rest of the batch.

    Args:
      model: with `predictor`, `joint` and `config` as a `tdt_jax.Transducer` has.
      frames: [B, T, D] from `encode`.
      num_frames: [B] int.
      max_symbols: most labels at one frame.
      window: frames looked at in a turn of the loop: speed only. None: 1 for a TDT, 4 for an RNN-T.

    Returns:
      a Hypothesis with room for L = T * max_symbols labels (T where every duration is above 0).

    Raises:
      ValueError: if the shapes don't fit, or max_symbols or window is below 1.
    """
    start = start_decoding(model, frames.shape[0])
    options = dict(max_symbols=max_symbols, window=window)
    return decode_chunk(model, frames, num_frames, start, **options)[0]


@functools.partial(jax.jit, static_argnames=("max_symbols", "window"))
def decode_chunk(
    model,
    frames,
    num_frames,
    state: DecoderState,
    *,
    max_symbols: int = 10,
    window: int | None = None,
) -> tuple[Hypothesis, DecoderState]:
    """As `greedy_decode`, going on from a state: chunk by chunk gives what the whole gives.

    Args:
      state: from `start_decoding`, or from the chunk before.

    Returns:
      the Hypothesis of these frames, its times counted from their start, and the state after them.
    """
    is_rnnt = model.config.durations is None
    window = (WINDOW_RNNT if is_rnnt else WINDOW_TDT) if window is None else window
    if max_symbols < 1 or window < 1:
        raise ValueError(
            f"max_symbols and window must be >= 1, got max_symbols {max_symbols}, window {window}"
        )
    shapes = num_frames.shape, state.skip.shape
    if frames.ndim != 3 or frames.shape[1] == 0 or shapes != (frames.shape[:1],) * 2:
        raise ValueError(
            "decoding needs frames [B, T > 0, D], num_frames [B] and a state of B utterances, got "
            f"{frames.shape}, {num_frames.shape} and {state.skip.shape}"
        )
    batch, size = frames.shape[:2]
    durations = model.config.durations
    capacity = size * (1 if durations is not None and durations[0] > 0 else max_symbols)
    projected_frames = model.joint.project_frames(frames)  # once, [B, T, J]
    heads = model.joint.heads_in_loop(batch * window)
    rows = jnp.arange(batch)

    def turn(loop: _Loop) -> _Loop:
        place = loop.time[:, None] + jnp.arange(window)[None]
        around = projected_frames[rows[:, None], jnp.minimum(place, size - 1)]  # [B, W, J]
        seen = _look(heads(around, loop.projected[:, None]), model.config)
        found, offset, num_steps = _follow(seen, model.config.blank, num_frames - loop.time)
        at = rows, jnp.minimum(offset, window - 1)
        token, duration = seen.token[at], seen.duration[at]

        num_here = jnp.where(offset > 0, 0, loop.num_here) + found.astype(jnp.int32)
        stuck = (duration == 0) & (num_here >= max_symbols)
        advance = jnp.where(found, jnp.where(stuck, 1, duration), 0)
        predictor, projected = _step_predictor(model, found, token, loop)
        score, entropy = certainty(seen.token_logits[at])
        hypothesis = loop.hypothesis._replace(num_steps=loop.hypothesis.num_steps + num_steps)
        return _Loop(
            time=loop.time + offset + advance,
            num_here=jnp.where(advance > 0, 0, num_here),
            predictor=predictor,
            projected=projected,
            hypothesis=_append(
                hypothesis, found, capacity, token, loop.time + offset, duration, score, entropy
            ),
        )

    zeros = jnp.zeros((batch,), jnp.int32)
    loop = _Loop(state.skip, zeros, *state[1:], _empty(batch, capacity))
    loop = jax.lax.while_loop(lambda loop: jnp.any(loop.time < num_frames), turn, loop)
    skip = loop.time - num_frames.astype(jnp.int32)
    return loop.hypothesis, DecoderState(skip, loop.predictor, loop.projected)


def _look(logits, config) -> _Seen:
    token_logits, duration_logits = logits
    token = jnp.argmax(token_logits, axis=-1).astype(jnp.int32)
    if duration_logits is None:
        duration = jnp.where(token == config.blank, 1, 0)
    else:
        durations = jnp.asarray(config.durations, jnp.int32)
        duration = durations[jnp.argmax(duration_logits, axis=-1)]
    return _Seen(token_logits, token, duration.astype(jnp.int32))


def _follow(seen: _Seen, blank: int, num_left):
    """The path through a window up to the first label or the window's end.

    Returns [B]: whether it meets a label, the offset that it ends at (the label's place, or the
    next frame to look at), and the steps that it takes. It ends with the `num_left` frames.
    """
    offset = num_steps = jnp.zeros_like(num_left, jnp.int32)
    found = jnp.zeros(num_left.shape, bool)
    for i in range(seen.token.shape[1]):
        is_here = (offset == i) & ~found & (i < num_left)
        is_blank = seen.token[:, i] == blank
        num_steps += is_here.astype(jnp.int32)
        found |= is_here & ~is_blank
        offset += jnp.where(is_here & is_blank, jnp.maximum(seen.duration[:, i], 1), 0)
    return found, offset, num_steps


def _step_predictor(model, emits, token, loop: _Loop):
    """The predictor's new state and projected output where a label was emitted."""

    def chosen(new, old, axis):
        """`new` where a label was emitted, with the batch on `axis`."""
        shape = [1] * new.ndim
        shape[axis] = len(emits)
        return jnp.where(emits.reshape(shape), new, old)

    def step():
        output, state = model.predictor.step(token, loop.predictor)
        projected = chosen(model.joint.project_states(output), loop.projected, 0)
        return jax.tree.map(lambda *x: chosen(*x, axis=1), state, loop.predictor), projected

    return jax.lax.cond(jnp.any(emits), step, lambda: (loop.predictor, loop.projected))


def _empty(batch: int, capacity: int) -> Hypothesis:
    zeros, table = jnp.zeros((batch,), jnp.int32), jnp.zeros((batch, capacity), jnp.int32)
    real = table.astype(jnp.float32)
    return Hypothesis(table, zeros, table, table, real, real, zeros)


def _append(hypothesis, emits, capacity, token, time, duration, score, entropy) -> Hypothesis:
    position = jnp.where(emits, hypothesis.num_labels, capacity)  # beyond the end: dropped
    rows = jnp.arange(len(position))

    def put(array, value):
        return array.at[rows, position].set(value, mode="drop")

    return hypothesis._replace(
        labels=put(hypothesis.labels, token),
        num_labels=hypothesis.num_labels + emits.astype(jnp.int32),
        times=put(hypothesis.times, time),
        durations=put(hypothesis.durations, duration),
        scores=put(hypothesis.scores, score),
        entropies=put(hypothesis.entropies, entropy),
    )
