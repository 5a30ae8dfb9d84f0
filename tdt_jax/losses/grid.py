"""The nodes of a batch of lattices, cut into small tiles, and a schedule of the tiles that matter.

    frames [B, T, J]   -> rows [B * T/t, t, J]         a tile of t x u nodes pairs one row
    states [B, U+1, J] -> columns [B * U/u, u, J]      with one column of its utterance

Shapes are static, so a program for [B, T, U+1] computes all of it, padding included. A schedule
puts the tiles that matter first, in groups of a fixed size, and ends with the last of them: its
number of groups is a value, and the tiles behind it cost nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# Nodes along each side of a tile. Small tiles follow the alignment more closely; a TPU's registers
# hold 8 rows, and with fewer, half of every sum over a tile would be wasted.
SIDE, SIDE_ON_TPU = 4, 8


class Grid(NamedTuple):
    """How [B, T, U+1] nodes are cut into tiles."""

    batch: int
    frames: int  # T
    states: int  # U+1
    side: int = SIDE  # nodes along each side of a tile

    @property
    def rows(self) -> int:
        """The number of tiles along time of one utterance."""
        return -(-self.frames // self.side)

    @property
    def columns(self) -> int:
        """The number of tiles along labels of one utterance."""
        return -(-self.states // self.side)

    @property
    def size(self) -> int:
        """The number of tiles of all utterances."""
        return self.batch * self.rows * self.columns

    def group_size(self, nodes: int) -> int:
        """Returns the number of tiles in a group of about `nodes` nodes, all groups alike."""
        return -(-self.size // max(1, round(self.size * self.side**2 / nodes)))

    def locate(self, tiles: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the utterance, row of `split_frames` and column of `split_states` of each tile.

        An index beyond the last tile gives indices beyond the last of each.
        """
        utterance = tiles // (self.rows * self.columns)
        row = tiles // self.columns
        column = utterance * self.columns + tiles % self.columns
        return utterance, row, column

    def split_frames(self, x: jax.Array) -> jax.Array:
        """[B, T, ...] -> [B * rows, side, ...]."""
        return _split(x, self.rows, self.side)

    def split_states(self, x: jax.Array) -> jax.Array:
        """[B, U+1, ...] -> [B * columns, side, ...]."""
        return _split(x, self.columns, self.side)

    def join_frames(self, x: jax.Array) -> jax.Array:
        """The inverse of `split_frames`."""
        return x.reshape(self.batch, -1, *x.shape[2:])[:, : self.frames]

    def join_states(self, x: jax.Array) -> jax.Array:
        """The inverse of `split_states`."""
        return x.reshape(self.batch, -1, *x.shape[2:])[:, : self.states]

    def split_nodes(self, x: jax.Array) -> jax.Array:
        """[B, T, U+1, ...] -> [tiles, side, side, ...]."""
        rest, side = x.shape[3:], self.side
        padding = (self.rows * side - self.frames, self.columns * side - self.states)
        x = jnp.pad(x, [(0, 0), (0, padding[0]), (0, padding[1])] + [(0, 0)] * len(rest))
        x = x.reshape(self.batch, self.rows, side, self.columns, side, *rest)
        return jnp.swapaxes(x, 2, 3).reshape(self.size, side, side, *rest)

    def join_nodes(self, x: jax.Array) -> jax.Array:
        """The inverse of `split_nodes`."""
        rest, side = x.shape[3:], self.side
        x = x.reshape(self.batch, self.rows, self.columns, side, side, *rest)
        x = jnp.swapaxes(x, 2, 3)
        x = x.reshape(self.batch, self.rows * side, self.columns * side, *rest)
        return x[:, : self.frames, : self.states]


class TileSchedule(NamedTuple):
    """The order in which tiles are processed, in groups of one size."""

    order: jax.Array  # [groups, group size] tiles; an index beyond the last tile is no tile
    num_groups: jax.Array  # groups that are processed: those with a tile that matters
    num_tiles: int

    def fold(self, body: Callable, state: Any) -> Any:
        """Returns the last state of body(group, tiles, state) -> state, group by group."""

        def step(group, state):
            return body(group, self.order[group], state)

        return jax.lax.fori_loop(0, self.num_groups, step, state)

    def restore(self, x: jax.Array) -> jax.Array:
        """[groups, group size, ...] in the schedule's order -> [tiles, ...] in the grid's."""
        places = jnp.argsort(self.order.reshape(-1))[: self.num_tiles]
        return x.reshape(-1, *x.shape[2:])[places]


def schedule(matters: jax.Array, group_size: int) -> TileSchedule:
    """Returns the schedule of the tiles that matter, bool [tiles], in groups of `group_size`."""
    num_tiles = matters.shape[0]
    order = jnp.argsort(~matters, stable=True).astype(jnp.int32)
    order = jnp.pad(order, (0, -num_tiles % group_size), constant_values=num_tiles)
    num_groups = (jnp.sum(matters) + group_size - 1) // group_size
    return TileSchedule(order.reshape(-1, group_size), num_groups, num_tiles)


def reachable_tiles(
    grid: Grid, num_frames: jax.Array, num_labels: jax.Array, shortest: int
) -> jax.Array:
    """Returns which tiles hold a node that a path can go through, bool [tiles].

    A label takes the `shortest` duration or more, and the path ends with a blank of 1 or more.
    """
    t = jnp.arange(grid.frames)[None, :, None]
    u = jnp.arange(grid.states)[None, None, :]
    num_frames, num_labels = (
        jnp.asarray(x, jnp.int32)[:, None, None] for x in (num_frames, num_labels)
    )
    remaining = (num_labels - u) * shortest + 1
    nodes = (u <= num_labels) & (t >= u * shortest) & (t + remaining <= num_frames)
    return jnp.any(grid.split_nodes(nodes), axis=(1, 2))


def tiles_with_mass(mass: jax.Array, grid: Grid, neglect: ArrayLike) -> jax.Array:
    """Returns all tiles but those of least mass, which sum up to `neglect` at most; bool [tiles].

    Args:
      mass: [tiles], not negative.
      grid: of the tiles.
      neglect: the mass of each utterance that may be left out.
    """
    mass = mass.reshape(grid.batch, -1)
    ascending = jnp.argsort(mass, axis=1)
    sums = jnp.cumsum(jnp.take_along_axis(mass, ascending, axis=1), axis=1)
    matters = jax.vmap(lambda order, x: jnp.zeros_like(x).at[order].set(x))(
        ascending, sums > neglect
    )
    return matters.reshape(-1)


def rows_or_zeros(x: jax.Array, index: jax.Array) -> jax.Array:
    """Returns rows of x, zeros where the index is beyond the last."""
    return x.at[index].get(mode="fill", fill_value=0)


def rows_or_last(x: jax.Array, index: jax.Array) -> jax.Array:
    """Returns rows of x, the last where the index is beyond it."""
    return x.at[index].get(mode="clip")


def _split(x, count: int, side: int):
    # Filled up with copies of the last entry: a joint sees no inputs but real ones.
    padding = [(0, 0), (0, count * side - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, padding, mode="edge").reshape(-1, side, *x.shape[2:])
