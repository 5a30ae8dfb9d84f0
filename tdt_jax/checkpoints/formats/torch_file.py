"""Tensors in torch's file format, read and written without torch.

Such a file is a zip of a pickle, which tells names, shapes and storages, and of one raw member for
each storage. A pickle is a program; here it runs on a machine of our own that knows dictionaries,
tensors and storages and refuses all else, so that nothing in a file is ever executed.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from tdt_jax.checkpoints.formats.tensors import StoredTensor
from tdt_jax.checkpoints.formats.torch_pickle import (
    Storage,
    Tensor,
    TorchFileError,
    pickled,
    unpickle,
)

MAX_PICKLE = 64 << 20  # bytes; a real one has a few hundred for each tensor
ALIGNMENT = 64  # of the raw members, as torch writes them


def read_torch_file(file: BinaryIO, start: int = 0) -> dict[str, StoredTensor]:
    """The tensors of a state dict in `file`, a real file; it may begin at byte `start` of it.

    They are memory-mapped when they are read. Compressed members are not accepted (torch writes
    none).

    Raises:
      TorchFileError: if it is anything else than tensors by name, damaged, or would run code.
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
    content = _small(archive, members[name], MAX_PICKLE)
    order = b"little"
    if root + "byteorder" in members:
        order = _small(archive, members[root + "byteorder"], 16)
    if order != b"little":
        raise TorchFileError(f"the torch file is {order!r} endian")

    tensors = unpickle(content)
    places = {
        storage: _data(part, members.get(f"{root}data/{storage.key}"), storage)
        for storage in {tensor.storage for tensor in tensors.values()}
    }

    def mapped(storage: Storage) -> np.ndarray:
        offset, size = places[storage]
        numbers = np.memmap(file, np.uint8, "r", offset=start + offset, shape=(size,))
        return numbers.view(storage.dtype)

    return {name: _stored(name, tensor, mapped) for name, tensor in tensors.items()}


def _small(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """A member that is no storage, as torch writes it: plain, and not large."""
    if info.file_size > limit or info.compress_type != zipfile.ZIP_STORED:
        raise TorchFileError(
            f"{info.filename} has {info.file_size} bytes, or is compressed; torch does not write so"
        )
    try:
        return archive.read(info)
    except Exception as error:  # zipfile raises many kinds for a damaged member
        raise TorchFileError(f"damaged torch file: {error}") from None


def _stored(name: str, tensor: Tensor, mapped: Callable) -> StoredTensor:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    if len(shape) != len(strides) or min(shape + strides + (tensor.offset,), default=0) < 0:
        raise TorchFileError(f"{name} has shape {shape} with strides {strides}")
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and max(last, math.prod(shape) - 1) >= storage.size:
        raise TorchFileError(f"{name} reaches beyond its storage of {storage.size} numbers")

    def read() -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        numbers = mapped(storage)[tensor.offset : last + 1]
        step = storage.dtype.itemsize
        return np.lib.stride_tricks.as_strided(
            numbers, shape, [step * stride for stride in strides], writeable=False
        )

    return StoredTensor(shape, storage.dtype, read)


def _data(part, info: zipfile.ZipInfo | None, storage: Storage) -> tuple[int, int]:
    """The offset and size in bytes of a storage's member."""
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
    header = part.read(30)
    if len(header) != 30 or header[:4] != b"PK\3\4":
        raise TorchFileError(f"storage {storage.key!r} is not where the directory says")
    offset = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if offset + size > part.size:
        raise TorchFileError(f"the file ends within storage {storage.key!r}")
    return offset, size


class _Part(io.RawIOBase):
    """A file from byte `start` on, as a file of its own."""

    def __init__(self, file: BinaryIO, start: int):
        self._file, self._start, self._at = file, start, 0
        self.size = file.seek(0, io.SEEK_END) - start

    def seekable(self):
        return True

    def readable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence, self.size))
        return self._at

    def tell(self):
        return self._at

    def readinto(self, buffer):
        self._file.seek(self._start + self._at)
        count = self._file.readinto(buffer)
        self._at += count
        return count


def write_torch_file(file: BinaryIO, tensors: dict[str, np.ndarray]) -> None:
    """Write arrays by name so that `torch.load` gives them as a state dict."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        storages = {
            name: Storage(array.dtype, str(index), array.size)
            for index, (name, array) in enumerate(tensors.items())
        }
        shapes = {name: array.shape for name, array in tensors.items()}
        _write_member(file, archive, "archive/data.pkl", b"".join(pickled(storages, shapes)))
        _write_member(file, archive, "archive/byteorder", b"little")
        for name, array in tensors.items():
            data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            _write_member(file, archive, f"archive/data/{storages[name].key}", data)
        _write_member(file, archive, "archive/version", b"3\n")


def _write_member(file: BinaryIO, archive: zipfile.ZipFile, name: str, data) -> None:
    info = zipfile.ZipInfo(name)
    # An extra field of the header's that moves the data to where they are aligned.
    extra = 4 + -(file.tell() + 30 + len(name) + 4) % ALIGNMENT
    if len(data) >= zipfile.ZIP64_LIMIT:
        extra = 0  # zipfile adds a field of its own
    if extra:
        info.extra = struct.pack("<HH", 0x4246, extra - 4) + bytes(extra - 4)
    with archive.open(info, "w", force_zip64=len(data) >= zipfile.ZIP64_LIMIT) as member:
        member.write(data)
