"""The alignment lattice of a transducer, its forward-backward recursion and its arc posteriors.

Node (t, u) says: t frames consumed, u labels emitted. Arcs leave it with a duration d,

    blank:  (t, u) -> (t + d, u)        label:  (t, u) -> (t + d, u + 1),

and a path runs from (0, 0) to (T, U), its last arc a blank. A TDT has blank durations above 0 and
label durations from 0; an RNN-T is the same lattice with blanks of duration 1 and labels of 0:

    alpha(t, u) = logsumexp of  alpha(t - d, u) + blank_d(t - d, u),
                                alpha(t - d, u - 1) + label_d(t - d, u - 1)        over d

Every arc ends on a later anti-diagonal n = t + u than it starts on, so one `lax.scan` over n with
the last few diagonals in hand does the whole recursion, all u at once, for any set of durations
(Xu et al., 2023, arXiv 2304.06795, section 3; Graves, 2012, arXiv 1211.3711, section 2.4).
"""

import functools

import jax
import jax.numpy as jnp

NEG_INF = -1e30  # finite, so that no gradient is NaN


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def log_likelihood(
    blank,
    label,
    num_frames,
    num_labels,
    blank_durations: tuple[int, ...],
    label_durations: tuple[int, ...],
):
    """Log-probability of all alignments of one utterance; `vmap` it for a batch.

    Its gradient is the posterior of each arc, in closed form. Arcs beyond `num_frames` and
    `num_labels` have no influence and no gradient. Where no path exists it is about -1e30, with
    zero gradient.

    Args:
      blank: [T, U+1, Nb] log-probabilities of the blank arcs from (t, u), by duration.
      label: [T, U, Nl] log-probabilities of the label arcs from (t, u), by duration.
      num_frames: int, at most T.
      num_labels: int, at most U.
      blank_durations: Nb durations, all above 0.
      label_durations: Nl durations.

    Returns:
      scalar float32.
    """
    arcs = _Arcs(blank, label, num_frames, num_labels, blank_durations, label_durations)
    return arcs.end(arcs.forward())


def arc_posteriors(blank, label, num_frames, num_labels, blank_durations, label_durations):
    """The log-likelihood, and the posterior probability of every blank and label arc.

    posterior(arc) = exp(alpha(start) + arc + beta(end) - log-likelihood)

    Args are those of `log_likelihood`; the posteriors have the shapes of `blank` and `label`.
    """
    arcs = _Arcs(blank, label, num_frames, num_labels, blank_durations, label_durations)
    alpha, beta = arcs.forward(), arcs.backward()
    total = arcs.end(alpha)

    def posterior(arc, beta_end):
        # Where no path exists, alpha, beta and total are of the order of 1e30 and say nothing.
        log_posterior = jnp.where(total > NEG_INF / 2, alpha[:-1] + arc + beta_end - total, NEG_INF)
        return jnp.exp(jnp.minimum(log_posterior, 0.0))

    longest = max(*blank_durations, *label_durations)
    beta = jnp.pad(beta, ((0, longest), (0, 1)), constant_values=NEG_INF)
    rows, columns = blank.shape[:2]
    blanks = [
        posterior(arcs.blank[i, :-1], beta[d : d + rows, :columns])
        for i, d in enumerate(blank_durations)
    ]
    labels = [
        posterior(arcs.label[i, :-1], beta[d : d + rows, 1 : columns + 1])[:, :-1]
        for i, d in enumerate(label_durations)
    ]
    return total, jnp.stack(blanks, axis=-1), jnp.stack(labels, axis=-1)


def _log_likelihood_forward(blank, label, num_frames, num_labels, *durations):
    total, *posteriors = arc_posteriors(blank, label, num_frames, num_labels, *durations)
    return total, tuple(posteriors)


def _log_likelihood_backward(blank_durations, label_durations, posteriors, gradient):
    blank, label = posteriors
    return gradient * blank, gradient * label, None, None


log_likelihood.defvjp(_log_likelihood_forward, _log_likelihood_backward)


class _Arcs:
    """The arcs of one utterance, masked to its lengths, and the two recursions over them."""

    def __init__(self, blank, label, num_frames, num_labels, blank_durations, label_durations):
        t = jnp.arange(blank.shape[0] + 1)[:, None]  # row T holds the end
        u = jnp.arange(blank.shape[1])[None, :]

        def masked(arc, valid):
            """[T, U'] -> [T+1, U+1], minus infinity where the arc is not valid."""
            missing = (t.size - arc.shape[0], u.size - arc.shape[1])
            arc = jnp.pad(arc.astype(jnp.float32), [(0, size) for size in missing])
            return jnp.where(valid, arc, NEG_INF)

        self.blank = jnp.stack(  # [Nb, T+1, U+1]
            [
                masked(blank[..., i], (t + d <= num_frames) & (u <= num_labels))
                for i, d in enumerate(blank_durations)
            ]
        )
        self.label = jnp.stack(  # [Nl, T+1, U+1]; a label cannot land on the end
            [
                masked(label[..., i], (t + d < num_frames) & (u < num_labels))
                for i, d in enumerate(label_durations)
            ]
        )
        self.num_frames, self.num_labels = num_frames, num_labels
        # Diagonals that each arc crosses: blank d, label d + 1.
        self.blank_spans = blank_durations
        self.label_spans = tuple(d + 1 for d in label_durations)
        self.window = max(*self.blank_spans, *self.label_spans)

    def end(self, alpha):
        """alpha(T, U)."""
        return alpha[self.num_frames, self.num_labels]

    def forward(self):
        """alpha [T+1, U+1]: log-probability of reaching each node."""
        columns = self.blank.shape[-1]
        # What arrives at diagonal n left its start span diagonals earlier, label arcs from u - 1.
        blank = [_delay(arc, s) for arc, s in zip(_skew(self.blank), self.blank_spans, strict=True)]
        label = [
            _shift(_delay(arc, s))
            for arc, s in zip(_skew(self.label), self.label_spans, strict=True)
        ]
        arriving = jnp.stack(blank + label, axis=1)  # [diagonals, arcs, U+1]
        start = jnp.where(jnp.arange(columns) == 0, 0.0, NEG_INF)

        def step(window, arriving):
            sources = [window[s - 1] for s in self.blank_spans]
            sources += [_shift(window[s - 1]) for s in self.label_spans]
            alpha = jax.nn.logsumexp(jnp.stack(sources) + arriving, axis=0)
            return jnp.concatenate([alpha[None], window[:-1]]), alpha

        window = jnp.full((self.window, columns), NEG_INF).at[0].set(start)
        _, alpha = jax.lax.scan(step, window, arriving[1:])
        return _unskew(jnp.concatenate([start[None], alpha]))

    def backward(self):
        """beta [T+1, U+1]: log-probability of reaching the end from each node."""
        columns = self.blank.shape[-1]
        leaving = jnp.concatenate([_skew(self.blank), _skew(self.label)])
        leaving = jnp.swapaxes(leaving, 0, 1)  # [diagonals, arcs, U+1]
        diagonals = jnp.arange(leaving.shape[0])
        is_last = jnp.arange(columns) == self.num_labels

        def step(window, inputs):
            leaving, diagonal = inputs
            ends = [window[s - 1] for s in self.blank_spans]
            ends += [_shift(window[s - 1], -1) for s in self.label_spans]
            beta = jax.nn.logsumexp(jnp.stack(ends) + leaving, axis=0)
            is_end = is_last & (diagonal == self.num_frames + self.num_labels)
            beta = jnp.where(is_end, 0.0, beta)
            return jnp.concatenate([beta[None], window[:-1]]), beta

        window = jnp.full((self.window, columns), NEG_INF)
        _, beta = jax.lax.scan(step, window, (leaving, diagonals), reverse=True)
        return _unskew(beta)


def _skew(nodes):
    """[..., T+1, U+1] by (t, u) -> [..., T+U+1, U+1] by (n = t + u, u); minus infinity outside."""
    *batch, rows, columns = nodes.shape
    pad = [(0, 0)] * (len(batch) + 1)
    nodes = jnp.pad(jnp.swapaxes(nodes, -1, -2), [*pad, (0, columns)], constant_values=NEG_INF)
    nodes = nodes.reshape(*batch, -1)[..., : columns * (rows + columns - 1)]
    return jnp.swapaxes(nodes.reshape(*batch, columns, rows + columns - 1), -1, -2)


def _unskew(diagonals):
    """[T+U+1, U+1] by (n, u) -> [T+1, U+1] by (t, u): the inverse of `_skew`."""
    size, columns = diagonals.shape
    flat = jnp.pad(diagonals.T.reshape(-1), (0, columns))
    return flat.reshape(columns, size + 1)[:, : size + 1 - columns].T


def _delay(diagonals, span: int):
    """Move [diagonals, U+1] to `span` diagonals later."""
    padded = jnp.pad(diagonals, ((span, 0), (0, 0)), constant_values=NEG_INF)
    return padded[: diagonals.shape[0]]


def _shift(x, by: int = 1):
    """Move [..., U+1] from u to u + by (1 or -1)."""
    pad = [(0, 0)] * (x.ndim - 1)
    if by == 1:
        return jnp.pad(x[..., :-1], [*pad, (1, 0)], constant_values=NEG_INF)
    return jnp.pad(x[..., 1:], [*pad, (0, 1)], constant_values=NEG_INF)
