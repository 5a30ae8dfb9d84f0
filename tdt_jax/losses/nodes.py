"""Any joint network, evaluated on tiles of nodes.

`plan_joint` brings a joint network into one form, a pure function of its parameters and tiles, and
checks the arguments; `score_nodes` runs it over the tiles that a path can go through.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from tdt_jax.losses.checks import check_lengths
from tdt_jax.losses.grid import (
    SIDE,
    SIDE_ON_TPU,
    Grid,
    reachable_tiles,
    rows_or_last,
    schedule,
)
from tdt_jax.losses.recursion import NEG_INF
from tdt_jax.losses.scores import Scores, Spec, logits_to_scores
from tdt_jax.runtime import backend

CHUNK_ON_CPU, CHUNK = 2048, 16384  # nodes at a time


class ProjectedJoint(Protocol):
    """A joint network whose inputs are projected once, before they are combined node by node."""

    def project_frames(self, frames: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, J]."""
        ...

    def project_states(self, states: jax.Array) -> jax.Array:
        """[B, U+1, P] -> [B, U+1, J]."""
        ...

    def heads(self, frames: jax.Array, states: jax.Array) -> Any:
        """Frames and states that broadcast to [..., J] -> logits [..., V+1], [..., N] or None."""
        ...


JointFunction = Callable[[jax.Array, jax.Array], Any]  # of frames [n, t, D] and states [n, u, P]


class JointPlan(NamedTuple):
    """What is static about the evaluation of a joint network on the nodes of a batch."""

    heads: Callable  # (parameters, frames [n, t, J], states [n, u, J], keys [n]) -> [n t u, ...]
    grid: Grid
    group_size: int  # tiles at a time


def plan_joint(
    joint: ProjectedJoint | JointFunction,
    frames: jax.Array,
    states: jax.Array,
    labels: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    durations: tuple[int, ...] | None,
    *,
    chunk: int | None,
    key: jax.Array | None = None,
) -> tuple[JointPlan, Any, jax.Array, jax.Array]:
    """Checks the arguments of `transducer_loss` and brings any joint into one form.

    Returns:
      a JointPlan, the joint's parameters, and the inputs of the plan's heads: frames [B, T, J] and
      states [B, U+1, J].

    Raises:
      ValueError: if shapes or chunk don't fit.
    """
    if chunk is None:
        chunk = CHUNK_ON_CPU if backend.current() == "cpu" else CHUNK
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
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
    if hasattr(joint, "heads"):
        heads = _projected_heads
        frames, states = joint.project_frames(frames), joint.project_states(states)
        one_head = getattr(joint, "one_head", None)
        if one_head is not None and backend.current() == "gpu":
            joint = one_head()  # on a TPU two products are faster
    elif key is None:
        heads = _function_heads
    else:
        raise ValueError("a key needs a joint with project_frames, project_states and heads")
    _check_logits(joint, frames, states, durations)
    group_size = grid.group_size(chunk)
    if jax.tree_util.all_leaves([joint]):
        tiles = (_tiles_of(x, group_size, side) for x in (frames, states))
        joint = _closure_converted(joint, *tiles)
    return JointPlan(heads, grid, group_size), joint, frames, states


def _projected_heads(joint, frames, states, keys):
    # As rows of nodes, so that the heads are products of plain matrices whatever a tile's sides.
    shape = (*frames.shape[:2], *states.shape[1:])
    frames = jnp.broadcast_to(frames[:, :, None], shape).reshape(-1, shape[-1])
    states = jnp.broadcast_to(states[:, None], shape).reshape(-1, shape[-1])
    return joint.heads(frames, states, **({} if keys is None else {"key": keys}))


def _function_heads(joint, frames, states, _):
    return jax.tree.map(
        lambda x: x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), _pair(joint(frames, states))
    )


def _pair(logits):
    """Returns token and duration logits of a joint that may return token logits alone."""
    return logits if isinstance(logits, tuple) else (logits, None)


def _tiles_of(x, *shape: int):
    """Returns the shape of tiles that are cut from x [..., J]."""
    return jax.ShapeDtypeStruct((*shape, x.shape[-1]), x.dtype)


def _check_logits(joint, frames, states, durations) -> None:
    """Raises ValueError unless the joint's logits of 2 frames and 3 states have these shapes."""

    def logits(frames, states):
        if hasattr(joint, "heads"):
            return joint.heads(frames[:, :, None], states[:, None])
        return _pair(joint(frames, states))

    tile = _tiles_of(frames, 1, 2), _tiles_of(states, 1, 3)
    nodes, inputs = (1, 2, 3), " and ".join(str(x.shape) for x in tile)
    token_logits, duration_logits = jax.eval_shape(logits, *tile)
    if token_logits.shape[:-1] != nodes:
        raise ValueError(
            f"of frames and states {inputs} the joint gives token logits {token_logits.shape}, not "
            "(1, 2, 3, V+1)"
        )
    if durations is None:
        return
    expected = (*nodes, len(durations))
    if duration_logits is None or duration_logits.shape != expected:
        raise ValueError(
            f"durations {durations} need duration logits {expected} of frames and states {inputs}, "
            f"the joint gives {None if duration_logits is None else duration_logits.shape}"
        )


def _closure_converted(function, *tiles):
    """Returns the function as a pytree of the arrays that it closes over."""
    jaxpr, shapes = jax.make_jaxpr(lambda *x: function(*x), return_shape=True)(*tiles)

    def converted(*arguments):
        *constants, frames, states = arguments
        outputs = eval_jaxpr(jaxpr.jaxpr, constants, frames, states)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return jax.tree_util.Partial(converted, *jaxpr.consts)


def score_nodes(
    plan: JointPlan,
    spec: Spec,
    joint: Any,
    frames: jax.Array,
    states: jax.Array,
    labels: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    keys: jax.Array | None = None,
) -> tuple[jax.Array, Scores]:
    """Returns the normalizer [B, T, U+1] and the Scores of every node that a path can go through.

    Those of other nodes are minus infinity. The plan, joint, frames and states are those that
    `plan_joint` returns.
    """
    grid, durations = plan.grid, spec.durations
    shortest = 0 if durations is None or spec.as_rnnt is not None else durations[0]
    tiles = schedule(reachable_tiles(grid, num_frames, num_labels, shortest), plan.group_size)
    inputs = TileInputs(grid, frames, states, labels, keys)

    def evaluate(group):
        frames, states, labels, keys = inputs.of(group)
        token_logits, duration_logits = plan.heads(joint, frames, states, keys)
        if durations is None:
            duration_logits = None
        values = logits_to_scores(token_logits, duration_logits, labels)
        return jax.tree.map(lambda x: x.reshape(-1, grid.side, grid.side, *x.shape[1:]), values)

    def body(index, group, values):
        return jax.tree.map(lambda x, new: x.at[index].set(new), values, evaluate(group))

    values = jax.tree.map(
        lambda x: jnp.full((len(tiles.order), *x.shape), NEG_INF, jnp.float32),
        jax.eval_shape(evaluate, tiles.order[0]),
    )
    with jax.named_scope("scores_of_tiles"):
        values = tiles.fold(body, values)
    return jax.tree.map(lambda x: grid.join_nodes(tiles.restore(x)), values)


class TileInputs:
    """Frames, states and labels, cut into the rows and columns of tiles."""

    def __init__(self, grid: Grid, frames, states, labels, keys):
        self.grid, self.keys = grid, keys
        self.frames, self.states = grid.split_frames(frames), grid.split_states(states)
        self.labels = grid.split_states(jnp.pad(labels, ((0, 0), (0, 1))))

    def of(self, tiles: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
        """Returns, of tiles [n]: frames [n, t, J], states [n, u, J], next labels [n t u], keys [n].

        An index beyond the last tile gives the inputs of the last.
        """
        utterance, row, column = self.grid.locate(tiles)
        keys = None
        if self.keys is not None:
            keys = rows_or_last(self.keys, utterance)
            for place in (row % self.grid.rows, column % self.grid.columns):
                keys = jax.vmap(jax.random.fold_in)(keys, place)
        labels = jnp.repeat(rows_or_last(self.labels, column)[:, None], self.grid.side, axis=1)
        return (
            rows_or_last(self.frames, row),
            rows_or_last(self.states, column),
            labels.reshape(-1),
            keys,
        )
