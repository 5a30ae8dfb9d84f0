"""The transducer loss of a joint network, never holding its logits [B, T, U+1, V+1].

The joint runs twice over the lattice, a small group of tiles (`tdt_jax.losses.grid`) at a time:

    forward   logits of a group -> normaliser and scores of its nodes, all that is kept
              alpha and beta over all nodes -> posteriors of the scores
    backward  logits of a group again -> softmax * gamma - posterior, in closed form
              -> through the heads into the gradients of joint, frames and states

Forward it visits the tiles that a path can go through, whatever the padding; backward those that
paths do go through. A lattice holds T * (U+1) nodes, but nearly all of the posterior lies on a band
around the alignment, and a node without posterior has no gradient.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.losses.grid import schedule, take, tiles_with_mass
from tdt_jax.losses.lattice import NEG_INF
from tdt_jax.losses.nodes import JointPlan, NodeInputs, plan_joint, score_nodes
from tdt_jax.losses.scores import (
    Spec,
    likelihood,
    likelihood_and_posteriors,
    logit_gradients,
)


def transducer_loss(
    joint,
    frames,
    states,
    labels,
    num_frames,
    num_labels,
    *,
    durations: tuple[int, ...] | None,
    sigma: float = 0.0,
    fastemit: float = 0.0,
    chunk: int | None = None,
    neglect: float = 1e-6,
    lead=None,
    key=None,
    as_rnnt=None,
):
    """`tdt_loss` or `rnnt_loss` of a joint network, never holding its logits.

    The value is exact. The gradient leaves out nodes at the lattice's edge whose posteriors sum up
    to `neglect` at most in an utterance; that moves the gradient in all its logits together, as a
    sum of absolute values, by at most (4 + 2 fastemit) * neglect. The default is below what float32
    rounds off; at 0 every node with a posterior counts. (Times the gradient that comes in.)

    It is compiled once for each `joint` and shape; a function of one's own is new with every call,
    so call the loss within `jax.jit` then. Within `jax.shard_map` it needs check_vma=False.

    Args:
      joint: a `tdt_jax.models.joint.Joint`, or anything with its `project_frames`,
        `project_states` and `heads`; or a function of frames [n, t, D] and states [n, u, P] to
        token logits [n, t, u, V+1] and duration logits [n, t, u, N] (to the former alone, or None
        for the latter, for an RNN-T), differentiated in what it closes over, or in its leaves if
        it is a pytree such as `jax.tree_util.Partial`.
      frames: [B, T, D] from the encoder.
      states: [B, U+1, P] from the predictor.
      labels, num_frames, num_labels: as in `tdt_loss`.
      durations: as in `tdt_loss`; None is the RNN-T loss on the token head.
      sigma, fastemit: as in `tdt_loss`; the RNN-T loss takes no sigma.
      chunk: nodes at a time, about; some 4 arrays [chunk, V+1] are alive at once. None: 2048 on a
        CPU, whose cache holds little more, and 16384 elsewhere.
      neglect: posterior mass, in [0, 1).
      lead: [B] int32, frames at the start in which no label may be said, where that is known; with
        0 all may, but as frame 0 sees the whole utterance, a model then tends to say the first
        label there, whatever silence comes before the word. (Alignments are restricted likewise by
        Mahadeokar et al., 2021, arXiv 2011.03072.)
      key: turns the joint's dropout on; one, or one for each utterance [B].
      as_rnnt: a bool scalar, traced: where True, the RNN-T loss on the token head instead, without
        sigma. Drawn once a batch with probability omega, this is the paper's sampled RNN-T loss.

    Returns:
      [B] float32, in nats; differentiable once in `joint`, `frames` and `states`. An utterance that
      no alignment fits has a loss of about 1e30 and zero gradient.

    Raises:
      ValueError: if shapes, durations, chunk or neglect don't fit.
    """
    if durations is None and (sigma or as_rnnt is not None):
        raise ValueError(f"the RNN-T loss takes neither sigma ({sigma}) nor as_rnnt ({as_rnnt})")
    if not 0 <= neglect < 1:
        raise ValueError(f"neglect must be in [0, 1), got {neglect}")
    if key is not None and not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    spec = Spec(None if durations is None else tuple(durations), sigma, fastemit)
    problem, joint, frames, states = plan_joint(
        joint, frames, states, labels, num_frames, num_labels, spec, chunk=chunk, key=key
    )
    if lead is None:
        lead = jnp.zeros_like(num_frames)
    arrays = joint, frames, states, labels, num_frames, num_labels, lead
    if lead.shape != num_frames.shape:
        raise ValueError(f"lead must be [{len(labels)}], got {lead.shape}")
    if key is not None and key.ndim == 0:
        key = jax.random.split(key, len(labels))
    if key is not None and key.shape != num_frames.shape:
        raise ValueError(f"key must be one key or {len(labels)}, got keys of shape {key.shape}")
    return jax.jit(_loss, static_argnums=(0, 1))(problem, neglect, *arrays, key, as_rnnt)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss(
    problem, neglect, joint, frames, states, labels, num_frames, num_labels, lead, keys, as_rnnt
):
    inputs = joint, frames, states, labels, num_frames, num_labels
    _, scores = score_nodes(problem, *inputs, keys, as_rnnt)
    scores = _silent(scores, lead)
    return -likelihood(scores, num_frames, num_labels, problem.spec, as_rnnt)


def _loss_forward(
    problem, neglect, joint, frames, states, labels, num_frames, num_labels, lead, keys, as_rnnt
):
    inputs = joint, frames, states, labels, num_frames, num_labels
    normaliser, scores = score_nodes(problem, *inputs, keys, as_rnnt)
    scores = _silent(scores, lead)
    total, posteriors = likelihood_and_posteriors(
        scores, num_frames, num_labels, problem.spec, as_rnnt
    )
    return -total, (joint, frames, states, labels, keys, normaliser, posteriors)


def _loss_backward(problem: JointPlan, neglect, residuals, gradient):
    joint, frames, states, labels, keys, normaliser, posteriors = residuals
    grid, spec = problem.grid, problem.spec
    mass = jnp.sum(grid.split_nodes(posteriors.blank + posteriors.label), axis=(1, 2))
    tour = schedule(tiles_with_mass(mass, grid, neglect), problem.group())
    posteriors = jax.tree.map(lambda x: jax.vmap(jnp.multiply)(x, gradient), posteriors)
    nodes = jax.tree.map(grid.split_nodes, (normaliser, posteriors))
    inputs = NodeInputs(problem, frames, states, labels, keys)

    def body(_, tile, sums):
        frames, states, labels, keys = inputs.of(tile)
        normaliser, posteriors = jax.tree.map(lambda x: _rows(take(x, tile)), nodes)
        logits, pull = jax.vjp(lambda *parts: problem.heads(*parts, keys), joint, frames, states)
        tokens, durations = logit_gradients(*logits, labels, normaliser, posteriors, spec.fastemit)
        to_joint, to_frames, to_states = pull((tokens, durations))
        _, row, column = grid.place(tile)
        return (
            jax.tree.map(_accumulate, sums[0], to_joint),
            sums[1].at[row].add(to_frames.astype(jnp.float32), mode="drop"),
            sums[2].at[column].add(to_states.astype(jnp.float32), mode="drop"),
        )

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.float32), (joint, inputs.frames, inputs.states)
    )
    with jax.named_scope("gradients_of_tiles"):
        sums = tour.fold(body, zeros)
    gradients = sums[0], grid.join_frames(sums[1]), grid.join_states(sums[2])
    gradients = jax.tree.map(_cotangent, gradients, (joint, frames, states))
    return *gradients, *([None] * 6)


_loss.defvjp(_loss_forward, _loss_backward)


def _silent(scores, lead):
    """Scores [B, T, U+1] without labels in the first frames."""
    frame = jnp.arange(scores.label.shape[1])[None, :, None]
    return scores._replace(label=jnp.where(frame < lead[:, None, None], NEG_INF, scores.label))


def _accumulate(total, x):
    return total if x.dtype == jax.dtypes.float0 else total + x.astype(jnp.float32)


def _cotangent(total, x):
    """The gradient in x, in its dtype; integers and keys have none."""
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return total.astype(x.dtype)
    return np.zeros(x.shape, jax.dtypes.float0)


def _rows(x):
    """[n, t, u, ...] -> [n t u, ...]."""
    return x.reshape(-1, *x.shape[3:])
