"""The alignment lattice of a transducer: forward-backward recursion, arc posteriors and best path.

At node (t, u), t frames are consumed and u labels are emitted. Arcs of duration d lead on from it,

    blank:  (t, u) -> (t + d, u)        label:  (t, u) -> (t + d, u + 1),

and a path runs from (0, 0) to (T, U), its last arc a blank. A TDT has blank durations above 0 and
label durations from 0; an RNN-T is the same lattice with blanks of duration 1 and labels of 0:

    alpha(t, u) = logsumexp of  alpha(t - d, u) + blank_d(t - d, u),
                                alpha(t - d, u - 1) + label_d(t - d, u - 1)         over d
    beta(t, u)  = logsumexp of  blank_d(t, u) + beta(t + d, u),
                                label_d(t, u) + beta(t + d, u + 1)                  over d

Every arc ends on a later anti-diagonal n = t + u than it starts on. So one `lax.scan` that carries
the last few diagonals computes a recursion, for all u at once and for any set of durations. alpha
and beta share the scan, one from the first diagonal, one from the last: T + U + 1 short steps. On
TPUs, and on GPUs where asked for, one kernel takes all of them (`losses.lattice_kernel`).

In float32, a log-probability of thousands of nats has few digits left after the point. So those of
nodes are kept as whole nats, whose sums and differences are exact, and a small rest: a posterior is
as accurate in an hour of speech as in a second.

Xu et al., 2023, arXiv 2304.06795, section 3; Graves, 2012, arXiv 1211.3711, section 2.4.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.losses.recursion import NEG_INF, LogProbs, Recursion, Step, skew, unskew
from tdt_jax.runtime import backend


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def log_likelihood(
    blank: jax.Array,
    label: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    blank_durations: tuple[int, ...],
    label_durations: tuple[int, ...],
) -> jax.Array:
    """Returns the log-probability of all alignments of one utterance; `vmap` it over a batch.

    Its gradient is the posterior of each arc, in closed form. Arcs beyond `num_frames` and
    `num_labels` have no influence and no gradient. Where no path exists the value is about -1e30
    and the gradient zero.

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
    return arcs.end(arcs.forward()).value()


def arc_posteriors(
    blank: jax.Array,
    label: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    blank_durations: tuple[int, ...],
    label_durations: tuple[int, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the log-likelihood, and the posterior probability of every blank and label arc.

    posterior(arc) = exp(alpha(start) + arc + beta(end) - log-likelihood)

    Args are those of `log_likelihood`; the posteriors have the shapes of `blank` and `label`.
    """
    arcs = _Arcs(blank, label, num_frames, num_labels, blank_durations, label_durations)
    alpha, beta = arcs.forward_backward()
    total = arcs.end(alpha)
    beta = arcs.padded(beta)
    rows, columns = arcs.masked[0].shape

    def posterior(arc, step):
        t, u = step.duration, step.emitted
        end = jax.tree.map(lambda x: x[t : t + rows, u : u + columns], beta)
        whole = alpha.whole + end.whole - total.whole  # exact
        log_posterior = whole + (alpha.rest + arc + end.rest - total.rest)
        # Where no path exists, alpha, beta and total are of the order of -1e30 and mean nothing.
        log_posterior = jnp.where(total.whole > NEG_INF / 2, log_posterior, NEG_INF)
        return jnp.exp(jnp.minimum(log_posterior, 0.0))[:-1]

    posteriors = [posterior(*pair) for pair in zip(arcs.masked, arcs.steps, strict=True)]
    blanks = jnp.stack(posteriors[: len(blank_durations)], axis=-1)
    labels = jnp.stack(posteriors[len(blank_durations) :], axis=-1)
    return total.value(), blanks, labels[:, :-1]


def _log_likelihood_forward(blank, label, num_frames, num_labels, *durations):
    total, *posteriors = arc_posteriors(blank, label, num_frames, num_labels, *durations)
    return total, tuple(posteriors)


def _log_likelihood_backward(blank_durations, label_durations, posteriors, gradient):
    blank, label = posteriors
    return gradient * blank, gradient * label, None, None


log_likelihood.defvjp(_log_likelihood_forward, _log_likelihood_backward)


class BestPath(NamedTuple):
    """The most probable alignment of one utterance; the first `num_labels` entries are valid."""

    times: jax.Array  # [U] int32, frame at which each label is emitted
    durations: jax.Array  # [U] int32, duration of its arc, in frames
    scores: jax.Array  # [U] float32, log-probability of its arc
    log_probability: jax.Array  # of the whole path; about -1e30 if there is none


def best_path(
    blank: jax.Array,
    label: jax.Array,
    num_frames: jax.Array,
    num_labels: jax.Array,
    blank_durations: tuple[int, ...],
    label_durations: tuple[int, ...],
) -> BestPath:
    """Returns the Viterbi path: beta with max for logsumexp, then its best arcs from (0, 0) on.

    Among equally good arcs it takes a blank before a label, and a short one before a long one.

    Args are those of `log_likelihood`.
    """
    arcs = _Arcs(blank, label, num_frames, num_labels, blank_durations, label_durations)
    beta = arcs.padded(arcs.backward(best=True))
    leaving = jnp.stack(arcs.masked, axis=-1)
    durations, emitted = (jnp.array(x, jnp.int32) for x in zip(*arcs.steps, strict=True))
    count = label.shape[1]

    def step(state):
        t, u, path = state
        scores = leaving[t, u]
        ends = t + durations, u + emitted
        best = jnp.argmax((beta.whole[ends] - beta.whole[t, u]) + (scores + beta.rest[ends]))
        row = jnp.where(emitted[best] == 1, u, count)  # a blank writes beyond the labels
        path = path._replace(
            times=path.times.at[row].set(t),
            durations=path.durations.at[row].set(durations[best]),
            scores=path.scores.at[row].set(scores[best]),
        )
        return t + durations[best], u + emitted[best], path

    def unfinished(state):
        return (beta.whole[0, 0] > NEG_INF / 2) & (state[0] < num_frames)

    empty = jnp.zeros((count + 1,), jnp.int32)
    path = BestPath(empty, empty, empty.astype(jnp.float32), beta.value()[0, 0])
    zero = jnp.zeros((), jnp.int32)
    _, _, path = jax.lax.while_loop(unfinished, step, (zero, zero, path))
    times, durations, scores = (x[:count] for x in path[:3])
    return BestPath(times, durations, scores, path.log_probability)


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
        self.masked = blanks + labels  # each [T+1, U+1]
        self.steps = [Step(d, 0) for d in blank_durations]
        self.steps += [Step(d, 1) for d in label_durations]
        self.num_frames, self.num_labels = num_frames, num_labels

    def end(self, alpha: LogProbs) -> LogProbs:
        """Returns alpha(T, U)."""
        return jax.tree.map(lambda x: x[self.num_frames, self.num_labels], alpha)

    def padded(self, beta: LogProbs) -> LogProbs:
        """Returns beta with room for the ends of arcs that lead out of the lattice."""
        beyond = ((0, max(step.duration for step in self.steps)), (0, 1))
        return jax.tree.map(lambda x: jnp.pad(x, beyond, constant_values=NEG_INF), beta)

    def forward(self) -> LogProbs:
        """Returns alpha [T+1, U+1]: the log-probability of reaching each node."""
        return self._run(Recursion(forward=True))[0]

    def backward(self, *, best: bool = False) -> LogProbs:
        """Returns beta [T+1, U+1]: the log-probability of reaching the end from each node.

        With `best`, that of the best path to it.
        """
        return self._run(Recursion(forward=False, best=best))[0]

    def forward_backward(self) -> list[LogProbs]:
        """Returns alpha and beta, computed at the same time."""
        return self._run(Recursion(forward=True), Recursion(forward=False))

    def _run(self, *recursions: Recursion) -> list[LogProbs]:
        """Returns the [T+1, U+1] of each recursion."""
        end = jnp.stack([self.num_frames, self.num_labels])
        run = functools.partial(_scan, self.steps, recursions)
        if backend.uses_kernels():
            from tdt_jax.losses import lattice_kernel  # Pallas takes its time to import

            if lattice_kernel.fits(self.masked[0].shape[1], self.steps, recursions):
                run = lattice_kernel.runner(self.steps, recursions)
        with jax.named_scope("recursion"):
            return run(self.masked, end)


def _scan(steps, recursions, leaving, end) -> list[LogProbs]:
    """Returns the [T+1, U+1] of each recursion, by `lax.scan` over the diagonals.

    Args:
      steps: of each kind of arc.
      recursions: which are computed.
      leaving: for each step, the log-probabilities [T+1, U+1] of the arcs from (t, u).
      end: [2] int32, the node (t, u) where paths end.
    """
    num_rows, size = leaving[0].shape
    diagonals = num_rows + size - 1
    columns = jnp.arange(size)
    num_blanks = sum(step.emitted == 0 for step in steps)
    leaving = jnp.swapaxes(skew(jnp.stack(leaving), diagonals, size), 0, 1)

    def move_labels(x, shift: int):
        """Moves the label arcs of x [..., arcs, U+1] from u to u + shift (1 or -1)."""
        blanks, labels = x[..., :num_blanks, :], x[..., num_blanks:, :]
        pad = [(0, 0)] * (x.ndim - 1) + [(1, 0) if shift == 1 else (0, 1)]
        labels = jnp.pad(labels, pad, constant_values=NEG_INF)
        labels = labels[..., :size] if shift == 1 else labels[..., 1:]
        return jnp.concatenate([blanks, labels], axis=-2)

    def arriving(i, span):
        """Returns the arcs of a step, by the diagonal on which they end."""
        span = min(span, diagonals)  # a longer one leads out of the lattice
        return jnp.pad(leaving[: diagonals - span, i], ((span, 0), (0, 0)), constant_values=NEG_INF)

    def in_order(recursion):
        """Returns the arcs [T+U+1, arcs, U+1] to each diagonal from those computed before it."""
        if not recursion.forward:
            return leaving[::-1]
        arcs = [arriving(i, step.span) for i, step in enumerate(steps)]
        return move_labels(jnp.stack(arcs, axis=1), 1)

    def newest(count, recursion: Recursion, window: LogProbs, arcs) -> LogProbs:
        """Returns the diagonal that comes after `count` others."""
        n, (t, u) = count, (0, 0)
        if not recursion.forward:
            n, (t, u) = diagonals - 1 - count, end
        whole, rest = (
            move_labels(
                jnp.stack([x[step.span - 1] for step in steps]), 1 if recursion.forward else -1
            )
            for x in window
        )
        rest = rest + arcs
        base = jnp.maximum(jnp.floor(jnp.max(whole + rest, axis=0) + 0.5), NEG_INF)
        # Among numbers of the order of -1e30, where there is no path, rounding may be anything.
        terms = jnp.exp(jnp.minimum((whole - base[None]) + rest, 1.0))
        total = jnp.max(terms, axis=0) if recursion.best else jnp.sum(terms, axis=0)
        rest = jnp.log(jnp.maximum(total, 1e-30))
        is_certain = (n == t + u) & (columns == u)
        return LogProbs(*(jnp.where(is_certain, 0.0, x) for x in (base, rest)))

    def body(windows, inputs):
        count, *arcs = inputs
        diagonal = [newest(count, *x) for x in zip(recursions, windows, arcs, strict=True)]
        windows = [
            jax.tree.map(lambda x, window: jnp.concatenate([x[None], window[:-1]]), *pair)
            for pair in zip(diagonal, windows, strict=True)
        ]
        return windows, diagonal

    # A window holds the last few diagonals, newest first.
    unreachable = jnp.full((max(step.span for step in steps), size), NEG_INF)
    windows = [LogProbs(unreachable, jnp.zeros_like(unreachable)) for _ in recursions]
    arcs = [in_order(recursion) for recursion in recursions]
    results = jax.lax.scan(body, windows, (jnp.arange(diagonals), *arcs))[1]
    results = [
        result if x.forward else jax.tree.map(lambda x: x[::-1], result)
        for x, result in zip(recursions, results, strict=True)
    ]
    return jax.tree.map(lambda x: unskew(x, num_rows, size), results)
