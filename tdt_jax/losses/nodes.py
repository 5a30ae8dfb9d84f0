"""A joint network of any form as a pure function of tiles, and its inputs, checked."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.config import check_durations
from tdt_jax.losses.grid import SIDE, SIDE_ON_TPU, Grid, reachable_tiles, schedule
from tdt_jax.losses.lattice import NEG_INF
from tdt_jax.losses.scores import (
    Spec,
    check_lengths,
    node_scores,
)
from tdt_jax.runtime import backend

CHUNK_ON_CPU, CHUNK = 2048, 16384  # nodes at a time


class JointPlan(NamedTuple):
    """What is static about a loss: the joint network as a pure function, sizes and spec."""

    heads: Callable  # (parameters, frames [n, t, J], states [n, u, J], keys [n]) -> [n t u, ...]
    grid: Grid
    spec: Spec
    chunk: int

    def group(self) -> int:
        """Tiles at a time."""
        return self.grid.group(self.chunk)


def plan_joint(
    joint, frames, states, labels, num_frames, num_labels, spec: Spec, *, chunk, key=None
):
    """Check the arguments of `transducer_loss` and bring any joint into one form.

    Returns:
      a Problem, the joint's parameters, and what its heads take for frames [B, T, J] and states
      [B, U+1, J].

    Raises:
      ValueError: if shapes, durations or chunk don't fit.
    """
    if chunk is None:
        chunk = CHUNK_ON_CPU if backend.current() == "cpu" else CHUNK
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    if spec.durations is not None:
        check_durations(spec.durations)
    check_lengths(labels, num_frames, num_labels)
    batch, size = labels.shape
    if frames.ndim != 3 or len(frames) != batch or states.shape[:-1] != (batch, size + 1):
        raise ValueError(
            "transducer_loss needs frames [B, T, D], states [B, U+1, P] and labels [B, U], got "
            f"{frames.shape}, {states.shape} and {labels.shape}"
        )
    side = SIDE_ON_TPU if backend.current() == "tpu" else SIDE
    grid = Grid(batch, frames.shape[1], size + 1, side)
    if grid.size == 0:
        raise ValueError(f"there are no nodes in {batch} utterances of {frames.shape[1]} frames")
    heads = _call
    if hasattr(joint, "heads"):
        heads = _heads
        frames, states = joint.project_frames(frames), joint.project_states(states)
    elif key is not None:
        raise ValueError("a key needs a joint with project_frames, project_states and heads")
    _check_joint(heads, joint, frames, states, spec.durations)
    if jax.tree_util.all_leaves([joint]):
        group = grid.group(chunk)
        joint = _closure_converted(joint, *(_example(x, group, side) for x in (frames, states)))
    return JointPlan(heads, grid, spec, chunk), joint, frames, states


def _example(x, *shape: int):
    return jax.ShapeDtypeStruct((*shape, x.shape[-1]), x.dtype)


def _check_joint(heads, joint, frames, states, durations) -> None:
    """Try the joint on 2 frames and 3 states: raise ValueError unless its logits fit."""

    def logits(frames, states):
        if heads is _heads:
            return joint.heads(frames[:, :, None], states[:, None])
        return _pair(joint(frames, states))

    example = _example(frames, 1, 2), _example(states, 1, 3)
    nodes, sizes = (1, 2, 3), " and ".join(str(x.shape) for x in example)
    tokens, lengths = jax.eval_shape(logits, *example)
    if tokens.shape[:-1] != nodes:
        raise ValueError(
            f"of frames and states {sizes} the joint gives token logits {tokens.shape}, not "
            "(1, 2, 3, V+1)"
        )
    if durations is None:
        return
    expected = (*nodes, len(durations))
    if lengths is None or lengths.shape != expected:
        raise ValueError(
            f"durations {durations} need duration logits {expected} of frames and states {sizes}, "
            f"the joint gives {None if lengths is None else lengths.shape}"
        )


def _pair(logits):
    """Token and duration logits of a joint that may give token logits alone."""
    return logits if isinstance(logits, tuple) else (logits, None)


def _closure_converted(function, *example):
    """A function as a pytree of what it closes over."""
    jaxpr, shapes = jax.make_jaxpr(lambda *x: function(*x), return_shape=True)(*example)

    def converted(*arguments):
        *constants, frames, states = arguments
        outputs = jax.core.eval_jaxpr(jaxpr.jaxpr, constants, frames, states)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return jax.tree_util.Partial(converted, *jaxpr.consts)


def _heads(joint, frames, states, keys):
    # In rows of nodes: whatever the sides of a tile, the products are of plain matrices.
    shape = (*frames.shape[:2], *states.shape[1:])
    frames = jnp.broadcast_to(frames[:, :, None], shape).reshape(-1, shape[-1])
    states = jnp.broadcast_to(states[:, None], shape).reshape(-1, shape[-1])
    return joint.heads(frames, states, **({} if keys is None else {"key": keys}))


def _call(joint, frames, states, keys):
    return _in_rows(_pair(joint(frames, states)))


def _in_rows(logits):
    return jax.tree.map(lambda x: x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), logits)


def score_nodes(
    problem: JointPlan,
    joint,
    frames,
    states,
    labels,
    num_frames,
    num_labels,
    keys=None,
    as_rnnt=None,
):
    """The normaliser [B, T, U+1] and the Scores of every node that a path can go through.

    Problem, joint, frames and states are what `prepare` returns. Other nodes have scores of minus
    infinity.
    """
    grid, durations = problem.grid, problem.spec.durations
    shortest = 0 if durations is None or as_rnnt is not None else durations[0]
    matters = reachable_tiles(grid, num_frames, num_labels, shortest)
    tour = schedule(matters, problem.group())
    inputs = NodeInputs(problem, frames, states, labels, keys)

    def values(tile):
        frames, states, labels, keys = inputs.of(tile)
        tokens, lengths = problem.heads(joint, frames, states, keys)
        values = node_scores(tokens, None if durations is None else lengths, labels)
        return jax.tree.map(lambda x: x.reshape(-1, grid.side, grid.side, *x.shape[1:]), values)

    def body(group, tile, out):
        return jax.tree.map(lambda x, y: x.at[group].set(y), out, values(tile))

    shapes = jax.eval_shape(values, tour.order[0])
    out = jax.tree.map(
        lambda x: jnp.full((len(tour.order), *x.shape), NEG_INF, jnp.float32), shapes
    )
    with jax.named_scope("scores_of_tiles"):
        out = tour.fold(body, out)
    return jax.tree.map(lambda x: grid.join_nodes(tour.restore(x)), out)


class NodeInputs:
    """Frames, states and labels, cut into the rows and columns of tiles."""

    def __init__(self, problem: JointPlan, frames, states, labels, keys):
        self.grid, self.keys = problem.grid, keys
        self.frames, self.states = self.grid.split_frames(frames), self.grid.split_states(states)
        self.labels = self.grid.split_states(jnp.pad(labels, ((0, 0), (0, 1))))

    def of(self, tile):
        """Of tiles [n]: frames [n, t, J], states [n, u, J], next labels [n t u], keys [n]."""
        utterance, row, column = self.grid.place(tile)
        keys = None
        if self.keys is not None:
            keys = _clipped(self.keys, utterance)
            for place in (row % self.grid.rows, column % self.grid.columns):
                keys = jax.vmap(jax.random.fold_in)(keys, place)
        labels = jnp.repeat(_clipped(self.labels, column)[:, None], self.grid.side, axis=1)
        return _clipped(self.frames, row), _clipped(self.states, column), labels.reshape(-1), keys


def _clipped(x, index):
    """Rows of x, the last one where the index is beyond."""
    return x.at[index].get(mode="clip")
