"""The losses of a transducer from the logits of all nodes: negative log-likelihoods of the labels.

`tdt_jax.losses.tiled` computes the same numbers without holding those logits.
"""

import jax
import jax.numpy as jnp

from tdt_jax.losses.checks import check_lengths
from tdt_jax.losses.scores import (
    Spec,
    log_likelihoods,
    log_likelihoods_and_posteriors,
    logit_gradients,
    logits_to_scores,
    make_spec,
)


def tdt_loss(
    token_logits: jax.Array,
    duration_logits: jax.Array,
    labels: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    *,
    durations: tuple[int, ...],
    sigma: float | jax.Array = 0.0,
    fastemit: float | jax.Array = 0.0,
) -> jax.Array:
    """Returns the TDT loss of each utterance (Xu et al., 2023, arXiv 2304.06795).

    An arc of token y and duration d from (t, u) has log-probability

        log_softmax(token_logits[t, u])[y] - sigma + log_softmax(duration_logits[t, u])[d],

    blanks only with d > 0, and a path ends with a blank that leads exactly to the end of the last
    frame, as NVIDIA's Parakeet models were trained.

    Args:
      token_logits: [B, T, U+1, V+1]; blank is the last token.
      duration_logits: [B, T, U+1, N].
      labels: [B, U] int, in [0, V); entries from `num_labels` on are ignored.
      num_frames: [B] int, in [0, T].
      num_labels: [B] int, in [0, U].
      durations: N numbers of frames, increasing.
      sigma: logit under-normalization (section 3.2 of the paper).
      fastemit: scales the gradient of label tokens by 1 + fastemit and leaves the value as it is
        (Yu et al., 2021, arXiv 2010.11148).

    `sigma` and `fastemit` are numbers or traced scalars, without gradient: a new value compiles no
    new program.

    Returns:
      [B] float32, in nats. An utterance that no alignment fits has a loss of about 1e30 and zero
      gradient.

    Raises:
      ValueError: if shapes or durations don't fit.
    """
    if durations is None:
        raise ValueError("tdt_loss needs durations; without them it is rnnt_loss")
    spec = make_spec(durations, sigma=sigma, fastemit=fastemit)
    check_lengths(labels, num_frames, num_labels)
    _check_logits(token_logits, duration_logits, labels, spec.durations)
    return _jitted(spec, token_logits, duration_logits, labels, num_frames, num_labels)


def rnnt_loss(
    token_logits: jax.Array,
    labels: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    *,
    fastemit: float | jax.Array = 0.0,
) -> jax.Array:
    """Returns the RNN-T loss of each utterance (Graves, 2012, arXiv 1211.3711).

    Args:
      token_logits: [B, T, U+1, V+1]; blank is the last token.
      labels: [B, U] int, in [0, V); entries from `num_labels` on are ignored.
      num_frames: [B] int, in [0, T].
      num_labels: [B] int, in [0, U].
      fastemit: as in `tdt_loss`.

    Returns:
      [B] float32, in nats; as in `tdt_loss`.

    Raises:
      ValueError: if shapes don't fit.
    """
    spec = make_spec(None, fastemit=fastemit)
    check_lengths(labels, num_frames, num_labels)
    _check_logits(token_logits, None, labels, None)
    return _jitted(spec, token_logits, None, labels, num_frames, num_labels)


@jax.custom_vjp
def _loss(spec: Spec, token_logits, duration_logits, labels, num_frames, num_labels):
    _, scores = logits_to_scores(token_logits, duration_logits, _next_labels(labels))
    return -log_likelihoods(scores, num_frames, num_labels, spec)


def _loss_forward(spec, token_logits, duration_logits, labels, num_frames, num_labels):
    logits = token_logits, duration_logits, _next_labels(labels)
    normalizer, scores = logits_to_scores(*logits)
    total, posteriors = log_likelihoods_and_posteriors(scores, num_frames, num_labels, spec)
    return -total, (*logits, normalizer, posteriors, spec.fastemit)


def _loss_backward(residuals, gradient):
    token_logits, duration_logits, labels, normalizer, posteriors, fastemit = residuals
    posteriors = jax.tree.map(lambda x: jax.vmap(jnp.multiply)(x, gradient), posteriors)
    gradients = logit_gradients(
        token_logits, duration_logits, labels, normalizer, posteriors, fastemit
    )
    return None, *gradients, None, None, None


_loss.defvjp(_loss_forward, _loss_backward)
_jitted = jax.jit(_loss)


def _next_labels(labels):
    """[B, U] -> [B, 1, U+1]: the label that follows each node."""
    return jnp.pad(labels, ((0, 0), (0, 1)))[:, None]


def _check_logits(token_logits, duration_logits, labels, durations) -> None:
    """Raises ValueError, naming both sides, unless the logits fit the labels and the durations."""
    batch, size = labels.shape
    shape = token_logits.shape
    if token_logits.ndim != 4 or (shape[0], shape[2]) != (batch, size + 1):
        raise ValueError(
            "the loss needs token logits [B, T, U+1, V+1] and labels [B, U], got "
            f"{shape} and {labels.shape}"
        )
    if durations is None:
        return
    expected = (*shape[:3], len(durations))
    if duration_logits is None or duration_logits.shape != expected:
        raise ValueError(
            f"durations {durations} and token logits {shape} need duration logits "
            f"{expected}, got {None if duration_logits is None else duration_logits.shape}"
        )
