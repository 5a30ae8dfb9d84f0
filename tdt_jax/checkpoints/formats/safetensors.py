"""safetensors files, read without loading them and written."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save_file

from tdt_jax.checkpoints.formats.tensors import StoredTensor, map_values

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
}


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a safetensors file by name; their values stay in the file.

    Raises:
      ValueError: if there is no such file, it is damaged, or a tensor has another dtype than those
        of DTYPES.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path.name}")
    try:
        with safetensors.safe_open(path, "numpy"):
            pass  # opening it checks that the sizes and offsets in its header fit the file
        with path.open("rb") as file:
            (header_size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_size))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, entry, 8 + header_size) for name, entry in header.items()}


def _tensor(path: Path, name: str, entry: dict, start: int) -> StoredTensor:
    """Returns the tensor that an entry of the header describes; data begin at byte `start`."""
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{path.name}: {name} is of type {entry['dtype']}")
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    offset = start + entry["data_offsets"][0]

    def read() -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, dtype)
        return map_values(path, offset, math.prod(shape), dtype).reshape(shape)

    return StoredTensor(shape, dtype, read)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as a safetensors file that transformers reads."""
    save_file(dict(tensors), path, metadata={"format": "pt"})
