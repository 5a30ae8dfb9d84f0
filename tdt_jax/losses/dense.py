"""Transducer losses on the logits of all nodes: negative log-likelihoods of the labels.

`tdt_jax.losses.tiled` computes the same without holding those logits.
"""

import functools

import jax
import jax.numpy as jnp

from tdt_jax.config import check_durations
from tdt_jax.losses.scores import (
    Spec,
    check_lengths,
    likelihood,
    likelihood_and_posteriors,
    logit_gradients,
    node_scores,
)


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
