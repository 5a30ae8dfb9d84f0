"""What the recursions over a lattice's anti-diagonals share, by `lax.scan` or in a kernel."""

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


def skew(nodes: jax.Array, height: int, width: int) -> jax.Array:
    """[..., T+1, U+1] by (t, u) -> [..., height, width] by (n = t + u, u); minus infinity outside.

    The height is at least T+U+1 and the width at least U+1.
    """
    *batch, rows, columns = nodes.shape
    padding = [(0, 0)] * len(batch) + [(0, width - columns), (0, height + 1 - rows)]
    nodes = jnp.pad(jnp.swapaxes(nodes, -1, -2), padding, constant_values=NEG_INF)
    nodes = nodes.reshape(*batch, -1)[..., : width * height]
    return jnp.swapaxes(nodes.reshape(*batch, width, height), -1, -2)


def unskew(diagonals: jax.Array, rows: int, columns: int) -> jax.Array:
    """The inverse of `skew`: by (n, u) -> [T+1, U+1] by (t, u)."""
    height, _ = diagonals.shape
    flat = jnp.pad(diagonals.T[:columns].reshape(-1), (0, columns))
    return flat.reshape(columns, height + 1)[:, :rows].T
