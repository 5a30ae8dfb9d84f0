"""What the recursions over a lattice's anti-diagonals share, by `lax.scan` or in a kernel."""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

NEG_INF = -1e30  # finite, so that no gradient is NaN


class LogProbs(NamedTuple):
    """Log-probabilities of nodes as sums whole + rest: whole nats, and a rest near zero."""

    whole: jax.Array  # [..., U+1]
    rest: jax.Array  # [..., U+1]

    def value(self) -> jax.Array:
        """Returns whole + rest, rounded to float32."""
        return self.whole + self.rest


class Step(NamedTuple):
    """How far an arc leads."""

    duration: int  # frames on
    emitted: int  # labels on: 1 for a label, 0 for a blank

    @property
    def span(self) -> int:
        """Anti-diagonals on."""
        return self.duration + self.emitted


class Recursion(NamedTuple):
    """Which log-probability of each node is computed."""

    forward: bool  # alpha, of reaching it; else beta, of reaching the end from it
    best: bool = False  # of the best path instead of all


def combine(
    nodes: list[LogProbs], arcs: list[jax.Array], is_certain: jax.Array, best: bool
) -> LogProbs:
    """Returns the log of the sum (or the maximum) over all arcs; 0 where `is_certain`.

    An arc's term is its probability times that of the node at its other end.
    """
    rests = [node.rest + arc for node, arc in zip(nodes, arcs, strict=True)]
    wholes = [node.whole for node in nodes]
    maximum = functools.reduce(jnp.maximum, map(operator.add, wholes, rests))
    # Rounded half up: Pallas has no other rounding on a GPU.
    base = jnp.maximum(jnp.floor(maximum + 0.5), NEG_INF)
    # Among numbers of the order of -1e30, where there is no path, rounding may be anything.
    terms = [
        jnp.exp(jnp.minimum((whole - base) + rest, 1.0))
        for whole, rest in zip(wholes, rests, strict=True)
    ]
    total = functools.reduce(jnp.maximum if best else operator.add, terms)
    rest = jnp.log(jnp.maximum(total, 1e-30))
    return LogProbs(jnp.where(is_certain, 0.0, base), jnp.where(is_certain, 0.0, rest))


def skew(nodes: jax.Array, height: int, width: int) -> jax.Array:
    """[T+1, U+1] by (t, u) -> [height, width] by (n = t + u, u); minus infinity outside.

    The height is at least T+U+1 and the width at least U+1.
    """
    rows, columns = nodes.shape
    padding = ((0, width - columns), (0, height + 1 - rows))
    nodes = jnp.pad(nodes.T, padding, constant_values=NEG_INF)
    return nodes.reshape(-1)[: width * height].reshape(width, height).T


def unskew(diagonals: jax.Array, rows: int, columns: int) -> jax.Array:
    """The inverse of `skew`: by (n, u) -> [T+1, U+1] by (t, u)."""
    height, _ = diagonals.shape
    flat = jnp.pad(diagonals.T[:columns].reshape(-1), (0, columns))
    return flat.reshape(columns, height + 1)[:, :rows].T
