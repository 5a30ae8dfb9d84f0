"""Forced alignment for TDT and RNN-T: where the labels of a transcript lie in the audio.

It searches or sums the lattice of the loss, scored tile by tile as in `tdt_jax.losses.tiled`: the
logits of all nodes are never held.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.losses import lattice
from tdt_jax.losses.nodes import JointFunction, ProjectedJoint, plan_joint, score_nodes
from tdt_jax.losses.scores import make_spec, scores_to_arcs


class Alignment(NamedTuple):
    """The most probable alignment; the first `num_labels` entries of a row are valid."""

    times: jax.Array  # [B, U] int32, frame at which each label is emitted
    durations: jax.Array  # [B, U] int32, duration of its arc, in frames (RNN-T: 0)
    scores: jax.Array  # [B, U] float32, log-probability of its token and duration there
    log_probability: jax.Array  # [B] float32, of the whole path, blanks included


class Occupancy(NamedTuple):
    """The posterior probability of every arc, given the transcript.

    `label.sum(-1)` [B, T, U] is the distribution of each label's time of emission.
    """

    blank: jax.Array  # [B, T, U+1, N] float32, by duration; 0 at duration 0 (RNN-T: N = 1)
    label: jax.Array  # [B, T, U, N] float32
    log_likelihood: jax.Array  # [B] float32, of all alignments


def align(
    joint: ProjectedJoint | JointFunction,
    frames: jax.Array,
    states: jax.Array,
    labels: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    *,
    durations: tuple[int, ...] | None,
    chunk: int | None = None,
) -> Alignment:
    """Returns the most probable alignment of given labels (max for logsumexp in the recursion).

    With one frame every `config.seconds_per_frame` seconds, label u lasts from

        times[b, u] * seconds_per_frame   to   (times[b, u] + durations[b, u]) * seconds_per_frame

    (as the decoder of Xu et al., 2023, section 4, has them). An RNN-T predicts no durations. Where
    no alignment exists, `log_probability` is about -1e30, and the rest is zero.

    Args:
      joint, frames, states, labels, num_frames, num_labels, durations, chunk: as in
        `tdt_jax.transducer_loss`; None for durations: the alignment of an RNN-T.

    Returns:
      an Alignment.

    Raises:
      ValueError: if shapes, durations or chunk don't fit.
    """
    arguments = joint, frames, states, labels, num_frames, num_labels
    return _on_lattice(_best_path, *arguments, durations=durations, chunk=chunk)


def occupancy(
    joint: ProjectedJoint | JointFunction,
    frames: jax.Array,
    states: jax.Array,
    labels: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    *,
    durations: tuple[int, ...] | None,
    chunk: int | None = None,
) -> Occupancy:
    """Returns the posterior probability of every arc: where each label lies, and how certainly.

    Where no alignment exists, `log_likelihood` is about -1e30, and the posteriors are zero.

    Args:
      joint, frames, states, labels, num_frames, num_labels, durations, chunk: as in
        `tdt_jax.transducer_loss`; None for durations: the arcs of an RNN-T.

    Returns:
      an Occupancy.

    Raises:
      ValueError: if shapes, durations or chunk don't fit.
    """
    arguments = joint, frames, states, labels, num_frames, num_labels
    return _on_lattice(_posteriors, *arguments, durations=durations, chunk=chunk)


def _on_lattice(
    function, joint, frames, states, labels, num_frames, num_labels, *, durations, chunk
):
    """Returns `function` of the arcs of each utterance."""
    spec = make_spec(durations)
    lengths = labels, num_frames, num_labels
    plan, *inputs = plan_joint(joint, frames, states, *lengths, spec.durations, chunk=chunk)
    return _jitted(function, plan, spec, *inputs, *lengths)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jitted(function, plan, spec, joint, frames, states, labels, num_frames, num_labels):
    _, scores = score_nodes(plan, spec, joint, frames, states, labels, num_frames, num_labels)
    blanks, labels, *durations = scores_to_arcs(scores, spec)
    batched = jax.vmap(lambda *arrays: function(*arrays, *durations))
    return batched(blanks, labels, num_frames, num_labels)


def _best_path(*arguments) -> Alignment:
    return Alignment(*lattice.best_path(*arguments))


def _posteriors(blank, label, *rest) -> Occupancy:
    total, blanks, labels = lattice.arc_posteriors(blank, label, *rest)
    zero_duration = label.shape[-1] - blank.shape[-1]
    blanks = jnp.pad(blanks, ((0, 0), (0, 0), (zero_duration, 0)))
    return Occupancy(blanks, labels, total)
