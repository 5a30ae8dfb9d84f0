"""The transducer loss of a joint network, never holding its logits [B, T, U+1, V+1].

The joint runs twice over the lattice, on a small group of tiles (`tdt_jax.losses.grid`) at a time:

    forward   logits of a group -> normalizer and scores of its nodes, all that is kept
              alpha and beta over all nodes -> posteriors of the scores
    backward  logits of a group again -> softmax * gamma - posterior, in closed form
              -> through the heads into the gradients of joint, frames and states

Forward processes the tiles that a path can go through, whatever the padding; backward those that
paths do go through. A lattice holds T * (U+1) nodes, but nearly all of the posterior lies on a band
around the alignment, and a node without posterior has no gradient.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.losses.grid import rows_or_zeros, schedule, tiles_with_mass
from tdt_jax.losses.nodes import (
    JointFunction,
    JointPlan,
    ProjectedJoint,
    TileInputs,
    plan_joint,
    score_nodes,
)
from tdt_jax.losses.recursion import NEG_INF
from tdt_jax.losses.scores import (
    Spec,
    log_likelihoods,
    log_likelihoods_and_posteriors,
    logit_gradients,
    make_spec,
)


def transducer_loss(
    joint: ProjectedJoint | JointFunction,
    frames: jax.Array,
    states: jax.Array,
    labels: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    *,
    durations: tuple[int, ...] | None,
    sigma: float | jax.Array = 0.0,
    fastemit: float | jax.Array = 0.0,
    chunk: int | None = None,
    neglect: float = 1e-6,
    lead: jax.Array | None = None,
    key: jax.Array | None = None,
    as_rnnt: bool | jax.Array | None = None,
) -> jax.Array:
    """Returns the `tdt_loss` or `rnnt_loss` of a joint network, never holding its logits.

    The value is exact. The gradient leaves out nodes at the lattice's edge whose posteriors sum up
    to `neglect` at most in an utterance; that moves the gradient in all its logits together, as a
    sum of absolute values, by at most (4 + 2 fastemit) * neglect, times the incoming gradient. The
    default is below float32's rounding; at 0 every node with a posterior counts.

    It is compiled once for each `joint` and shape. A plain function is another joint at every call,
    so call the loss within `jax.jit` then. Within `jax.shard_map` it needs check_vma=False.

    Args:
      joint: a `tdt_jax.models.joint.Joint`, or anything with its `project_frames`,
        `project_states` and `heads`; or a function of frames [n, t, D] and states [n, u, P] that
        returns token logits [n, t, u, V+1] and duration logits [n, t, u, N] (for an RNN-T: token
        logits alone, or None for the latter). A function is differentiated in what it closes over,
        or in its leaves if it is a pytree such as `jax.tree_util.Partial`.
      frames: [B, T, D] from the encoder.
      states: [B, U+1, P] from the predictor.
      labels, num_frames, num_labels: as in `tdt_loss`.
      durations: as in `tdt_loss`; None is the RNN-T loss on the token head.
      sigma, fastemit: as in `tdt_loss`; the RNN-T loss takes no sigma.
      chunk: about how many nodes are evaluated at a time; some 4 arrays [chunk, V+1] are alive at
        once. None: 2048 on a CPU, whose cache holds little more, and 16384 elsewhere.
      neglect: posterior mass, in [0, 1).
      lead: [B] int32, frames at the start of each utterance in which no label may be emitted, where
        that is known. As frame 0 sees the whole utterance, a model otherwise tends to emit the
        first label there, whatever silence comes before the word. (Mahadeokar et al., 2021,
        arXiv 2011.03072, restrict alignments likewise.)
      key: turns the joint's dropout on; one, or one for each utterance [B].
      as_rnnt: a bool scalar, traced: where True, the RNN-T loss on the token head instead, without
        sigma. Drawn once a batch with probability omega, this is the paper's sampled RNN-T loss.

    Returns:
      [B] float32, in nats; differentiable once in `joint`, `frames` and `states`. An utterance that
      no alignment fits has a loss of about 1e30 and zero gradient.

    Raises:
      ValueError: if shapes, durations, chunk or neglect don't fit.
    """
    spec = make_spec(durations, sigma=sigma, fastemit=fastemit, as_rnnt=as_rnnt)
    if not 0 <= neglect < 1:
        raise ValueError(f"neglect must be in [0, 1), got {neglect}")
    if key is not None and not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    lengths = labels, num_frames, num_labels
    plan, joint, frames, states = plan_joint(
        joint, frames, states, *lengths, spec.durations, chunk=chunk, key=key
    )
    if lead is None:
        lead = jnp.zeros_like(num_frames)
    if lead.shape != num_frames.shape:
        raise ValueError(f"lead must be [{len(labels)}], got {lead.shape}")
    if key is not None and key.ndim == 0:
        key = jax.random.split(key, len(labels))
    if key is not None and key.shape != num_frames.shape:
        raise ValueError(f"key must be one key or {len(labels)}, got keys of shape {key.shape}")
    utterances = _Utterances(*lengths, lead, key)
    return _jitted(plan, spec, np.float32(neglect), utterances, joint, frames, states)


class _Utterances(NamedTuple):
    """What the loss knows of each utterance beside its frames and states; it has no gradient."""

    labels: jax.Array  # [B, U]
    num_frames: jax.Array  # [B]
    num_labels: jax.Array  # [B]
    lead: jax.Array  # [B]
    keys: jax.Array | None  # [B]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(plan: JointPlan, spec: Spec, neglect, utterances: _Utterances, joint, frames, states):
    _, scores = _scores(plan, spec, utterances, joint, frames, states)
    return -log_likelihoods(scores, utterances.num_frames, utterances.num_labels, spec)


def _loss_forward(plan, spec, neglect, utterances, joint, frames, states):
    normalizer, scores = _scores(plan, spec, utterances, joint, frames, states)
    total, posteriors = log_likelihoods_and_posteriors(
        scores, utterances.num_frames, utterances.num_labels, spec
    )
    return -total, (spec, neglect, utterances, joint, frames, states, normalizer, posteriors)


def _loss_backward(plan: JointPlan, residuals, gradient):
    spec, neglect, utterances, joint, frames, states, normalizer, posteriors = residuals
    grid = plan.grid
    mass = jnp.sum(grid.split_nodes(posteriors.blank + posteriors.label), axis=(1, 2))
    tiles = schedule(tiles_with_mass(mass, grid, neglect), plan.group_size)
    posteriors = jax.tree.map(lambda x: jax.vmap(jnp.multiply)(x, gradient), posteriors)
    nodes = jax.tree.map(grid.split_nodes, (normalizer, posteriors))
    inputs = TileInputs(grid, frames, states, utterances.labels, utterances.keys)

    def body(_, group, sums):
        frames, states, labels, keys = inputs.of(group)
        normalizer, posteriors = jax.tree.map(lambda x: _flat(rows_or_zeros(x, group)), nodes)
        (token_logits, duration_logits), pull = jax.vjp(
            lambda *parts: plan.heads(*parts, keys), joint, frames, states
        )
        to_logits = logit_gradients(
            token_logits, duration_logits, labels, normalizer, posteriors, spec.fastemit
        )
        to_joint, to_frames, to_states = pull(to_logits)
        _, row, column = grid.locate(group)
        return (
            jax.tree.map(_accumulate, sums[0], to_joint),
            sums[1].at[row].add(to_frames.astype(jnp.float32), mode="drop"),
            sums[2].at[column].add(to_states.astype(jnp.float32), mode="drop"),
        )

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.float32), (joint, inputs.frames, inputs.states)
    )
    with jax.named_scope("gradients_of_tiles"):
        sums = tiles.fold(body, zeros)
    gradients = sums[0], grid.join_frames(sums[1]), grid.join_states(sums[2])
    return None, None, None, *jax.tree.map(_cotangent, gradients, (joint, frames, states))


_loss.defvjp(_loss_forward, _loss_backward)
_jitted = jax.jit(_loss, static_argnums=0)


def _scores(plan, spec, utterances: _Utterances, joint, frames, states):
    """Returns the normalizer and the Scores of all nodes, without labels in the lead."""
    labels, num_frames, num_labels, lead, keys = utterances
    normalizer, scores = score_nodes(
        plan, spec, joint, frames, states, labels, num_frames, num_labels, keys
    )
    frame = jnp.arange(frames.shape[1])[None, :, None]
    label = jnp.where(frame < lead[:, None, None], NEG_INF, scores.label)
    return normalizer, scores._replace(label=label)


def _flat(x):
    """[n, t, u, ...] -> [n t u, ...]."""
    return x.reshape(-1, *x.shape[3:])


def _accumulate(total, x):
    return total if x.dtype == jax.dtypes.float0 else total + x.astype(jnp.float32)


def _cotangent(total, x):
    """Returns the gradient in x, in its dtype; integers and keys have none."""
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return total.astype(x.dtype)
    return np.zeros(x.shape, jax.dtypes.float0)
