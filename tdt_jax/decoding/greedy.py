"""Greedy decoding of TDT and RNN-T in one `lax.while_loop`, every utterance at its own frame.

A decoder step evaluates the joint at one frame:

    token, duration = argmax of the two heads at (frame t, predictor state)
    label:  emit it, step the predictor, t += duration
    blank:  t += max(duration, 1)

An RNN-T is the same loop with duration 0 for labels and 1 for blanks, so that it takes exactly
frames + labels steps where a TDT skips frames (Xu et al., 2023, arXiv 2304.06795, section 4).

An iteration of the loop may evaluate a window of frames in one product: steps that end in a blank
leave the predictor as it is, so they are followed within the window up to the next label. A TDT
hardly ever emits a blank after a blank, and an RNN-T mostly does: its window is wider.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.decoding.hypothesis import (
    DecoderState,
    Hypothesis,
    score_and_entropy,
    select_rows,
)

WINDOW_TDT, WINDOW_RNNT = 1, 4  # frames an iteration; the fastest in `tdt-jax benchmark decode`


@functools.partial(jax.jit, static_argnames=("max_symbols", "window"))
def greedy_decode(
    model: Any,
    frames: jax.Array,
    num_frames: jax.Array,
    *,
    max_symbols: int = 10,
    window: int | None = None,
) -> Hypothesis:
    """Returns the labels of the most probable token and duration at each decoder step.

    After `max_symbols` labels at one frame an utterance moves on by one frame if it is still
    there. An utterance's result depends neither on padding nor on the rest of the batch.

    Args:
      model: with `predictor` (`start`, `step`), `joint` (`project_frames`, `project_states`,
        `heads_in_loop`) and `config` (`blank`, `durations`), as a `tdt_jax.Transducer`.
      frames: [B, T, D] from `encode`.
      num_frames: [B] int.
      max_symbols: most labels at one frame.
      window: frames that an iteration evaluates; affects speed only. None: 1 for a TDT, 4 for an
        RNN-T.

    Returns:
      a Hypothesis with room for L = T * max_symbols labels (T where every duration is above 0).

    Raises:
      ValueError: if the shapes don't fit, or max_symbols or window is below 1.
    """
    start = start_decoding(model, frames.shape[0])
    options = dict(max_symbols=max_symbols, window=window)
    return decode_chunk(model, frames, num_frames, start, **options)[0]


def start_decoding(model: Any, batch_size: int) -> DecoderState:
    """Returns the decoder's state before the first frame of `batch_size` utterances."""
    blank = jnp.full((batch_size,), model.config.blank, jnp.int32)
    output, state = model.predictor.step(blank, model.predictor.start(batch_size))
    return DecoderState(jnp.zeros_like(blank), state, model.joint.project_states(output))


@functools.partial(jax.jit, static_argnames=("max_symbols", "window"))
def decode_chunk(
    model: Any,
    frames: jax.Array,
    num_frames: jax.Array,
    state: DecoderState,
    *,
    max_symbols: int = 10,
    window: int | None = None,
) -> tuple[Hypothesis, DecoderState]:
    """Decodes a chunk of frames, from the state after the chunk before it.

    Chunk after chunk this gives what `greedy_decode` gives for the whole.

    Args:
      model, frames, num_frames, max_symbols, window: as in `greedy_decode`.
      state: from `start_decoding`, or from the chunk before.

    Returns:
      the Hypothesis of these frames, its times counted from their start, and the state after them.

    Raises:
      ValueError: as `greedy_decode`.
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

    def step(loop: _Loop) -> _Loop:
        times = loop.time[:, None] + jnp.arange(window)[None]
        in_window = projected_frames[rows[:, None], jnp.minimum(times, size - 1)]  # [B, W, J]
        best = _best(heads(in_window, loop.projected[:, None]), model.config)
        emits, offset, num_steps = _skip_blanks(best, model.config.blank, num_frames - loop.time)
        at = rows, jnp.minimum(offset, window - 1)
        token, duration = best.token[at], best.duration[at]

        num_here = jnp.where(offset > 0, 0, loop.num_here) + emits.astype(jnp.int32)
        is_stuck = (duration == 0) & (num_here >= max_symbols)
        advance = jnp.where(emits, jnp.where(is_stuck, 1, duration), 0)
        predictor, projected = _step_predictor(model, emits, token, loop)
        score, entropy = score_and_entropy(best.token_logits[at])
        hypothesis = loop.hypothesis._replace(num_steps=loop.hypothesis.num_steps + num_steps)
        return _Loop(
            time=loop.time + offset + advance,
            num_here=jnp.where(advance > 0, 0, num_here),
            predictor=predictor,
            projected=projected,
            hypothesis=_append(
                hypothesis, emits, capacity, token, loop.time + offset, duration, score, entropy
            ),
        )

    zeros = jnp.zeros((batch,), jnp.int32)
    hypothesis = _empty_hypothesis(batch, capacity)
    loop = _Loop(state.skip, zeros, state.predictor, state.projected, hypothesis)
    loop = jax.lax.while_loop(lambda loop: jnp.any(loop.time < num_frames), step, loop)
    skip = loop.time - num_frames.astype(jnp.int32)
    return loop.hypothesis, DecoderState(skip, loop.predictor, loop.projected)


class _Loop(NamedTuple):
    """The state of the loop."""

    time: jax.Array  # [B] the frame that each utterance is at
    num_here: jax.Array  # [B] labels emitted at this frame
    predictor: tuple
    projected: jax.Array  # [B, J]
    hypothesis: Hypothesis


class _Best(NamedTuple):
    """The most probable token and duration at each frame of a window."""

    token_logits: jax.Array  # [B, W, V+1]
    token: jax.Array  # [B, W]
    duration: jax.Array  # [B, W]


def _best(logits, config) -> _Best:
    token_logits, duration_logits = logits
    token = jnp.argmax(token_logits, axis=-1).astype(jnp.int32)
    if duration_logits is None:
        duration = jnp.where(token == config.blank, 1, 0)
    else:
        durations = jnp.asarray(config.durations, jnp.int32)
        duration = durations[jnp.argmax(duration_logits, axis=-1)]
    return _Best(token_logits, token, duration.astype(jnp.int32))


def _skip_blanks(best: _Best, blank: int, num_left):
    """Follows the blanks of a window up to its first label, its end, or the last frame.

    Returns, each [B]: whether it ends at a label, the offset at which it ends (the label's, or that
    of the next frame to evaluate), and the number of steps. `num_left` [B] frames are left.
    """
    offset = num_steps = jnp.zeros_like(num_left, jnp.int32)
    emits = jnp.zeros(num_left.shape, bool)
    for i in range(best.token.shape[1]):
        is_here = (offset == i) & ~emits & (i < num_left)
        is_blank = best.token[:, i] == blank
        num_steps += is_here.astype(jnp.int32)
        emits |= is_here & ~is_blank
        offset += jnp.where(is_here & is_blank, jnp.maximum(best.duration[:, i], 1), 0)
    return emits, offset, num_steps


def _step_predictor(model, emits, token, loop: _Loop):
    """Returns the predictor's state and projected output, new where a label was emitted."""

    def step():
        output, state = model.predictor.step(token, loop.predictor)
        new = model.joint.project_states(output)
        projected = select_rows(emits, new, loop.projected, axis=0)
        select = functools.partial(select_rows, emits, axis=1)
        return jax.tree.map(select, state, loop.predictor), projected

    return jax.lax.cond(jnp.any(emits), step, lambda: (loop.predictor, loop.projected))


def _empty_hypothesis(batch: int, capacity: int) -> Hypothesis:
    zeros, integers = jnp.zeros((batch,), jnp.int32), jnp.zeros((batch, capacity), jnp.int32)
    reals = integers.astype(jnp.float32)
    return Hypothesis(integers, zeros, integers, integers, reals, reals, zeros)


def _append(hypothesis, emits, capacity, token, time, duration, score, entropy) -> Hypothesis:
    """Returns the hypothesis with one more label in the rows that emit one."""
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
