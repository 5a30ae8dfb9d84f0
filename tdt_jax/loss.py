"""Transducer losses: negative log-likelihood of the labels, summed over all alignments."""

import functools

import jax
import jax.numpy as jnp

from tdt_jax.config import check_durations
from tdt_jax.lattice import NEG_INF, log_likelihood


@functools.partial(jax.jit, static_argnames=("durations", "sigma", "fastemit"))
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
    durations = tuple(durations)
    _check(token_logits, labels, num_frames, num_labels, duration_logits, durations)
    arcs = jax.vmap(functools.partial(_token_arcs, sigma=sigma))(token_logits, labels)
    duration = jax.nn.log_softmax(duration_logits.astype(jnp.float32), axis=-1)
    return _loss(*arcs, duration, num_frames, num_labels, durations, fastemit)


@functools.partial(jax.jit, static_argnames="fastemit")
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
    _check(token_logits, labels, num_frames, num_labels)
    arcs = jax.vmap(functools.partial(_token_arcs, sigma=0.0))(token_logits, labels)
    return _loss(*arcs, None, num_frames, num_labels, None, fastemit)


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
    chunk: int = 32,
    key=None,
    as_rnnt=None,
):
    """`tdt_loss` or `rnnt_loss` of a joint network, never holding its logits.

    The joint runs on `chunk` frames at a time; of its logits only the blank, label and duration
    log-probabilities are kept, and the backward pass computes them again.

    Args:
      joint: as `tdt_jax.joint.Joint`: `project_frames`, `project_states` and `heads`.
      frames: [B, T, D] from the encoder.
      states: [B, U+1, P] from the predictor.
      labels, num_frames, num_labels: as in `tdt_loss`.
      durations: as in `tdt_loss`; None is the RNN-T loss on the token head.
      sigma, fastemit: as in `tdt_loss`; the RNN-T loss takes no sigma.
      chunk: frames at a time.
      key: turns the joint's dropout on.
      as_rnnt: a bool scalar, traced: where True, the RNN-T loss on the token head instead, without
        sigma. Drawn once a batch with probability omega, this is the paper's sampled RNN-T loss.

    Returns:
      [B] float32, in nats; differentiable in `joint`, `frames` and `states`.

    Raises:
      ValueError: if shapes, durations or chunk don't fit.
    """
    if durations is None and (sigma or as_rnnt is not None):
        raise ValueError(f"the RNN-T loss takes neither sigma ({sigma}) nor as_rnnt ({as_rnnt})")
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    if frames.ndim != 3 or states.ndim != 3 or states.shape[1] != labels.shape[-1] + 1:
        raise ValueError(
            "transducer_loss needs frames [B, T, D], states [B, U+1, P] and labels [B, U], got "
            f"{frames.shape}, {states.shape} and {labels.shape}"
        )
    batch, total = frames.shape[:2]
    num_chunks = -(-total // chunk)
    projected_frames = joint.project_frames(frames)
    projected_states = joint.project_states(states)[:, None]
    padding = num_chunks * chunk - total
    chunks = jnp.pad(projected_frames, ((0, 0), (0, padding), (0, 0)))
    chunks = jnp.moveaxis(chunks.reshape(batch, num_chunks, chunk, -1), 1, 0)
    keys = None if key is None else jax.random.split(key, num_chunks)

    @jax.checkpoint
    def log_probabilities(joint, projected_states, frames, key):
        tokens, duration = joint.heads(frames[:, :, None], projected_states, key=key)
        _check(tokens, labels, num_frames, num_labels, duration, durations)
        arcs = jax.vmap(functools.partial(_token_arcs, sigma=sigma))(tokens, labels)
        return *arcs, None if durations is None else jax.nn.log_softmax(duration, axis=-1)

    def body(_, inputs):
        return None, log_probabilities(joint, projected_states, *inputs)

    _, arcs = jax.lax.scan(body, None, (chunks, keys))
    blank, label, duration = jax.tree.map(
        lambda x: jnp.moveaxis(x, 0, 1).reshape(batch, -1, *x.shape[3:])[:, :total], arcs
    )
    return _loss(
        blank, label, duration, num_frames, num_labels, durations, fastemit, as_rnnt, sigma
    )


def _token_arcs(token_logits, labels, *, sigma: float):
    """[T, U+1, V+1], [U] -> log-probabilities of blank [T, U+1] and of the next label [T, U]."""
    normaliser = jax.nn.logsumexp(token_logits.astype(jnp.float32), axis=-1) + sigma
    blank = token_logits[..., -1].astype(jnp.float32) - normaliser
    labels = labels.clip(0, token_logits.shape[-1] - 2)
    label = jnp.take_along_axis(token_logits[:, :-1], labels[None, :, None], axis=-1)[..., 0]
    return blank, label.astype(jnp.float32) - normaliser[:, :-1]


def _loss(
    blank, label, duration, num_frames, num_labels, durations, fastemit, as_rnnt=None, sigma=0.0
):
    """[B, T, U+1], [B, T, U], [B, T, U+1, N] -> [B]; the arcs of RNN-T or TDT, and the lattice."""
    if fastemit:
        label = label + fastemit * (label - jax.lax.stop_gradient(label))  # the value stays
    if durations is None:
        blank_durations, label_durations = (1,), (0,)
        blanks, labels = blank[..., None], label[..., None]
    else:
        first = 1 if durations[0] == 0 else 0  # a blank moves on
        blank_durations, label_durations = durations[first:], durations
        blanks = blank[..., None] + duration[..., first:]
        labels = label[..., None] + duration[:, :, :-1]
    if as_rnnt is not None:
        blanks, blank_durations = _only(as_rnnt, blank + sigma, 1, blanks, blank_durations)
        labels, label_durations = _only(as_rnnt, label + sigma, 0, labels, label_durations)
    total = jax.vmap(lambda *arcs: log_likelihood(*arcs, blank_durations, label_durations))
    return -total(blanks, labels, num_frames, num_labels)


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


def _check(token_logits, labels, num_frames, num_labels, duration_logits=None, durations=None):
    """Raise ValueError, naming both sides, unless all shapes fit."""
    if token_logits.ndim != 4 or labels.shape != (
        token_logits.shape[0],
        token_logits.shape[2] - 1,
    ):
        raise ValueError(
            "the loss needs token logits [B, T, U+1, V+1] and labels [B, U], got "
            f"{token_logits.shape} and {labels.shape}"
        )
    if num_frames.shape != labels.shape[:1] or num_labels.shape != labels.shape[:1]:
        raise ValueError(
            f"the loss needs num_frames and num_labels of shape {labels.shape[:1]}, got "
            f"{num_frames.shape} and {num_labels.shape}"
        )
    if durations is None:
        return
    check_durations(durations)
    expected = (*token_logits.shape[:3], len(durations))
    if duration_logits is None or duration_logits.shape != expected:
        raise ValueError(
            f"durations {durations} and token logits {token_logits.shape} need duration logits "
            f"{expected}, got {None if duration_logits is None else duration_logits.shape}"
        )
