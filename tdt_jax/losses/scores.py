"""Transducer losses on whole logits: negative log-likelihood of the labels over all alignments.

Of a node's logits the lattice takes the scores of blank, of the next label and of each duration,
and gives their posteriors back. With gamma = the posterior mass through (t, u), the gradient is

    token:     softmax * gamma - posterior of (blank, label)
    duration:  softmax * gamma - posterior of each duration

(Graves, 2012, section 2.5; Xu et al., 2023, section 3.3).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.losses.lattice import NEG_INF, log_likelihood
from tdt_jax.runtime import backend


class Spec(NamedTuple):
    """Which loss it is."""

    durations: tuple[int, ...] | None  # None: RNN-T
    sigma: float
    fastemit: float


class Scores(NamedTuple):
    """The log-probabilities that the lattice needs of a node; or their posteriors."""

    blank: jax.Array  # [..., U+1]
    label: jax.Array  # [..., U+1], the next label's; at u = U it means nothing
    duration: jax.Array | None  # [..., U+1, N]; None: RNN-T


def node_scores(token_logits, duration_logits, labels):
    """Logits [..., V+1], [..., N] or None, and next labels that broadcast to [...].

    Returns each node's normaliser [...], the logsumexp of its token logits, and its Scores.
    """
    token_logits = token_logits.astype(jnp.float32)
    normaliser = jax.nn.logsumexp(token_logits, axis=-1)
    labels = _labels_of_nodes(labels, token_logits)[..., None]
    if backend.current() == "tpu":  # that has no fast way to pick numbers out of rows
        is_label = jnp.arange(token_logits.shape[-1]).reshape((1,) * normaliser.ndim + (-1,))
        is_label = is_label == labels
        label = jnp.sum(jnp.where(is_label, token_logits, 0.0), axis=-1)
    else:
        label = jnp.take_along_axis(token_logits, labels, axis=-1)[..., 0]
    duration = None
    if duration_logits is not None:
        duration = jax.nn.log_softmax(duration_logits.astype(jnp.float32), axis=-1)
    return normaliser, Scores(token_logits[..., -1] - normaliser, label - normaliser, duration)


def logit_gradients(
    token_logits, duration_logits, labels, normaliser, posteriors: Scores, fastemit: float
):
    """The gradient of the negative log-likelihood in the logits, in their own dtype.

    Args are those of `node_scores`, what it returned, and the posteriors of its scores.
    """
    label_mass = (1 + fastemit) * posteriors.label
    gamma = posteriors.blank + label_mass
    # The normaliser of a node that was never visited is minus infinity.
    normaliser = jnp.where(gamma > 0, normaliser, -NEG_INF)
    tokens = jnp.arange(token_logits.shape[-1]).reshape((1,) * normaliser.ndim + (-1,))
    is_label = tokens == _labels_of_nodes(labels, token_logits)[..., None]
    is_blank = tokens == tokens.size - 1
    gradient = jnp.exp(token_logits.astype(jnp.float32) - normaliser[..., None]) * gamma[..., None]
    gradient -= jnp.where(is_label, label_mass[..., None], 0.0)
    gradient -= jnp.where(is_blank, posteriors.blank[..., None], 0.0)
    gradient = gradient.astype(token_logits.dtype)
    if duration_logits is None:
        return gradient, None
    if posteriors.duration is None:  # an RNN-T's loss on a joint that has durations
        return gradient, jnp.zeros_like(duration_logits)
    softmax = jax.nn.softmax(duration_logits.astype(jnp.float32), axis=-1)
    mass = jnp.sum(posteriors.duration, axis=-1, keepdims=True)
    return gradient, (softmax * mass - posteriors.duration).astype(duration_logits.dtype)


def _labels_of_nodes(labels, token_logits):
    """Labels that broadcast to [...], within the vocabulary, for each node of [..., V+1]."""
    return jnp.broadcast_to(labels, token_logits.shape[:-1]).clip(0, token_logits.shape[-1] - 2)


def likelihood(scores: Scores, num_frames, num_labels, spec: Spec, as_rnnt=None):
    """The log-likelihood of each utterance [B], from its Scores [B, T, U+1]."""
    blanks, labels, *durations = arcs(scores, spec, as_rnnt)
    total = jax.vmap(lambda *arrays: log_likelihood(*arrays, *durations))
    return total(blanks, labels, num_frames, num_labels)


def likelihood_and_posteriors(scores: Scores, num_frames, num_labels, spec, as_rnnt=None):
    """`likelihood`, and the posteriors of the scores: its gradient."""
    total, gradient = jax.vjp(
        lambda scores: likelihood(scores, num_frames, num_labels, spec, as_rnnt), scores
    )
    return total, gradient(jnp.ones_like(total))[0]


def arcs(scores: Scores, spec: Spec, as_rnnt=None):
    """Log-probabilities of the arcs, as `tdt_jax.losses.lattice` takes them, and their durations.

    Args:
      scores: of all nodes, [B, T, U+1].
      spec: which loss it is.
      as_rnnt: None, or a traced bool: where True, the arcs of an RNN-T on the same tokens.

    Returns:
      blank [B, T, U+1, Nb], label [B, T, U, Nl], Nb blank durations, Nl label durations.
    """
    blank, label, duration = scores.blank, scores.label[:, :, :-1], scores.duration
    durations = spec.durations
    if durations is None:
        return blank[..., None], label[..., None], (1,), (0,)
    first = 1 if durations[0] == 0 else 0  # a blank moves on
    blanks = (blank - spec.sigma)[..., None] + duration[..., first:]
    labels = (label - spec.sigma)[..., None] + duration[:, :, :-1]
    if as_rnnt is None:
        return blanks, labels, durations[first:], durations
    blanks, blank_durations = _only(as_rnnt, blank, 1, blanks, durations[first:])
    labels, label_durations = _only(as_rnnt, label, 0, labels, durations)
    return blanks, labels, blank_durations, label_durations


def _only(condition, arc, duration: int, arcs, durations: tuple[int, ...]):
    """Where `condition`, nothing but `arc` [...] with one duration; else `arcs` [..., N].

    Returns the arcs and their durations, the one among them.
    """
    union = tuple(sorted({duration, *durations}))
    missing = jnp.full_like(arc, NEG_INF)
    columns = [
        jnp.where(
            condition,
            arc if d == duration else missing,
            arcs[..., durations.index(d)] if d in durations else missing,
        )
        for d in union
    ]
    return jnp.stack(columns, axis=-1), union


def check_lengths(labels, num_frames, num_labels) -> None:
    """Raise ValueError, naming both sides, unless there is a length for each row of labels."""
    for name, array in (("labels", labels), ("num_frames", num_frames), ("num_labels", num_labels)):
        if not (hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jnp.integer)):
            raise ValueError(f"{name} must be an array of integers, got {_kind(array)}")
    if labels.ndim != 2:
        raise ValueError(f"the loss needs labels [B, U], got {labels.shape}")
    if num_frames.shape != labels.shape[:1] or num_labels.shape != labels.shape[:1]:
        raise ValueError(
            f"the loss needs num_frames and num_labels of shape {labels.shape[:1]}, got "
            f"{num_frames.shape} and {num_labels.shape}"
        )


def _kind(array) -> str:
    return f"one of {array.dtype}" if hasattr(array, "dtype") else f"a {type(array).__name__}"
