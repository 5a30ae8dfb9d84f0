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

A log-probability of thousands of nats has few digits left behind the point in float32. So those of
nodes are kept as whole nats, whose sums and differences are exact, and a small rest: a posterior is
as accurate in an hour of speech as in a second.

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
    return arcs.end(arcs.forward()).total()


def arc_posteriors(blank, label, num_frames, num_labels, blank_durations, label_durations):
    """The log-likelihood, and the posterior probability of every blank and label arc.

    posterior(arc) = exp(alpha(start) + arc + beta(end) - log-likelihood)

    Args are those of `log_likelihood`; the posteriors have the shapes of `blank` and `label`.
    """
    arcs = _Arcs(blank, label, num_frames, num_labels, blank_durations, label_durations)
    alpha, beta = arcs.forward_backward()
    total = arcs.end(alpha)
    beyond = ((0, arcs.window), (0, 1))
    beta = jax.tree.map(lambda x: jnp.pad(x, beyond, constant_values=NEG_INF), beta)

    def posterior(arc, span, move):
        end = jax.tree.map(
            lambda x: x[span : span + arcs.diagonals, move : move + arcs.columns.size], beta
        )
        whole = alpha.whole + end.whole - total.whole  # exact
        log_posterior = whole + (alpha.rest + arc + end.rest - total.rest)
        # Where no path exists, alpha, beta and total are of the order of 1e30 and say nothing.
        log_posterior = jnp.where(total.whole > NEG_INF / 2, log_posterior, NEG_INF)
        return _unskew(jnp.exp(jnp.minimum(log_posterior, 0.0)))[:-1]

    posteriors = [
        posterior(arcs.leaving[:, i], span, move) for i, (span, move) in enumerate(arcs.kinds)
    ]
    blanks = jnp.stack(posteriors[: len(blank_durations)], axis=-1)
    labels = jnp.stack(posteriors[len(blank_durations) :], axis=-1)
    return total.total(), blanks, labels[:, :-1]


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
    beyond = ((0, arcs.window), (0, 1))
    beta = jax.tree.map(lambda x: jnp.pad(x, beyond, constant_values=NEG_INF), beta)
    spans, moves = (jnp.array(column, jnp.int32) for column in zip(*arcs.kinds, strict=True))
    count = label.shape[1]

    def step(state):
        n, u, path = state
        scores = arcs.leaving[n, :, u]
        ends = n + spans, u + moves
        best = jnp.argmax((beta.whole[ends] - beta.whole[n, u]) + (scores + beta.rest[ends]))
        row = jnp.where(moves[best] == 1, u, count)  # a blank writes beyond the labels
        path = path._replace(
            times=path.times.at[row].set(n - u),
            durations=path.durations.at[row].set(spans[best] - 1),
            scores=path.scores.at[row].set(scores[best]),
        )
        return n + spans[best], u + moves[best], path

    def unfinished(state):
        return (beta.whole[0, 0] > NEG_INF / 2) & (state[0] < num_frames + num_labels)

    none = jnp.zeros((count + 1,), jnp.int32)
    total = beta.total()[0, 0]
    path = BestPath(none, none, none.astype(jnp.float32), total)
    zero = jnp.zeros((), jnp.int32)
    *path, total = jax.lax.while_loop(unfinished, step, (zero, zero, path))[2]
    return BestPath(*(x[:count] for x in path), total)


class _Nodes(NamedTuple):
    """Log-probabilities whole + rest of nodes: whole nats, and the rest about zero."""

    whole: jax.Array  # [..., U+1]
    rest: jax.Array  # [..., U+1]

    def total(self):
        """whole + rest, rounded to float32."""
        return self.whole + self.rest


class _Arcs:
    """The arcs of one utterance, masked to its lengths, and the recursions over them."""

    def __init__(self, blank, label, num_frames, num_labels, blank_durations, label_durations):
        num_frames, num_labels = (jnp.asarray(x, jnp.int32) for x in (num_frames, num_labels))
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
        # How many diagonals each arc crosses, and whether it moves on by a label: blanks, labels.
        self.kinds = [(d, 0) for d in blank_durations] + [(d + 1, 1) for d in label_durations]
        self.num_blanks = len(blanks)
        self.window = max(span for span, _ in self.kinds)  # W
        self.leaving = jnp.swapaxes(_skew(jnp.stack(blanks + labels)), 0, 1)  # [T+U+1, arcs, U+1]
        self.diagonals = self.leaving.shape[0]
        self.columns = jnp.arange(self.leaving.shape[-1])
        self.num_frames, self.num_labels = num_frames, num_labels

    def end(self, alpha: _Nodes) -> _Nodes:
        """alpha(T, U)."""
        n = self.num_frames + self.num_labels
        return jax.tree.map(lambda x: x[n, self.num_labels], alpha)

    def forward(self) -> _Nodes:
        """alpha [T+U+1, U+1]: log-probability of reaching each node."""
        return self._scan([self._alpha], [self._arriving()])[0]

    def backward(self, total=jnp.sum) -> _Nodes:
        """beta [T+U+1, U+1]: log-probability of reaching the end from each node."""
        beta = functools.partial(self._beta, total=total)
        return _reversed(self._scan([beta], [self.leaving[::-1]])[0])

    def forward_backward(self) -> tuple[_Nodes, _Nodes]:
        """alpha and beta, in one scan."""
        arcs = [self._arriving(), self.leaving[::-1]]
        alpha, beta = self._scan([self._alpha, self._beta], arcs)
        return alpha, _reversed(beta)

    def _arriving(self):
        """The arcs [T+U+1, arcs, U+1] that end on each diagonal, at the node where they end."""

        def arriving(i, span):
            span = min(span, self.diagonals)  # a longer one leads out of the lattice
            arc = self.leaving[: self.diagonals - span, i]
            return jnp.pad(arc, ((span, 0), (0, 0)), constant_values=NEG_INF)

        arcs = [arriving(i, span) for i, (span, _) in enumerate(self.kinds)]
        return self._move(jnp.stack(arcs, axis=1), 1)

    def _scan(self, recursions, arcs) -> list[_Nodes]:
        """Each recursion's diagonals, in the order that it visits them."""

        def step(windows, inputs):
            count, *arcs = inputs
            newest = [
                recursion(count, *rest)
                for recursion, *rest in zip(recursions, windows, arcs, strict=True)
            ]
            windows = [
                jax.tree.map(lambda x, window: jnp.concatenate([x[None], window[:-1]]), *pair)
                for pair in zip(newest, windows, strict=True)
            ]
            return windows, newest

        # The last few diagonals, newest first.
        nothing = jnp.full((self.window, self.columns.size), NEG_INF)
        windows = [_Nodes(nothing, jnp.zeros_like(nothing))] * len(recursions)
        with jax.named_scope("recursion"):
            return jax.lax.scan(step, windows, (jnp.arange(self.diagonals), *arcs))[1]

    def _alpha(self, n, window: _Nodes, arriving) -> _Nodes:
        """alpha on diagonal n, from those before."""
        is_start = (n == 0) & (self.columns == 0)
        return self._add(window, arriving, 1, is_start, jnp.sum)

    def _beta(self, count, window: _Nodes, leaving, total=jnp.sum) -> _Nodes:
        """beta on diagonal n, `count` from the last, from those after."""
        is_last = self.diagonals - 1 - count == self.num_frames + self.num_labels
        is_end = is_last & (self.columns == self.num_labels)
        return self._add(window, leaving, -1, is_end, total)

    def _add(self, window: _Nodes, arcs, move: int, is_certain, total) -> _Nodes:
        """The sum (or `total`) of the probabilities over all arcs; 1 where `is_certain`."""
        whole, rest = (
            self._move(jnp.stack([x[span - 1] for span, _ in self.kinds]), move) for x in window
        )
        rest = rest + arcs
        base = jnp.maximum(jnp.round(jnp.max(whole + rest, axis=0)), NEG_INF)
        # Among numbers of the order of 1e30, where there is no path, rounding may be anything.
        terms = jnp.exp(jnp.minimum((whole - base[None]) + rest, 1.0))
        rest = jnp.log(jnp.maximum(total(terms, axis=0), 1e-30))
        return _Nodes(jnp.where(is_certain, 0.0, base), jnp.where(is_certain, 0.0, rest))

    def _move(self, x, move: int):
        """[..., arcs, U+1]: what is of label arcs from u to u + move (1 or -1)."""
        blanks, labels = x[..., : self.num_blanks, :], x[..., self.num_blanks :, :]
        size = x.shape[-1]
        pad = [(0, 0)] * (x.ndim - 1) + [(1, 0) if move == 1 else (0, 1)]
        labels = jnp.pad(labels, pad, constant_values=NEG_INF)
        labels = labels[..., :size] if move == 1 else labels[..., 1:]
        return jnp.concatenate([blanks, labels], axis=-2)


def _reversed(nodes: _Nodes) -> _Nodes:
    return jax.tree.map(lambda x: x[::-1], nodes)


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
