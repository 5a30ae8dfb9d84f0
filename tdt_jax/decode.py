"""Greedy decoding in one `lax.while_loop`, every utterance at a frame of its own.

One step looks at one frame of each utterance:

    token, duration = argmax of the two heads at (frame t, predictor state)
    label:  emit it, step the predictor, t += duration
    blank:  t += max(duration, 1)

An RNN-T is the same loop with duration 0 for labels and 1 for blanks, so that it takes exactly
frames + labels steps where a TDT jumps (Xu et al., 2023, arXiv 2304.06795, section 4).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Hypothesis(NamedTuple):
    """What was heard in each utterance; of L, the first `num_labels` entries hold."""

    labels: jax.Array  # [B, L] int32
    num_labels: jax.Array  # [B] int32
    times: jax.Array  # [B, L] int32, frame of emission
    durations: jax.Array  # [B, L] int32, frames predicted with the label (RNN-T: 0)
    scores: jax.Array  # [B, L] float32, log-probability of the label under the token head
    num_steps: jax.Array  # [B] int32, joint evaluations that the utterance needed (CTC: frames)


class _State(NamedTuple):
    time: jax.Array  # [B] the frame each utterance is at
    num_here: jax.Array  # [B] labels emitted at this frame
    predictor: tuple  # the predictor's state
    projected: jax.Array  # [B, J] its projected output
    hypothesis: Hypothesis


@functools.partial(jax.jit, static_argnames="max_symbols")
def greedy_decode(model, frames, num_frames, *, max_symbols: int = 10) -> Hypothesis:
    """The most probable token and duration, step by step.

    After `max_symbols` labels at one frame an utterance moves on by one frame if it is still
    there. An utterance's result depends neither on padding nor on the rest of the batch.

    Args:
      model: with `predictor`, `joint` and `config` as a `tdt_jax.Transducer` has.
      frames: [B, T, D] from `encode`.
      num_frames: [B] int.
      max_symbols: most labels at one frame.

    Returns:
      a Hypothesis with room for L = T * max_symbols labels (T where every duration is above 0).

    Raises:
      ValueError: if the shapes don't fit or max_symbols is below 1.
    """
    if max_symbols < 1:
        raise ValueError(f"max_symbols must be >= 1, got {max_symbols}")
    if frames.ndim != 3 or frames.shape[1] == 0 or num_frames.shape != frames.shape[:1]:
        raise ValueError(
            "greedy_decode needs frames [B, T > 0, D] and num_frames [B], got "
            f"{frames.shape} and {num_frames.shape}"
        )
    batch, size = frames.shape[:2]
    blank, durations = model.config.blank, model.config.durations
    capacity = size * (1 if durations is not None and durations[0] > 0 else max_symbols)
    projected_frames = model.joint.project_frames(frames)  # once, [B, T, J]
    rows = jnp.arange(batch)

    def predict(labels, state):
        output, state = model.predictor.step(labels, state)
        return model.joint.project_states(output), state

    def is_active(state: _State):
        return state.time < num_frames

    def step(state: _State) -> _State:
        active = is_active(state)
        frame = projected_frames[rows, jnp.minimum(state.time, size - 1)]  # [B, J]
        token_logits, duration_logits = model.joint.heads(frame, state.projected)
        token = jnp.argmax(token_logits, axis=-1).astype(jnp.int32)
        emits = active & (token != blank)
        if durations is None:
            duration = jnp.where(emits, 0, 1).astype(jnp.int32)
        else:
            choice = jnp.argmax(duration_logits, axis=-1)
            duration = jnp.asarray(durations, jnp.int32)[choice]

        num_here = jnp.where(emits, state.num_here + 1, 0)
        stuck = (duration == 0) & (~emits | (num_here >= max_symbols))
        advance = jnp.where(stuck, 1, duration)
        projected, predictor = predict(token, state.predictor)

        def emitted(new, old, axis):
            """`new` where a label was emitted, with the batch on `axis`."""
            shape = [1] * new.ndim
            shape[axis] = batch
            return jnp.where(emits.reshape(shape), new, old)

        score = jax.nn.log_softmax(token_logits, axis=-1)[rows, token]
        return _State(
            time=state.time + jnp.where(active, advance, 0),
            num_here=jnp.where(advance > 0, 0, num_here),
            predictor=jax.tree.map(lambda *x: emitted(*x, axis=1), predictor, state.predictor),
            projected=emitted(projected, state.projected, axis=0),
            hypothesis=_append(state, emits, active, token, duration, score),
        )

    def _append(state, emits, active, token, duration, score):
        hypothesis = state.hypothesis
        position = jnp.where(emits, hypothesis.num_labels, capacity)  # beyond the end: dropped

        def put(array, value):
            return array.at[rows, position].set(value.astype(array.dtype), mode="drop")

        return Hypothesis(
            labels=put(hypothesis.labels, token),
            num_labels=hypothesis.num_labels + emits.astype(jnp.int32),
            times=put(hypothesis.times, state.time),
            durations=put(hypothesis.durations, duration),
            scores=put(hypothesis.scores, score),
            num_steps=hypothesis.num_steps + active.astype(jnp.int32),
        )

    start = jnp.full((batch,), blank, jnp.int32)
    projected, predictor = predict(start, model.predictor.start(batch))
    zeros = jnp.zeros((batch,), jnp.int32)
    table = jnp.zeros((batch, capacity), jnp.int32)
    empty = Hypothesis(table, zeros, table, table, table.astype(jnp.float32), zeros)
    state = _State(zeros, zeros, predictor, projected, empty)
    state = jax.lax.while_loop(lambda state: jnp.any(is_active(state)), step, state)
    return state.hypothesis


@jax.jit
def ctc_decode(model, frames, num_frames) -> Hypothesis:
    """The most probable label of every frame under the CTC head, repeats and blanks left out.

    Graves et al., 2006 ("best path decoding").

    Args:
      model: with `ctc`, a head [..., D] -> [..., V + 1], and `config`, as a `tdt_jax.Transducer`.
      frames: [B, T, D] from `encode`.
      num_frames: [B] int.

    Returns:
      a Hypothesis with room for L = T labels: a label's time is the first frame that says it, its
      duration the frames that say it, its score the log-probability at the first.

    Raises:
      ValueError: if the model has no CTC head or the shapes don't fit.
    """
    if model.ctc is None:
        raise ValueError("ctc_decode needs a model with a CTC head (config.ctc), this one has none")
    if frames.ndim != 3 or frames.shape[1] == 0 or num_frames.shape != frames.shape[:1]:
        raise ValueError(
            "ctc_decode needs frames [B, T > 0, D] and num_frames [B], got "
            f"{frames.shape} and {num_frames.shape}"
        )
    batch, size = frames.shape[:2]
    log_probs = jax.nn.log_softmax(model.ctc(frames).astype(jnp.float32), axis=-1)
    time = jnp.broadcast_to(jnp.arange(size), (batch, size))
    token = jnp.argmax(log_probs, axis=-1).astype(jnp.int32)
    token = jnp.where(time < num_frames[:, None], token, model.config.blank)
    before = jnp.pad(token, ((0, 0), (1, 0)), constant_values=model.config.blank)[:, :-1]
    says = token != model.config.blank
    emits = says & (token != before)
    number = jnp.cumsum(emits, axis=1)
    rows = jnp.arange(batch)[:, None]
    first = jnp.where(emits, number - 1, size)  # beyond the end: dropped
    every = jnp.where(says, number - 1, size)
    empty = jnp.zeros((batch, size), jnp.int32)

    def put(value):
        return empty.astype(value.dtype).at[rows, first].set(value, mode="drop")

    return Hypothesis(
        labels=put(token),
        num_labels=number[:, -1].astype(jnp.int32),
        times=put(time.astype(jnp.int32)),
        durations=empty.at[rows, every].add(1, mode="drop"),
        scores=put(jnp.max(log_probs, axis=-1)),
        num_steps=num_frames.astype(jnp.int32),
    )
