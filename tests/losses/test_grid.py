"""Tiles: cutting and joining, which of them matter, and a walk over those alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tdt_jax.losses.grid import Grid, reachable_tiles, rows_or_zeros, schedule, tiles_with_mass


@pytest.mark.parametrize(("frames", "states"), [(8, 4), (9, 5), (3, 1), (13, 11)])
def test_cutting_and_joining(frames, states):
    """A tile holds the nodes of its row of frames and its column of states."""
    grid = Grid(2, frames, states)
    nodes = np.arange(2 * frames * states * 3).reshape(2, frames, states, 3)
    np.testing.assert_array_equal(grid.join_nodes(grid.split_nodes(nodes)), nodes)
    f, s = np.arange(1, 2 * frames + 1).reshape(2, -1), np.arange(1, 2 * states + 1).reshape(2, -1)
    rows, columns = grid.split_frames(f), grid.split_states(s)
    np.testing.assert_array_equal(grid.join_frames(rows), f)
    np.testing.assert_array_equal(grid.join_states(columns), s)
    utterance, row, column = grid.locate(jnp.arange(grid.size))
    products = rows[row][:, :, None] * columns[column][:, None]
    np.testing.assert_array_equal(grid.join_nodes(products), f[:, :, None] * s[:, None])
    np.testing.assert_array_equal(utterance, np.repeat([0, 1], grid.size // 2))


def test_beyond_the_last_tile_lies_nothing():
    grid = Grid(2, 9, 5)
    utterance, row, column = grid.locate(jnp.array([grid.size, grid.size + 3]))
    assert np.all(utterance >= 2) and np.all(row >= 2 * grid.rows)
    assert np.all(column >= 2 * grid.columns)
    assert not np.any(rows_or_zeros(jnp.ones((2 * grid.rows, 4)), row))


@pytest.mark.parametrize("group", [1, 3, 7, 20])
def test_a_tour_visits_what_matters_once_and_little_else(group):
    rng = np.random.default_rng(group)
    matters = jnp.asarray(rng.random(17) < 0.4)
    tour = schedule(matters, group)

    def body(index, tile, state):
        visits, out = state
        return visits.at[tile].add(1, mode="drop"), out.at[index].set(tile)

    start = jnp.zeros(17, jnp.int32), jnp.full(tour.order.shape, -1, jnp.int32)
    visits, out = jax.jit(lambda state: tour.fold(body, state))(start)
    assert np.all(visits[matters] == 1) and np.all(visits <= 1)
    assert visits.sum() < matters.sum() + group
    seen = tour.restore(out)
    np.testing.assert_array_equal(seen[visits == 1], np.flatnonzero(visits == 1))
    assert np.all(seen[visits == 0] == -1)
    nothing = schedule(jnp.zeros(17, bool), group)
    assert nothing.num_groups == 0


@pytest.mark.parametrize("durations", [(0, 1, 2), (1, 2), (2, 3)])
def test_possible_tiles_are_those_that_a_path_can_reach(durations):
    """Among all nodes of ragged lattices, found by following every arc."""
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
    needed = np.any(grid.split_nodes(on_path), axis=(1, 2))
    possible = np.asarray(reachable_tiles(grid, num_frames, num_labels, durations[0]))
    assert np.all(possible[needed])
    assert possible.sum() <= needed.sum() + 3  # (2, 3) cannot move by one frame
    assert possible.sum() < 0.6 * grid.size


def test_weighty_leaves_out_as_much_as_it_may():
    """The lightest of each utterance, up to the mass given; at 0, what has none."""
    grid = Grid(2, 8, 8)
    mass = jnp.array([0.5, 0.0, 1e-4, 0.3, 0.2, 0.2, 0.2, 3e-4])
    kept = [tiles_with_mass(mass, grid, neglect).tolist() for neglect in (0.0, 1e-4, 0.45)]
    assert kept[0] == [True, False, True, True, True, True, True, True]
    assert kept[1] == [True, False, False, True, True, True, True, True]
    assert kept[2] == [True, False, False, False, False, False, True, False]


def test_padding_costs_nothing():
    """Of a batch padded to four times its size, no more groups are visited."""
    num_frames, num_labels = np.array([16, 12]), np.array([7, 3])
    counts = []
    for frames, labels in ((16, 7), (64, 31)):
        possible = reachable_tiles(Grid(2, frames, labels + 1), num_frames, num_labels, 0)
        counts.append(int(schedule(possible, 4).num_groups))
    assert counts[0] == counts[1] == 3
