"""Greedy decoding of TDT and RNN-T in one `lax.while_loop`, every utterance at its own frame.

A decoder step evaluates the joint at one frame:

    token, duration = argmax of the two heads at (frame t, predictor state)
    label:  emit it, step the predictor, t += duration
    blank:  t += max(duration, 1)

An RNN-T is the same loop with duration 0 for labels and 1 for blanks, so that it takes exactly
frames + labels steps where a TDT skips frames (Xu et al., 2023, arXiv 2304.06795, section 4).

A turn may evaluate a window of frames in one product: steps that end in a blank leave the predictor
as it is, so they are followed within the window up to the next label. A TDT hardly ever emits a
blank after a blank, and an RNN-T mostly does: its window is wider. An iteration of the loop takes a
block of turns, one by one.

With advice (`advice.py`) the token is the best after the advice is added; durations, scores and
entropies are the model's own.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.decoding.advice import Advice, best_token
from tdt_jax.decoding.hypothesis import (
    DecoderState,
    Hypothesis,
    score_and_entropy,
    select_rows,
)
from tdt_jax.runtime import backend

WINDOW_TDT, WINDOW_RNNT = 1, 4  # frames a turn; the fastest in `tdt-jax benchmark decode`
BLOCK_TURNS, BLOCK_ROWS = 8, 1024  # most turns, and turns times utterances, in a block


@functools.partial(jax.jit, static_argnames=("max_symbols", "window"))
def greedy_decode(
    model: Any,
    frames: jax.Array,
    num_frames: jax.Array,
    *,
    max_symbols: int = 10,
    window: int | None = None,
    advice: Advice | None = None,
) -> Hypothesis:
    """Returns the labels of the most probable token and duration at each decoder step.

    After `max_symbols` labels at one frame an utterance moves on by one frame if it is still
    there. An utterance's result depends neither on padding nor on the rest of the batch.

    Args:
      model: with `predictor` (`start`, `step`), `joint` (`project_frames`, `project_states`,
        `heads_in_loop`) and `config` (`blank`, `durations`), as a `tdt_jax.Transducer`. The
        predictor may have `step_in_loop`, which returns a faster `step`.
      frames: [B, T, D] from `encode`.
      num_frames: [B] int.
      max_symbols: most labels at one frame.
      window: frames that a turn evaluates; affects speed only. None: 1 for a TDT, 4 for an
        RNN-T.
      advice: what to expect, for each row. Any other of the same sizes runs the same program.

    Returns:
      a Hypothesis with room for L = T * max_symbols labels (T where every duration is above 0).

    Raises:
      ValueError: if the shapes don't fit, or max_symbols or window is below 1.
    """
    start = start_decoding(model, frames.shape[0], advice)
    options = dict(max_symbols=max_symbols, window=window, advice=advice)
    return decode_chunk(model, frames, num_frames, start, **options)[0]


def start_decoding(model: Any, batch_size: int, advice: Advice | None = None) -> DecoderState:
    """Returns the decoder's state before the first frame of `batch_size` utterances."""
    blank = jnp.full((batch_size,), model.config.blank, jnp.int32)
    output, state = model.predictor.step(blank, model.predictor.start(batch_size))
    skip, states = jnp.zeros_like(blank), advice.start() if advice else ()
    return DecoderState(skip, state, model.joint.project_states(output), states)


@functools.partial(jax.jit, static_argnames=("max_symbols", "window"))
def decode_chunk(
    model: Any,
    frames: jax.Array,
    num_frames: jax.Array,
    state: DecoderState,
    *,
    max_symbols: int = 10,
    window: int | None = None,
    advice: Advice | None = None,
) -> tuple[Hypothesis, DecoderState]:
    """Decodes a chunk of frames, from the state after the chunk before it.

    Chunk after chunk this gives what `greedy_decode` gives for the whole.

    Args:
      model, frames, num_frames, max_symbols, window, advice: as in `greedy_decode`.
      state: from `start_decoding` with this advice, or from the chunk before.

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
    if len(state.advice) != (len(advice.automata) if advice else 0):
        raise ValueError(
            "decoding needs a state of the same advice: it has states of "
            f"{len(state.advice)} automata, and the advice has "
            f"{len(advice.automata) if advice else 0}"
        )
    batch, size = frames.shape[:2]
    if advice:
        _check_advice(advice, batch, model.config.vocab_size)
    if batch == 1 and backend.current() != "cpu":
        options = dict(max_symbols=max_symbols, window=window, advice=advice)
        return _decode_twice(model, frames, num_frames, state, options)
    durations = model.config.durations
    capacity = size * (1 if durations is not None and durations[0] > 0 else max_symbols)
    num_turns = turns_in_block(backend.current(), batch, size)
    projected_frames = model.joint.project_frames(frames)  # once, [B, T, J]
    heads = model.joint.heads_in_loop(batch * window)
    step_predictor = _predictor_in_loop(model, state.predictor)
    follow_advice = _advice_in_loop(advice)
    rows = jnp.arange(batch)

    def logits_at(times: jax.Array, projected: jax.Array):
        """Returns the logits at times [..., B, W] after states [..., B, J]."""
        in_window = projected_frames[rows[:, None], jnp.minimum(times, size - 1)]
        return heads(in_window, projected[..., None, :])

    def turn(state: _State, _) -> tuple[_State, _Turn]:
        logits = logits_at(state.time[:, None] + jnp.arange(window)[None], state.projected)
        best = _best(logits, model.config, state.advised)
        emits, offset, num_steps = _skip_blanks(best, model.config.blank, num_frames - state.time)
        at = rows, jnp.minimum(offset, window - 1)
        token, duration = best.token[at], best.duration[at]

        num_here = jnp.where(offset > 0, 0, state.num_here) + emits.astype(jnp.int32)
        is_stuck = (duration == 0) & (num_here >= max_symbols)
        advance = jnp.where(emits, jnp.where(is_stuck, 1, duration), 0)
        predictor, projected = step_predictor(emits, token, state)
        node = best.token_logits[at] if num_turns == 1 else state.projected
        return _State(
            time=state.time + offset + advance,
            num_here=jnp.where(advance > 0, 0, num_here),
            num_steps=state.num_steps + num_steps,
            predictor=predictor,
            projected=projected,
            advised=follow_advice(emits, token, state.advised),
        ), _Turn(emits, token, state.time + offset, duration, node)

    def decode_block(loop: _Loop) -> _Loop:
        state, turns = jax.lax.scan(turn, loop.state, length=num_turns, unroll=True)
        if num_turns == 1:
            token_logits = turns.node
        else:
            token_logits = logits_at(turns.time[..., None], turns.node)[0][:, :, 0]
        token = None if advice is None else turns.token
        certainty = jnp.stack(score_and_entropy(token_logits, token))
        emissions = jnp.stack([turns.token, turns.time, turns.duration])
        position = loop.num_labels[None] + jnp.cumsum(turns.emits, axis=0) - 1
        position = jnp.where(turns.emits, position, capacity)  # beyond the end: dropped
        return _Loop(
            state=state,
            num_labels=loop.num_labels + jnp.sum(turns.emits, axis=0, dtype=jnp.int32),
            emissions=_put(loop.emissions, position, emissions),
            certainty=_put(loop.certainty, position, certainty),
        )

    zeros = jnp.zeros((batch,), jnp.int32)
    advised = _Advised(state.advice, *advice.weigh(state.advice)) if advice else None
    loop = _Loop(
        state=_State(
            state.skip, zeros, zeros, _by_layer(state.predictor), state.projected, advised
        ),
        num_labels=zeros,
        emissions=jnp.zeros((3, batch, capacity), jnp.int32),
        certainty=jnp.zeros((2, batch, capacity)),
    )
    loop = jax.lax.while_loop(
        lambda loop: jnp.any(loop.state.time < num_frames), decode_block, loop
    )
    labels, times, durations = loop.emissions
    scores, entropies = loop.certainty
    hypothesis = Hypothesis(
        labels, loop.num_labels, times, durations, scores, entropies, loop.state.num_steps
    )
    skip = loop.state.time - num_frames.astype(jnp.int32)
    predictor = _stacked(loop.state.predictor, state.predictor)
    advised = loop.state.advised
    states = advised.states if advised else ()
    return hypothesis, DecoderState(skip, predictor, loop.state.projected, states)


def turns_in_block(platform: str, batch_size: int, num_frames: int) -> int:
    """Returns how many turns are a block, on a platform as of `runtime.backend`.

    Long blocks spare launches: one product after a block gives the scores and entropies of all its
    labels, and a GPU waits for the host once a block. They cost that product, and the turns of the
    last block that nobody needs: too much on a CPU, and for a chunk that takes a turn or two.
    """
    if platform == "cpu":
        return 1
    return max(1, min(BLOCK_TURNS, BLOCK_ROWS // batch_size, num_frames // BLOCK_TURNS))


class _Advised(NamedTuple):
    """The states of the advice, and what they add to the labels' logits."""

    states: tuple[jax.Array, ...]  # [B] each
    rank: jax.Array  # [B, V]
    lift: jax.Array  # [B, V]


class _State(NamedTuple):
    """The state between turns."""

    time: jax.Array  # [B] the frame that each utterance is at
    num_here: jax.Array  # [B] labels emitted at this frame
    num_steps: jax.Array  # [B]
    predictor: list[tuple[jax.Array, ...]]  # `_by_layer`: together they would be copied each turn
    projected: jax.Array  # [B, J]
    advised: _Advised | None


class _Turn(NamedTuple):
    """What a turn emits."""

    emits: jax.Array  # [B] bool, whether it emits a label
    token: jax.Array  # [B]
    time: jax.Array  # [B]
    duration: jax.Array  # [B]
    node: jax.Array  # token logits [B, V+1]; in a block of several turns, the projected state


class _Loop(NamedTuple):
    """The state between blocks of turns."""

    state: _State
    num_labels: jax.Array  # [B]
    emissions: jax.Array  # [3, B, L] labels, times and durations
    certainty: jax.Array  # [2, B, L] scores and entropies


def _put(array: jax.Array, position: jax.Array, values: jax.Array) -> jax.Array:
    """Puts values [n, turns, B] at the positions [turns, B] of [n, B, L], unless beyond the end."""
    fields, rows = jnp.arange(len(array))[:, None, None], jnp.arange(array.shape[1])[None, None]
    return array.at[fields, rows, position[None]].set(values, mode="drop")


def _by_layer(state: Any) -> list[tuple[jax.Array, ...]]:
    """Returns the leaves [n, B, ...] of the predictor's state, each cut into n."""
    return [tuple(leaf) for leaf in jax.tree.leaves(state)]


def _stacked(layers: list[tuple[jax.Array, ...]], like: Any) -> Any:
    """The inverse of `_by_layer`, for a state of the same structure as `like`."""
    return jax.tree.unflatten(jax.tree.structure(like), map(jnp.stack, layers))


class _Best(NamedTuple):
    """The most probable token and duration at each frame of a window."""

    token_logits: jax.Array  # [B, W, V+1]
    token: jax.Array  # [B, W]
    duration: jax.Array  # [B, W]


def _best(logits, config, advised: _Advised | None) -> _Best:
    token_logits, duration_logits = logits
    if advised is None:
        token = jnp.argmax(token_logits, axis=-1).astype(jnp.int32)
    else:
        token = best_token(token_logits, advised.rank[:, None], advised.lift[:, None])
    if duration_logits is None:
        duration = jnp.where(token == config.blank, 1, 0)
    else:
        durations = jnp.asarray(config.durations, jnp.int32)
        duration = durations[_argmax(duration_logits)]
    return _Best(token_logits, token, duration.astype(jnp.int32))


def _argmax(x: jax.Array) -> jax.Array:
    """Returns the argmax of the last axis, of a few columns, by comparing them one by one.

    On a GPU this is part of what uses it, where `jnp.argmax` is a kernel of its own.
    """
    best, index = x[..., 0], jnp.zeros(x.shape[:-1], jnp.int32)
    for i in range(1, x.shape[-1]):
        index = jnp.where(x[..., i] > best, i, index)
        best = jnp.maximum(x[..., i], best)
    return index


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


def _predictor_in_loop(model, like):
    """Returns the function that steps the predictor where a label is emitted.

    It takes `emits` [B], labels [B] and the state of the loop, and returns the predictor's state
    and its projected output. `like` is a state of the predictor.
    """
    in_loop = getattr(model.predictor, "step_in_loop", None)
    step = model.predictor.step if in_loop is None else in_loop()

    def step_rows(emits, labels, state):
        output, new = step(labels, _stacked(state.predictor, like))
        select = functools.partial(select_rows, emits, axis=0)
        new = jax.tree.map(select, _by_layer(new), state.predictor)
        return new, select(model.joint.project_states(output), state.projected)

    def step_if_any(emits, labels, state):
        step = functools.partial(step_rows, emits, labels, state)
        return jax.lax.cond(jnp.any(emits), step, lambda: (state.predictor, state.projected))

    return step_if_any if backend.current() == "cpu" else step_rows


def _check_advice(advice: Advice, batch_size: int, vocab_size: int) -> None:
    """Raises ValueError for advice of another vocabulary or of another number of rows."""
    shapes = [each.shape for each in advice.chosen]
    sizes = [each.row_weights.shape[-1] for each in advice.automata]
    if shapes != [(batch_size,)] * len(sizes) or set(sizes) - {vocab_size}:
        raise ValueError(
            f"the advice must be of {batch_size} rows and {vocab_size} labels, got `chosen` of "
            f"shapes {shapes} and automata of {sizes} labels"
        )


def _advice_in_loop(advice: Advice | None):
    """Returns the function that follows the advice where a label is emitted.

    It takes `emits` [B], labels [B] and what was advised, and returns what is advised then.
    """

    if advice is None:
        return lambda emits, labels, advised: None

    def follow(emits, labels, advised):
        states = advice.advance(advised.states, jnp.where(emits, labels, 0))
        new = _Advised(states, *advice.weigh(states))
        return jax.tree.map(functools.partial(select_rows, emits, axis=0), new, advised)

    def follow_if_any(emits, labels, advised):
        return jax.lax.cond(jnp.any(emits), lambda: follow(emits, labels, advised), lambda: advised)

    return follow_if_any if backend.current() == "cpu" else follow


def _decode_twice(model, frames, num_frames, state: DecoderState, options):
    """Decodes one utterance as a batch of two, both the same.

    On GPUs and TPUs, XLA computes a product with a single row as a sum of products: slowly, and on
    a GPU it rounds them to the dtype of the computation before it adds them.
    """

    def map_state(function, state):
        predictor = jax.tree.map(functools.partial(function, axis=1), state.predictor)
        rest = state.skip, state.projected, state.advice
        skip, projected, states = jax.tree.map(functools.partial(function, axis=0), rest)
        return DecoderState(skip, predictor, projected, states)

    twice = functools.partial(jnp.repeat, repeats=2)
    first = functools.partial(jax.lax.slice_in_dim, start_index=0, limit_index=1)
    if (advice := options["advice"]) is not None:
        chosen = tuple(twice(each, axis=0) for each in advice.chosen)
        options = options | dict(advice=advice._replace(chosen=chosen))
    both = twice(frames, axis=0), twice(num_frames, axis=0), map_state(twice, state)
    hypothesis, state = decode_chunk(model, *both, **options)
    return jax.tree.map(first, hypothesis), map_state(first, state)
