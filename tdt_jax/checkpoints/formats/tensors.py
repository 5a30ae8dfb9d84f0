"""A tensor in a file, read when it is needed."""

import os
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np


class StoredTensor(NamedTuple):
    """A tensor in a file: `read()` returns its values, memory-mapped and read-only."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def map_values(
    file: str | os.PathLike | BinaryIO, offset: int, count: int, dtype: np.dtype
) -> np.ndarray:
    """Returns `count` > 0 values [count] that begin at byte `offset` of a file, memory-mapped."""
    size = count * dtype.itemsize
    return np.memmap(file, np.uint8, "r", offset=offset, shape=(size,)).view(dtype)
