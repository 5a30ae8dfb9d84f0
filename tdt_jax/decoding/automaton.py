"""Automaton: weights of labels that depend on the labels before them, as arrays of fixed sizes.

A state has arcs of a few labels. All others take its back-off: they go on from another state, with
a weight added, down to a state that has a row, with a weight and a target for every label. No table
of states by labels is ever made: a state has at most WIDTHS arcs, and those with more get a row.

Sizes come in a few buckets, so that a program that is compiled for one automaton runs with any
other of its bucket. Building is NumPy's work on the host.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import DTypeLike

Array = jax.Array | np.ndarray

WIDTHS = 64, 256, 1024  # most arcs of a state that has no row
FEW_ROWS = 64  # the smallest width with no more rows is taken
LEAST_ARCS, LEAST_STATES, LEAST_ROWS = 8192, 4096, 4  # smallest bucket; the next has four times


class Graph(NamedTuple):
    """An automaton before its sizes are fixed: S states, N arcs in the order of their states."""

    first: np.ndarray  # [S + 1]: state s has the arcs first[s] to first[s + 1] - 1
    labels: np.ndarray  # [N]
    weights: np.ndarray  # [N]
    targets: np.ndarray  # [N]
    backoff: np.ndarray  # [S], for states without a row; there is no circle
    backoff_weights: np.ndarray  # [S, 2], added for labels of class 0 and 1
    rows: dict[int, tuple[np.ndarray, np.ndarray]]  # weights [V] and targets [V] of some states
    classes: np.ndarray  # [V], 0 or 1
    start: int
    lift: tuple[float, float]  # bounds of what a weight adds to a label when it competes with blank


def single_state(weights: np.ndarray, lift: tuple[float, float] = (0.0, 0.0)) -> Graph:
    """Returns the automaton that gives each label the same weight, of [V], whatever came before."""
    none, nowhere = np.zeros(0, int), np.zeros(len(weights), int)
    return Graph(
        first=np.zeros(2, int),
        labels=none,
        weights=none,
        targets=none,
        backoff=np.zeros(1, int),
        backoff_weights=np.zeros((1, 2)),
        rows={0: (weights, nowhere)},
        classes=nowhere,
        start=0,
        lift=lift,
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        *("first", "labels", "weights", "targets", "backoff", "backoff_weights"),
        *("row", "row_weights", "row_targets", "classes", "start", "lift"),
    ],
    meta_fields=["width", "levels"],
)
@dataclass(frozen=True, eq=False)
class Automaton:
    """G automata of the same sizes, from which each row of a batch chooses one."""

    first: Array  # [G, S + 1]
    labels: Array  # [G, A] int32
    weights: Array  # [G, A] float32
    targets: Array  # [G, A] int32
    backoff: Array  # [G, S] int32; of a state with a row, itself
    backoff_weights: Array  # [G, S, 2] float32
    row: Array  # [G, S] int32
    row_weights: Array  # [G, R, V] float32
    row_targets: Array  # [G, R, V] int32
    classes: Array  # [G, V] int32
    start: Array  # [G] int32
    lift: Array  # [G, 2] float32
    width: int  # most arcs of a state
    levels: int  # most back-offs before a row

    @property
    def sizes(self) -> tuple[int, ...]:
        """What must be equal for two automata to be stacked: S, A, R, width and levels."""
        shapes = self.backoff.shape[1], self.labels.shape[1], self.row_weights.shape[1]
        return *shapes, self.width, self.levels


def automaton(graph: Graph) -> Automaton:
    """Returns the automaton of a graph, in the smallest bucket that holds it; G is 1."""
    counts = np.diff(graph.first)
    num_rows = [len(graph.rows) + np.count_nonzero(counts > width) for width in WIDTHS]
    few = [width for width, rows in zip(WIDTHS, num_rows, strict=True) if rows <= FEW_ROWS]
    width = few[0] if few else WIDTHS[-1]
    rows = _with_rows(graph, np.flatnonzero(counts > width))
    has_row = np.zeros(len(counts), bool)
    has_row[list(rows)] = True
    states = np.arange(len(counts))
    backoff = np.where(has_row, states, graph.backoff)
    backoff_weights = np.where(has_row[:, None], 0.0, graph.backoff_weights)
    levels, reached = 1, backoff
    while not has_row[reached].all():
        levels, reached = levels + 1, backoff[reached]
    kept = np.repeat(~has_row, np.diff(graph.first))  # arcs
    first = np.concatenate([[0], np.cumsum(np.where(has_row, 0, np.diff(graph.first)))])
    number = np.zeros(len(counts))
    number[list(rows)] = np.arange(len(rows))
    size = _bucket(len(states), LEAST_STATES)
    num_arcs = _bucket(len(np.flatnonzero(kept)) + WIDTHS[-1], LEAST_ARCS)  # any width fits
    row_weights, row_targets = (np.stack(each) for each in zip(*rows.values(), strict=True))
    return Automaton(
        first=_padded(first, size + 1, np.int32),
        labels=_padded(graph.labels[kept], num_arcs, np.int32),
        weights=_padded(graph.weights[kept], num_arcs, np.float32),
        targets=_padded(graph.targets[kept], num_arcs, np.int32),
        backoff=_padded(backoff, size, np.int32),
        backoff_weights=_padded(backoff_weights, size, np.float32),
        row=_padded(number, size, np.int32),
        row_weights=_padded(row_weights, _bucket(len(rows), LEAST_ROWS), np.float32),
        row_targets=_padded(row_targets, _bucket(len(rows), LEAST_ROWS), np.int32),
        classes=np.asarray(graph.classes, np.int32)[None],
        start=np.array([graph.start], np.int32),
        lift=np.array([graph.lift], np.float32),
        width=width,
        levels=levels,
    )


def stack(automata: Sequence[Automaton]) -> Automaton:
    """Returns automata of one vocabulary as one with G of them, in the bucket that holds them all.

    Raises: ValueError for different vocabularies.
    """
    if len({each.row_weights.shape[-1] for each in automata}) != 1:
        sizes = sorted({each.row_weights.shape[-1] for each in automata})
        raise ValueError(f"automata of different vocabularies cannot be stacked: {sizes} labels")
    sizes = np.max([each.sizes for each in automata], axis=0).tolist()
    num_states, num_arcs, num_rows, width, levels = sizes

    def joined(name: str, size: int | None = None) -> np.ndarray:
        arrays = [np.asarray(getattr(each, name))[0] for each in automata]
        if size is None:
            return np.stack(arrays)
        return np.concatenate([_padded(x, size, x.dtype) for x in arrays])

    states = {name: joined(name, num_states) for name in ("backoff", "backoff_weights", "row")}
    arcs = {name: joined(name, num_arcs) for name in ("labels", "weights", "targets")}
    rows = {name: joined(name, num_rows) for name in ("row_weights", "row_targets")}
    return Automaton(
        first=joined("first", num_states + 1),
        **states,
        **arcs,
        **rows,
        classes=joined("classes"),
        start=joined("start"),
        lift=joined("lift"),
        width=width,
        levels=levels,
    )


def _with_rows(graph: Graph, wide: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Returns the rows of a graph, and those of the `wide` states."""
    rows = dict(graph.rows)

    def row(state: int) -> tuple[np.ndarray, np.ndarray]:
        if state in rows:
            return rows[state]
        weights, targets = row(int(graph.backoff[state]))
        weights = weights + graph.backoff_weights[state][graph.classes]
        targets = targets.copy()
        arcs = slice(graph.first[state], graph.first[state + 1])
        weights[graph.labels[arcs]] = graph.weights[arcs]
        targets[graph.labels[arcs]] = graph.targets[arcs]
        return weights, targets

    return rows | {int(state): row(int(state)) for state in wide}


def _bucket(count: int, least: int) -> int:
    while least < count:
        least *= 4
    return least


def _padded(array: np.ndarray, size: int, dtype: DTypeLike) -> np.ndarray:
    """Returns [1, size, ...] of an array [n, ...], zeros at its end."""
    padded = np.zeros((1, size, *array.shape[1:]), dtype)
    padded[0, : len(array)] = array
    return padded
