"""Tensors of safetensors files, read one by one."""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tdt_jax.checkpoints.formats.tensors import StoredTensor

DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I64": np.int64, "I32": np.int32}


def read_tensors(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    import ml_dtypes
    import safetensors

    if not path.is_file():
        raise ValueError(f"there is no {path.name}")
    try:
        with safetensors.safe_open(path, "numpy"):  # that sizes and offsets are as they must be
            pass
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None
    dtypes = {**DTYPES, "BF16": ml_dtypes.bfloat16}
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] not in dtypes:
            raise ValueError(f"{path.name}: {name} is of type {entry['dtype']}")
        dtype, shape = np.dtype(dtypes[entry["dtype"]]), tuple(entry["shape"])
        yield (
            name,
            StoredTensor(
                shape, dtype, _mapped(path, 8 + size + entry["data_offsets"][0], dtype, shape)
            ),
        )


def _mapped(path: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...]):
    """A function that maps a tensor; its pages are given back with the array."""

    def read() -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, dtype)
        size = dtype.itemsize * math.prod(shape)
        return (
            np.memmap(path, np.uint8, "r", offset=offset, shape=(size,)).view(dtype).reshape(shape)
        )

    return read
