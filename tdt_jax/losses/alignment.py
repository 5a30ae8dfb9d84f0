"""Where the tokens of a transcript lie: the best path through the lattice, and all of them.

Forced alignment for TDT and RNN-T on the lattice of the loss, with the loss's own walk over tiles:
the logits of all nodes are never held.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.losses import lattice
from tdt_jax.losses.nodes import plan_joint, score_nodes
from tdt_jax.losses.scores import Spec, arcs


class Alignment(NamedTuple):
    """The most probable alignment; of U, the first `num_labels` entries hold."""

    times: jax.Array  # [B, U] int32, frame at which each label is emitted
    durations: jax.Array  # [B, U] int32, frames that its arc moves on (RNN-T: 0)
    scores: jax.Array  # [B, U] float32, log-probability of its token and duration there
    log_probability: jax.Array  # [B] float32, of the whole path, blanks and all


class Occupancy(NamedTuple):
    """The posterior probability of every arc, given the transcript.

    `label.sum(-1)` [B, T, U] is when each label is emitted, and sums up to 1 over T.
    """

    blank: jax.Array  # [B, T, U+1, N] float32, by duration; none of duration 0 (RNN-T: N = 1)
    label: jax.Array  # [B, T, U, N] float32
    log_likelihood: jax.Array  # [B] float32, of all alignments


def align(
    joint,
    frames,
    states,
    labels,
    num_frames,
    num_labels,
    *,
    durations: tuple[int, ...] | None,
    chunk: int | None = None,
) -> Alignment:
    """The most probable alignment of given labels: the loss's recursion with max for logsumexp.

    With one frame every `config.seconds_per_frame` seconds, label u is said at

        times[b, u] * seconds_per_frame   to   (times[b, u] + durations[b, u]) * seconds_per_frame

    (Xu et al., 2023, section 4, of the decoder). An RNN-T says nothing of durations. Where no
    alignment exists, `log_probability` is about -1e30, and the rest is zero.

    Args:
      joint, frames, states, labels, num_frames, num_labels, durations, chunk: as in
        `tdt_jax.transducer_loss`; None for durations: the alignment of an RNN-T.

    Returns:
      an Alignment.

    Raises:
      ValueError: if shapes, durations or chunk don't fit.
    """
    return _on_lattice(
        _best_path, joint, frames, states, labels, num_frames, num_labels, durations, chunk
    )


def occupancy(
    joint,
    frames,
    states,
    labels,
    num_frames,
    num_labels,
    *,
    durations: tuple[int, ...] | None,
    chunk: int | None = None,
) -> Occupancy:
    """The posterior probability of every arc: where each label sits, and with what certainty.

    Where no alignment exists, `log_likelihood` is about -1e30, and the posteriors are zero.

    Args:
      joint, frames, states, labels, num_frames, num_labels, durations, chunk: as in
        `tdt_jax.transducer_loss`; None for durations: the arcs of an RNN-T.

    Returns:
      an Occupancy.

    Raises:
      ValueError: if shapes, durations or chunk don't fit.
    """
    return _on_lattice(
        _posteriors, joint, frames, states, labels, num_frames, num_labels, durations, chunk
    )


def _on_lattice(function, joint, frames, states, labels, num_frames, num_labels, durations, chunk):
    spec = Spec(None if durations is None else tuple(durations), 0.0, 0.0)
    problem, *inputs = plan_joint(
        joint, frames, states, labels, num_frames, num_labels, spec, chunk=chunk
    )
    return _run(function, problem, *inputs, labels, num_frames, num_labels)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(function, problem, joint, frames, states, labels, num_frames, num_labels):
    _, scores = score_nodes(problem, joint, frames, states, labels, num_frames, num_labels)
    blanks, labels, *durations = arcs(scores, problem.spec)
    result = jax.vmap(lambda *arrays: function(*arrays, *durations))
    return result(blanks, labels, num_frames, num_labels)


def _best_path(*arguments) -> Alignment:
    return Alignment(*lattice.best_path(*arguments))


def _posteriors(blank, label, *rest) -> Occupancy:
    total, blanks, labels = lattice.arc_posteriors(blank, label, *rest)
    zero_duration = label.shape[-1] - blank.shape[-1]
    blanks = jnp.pad(blanks, ((0, 0), (0, 0), (zero_duration, 0)))
    return Occupancy(blanks, labels, total)
