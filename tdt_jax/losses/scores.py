"""From the logits of nodes to the arcs of the lattice, and from posteriors back to gradients.

    token and duration logits
        -> Scores: log-probabilities of blank, of the next label and of each duration
        -> arcs: log-probabilities of blank and label arcs, by duration, for `losses.lattice`

With gamma the posterior mass through node (t, u), the gradient of the negative log-likelihood is

    token logits:     softmax * gamma - posterior of (blank, label)
    duration logits:  softmax * gamma - posterior of each duration

(Graves, 2012, section 2.5; Xu et al., 2023, section 3.3).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from tdt_jax.config import check_durations
from tdt_jax.losses.lattice import log_likelihood
from tdt_jax.losses.recursion import NEG_INF
from tdt_jax.runtime import backend


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Spec:
    """Which loss is computed on the lattice: a pytree, of which only the durations are static."""

    durations: tuple[int, ...] | None = dataclasses.field(metadata={"static": True})  # None: RNN-T
    sigma: ArrayLike  # float32, subtracted from the log-probability of every token
    fastemit: ArrayLike  # float32, scales the gradient of label tokens by 1 + fastemit
    as_rnnt: ArrayLike | None  # bool: where True, the RNN-T loss on the tokens of a TDT


def make_spec(
    durations: tuple[int, ...] | None,
    *,
    sigma: float | jax.Array = 0.0,
    fastemit: float | jax.Array = 0.0,
    as_rnnt: bool | jax.Array | None = None,
) -> Spec:
    """Returns the Spec of a loss, its arguments checked.

    `sigma` and `fastemit` become float32 scalars, so that another value compiles nothing.

    Raises:
      ValueError: if the durations don't increase, sigma or fastemit is no scalar, or an RNN-T gets
        as_rnnt or a Python number as sigma that is not 0.
    """
    if durations is not None:
        durations = tuple(durations)
        check_durations(durations)
    elif as_rnnt is not None or (isinstance(sigma, int | float) and sigma):
        raise ValueError(f"the RNN-T loss takes neither sigma ({sigma}) nor as_rnnt ({as_rnnt})")
    if np.shape(sigma) or np.shape(fastemit):
        raise ValueError(
            "sigma and fastemit must be numbers, got arrays of shapes "
            f"{np.shape(sigma)} and {np.shape(fastemit)}"
        )
    return Spec(durations, _float32(sigma), _float32(fastemit), as_rnnt)


def _float32(number):
    return number.astype(jnp.float32) if isinstance(number, jax.Array) else np.float32(number)


class Scores(NamedTuple):
    """The log-probabilities that the lattice needs of each node, or their posteriors."""

    blank: jax.Array  # [..., U+1]
    label: jax.Array  # [..., U+1], of the next label; at u = U there is none: ignored
    duration: jax.Array | None  # [..., U+1, N]; None: RNN-T


def logits_to_scores(
    token_logits: jax.Array, duration_logits: jax.Array | None, labels: jax.Array
) -> tuple[jax.Array, Scores]:
    """Returns each node's normalizer [...], the logsumexp of its token logits, and its Scores.

    Args:
      token_logits: [..., V+1].
      duration_logits: [..., N], or None.
      labels: the next label of each node, of a shape that broadcasts to [...].
    """
    token_logits = token_logits.astype(jnp.float32)
    normalizer = jax.nn.logsumexp(token_logits, axis=-1)
    labels = _labels_of_nodes(labels, token_logits)
    if backend.current() == "tpu":  # which is slow to gather single numbers from rows
        is_label = _tokens(token_logits) == labels[..., None]
        label = jnp.sum(jnp.where(is_label, token_logits, 0.0), axis=-1)
    else:
        label = jnp.take_along_axis(token_logits, labels[..., None], axis=-1)[..., 0]
    duration = None
    if duration_logits is not None:
        duration = jax.nn.log_softmax(duration_logits.astype(jnp.float32), axis=-1)
    return normalizer, Scores(token_logits[..., -1] - normalizer, label - normalizer, duration)


def scores_to_arcs(
    scores: Scores, spec: Spec
) -> tuple[jax.Array, jax.Array, tuple[int, ...], tuple[int, ...]]:
    """Returns the log-probabilities of all arcs and their durations: what `log_likelihood` takes.

    Args:
      scores: of all nodes, [B, T, U+1].
      spec: which loss it is.

    Returns:
      blank [B, T, U+1, Nb], label [B, T, U, Nl], Nb blank durations, Nl label durations.
    """
    blank, label, duration = scores.blank, scores.label[:, :, :-1], scores.duration
    durations = spec.durations
    if durations is None:
        return blank[..., None], label[..., None], (1,), (0,)
    assert duration is not None
    first = 1 if durations[0] == 0 else 0  # no blank has duration 0
    blanks = (blank - spec.sigma)[..., None] + duration[..., first:]
    labels = (label - spec.sigma)[..., None] + duration[:, :, :-1]
    if spec.as_rnnt is None:
        return blanks, labels, durations[first:], durations
    blanks, blank_durations = _one_arc_where(spec.as_rnnt, blank, 1, blanks, durations[first:])
    labels, label_durations = _one_arc_where(spec.as_rnnt, label, 0, labels, durations)
    return blanks, labels, blank_durations, label_durations


def log_likelihoods(
    scores: Scores, num_frames: jax.Array, num_labels: jax.Array, spec: Spec
) -> jax.Array:
    """Returns the log-likelihood of each utterance [B], from its Scores [B, T, U+1]."""
    blanks, labels, *durations = scores_to_arcs(scores, spec)
    function = jax.vmap(lambda *arrays: log_likelihood(*arrays, *durations))
    return function(blanks, labels, num_frames, num_labels)


def log_likelihoods_and_posteriors(
    scores: Scores, num_frames: jax.Array, num_labels: jax.Array, spec: Spec
) -> tuple[jax.Array, Scores]:
    """Returns `log_likelihoods`, and their gradient in the scores: the posteriors."""
    total, gradient = jax.vjp(
        lambda scores: log_likelihoods(scores, num_frames, num_labels, spec), scores
    )
    return total, gradient(jnp.ones_like(total))[0]


def logit_gradients(
    token_logits: jax.Array,
    duration_logits: jax.Array | None,
    labels: jax.Array,
    normalizer: jax.Array,
    posteriors: Scores,
    fastemit: ArrayLike,
) -> tuple[jax.Array, jax.Array | None]:
    """Returns the gradients of the negative log-likelihood in both logits, each in its dtype.

    Args:
      token_logits, duration_logits, labels: as in `logits_to_scores`.
      normalizer: from `logits_to_scores`; minus infinity at a node that was left out.
      posteriors: of the node's Scores.
      fastemit: as in `Spec`.
    """
    label_mass = (1 + fastemit) * posteriors.label
    gamma = posteriors.blank + label_mass
    normalizer = jnp.where(gamma > 0, normalizer, -NEG_INF)  # so that exp is 0, never infinite
    tokens = _tokens(token_logits)
    is_label = tokens == _labels_of_nodes(labels, token_logits)[..., None]
    is_blank = tokens == tokens.size - 1
    gradient = jnp.exp(token_logits.astype(jnp.float32) - normalizer[..., None]) * gamma[..., None]
    gradient -= jnp.where(is_label, label_mass[..., None], 0.0)
    gradient -= jnp.where(is_blank, posteriors.blank[..., None], 0.0)
    gradient = gradient.astype(token_logits.dtype)
    if duration_logits is None:
        return gradient, None
    if posteriors.duration is None:  # the RNN-T loss on a joint that has durations
        return gradient, jnp.zeros_like(duration_logits)
    softmax = jax.nn.softmax(duration_logits.astype(jnp.float32), axis=-1)
    mass = jnp.sum(posteriors.duration, axis=-1, keepdims=True)
    return gradient, (softmax * mass - posteriors.duration).astype(duration_logits.dtype)


def _labels_of_nodes(labels, token_logits):
    """Returns the label of each node of [..., V+1], clipped to the vocabulary."""
    return jnp.broadcast_to(labels, token_logits.shape[:-1]).clip(0, token_logits.shape[-1] - 2)


def _tokens(token_logits):
    """Returns the numbers of the tokens, in a shape [1, ..., V+1] that broadcasts to the logits."""
    return jnp.arange(token_logits.shape[-1]).reshape((1,) * (token_logits.ndim - 1) + (-1,))


def _one_arc_where(condition, arc, duration: int, arcs, durations: tuple[int, ...]):
    """Returns `arc` [...] of one duration where `condition`, else `arcs` [..., N] of theirs.

    The result has the durations of both, and minus infinity where one of the two has no arc.
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
