"""Tiles: cutting and joining, which of them matter, and a schedule of those alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tdt_jax.losses.grid import (
    Grid,
    reachable_tiles,
    rows_or_last,
    rows_or_zeros,
    schedule,
    tiles_with_mass,
)


def compiled(function, *arguments):
    """The function's result in numpy, from one program."""
    return jax.device_get(jax.jit(function)(*arguments))


@pytest.mark.parametrize("frames, states", [(8, 4), (9, 5), (3, 1), (13, 11)])
def test_cutting_and_joining(frames, states):
    """A tile holds the nodes of its row of frames and its column of states."""
    grid = Grid(2, frames, states)
    nodes = np.arange(2 * frames * states * 3).reshape(2, frames, states, 3)
    f, s = np.arange(1, 2 * frames + 1).reshape(2, -1), np.arange(1, 2 * states + 1).reshape(2, -1)

    def run(nodes, f, s):
        rows, columns = grid.split_frames(f), grid.split_states(s)
        utterance, row, column = grid.locate(jnp.arange(grid.size))
        products = rows[row][:, :, None] * columns[column][:, None]
        joined = grid.join_nodes(grid.split_nodes(nodes)), grid.join_frames(rows)
        return *joined, grid.join_states(columns), grid.join_nodes(products), utterance

    utterances = np.repeat([0, 1], grid.size // 2)
    expected = nodes, f, s, f[:, :, None] * s[:, None], utterances
    for result, array in zip(compiled(run, nodes, f, s), expected, strict=True):
        np.testing.assert_array_equal(result, array)


def test_beyond_the_last_tile_lies_nothing():
    grid = Grid(2, 9, 5)

    def run(tiles):
        utterance, row, column = grid.locate(tiles)
        x = jnp.arange(1, 2 * grid.rows + 1)
        return (utterance, row, column), rows_or_zeros(x, row), rows_or_last(x, row)

    (utterance, row, column), zeros, last = compiled(run, np.array([grid.size, grid.size + 3]))
    assert np.all(utterance >= 2) and np.all(row >= 2 * grid.rows)
    assert np.all(column >= 2 * grid.columns)
    assert not np.any(zeros) and np.all(last == 2 * grid.rows)


@functools.partial(jax.jit, static_argnums=1)
def process(matters, group_size):
    """How often each tile is processed, its index as restored, and the number of groups."""
    tiles = schedule(matters, group_size)

    def body(index, group, state):
        counts, out = state
        return counts.at[group].add(1, mode="drop"), out.at[index].set(group)

    start = jnp.zeros(17, jnp.int32), jnp.full(tiles.order.shape, -1, jnp.int32)
    counts, out = tiles.fold(body, start)
    return counts, tiles.restore(out), tiles.num_groups


@pytest.mark.parametrize("group_size", [1, 3, 7, 20])
def test_a_schedule_processes_what_matters_once_and_little_else(group_size):
    matters = np.random.default_rng(group_size).random(17) < 0.4
    counts, restored, _ = jax.device_get(process(matters, group_size))
    assert np.all(counts[matters] == 1) and np.all(counts <= 1)
    assert counts.sum() < matters.sum() + group_size
    np.testing.assert_array_equal(restored[counts == 1], np.flatnonzero(counts == 1))
    assert np.all(restored[counts == 0] == -1)
    assert process(np.zeros(17, bool), group_size)[2] == 0


@pytest.mark.parametrize("durations", [(0, 1, 2), (1, 2), (2, 3)])
def test_reachable_tiles_are_those_that_a_path_can_reach(durations):
    """Among all nodes of ragged lattices, by following every arc."""
    grid = Grid(3, 21, 10)
    num_frames, num_labels = np.array([21, 13, 6]), np.array([9, 4, 3])
    on_path = np.zeros((3, 21, 10), bool)
    for b in range(3):
        end = (num_frames[b], num_labels[b])

        def arcs(t, u, end=end):
            yield from ((t + d, u) for d in durations if d and t + d <= end[0])
            if u < end[1]:
                yield from ((t + d, u + 1) for d in durations if t + d < end[0])

        leads = {}

        def reaches(node, end=end, arcs=arcs, leads=leads):
            if node not in leads:
                leads[node] = node == end or any([reaches(n) for n in arcs(*node)])
            return leads[node]

        reaches((0, 0))
        for t, u in (node for node, good in leads.items() if good and node[0] < 21):
            on_path[b, t, u] = True

    def run(on_path, *lengths):
        needed = jnp.any(grid.split_nodes(on_path), axis=(1, 2))
        return needed, reachable_tiles(grid, *lengths, durations[0])

    needed, reachable = compiled(run, on_path, num_frames, num_labels)
    assert np.all(reachable[needed])
    assert reachable.sum() <= needed.sum() + 3  # (2, 3) cannot move by one frame
    assert reachable.sum() < 0.6 * grid.size


def test_tiles_without_mass_are_left_out_up_to_what_may_be_neglected():
    """The lightest of each utterance, up to the mass given; at 0, those that have none."""
    grid = Grid(2, 8, 8)
    mass = np.array([0.5, 0.0, 1e-4, 0.3, 0.2, 0.2, 0.2, 3e-4], np.float32)
    kept = jax.jit(lambda neglect: tiles_with_mass(mass, grid, neglect))
    for neglect, expected in [(0.0, "10111111"), (1e-4, "10011111"), (0.45, "10000010")]:
        assert "".join(str(int(x)) for x in np.asarray(kept(neglect))) == expected


def test_padding_costs_nothing():
    """Of a batch padded to four times its size, no more groups are processed."""
    num_frames, num_labels = np.array([16, 12]), np.array([7, 3])

    def num_groups(frames, labels):
        reachable = reachable_tiles(Grid(2, frames, labels + 1), num_frames, num_labels, 0)
        return schedule(reachable, 4).num_groups

    assert compiled(lambda: (num_groups(16, 7), num_groups(64, 31))) == (3, 3)
