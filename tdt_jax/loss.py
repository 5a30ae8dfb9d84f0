"""Transducer losses on whole logits: negative log-likelihood of the labels over all alignments.

Of a node's logits the lattice takes the scores of blank, of the next label and of each duration,
and gives their posteriors back. With gamma = the posterior mass through (t, u), the gradient is

    token:     softmax * gamma - posterior of (blank, label)
    duration:  softmax * gamma - posterior of each duration

(Graves, 2012, section 2.5; Xu et al., 2023, section 3.3). `tdt_jax.lean_loss` does the same without
the logits of all nodes at hand.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.config import check_durations
from tdt_jax.lattice import NEG_INF, log_likelihood
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


def tdt_loss(
    token_logits,
    duration_logits,
    labels,
    num_frames,
    num_labels,
    *,
    durations: tuple[int, ...],
    sigma: float = 0.0,
    fastemit: float = 0.0,
):
    """The TDT loss of each utterance (Xu et al., 2023, arXiv 2304.06795).

    An arc of token y and duration d from (t, u) has log-probability

        log_softmax(token_logits[t, u])[y] - sigma + log_softmax(duration_logits[t, u])[d],

    blanks only with d > 0, and the path ends with a blank that lands exactly on the last frame's
    end, as NVIDIA's Parakeet models were trained.

    Args:
      token_logits: [B, T, U+1, V+1]; blank is the last token.
      duration_logits: [B, T, U+1, N].
      labels: [B, U] int, in [0, V); beyond `num_labels` anything.
      num_frames: [B] int, in [0, T].
      num_labels: [B] int, in [0, U].
      durations: N frame counts, increasing.
      sigma: logit under-normalisation (section 3.2 of the paper).
      fastemit: scales the gradient of label tokens by 1 + fastemit (Yu et al., 2021,
        arXiv 2010.11148); the value stays.

    Returns:
      [B] float32, in nats. An utterance that no alignment fits has a loss of about 1e30 and zero
      gradient.

    Raises:
      ValueError: if shapes or durations don't fit.
    """
    if durations is None:
        raise ValueError("tdt_loss needs durations; without them it is rnnt_loss")
    check_lengths(labels, num_frames, num_labels)
    check_logits(token_logits, duration_logits, labels, tuple(durations))
    spec = Spec(tuple(durations), sigma, fastemit)
    return _jitted(spec, token_logits, duration_logits, labels, num_frames, num_labels)


def rnnt_loss(token_logits, labels, num_frames, num_labels, *, fastemit: float = 0.0):
    """The RNN-T loss of each utterance (Graves, 2012, arXiv 1211.3711).

    Args:
      token_logits: [B, T, U+1, V+1]; blank is the last token.
      labels: [B, U] int, in [0, V); beyond `num_labels` anything.
      num_frames: [B] int, in [0, T].
      num_labels: [B] int, in [0, U].
      fastemit: as in `tdt_loss`.

    Returns:
      [B] float32, in nats.

    Raises:
      ValueError: if shapes don't fit.
    """
    check_lengths(labels, num_frames, num_labels)
    check_logits(token_logits, None, labels, None)
    spec = Spec(None, 0.0, fastemit)
    return _jitted(spec, token_logits, None, labels, num_frames, num_labels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(spec: Spec, token_logits, duration_logits, labels, num_frames, num_labels):
    labels = _per_node(labels)
    _, scores = node_scores(token_logits, duration_logits, labels)
    return -likelihood(scores, num_frames, num_labels, spec)


def _loss_forward(spec, token_logits, duration_logits, labels, num_frames, num_labels):
    labels = _per_node(labels)
    normaliser, scores = node_scores(token_logits, duration_logits, labels)
    total, posteriors = likelihood_and_posteriors(scores, num_frames, num_labels, spec)
    return -total, (token_logits, duration_logits, labels, normaliser, posteriors)


def _loss_backward(spec, residuals, gradient):
    *inputs, posteriors = residuals
    posteriors = jax.tree.map(lambda x: jax.vmap(jnp.multiply)(x, gradient), posteriors)
    tokens, durations = logit_gradients(*inputs, posteriors, spec.fastemit)
    return tokens, durations, None, None, None


_loss.defvjp(_loss_forward, _loss_backward)
_jitted = jax.jit(_loss, static_argnums=0)


def _per_node(labels):
    """[B, U] -> [B, 1, U+1]: the next label at each node."""
    return jnp.pad(labels, ((0, 0), (0, 1)))[:, None]


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
    """Log-probabilities of the arcs, as `tdt_jax.lattice` takes them, and their durations.

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


def check_logits(token_logits, duration_logits, labels, durations) -> None:
    """Raise ValueError, naming both sides, unless the logits fit the labels and the durations."""
    batch, size = labels.shape
    shape = token_logits.shape
    if token_logits.ndim != 4 or (shape[0], shape[2]) != (batch, size + 1):
        raise ValueError(
            "the loss needs token logits [B, T, U+1, V+1] and labels [B, U], got "
            f"{shape} and {labels.shape}"
        )
    if durations is None:
        return
    check_durations(durations)
    expected = (*shape[:3], len(durations))
    if duration_logits is None or duration_logits.shape != expected:
        raise ValueError(
            f"durations {durations} and token logits {shape} need duration logits "
            f"{expected}, got {None if duration_logits is None else duration_logits.shape}"
        )
