"""The alignment lattice of a transducer: its forward-backward recursion, posteriors and best path.

Node (t, u) says: t frames consumed, u labels emitted. Arcs leave it with a duration d,

    blank:  (t, u) -> (t + d, u)        label:  (t, u) -> (t + d, u + 1),

and a path runs from (0, 0) to (T, U), its last arc a blank. A TDT has blank durations above 0 and
label durations from 0; an RNN-T is the same lattice with blanks of duration 1 and labels of 0:

    alpha(t, u) = logsumexp of  alpha(t - d, u) + blank_d(t - d, u),
                                alpha(t - d, u - 1) + label_d(t - d, u - 1)         over d
    beta(t, u)  = logsumexp of  blank_d(t, u) + beta(t + d, u),
                                label_d(t, u) + beta(t + d, u + 1)                  over d

Every arc ends on a later anti-diagonal n = t + u than it starts on, so one `lax.scan` with the last
few diagonals in hand does a whole recursion, all u at once, for any set of durations. The two
recursions share the scan, alpha from one end and beta from the other: T + U + 1 short steps.

Log-probabilities of thousands of nats have no digits left behind the point in float32. So each
diagonal is kept relative to an offset in whole nats, whose sums and differences are exact, and a
posterior is as accurate at the end of an hour as at its start.

Xu et al., 2023, arXiv 2304.06795, section 3; Graves, 2012, arXiv 1211.3711, section 2.4.
"""

import functools
from typing import NamedTuple

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
    return sum(arcs.end(arcs.forward()))


def arc_posteriors(blank, label, num_frames, num_labels, blank_durations, label_durations):
    """The log-likelihood, and the posterior probability of every blank and label arc.

    posterior(arc) = exp(alpha(start) + arc + beta(end) - log-likelihood)

    Args are those of `log_likelihood`; the posteriors have the shapes of `blank` and `label`.
    """
    arcs = _Arcs(blank, label, num_frames, num_labels, blank_durations, label_durations)
    alpha, beta = arcs.forward_backward()
    total, total_offset = arcs.end(alpha)
    beyond = (0, arcs.window)
    beta_nodes = jnp.pad(beta.nodes, (beyond, (0, 1)), constant_values=NEG_INF)
    beta_offset = jnp.pad(beta.offset, beyond)

    def posterior(arc, span, move):
        ends = slice(span, span + arcs.diagonals)
        rest = beta_nodes[ends, move : move + arcs.columns.size]
        whole = alpha.offset + beta_offset[ends] - total_offset  # exact
        log_posterior = (alpha.nodes + arc + rest - total) + whole[:, None]
        # Where no path exists, alpha, beta and total are of the order of 1e30 and say nothing.
        log_posterior = jnp.where(total > NEG_INF / 2, log_posterior, NEG_INF)
        return _unskew(jnp.exp(jnp.minimum(log_posterior, 0.0)))[:-1]

    posteriors = [
        posterior(arcs.leaving[arcs.window :, i], span, move)
        for i, (span, move) in enumerate(arcs.kinds)
    ]
    blanks = jnp.stack(posteriors[: len(blank_durations)], axis=-1)
    labels = jnp.stack(posteriors[len(blank_durations) :], axis=-1)
    return total + total_offset, blanks, labels[:, :-1]


def _log_likelihood_forward(blank, label, num_frames, num_labels, *durations):
    total, *posteriors = arc_posteriors(blank, label, num_frames, num_labels, *durations)
    return total, tuple(posteriors)


def _log_likelihood_backward(blank_durations, label_durations, posteriors, gradient):
    blank, label = posteriors
    return gradient * blank, gradient * label, None, None


log_likelihood.defvjp(_log_likelihood_forward, _log_likelihood_backward)


class BestPath(NamedTuple):
    """The most probable alignment of one utterance; of U, the first `num_labels` entries hold."""

    times: jax.Array  # [U] int32, frame at which each label is emitted
    durations: jax.Array  # [U] int32, frames that its arc moves on
    scores: jax.Array  # [U] float32, log-probability of its arc
    log_probability: jax.Array  # of the whole path; about -1e30 if there is none


def best_path(blank, label, num_frames, num_labels, blank_durations, label_durations) -> BestPath:
    """The Viterbi path: beta with max for logsumexp, then a walk along it from (0, 0).

    Among equally good arcs it takes a blank before a label, and a short one before a long one.

    Args are those of `log_likelihood`.
    """
    arcs = _Arcs(blank, label, num_frames, num_labels, blank_durations, label_durations)
    beta = arcs.backward(jnp.max)
    beyond = (0, arcs.window)
    nodes = jnp.pad(beta.nodes, (beyond, (0, 1)), constant_values=NEG_INF)
    offset = jnp.pad(beta.offset, beyond)
    spans, moves = (jnp.array(column, jnp.int32) for column in zip(*arcs.kinds, strict=True))
    count = label.shape[1]

    def step(state):
        n, u, path = state
        scores = arcs.leaving[arcs.window + n, :, u]
        ends = n + spans
        best = jnp.argmax(scores + nodes[ends, u + moves] + (offset[ends] - offset[n]))
        row = jnp.where(moves[best] == 1, u, count)  # a blank writes beyond the end: dropped
        path = path._replace(
            times=path.times.at[row].set(n - u, mode="drop"),
            durations=path.durations.at[row].set(spans[best] - 1, mode="drop"),
            scores=path.scores.at[row].set(scores[best], mode="drop"),
        )
        return n + spans[best], u + moves[best], path

    def unfinished(state):
        return (nodes[0, 0] > NEG_INF / 2) & (state[0] < num_frames + num_labels)

    none = jnp.zeros((count,), jnp.int32)
    path = BestPath(none, none, none.astype(jnp.float32), nodes[0, 0] + offset[0])
    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(unfinished, step, (zero, zero, path))[2]


class _Diagonals(NamedTuple):
    """A value for each node: nodes[n, u] + offset[n], the offset in whole nats."""

    nodes: jax.Array  # [T+U+1, U+1]
    offset: jax.Array  # [T+U+1]


class _Arcs:
    """The arcs of one utterance, masked to its lengths, and the recursions over them."""

    def __init__(self, blank, label, num_frames, num_labels, blank_durations, label_durations):
        t = jnp.arange(blank.shape[0] + 1)[:, None]  # row T holds the end
        u = jnp.arange(blank.shape[1])[None, :]

        def masked(arc, valid):
            """[T, U'] -> [T+1, U+1], minus infinity where the arc is not valid."""
            missing = (t.size - arc.shape[0], u.size - arc.shape[1])
            arc = jnp.pad(arc.astype(jnp.float32), [(0, size) for size in missing])
            return jnp.where(valid, arc, NEG_INF)

        blanks = [
            masked(blank[..., i], (t + d <= num_frames) & (u <= num_labels))
            for i, d in enumerate(blank_durations)
        ]
        labels = [  # a label cannot land on the end
            masked(label[..., i], (t + d < num_frames) & (u < num_labels))
            for i, d in enumerate(label_durations)
        ]
        # How many diagonals each arc crosses, and whether it moves on by a label.
        self.kinds = [(d, 0) for d in blank_durations] + [(d + 1, 1) for d in label_durations]
        self.window = max(span for span, _ in self.kinds)  # W
        # [W + T+U+1, arcs, U+1]: the arcs that leave diagonal n at W + n, and none before.
        leaving = jnp.swapaxes(_skew(jnp.stack(blanks + labels)), 0, 1)
        before = ((self.window, 0), (0, 0), (0, 0))
        self.leaving = jnp.pad(leaving, before, constant_values=NEG_INF)
        self.diagonals = leaving.shape[0]
        self.columns = jnp.arange(leaving.shape[-1])
        self.num_frames, self.num_labels = num_frames, num_labels

    def end(self, alpha: _Diagonals):
        """alpha(T, U): its share relative to the offset, and the offset."""
        n = self.num_frames + self.num_labels
        return alpha.nodes[n, self.num_labels], alpha.offset[n]

    def forward(self) -> _Diagonals:
        """alpha: log-probability of reaching each node."""
        return self._scan(self._alpha)

    def backward(self, total=None) -> _Diagonals:
        """beta: log-probability of reaching the end from each node."""
        beta = self._scan(functools.partial(self._beta, total=total or _logsumexp))
        return jax.tree.map(lambda x: x[::-1], beta)

    def forward_backward(self) -> tuple[_Diagonals, _Diagonals]:
        """alpha and beta, in one scan."""
        alpha, beta = self._scan(self._alpha, functools.partial(self._beta, total=_logsumexp))
        return alpha, jax.tree.map(lambda x: x[::-1], beta)

    def _scan(self, *recursions):
        """Each recursion's diagonals, in the order that it visits them."""

        def step(windows, count):
            windows = [
                _push(window, recursion(window.nodes, count))
                for recursion, window in zip(recursions, windows, strict=True)
            ]
            return windows, [_Diagonals(window.nodes[0], window.offset) for window in windows]

        # The last few diagonals, newest first, relative to one offset.
        window = _Diagonals(
            jnp.full((self.window, self.columns.size), NEG_INF), jnp.zeros((), jnp.float32)
        )
        windows = [window] * len(recursions)
        _, diagonals = jax.lax.scan(step, windows, jnp.arange(self.diagonals))
        return diagonals if len(recursions) > 1 else diagonals[0]

    def _alpha(self, window, n):
        """alpha on diagonal n, from those before."""
        arrivals = [
            _shift(window[span - 1] + self.leaving[self.window + n - span, i], move)
            for i, (span, move) in enumerate(self.kinds)
        ]
        is_start = (n == 0) & (self.columns == 0)
        return jnp.where(is_start, 0.0, _logsumexp(jnp.stack(arrivals), axis=0))

    def _beta(self, window, count, total):
        """beta on diagonal n, `count` from the last, from those after."""
        n = self.diagonals - 1 - count
        departures = [
            self.leaving[self.window + n, i] + _shift(window[span - 1], -move)
            for i, (span, move) in enumerate(self.kinds)
        ]
        is_end = (n == self.num_frames + self.num_labels) & (self.columns == self.num_labels)
        return jnp.where(is_end, 0.0, total(jnp.stack(departures), axis=0))


def _push(window: _Diagonals, diagonal) -> _Diagonals:
    """Take a diagonal into the window, and move the offset to the peak in whole nats."""
    nodes = jnp.concatenate([diagonal[None], window.nodes[:-1]])
    peak = jnp.max(nodes)
    rise = jnp.where(peak > NEG_INF / 2, jnp.round(peak), 0.0)
    return _Diagonals(nodes - rise, window.offset + rise)


def _logsumexp(x, axis: int):
    peak = jnp.max(x, axis=axis, keepdims=True)
    return jnp.squeeze(peak, axis) + jnp.log(jnp.sum(jnp.exp(x - peak), axis=axis))


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


def _shift(x, by: int):
    """Move [U+1] from u to u + by (1, 0 or -1)."""
    if by == 0:
        return x
    if by == 1:
        return jnp.pad(x[:-1], (1, 0), constant_values=NEG_INF)
    return jnp.pad(x[1:], (0, 1), constant_values=NEG_INF)
