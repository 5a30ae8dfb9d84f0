"""torch's files of tensors ("state dicts"), read and written without torch.

Such a file is a zip archive: a pickle of names, shapes and storages, and a member with the raw
values of each storage. A pickle is a program; `torch_pickle` interprets it without running it.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import BinaryIO

import numpy as np

from tdt_jax.checkpoints.formats.tensors import StoredTensor, map_values
from tdt_jax.checkpoints.formats.torch_pickle import (
    Storage,
    Tensor,
    TorchFileError,
    pickle_tensors,
    unpickle_tensors,
)

MAX_PICKLE = 64 << 20  # bytes; a real one has a few hundred for each tensor
ALIGNMENT = 64  # bytes, of the raw members, as torch writes them


def read_torch_file(file: BinaryIO, start: int = 0) -> dict[str, StoredTensor]:
    """Returns the tensors of a state dict by name; their values stay in the file.

    Args:
      file: a real file, as its tensors are memory-mapped; it must stay open until they are read.
      start: the byte of `file` at which the torch file begins.

    Raises:
      TorchFileError: if it holds anything but tensors by name, is damaged or compressed (torch
        compresses nothing), or its pickle would run code.
    """
    part = _Part(file, start)
    try:
        archive = zipfile.ZipFile(part)
    except Exception as error:  # zipfile raises many kinds for a damaged directory
        raise TorchFileError(f"not a torch file (of torch 1.6 or newer): {error}") from None
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise TorchFileError("two members of the torch file have the same name")
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise TorchFileError(f"a torch file has one data.pkl, this one has {len(pickles)}")
    (name,) = pickles
    root = name.removesuffix("data.pkl")
    content = _read_small(archive, members[name], MAX_PICKLE)
    order = b"little"
    if root + "byteorder" in members:
        order = _read_small(archive, members[root + "byteorder"], 16)
    if order != b"little":
        raise TorchFileError(f"the torch file is {order!r} endian")

    tensors = unpickle_tensors(content)
    offsets = {
        storage: start + _data_offset(part, members.get(f"{root}data/{storage.key}"), storage)
        for storage in {tensor.storage for tensor in tensors.values()}
    }

    def read_storage(storage: Storage) -> np.ndarray:
        return map_values(file, offsets[storage], storage.size, storage.dtype)

    return {name: _stored_tensor(name, tensor, read_storage) for name, tensor in tensors.items()}


def write_torch_file(file: BinaryIO, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, so that `torch.load` returns them as a state dict."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        storages = {
            name: Storage(array.dtype, str(index), array.size)
            for index, (name, array) in enumerate(tensors.items())
        }
        shapes = {name: array.shape for name, array in tensors.items()}
        _write_member(file, archive, "archive/data.pkl", pickle_tensors(storages, shapes))
        _write_member(file, archive, "archive/byteorder", b"little")
        for name, array in tensors.items():
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            _write_member(file, archive, f"archive/data/{storages[name].key}", data)
        _write_member(file, archive, "archive/version", b"3\n")


# Reading


class _Part(io.RawIOBase):
    """The part of a file from byte `start` on, as a file of its own."""

    def __init__(self, file: BinaryIO, start: int):
        self._file, self._start, self._position = file, start, 0
        self.size = file.seek(0, io.SEEK_END) - start

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self.size)
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:
        self._file.seek(self._start + self._position)
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _read_small(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """Returns the content of a member that holds no values: `limit` bytes at most, uncompressed."""
    if info.file_size > limit or info.compress_type != zipfile.ZIP_STORED:
        raise TorchFileError(
            f"{info.filename} has {info.file_size} bytes, or is compressed; torch does not write so"
        )
    try:
        return archive.read(info)
    except Exception as error:  # zipfile raises many kinds for a damaged member
        raise TorchFileError(f"damaged torch file: {error}") from None


def _data_offset(part: _Part, info: zipfile.ZipInfo | None, storage: Storage) -> int:
    """Returns the byte at which a storage's values begin, having checked that all are there."""
    if info is None:
        raise TorchFileError(f"the torch file lacks storage {storage.key!r}")
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
        raise TorchFileError(f"storage {storage.key!r} is compressed or encrypted")
    size = storage.size * storage.dtype.itemsize
    if info.file_size != size or info.compress_size != size:
        raise TorchFileError(
            f"storage {storage.key!r} has {info.file_size} bytes, {size} are promised"
        )
    part.seek(info.header_offset)
    header = part.read(30) or b""
    if len(header) != 30 or header[:4] != b"PK\3\4":
        raise TorchFileError(f"storage {storage.key!r} is not where the directory says")
    offset = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if offset + size > part.size:
        raise TorchFileError(f"the file ends within storage {storage.key!r}")
    return offset


def _stored_tensor(
    name: str, tensor: Tensor, read_storage: Callable[[Storage], np.ndarray]
) -> StoredTensor:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    if len(shape) != len(strides) or min(shape + strides + (tensor.offset,), default=0) < 0:
        raise TorchFileError(f"{name} has shape {shape} with strides {strides}")
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # A stride of 0 would let a few values fill a tensor of any size.
    if 0 not in shape and max(last, math.prod(shape) - 1) >= storage.size:
        raise TorchFileError(f"{name} reaches beyond its storage of {storage.size} numbers")

    def read() -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        values = read_storage(storage)[tensor.offset : last + 1]
        byte_strides = [storage.dtype.itemsize * stride for stride in strides]
        return np.lib.stride_tricks.as_strided(values, shape, byte_strides, writeable=False)

    return StoredTensor(shape, storage.dtype, read)


# Writing


def _write_member(
    file: BinaryIO, archive: zipfile.ZipFile, name: str, data: bytes | memoryview
) -> None:
    info = zipfile.ZipInfo(name)
    # An extra field in the header that moves the data to a multiple of ALIGNMENT.
    extra = 4 + -(file.tell() + 30 + len(name) + 4) % ALIGNMENT
    if len(data) >= zipfile.ZIP64_LIMIT:
        extra = 0  # zipfile adds a field of its own
    if extra:
        info.extra = struct.pack("<HH", 0x4246, extra - 4) + bytes(extra - 4)
    with archive.open(info, "w", force_zip64=len(data) >= zipfile.ZIP64_LIMIT) as member:
        member.write(data)
