"""Tensors in torch's file format, read and written without torch.

Such a file is a zip of a pickle, which tells names, shapes and storages, and of one raw member for
each storage. A pickle is a program; here it runs on a machine of our own that knows dictionaries,
tensors and storages and refuses all else, so that nothing in a file is ever executed.
"""

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from tdt_jax.pretrained.convert import StoredTensor

MAX_PICKLE = 64 << 20  # bytes; a real one has a few hundred for each tensor
ALIGNMENT = 64  # of the raw members, as torch writes them
DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class TorchFileError(ValueError):
    """A file that is not a torch file of plain tensors."""


class _Storage(NamedTuple):
    dtype: np.dtype
    key: str
    size: int  # numbers


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # numbers
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # numbers


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

    tensors = _unpickle(content)
    places = {
        storage: _data(part, members.get(f"{root}data/{storage.key}"), storage)
        for storage in {tensor.storage for tensor in tensors.values()}
    }

    def mapped(storage: _Storage) -> np.ndarray:
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


def _stored(name: str, tensor: _Tensor, mapped: Callable) -> StoredTensor:
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


def _data(part, info: zipfile.ZipInfo | None, storage: _Storage) -> tuple[int, int]:
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


class _Global(NamedTuple):
    """A name that the pickle refers to; it is never looked up."""

    module: str
    name: str


ORDERED_DICT = _Global("collections", "OrderedDict")
TENSOR = _Global("torch._utils", "_rebuild_tensor_v2")
PARAMETER = _Global("torch._utils", "_rebuild_parameter")


class _Machine:
    """Runs the opcodes of a pickled state dict, and refuses all others.

    What it can make is numbers, texts, tuples, dictionaries with texts for keys, storages and
    tensors. Values are never shown, compared or hashed: a few opcodes can nest them without end.
    """

    def __init__(self):
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            name = opcode.name
            if name == "STOP":
                return self.pop()
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in ("PROTO", "FRAME"):
                pass
            elif step := getattr(self, f"_{name.lower()}", None):
                step(argument)
            else:
                raise TorchFileError(f"the pickle has opcode {name}; it was not run")
        raise TorchFileError("damaged pickle: it does not stop")

    def pop(self) -> Any:
        if not self.stack or (self.marks and self.marks[-1] == len(self.stack)):
            raise TorchFileError("damaged pickle: nothing is left to take")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        if not self.marks:
            raise TorchFileError("damaged pickle: there is no mark")
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _mark(self, _):
        self.marks.append(len(self.stack))

    def _empty_dict(self, _):
        self.stack.append({})

    def _tuple(self, _):
        self.stack.append(tuple(self.pop_to_mark()))

    def _tuple1(self, _):
        self.stack.append((self.pop(),))

    def _tuple2(self, _):
        self.stack.append((self.pop(), self.pop())[::-1])

    def _tuple3(self, _):
        self.stack.append((self.pop(), self.pop(), self.pop())[::-1])

    def _setitem(self, _):
        self._set([self.pop(), self.pop()][::-1])

    def _setitems(self, _):
        self._set(self.pop_to_mark())

    def _set(self, items: list) -> None:
        target = _checked(self.stack[-1] if self.stack else None, dict)
        if len(items) % 2:
            raise TorchFileError("damaged pickle: a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked(key, str)] = value

    def _binput(self, index):
        self.memo[index] = self.stack[-1] if self.stack else None

    _long_binput = _put = _binput

    def _memoize(self, _):
        self._binput(len(self.memo))

    def _binget(self, index):
        if index not in self.memo:
            raise TorchFileError("damaged pickle: it asks for what it has not kept")
        self.stack.append(self.memo[index])

    _long_binget = _get = _binget

    def _global(self, argument):
        self._refer(*argument.split(" ", 1))

    def _stack_global(self, _):
        name, module = self.pop(), self.pop()
        self._refer(_checked(module, str), _checked(name, str))

    def _refer(self, module: str, name: str) -> None:
        found = _Global(module, name)
        is_storage = module == "torch" and name in DTYPES
        if not is_storage and found not in (ORDERED_DICT, TENSOR, PARAMETER):
            raise TorchFileError(f"the pickle asks for {module:.80}.{name:.80}; it was not run")
        self.stack.append(DTYPES[name] if is_storage else found)

    def _reduce(self, _):
        arguments, function = _checked(self.pop(), tuple), _checked(self.pop(), _Global)
        if function == ORDERED_DICT and not arguments:
            self.stack.append({})
        elif function == TENSOR and len(arguments) >= 4:
            self.stack.append(_tensor(*arguments[:4]))
        elif function == PARAMETER and arguments:
            self.stack.append(_checked(arguments[0], _Tensor))
        else:
            raise TorchFileError(f"the pickle calls {function.name} in a way of its own")

    def _build(self, _):
        self.pop()  # what torch notes about the modules

    def _binpersid(self, _):
        identity = _checked(self.pop(), tuple)
        if len(identity) != 5 or not isinstance(identity[0], str) or identity[0] != "storage":
            raise TorchFileError("the pickle refers to something that is no storage")
        _, dtype, key, _, size = identity
        storage = _Storage(_checked(dtype, np.dtype), _checked(key, str), _checked(size, int))
        self.stack.append(storage)


_VALUES = frozenset(
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE BININT BININT1 BININT2 INT LONG LONG1 LONG4 "
    "BINFLOAT FLOAT".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _unpickle(content: bytes) -> dict[str, _Tensor]:
    try:
        found = _Machine().run(content)
    except TorchFileError:
        raise
    except Exception as error:  # pickletools raises many kinds for a damaged pickle
        raise TorchFileError(f"damaged pickle: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise TorchFileError(f"the torch file holds a {type(found).__name__}, not tensors by name")
    return {key: _checked(value, _Tensor) for key, value in found.items()}


def _tensor(storage, offset, size, stride) -> _Tensor:
    size, stride = (
        tuple(_checked(n, int) for n in _checked(each, tuple)) for each in (size, stride)
    )
    return _Tensor(_checked(storage, _Storage), _checked(offset, int), size, stride)


def _checked(value, kind: type):
    is_flag = isinstance(value, bool)  # a bool is an int, and is not meant
    # A plain tuple: a storage or a tensor is one too.
    if not isinstance(value, kind) or is_flag or (kind is tuple and type(value) is not tuple):
        raise TorchFileError(f"the pickle has a {type(value).__name__} in place of {kind.__name__}")
    return value


def write_torch_file(file: BinaryIO, tensors: dict[str, np.ndarray]) -> None:
    """Write arrays by name so that `torch.load` gives them as a state dict."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        storages = {
            name: _Storage(array.dtype, str(index), array.size)
            for index, (name, array) in enumerate(tensors.items())
        }
        shapes = {name: array.shape for name, array in tensors.items()}
        _write_member(file, archive, "archive/data.pkl", b"".join(_pickled(storages, shapes)))
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


def _pickled(storages: dict[str, _Storage], shapes: dict) -> Iterator[bytes]:
    """The opcodes (protocol 2) of an OrderedDict of tensors, each the whole of its storage."""
    names = {dtype: name for name, dtype in DTYPES.items()}

    def text(value: str) -> bytes:
        data = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(data)) + data

    def number(value: int) -> bytes:
        return pickle.LONG1 + b"\x08" + struct.pack("<q", value)

    def numbers(values) -> bytes:
        return pickle.MARK + b"".join(map(number, values)) + pickle.TUPLE

    empty_dict = pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
    yield pickle.PROTO + b"\x02" + empty_dict + pickle.MARK
    for name, storage in storages.items():
        shape = shapes[name]
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        yield text(name) + pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK
        yield pickle.MARK + text("storage")
        yield pickle.GLOBAL + f"torch\n{names[storage.dtype]}\n".encode()
        yield text(storage.key) + text("cpu") + number(storage.size)
        yield pickle.TUPLE + pickle.BINPERSID + number(0) + numbers(shape) + numbers(strides)
        yield pickle.NEWFALSE + empty_dict + pickle.TUPLE + pickle.REDUCE
    yield pickle.SETITEMS + pickle.STOP
