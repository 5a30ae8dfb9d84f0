"""safetensors files: written and read back, mapped rather than loaded, and checked when opened."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tdt_jax.checkpoints.formats.safetensors import read_safetensors, write_safetensors

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.array(7, np.int64),
    "half": np.array([1.5, -2], ml_dtypes.bfloat16),
    "none": np.zeros((0, 3), np.float16),
}


@pytest.fixture
def path(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", TENSORS)
    return tmp_path / "x.safetensors"


def test_what_is_written_is_read(path):
    tensors = read_safetensors(path)
    assert set(tensors) == set(TENSORS)
    for name, array in TENSORS.items():
        assert tensors[name].shape == array.shape and tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name].read(), array, strict=True)
    np.testing.assert_array_equal(load_file(path)["a.weight"], TENSORS["a.weight"], strict=True)


def test_tensors_are_mapped(path):
    array = read_safetensors(path)["a.weight"].read()
    assert isinstance(array, np.memmap) and not array.flags.writeable


def test_damaged_files(path):
    whole = path.read_bytes()
    absurd = (1 << 60).to_bytes(8, "little") + whole[8:]
    for content in (b"", whole[:4], whole[:100], whole[:-4], absurd, whole + b"more"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.safetensors is damaged"):
            read_safetensors(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"there is no x\.safetensors"):
        read_safetensors(path)


def test_a_header_is_not_believed(path):
    """Tensors that overlap, leave gaps, end behind the file, or are larger than their data."""
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    start, end = header["a.weight"]["data_offsets"]
    for field, value in (
        ("data_offsets", [start, end + 4]),
        ("data_offsets", [start + 4, end]),
        ("data_offsets", [-4, end]),
        ("data_offsets", [start, 1 << 50]),
        ("shape", [3, 5]),
        ("shape", [-3, -4]),
        ("dtype", "F64"),
    ):
        changed = {**header, "a.weight": {**header["a.weight"], field: value}}
        text = json.dumps(changed).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        with pytest.raises(ValueError, match="is damaged"):
            read_safetensors(path)


def test_other_dtypes_are_refused(tmp_path):
    save_file({"mask": np.array([True])}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="mask is of type BOOL"):
        read_safetensors(tmp_path / "x.safetensors")
