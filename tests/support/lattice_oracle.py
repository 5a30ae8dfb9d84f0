"""All alignments of a small lattice, written out one by one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

VOCAB = 4


@jax.tree_util.Partial  # a pytree, so that the losses compile once for it
def table_joint(frames, states):
    """Each frame holds the logits of all its nodes; each state is one-hot and picks them."""
    tables = frames.reshape(*frames.shape[:2], states.shape[-1], -1)
    logits = jnp.einsum("ntuv,nsu->ntsv", tables, states)
    return logits[..., : VOCAB + 1], logits[..., VOCAB + 1 :]


def table_inputs(tables):
    """Returns the frames and states for `table_joint` of logits [B, T, U+1, V+1+N]."""
    batch, frames, size, _ = tables.shape
    return tables.reshape(batch, frames, -1), np.tile(np.eye(size, dtype=np.float32), (batch, 1, 1))


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def every_path(table, labels, num_frames, num_labels, durations):
    """All alignments: (log-probability, list of arcs (t, u, index of duration, is label))."""
    tokens = log_softmax(table[..., : VOCAB + 1].astype(np.float64))
    lengths = np.zeros((*tokens.shape[:2], 1))
    if durations is not None:
        lengths = log_softmax(table[..., VOCAB + 1 :].astype(np.float64))

    def follow(t, u):
        if t == num_frames:
            return
        for i, d in enumerate(durations or (1,)):
            if d and t + d == num_frames and u == num_labels:
                yield tokens[t, u, -1] + lengths[t, u, i], [(t, u, i, False)]
            elif d and t + d < num_frames:
                for score, path in follow(t + d, u):
                    yield tokens[t, u, -1] + lengths[t, u, i] + score, [(t, u, i, False), *path]
        for i, d in enumerate(durations or (0,)):
            if u < num_labels and t + d < num_frames:
                for score, path in follow(t + d, u + 1):
                    arc = tokens[t, u, labels[u]] + lengths[t, u, i]
                    yield arc + score, [(t, u, i, True), *path]

    return list(follow(0, 0))


def brute_force(tokens, duration_logits, labels, num_frames, num_labels, durations, sigma=0.0):
    """Log of the sum over all alignments of one utterance, in float64, one path at a time."""
    tokens = log_softmax(tokens.astype(np.float64)) - sigma
    lengths = None if durations is None else log_softmax(duration_logits.astype(np.float64))

    def arcs(t, u):
        """(log-probability, frames on, labels on) of all arcs that leave (t, u)."""
        blank, label = tokens[t, u, -1], tokens[t, u, labels[u]] if u < num_labels else None
        if durations is None:
            choices = [(blank, 1, 0)] + ([(label, 0, 1)] if u < num_labels else [])
        else:
            choices = [(blank + lengths[t, u, i], d, 0) for i, d in enumerate(durations) if d]
            if u < num_labels:
                choices += [(label + lengths[t, u, i], d, 1) for i, d in enumerate(durations)]
        return choices

    @functools.cache
    def paths(t, u):
        """Log-probability of every path from (t, u) to the end, as a list."""
        scores = []
        for score, frames, emitted in arcs(t, u):
            if t + frames == num_frames and u + emitted == num_labels and not emitted:
                scores.append(score)
            elif t + frames < num_frames:
                scores += [score + rest for rest in paths(t + frames, u + emitted)]
        return scores

    every = paths(0, 0) if num_frames else []
    return float(np.logaddexp.reduce(every)) if every else -math.inf
