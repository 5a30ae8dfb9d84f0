"""Arrays in pieces, as live sources deliver them: each row of a batch at its own place."""

from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """What comes next of a row."""

    utterance: int
    values: np.ndarray  # [n, ...]
    last: bool  # the utterance ends with it
    restart: bool  # the utterance before it was given up


def cut(utterances, size, seed, abandoned=()):
    """Yields the pieces of a row: of 0 to `size` values, some whole, many small, some empty.

    An utterance ends with its last values, or with an empty piece later on. Those `abandoned` are
    given up after their first value or later: the next begins with `restart`.
    """
    rng = np.random.default_rng(seed)
    restart = False
    for index, values in enumerate(utterances):
        stop = 1 + rng.integers(len(values)) if index in abandoned else len(values)
        position, last = 0, False
        while position < stop or not (last or index in abandoned):
            count = min(size, stop - position, rng.choice([0, 1, rng.integers(size + 1), size]))
            last = position + count == len(values) and index not in abandoned and rng.random() < 0.6
            yield Piece(index, values[position : position + count], last, restart)
            position, restart = position + count, False
        restart = index in abandoned


def run(step, state, rows, size):
    """Steps rows of pieces from a state; returns what each utterance gave, [row][utterance].

    Args:
      step: called with values [B, size, ...], NaN beyond their counts [B], the state, and True in
        rows that end [B]; returns arrays [B, N, ...], each with its counts [B], and the state.
      state: has `restart`.
      rows: pieces of each row; those of shorter ones wait in the end.
      size: most values of a piece.
    """
    rows = [list(row) for row in rows]
    nothing = Piece(0, rows[0][0].values[:0], False, False)
    results = [[None] * (1 + max(piece.utterance for piece in row)) for row in rows]
    for i in range(max(map(len, rows))):
        pieces = [row[i] if i < len(row) else nothing for row in rows]
        counts = np.array([len(piece.values) for piece in pieces], np.int32)
        values = np.full((len(rows), size, *nothing.values.shape[1:]), np.nan, np.float32)
        for row, piece in zip(values, pieces, strict=True):
            row[: len(piece.values)] = piece.values
        if any(piece.restart for piece in pieces):
            state = state.restart(np.array([piece.restart for piece in pieces]))
        outputs, state = step(values, counts, state, np.array([piece.last for piece in pieces]))
        for b, piece in enumerate(pieces):
            found = [array[b, : count[b]] for array, count in outputs]
            if i < len(rows[b]):
                before = results[b][piece.utterance] or [each[:0] for each in found]
                found = [np.concatenate(pair) for pair in zip(before, found, strict=True)]
                results[b][piece.utterance] = found
            else:
                assert not any(map(len, found))
    return results
