"""The nodes of a batch of lattices in small tiles, and a walk over those that matter.

    frames [B, T, J]  -> rows [B * T/t, t, J]         every tile of t x u nodes is one row
    states [B, U+1, J] -> columns [B * U/u, u, J]     against one column of its utterance

Shapes are static, so a program for [B, T, U+1] pays for all of it, padding too. A walk visits tiles
in groups of a fixed size, those that matter first, and ends with the last of them: its number of
groups is a value, and the rest costs nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Nodes along each side of a tile. Small ones lie closer to the alignment; a TPU's registers hold 8
# rows, and with fewer half of every sum over a tile would be wasted.
SIDE, SIDE_ON_TPU = 4, 8


class Grid(NamedTuple):
    """Which tiles there are of [B, T, U+1] nodes."""

    batch: int
    frames: int  # T
    states: int  # U+1
    side: int = SIDE  # nodes along each side of a tile

    @property
    def rows(self) -> int:
        """Tiles along time of one utterance."""
        return -(-self.frames // self.side)

    @property
    def columns(self) -> int:
        """Tiles along labels of one utterance."""
        return -(-self.states // self.side)

    @property
    def size(self) -> int:
        """Tiles in all."""
        return self.batch * self.rows * self.columns

    def group(self, nodes: int) -> int:
        """Tiles in a group, if all are visited about `nodes` nodes at a time."""
        return -(-self.size // max(1, round(self.size * self.side**2 / nodes)))

    def place(self, tile):
        """Tile indices -> utterance, row of `split_frames` and column of `split_states`.

        An index beyond the last tile leads beyond the last of each.
        """
        utterance = tile // (self.rows * self.columns)
        row = tile // self.columns
        column = utterance * self.columns + tile % self.columns
        return utterance, row, column

    def split_frames(self, x):
        """[B, T, ...] -> [B * rows, side, ...]."""
        return _split(x, self.rows, self.side)

    def split_states(self, x):
        """[B, U+1, ...] -> [B * columns, side, ...]."""
        return _split(x, self.columns, self.side)

    def join_frames(self, x):
        """The inverse of `split_frames`."""
        return x.reshape(self.batch, -1, *x.shape[2:])[:, : self.frames]

    def join_states(self, x):
        """The inverse of `split_states`."""
        return x.reshape(self.batch, -1, *x.shape[2:])[:, : self.states]

    def split_nodes(self, x):
        """[B, T, U+1, ...] -> [tiles, side, side, ...]."""
        rest, side = x.shape[3:], self.side
        padding = (self.rows * side - self.frames, self.columns * side - self.states)
        x = jnp.pad(x, [(0, 0), (0, padding[0]), (0, padding[1])] + [(0, 0)] * len(rest))
        x = x.reshape(self.batch, self.rows, side, self.columns, side, *rest)
        return jnp.swapaxes(x, 2, 3).reshape(self.size, side, side, *rest)

    def join_nodes(self, x):
        """The inverse of `split_nodes`."""
        rest, side = x.shape[3:], self.side
        x = x.reshape(self.batch, self.rows, self.columns, side, side, *rest)
        x = jnp.swapaxes(x, 2, 3)
        x = x.reshape(self.batch, self.rows * side, self.columns * side, *rest)
        return x[:, : self.frames, : self.states]


def _split(x, count: int, side: int):
    # With copies of the last row: a joint network sees nothing that it could not see elsewhere.
    padding = [(0, 0), (0, count * side - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, padding, mode="edge").reshape(-1, side, *x.shape[2:])


class TileSchedule(NamedTuple):
    """Tiles in the order of a visit, in groups of one size."""

    order: jax.Array  # [groups, group size]; an index beyond the last tile is no tile
    num_groups: jax.Array  # groups with a tile that matters
    size: int  # tiles in all

    def fold(self, body, state):
        """body(group, tiles, state) -> state for each group that matters."""

        def step(group, state):
            return body(group, self.order[group], state)

        return jax.lax.fori_loop(0, self.num_groups, step, state)

    def restore(self, x):
        """[groups, group size, ...] in the order of the visit -> [tiles, ...] in their own."""
        places = jnp.argsort(self.order.reshape(-1))[: self.size]
        return x.reshape(-1, *x.shape[2:])[places]


def schedule(matters, group: int) -> TileSchedule:
    """A tour of the tiles that matter [tiles], `group` of them at a time."""
    size = matters.shape[0]
    order = jnp.argsort(~matters, stable=True).astype(jnp.int32)
    order = jnp.pad(order, (0, -size % group), constant_values=size)
    return TileSchedule(order.reshape(-1, group), (jnp.sum(matters) + group - 1) // group, size)


def take(x, index):
    """Rows of x, zeros where the index is beyond the last."""
    return x.at[index].get(mode="fill", fill_value=0)


def reachable_tiles(grid: Grid, num_frames, num_labels, shortest: int):
    """Which tiles hold a node that a path can go through [tiles].

    A label takes the `shortest` duration or more, and the path ends with a blank of 1 or more.
    """
    t = jnp.arange(grid.frames)[None, :, None]
    u = jnp.arange(grid.states)[None, None, :]
    num_frames, num_labels = (
        jnp.asarray(x, jnp.int32)[:, None, None] for x in (num_frames, num_labels)
    )
    left = (num_labels - u) * shortest + 1
    nodes = (u <= num_labels) & (t >= u * shortest) & (t + left <= num_frames)
    return jnp.any(grid.split_nodes(nodes), axis=(1, 2))


def tiles_with_mass(mass, grid: Grid, neglect: float):
    """Which tiles matter [tiles], if those with least mass, `neglect` in all, do not.

    Args:
      mass: [tiles], not negative.
      grid: whose tiles they are.
      neglect: the sum of masses of each utterance that may be left out.
    """
    mass = mass.reshape(grid.batch, -1)
    ascending = jnp.argsort(mass, axis=1)
    below = jnp.cumsum(jnp.take_along_axis(mass, ascending, axis=1), axis=1)
    matters = jax.vmap(lambda order, x: jnp.zeros_like(x).at[order].set(x))(
        ascending, below > neglect
    )
    return matters.reshape(-1)
