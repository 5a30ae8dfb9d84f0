"""The pickle in a torch file, read without running it and written without torch.

`unpickle_tensors` interprets the few opcodes of which the pickle of a state dict is made and
refuses all others, so that nothing in a file is ever executed.
"""

import math
import pickle
import pickletools
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np

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

T = TypeVar("T")


class TorchFileError(ValueError):
    """A file that is not a torch file of plain tensors."""


class Storage(NamedTuple):
    """A member of a torch file that holds the values of tensors."""

    dtype: np.dtype
    key: str
    size: int  # values


class Tensor(NamedTuple):
    """A tensor as the pickle describes it: a strided view of a storage."""

    storage: Storage
    offset: int  # values
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # values


def unpickle_tensors(content: bytes) -> dict[str, Tensor]:
    """Returns the tensors by name that a pickled state dict describes.

    Raises:
      TorchFileError: if the pickle is damaged or describes anything else.
    """
    try:
        state = _Interpreter().run(content)
    except TorchFileError:
        raise
    except Exception as error:  # pickletools raises many kinds for a damaged pickle
        raise TorchFileError(f"damaged pickle: {type(error).__name__}") from None
    if not isinstance(state, dict):
        raise TorchFileError(f"the torch file holds a {type(state).__name__}, not tensors by name")
    return {key: _checked(value, Tensor) for key, value in state.items()}


def pickle_tensors(storages: Mapping[str, Storage], shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Returns the pickle (protocol 2) of tensors by name, each the whole of its storage."""
    return b"".join(_opcodes(storages, shapes))


# Reading


class _Global(NamedTuple):
    """A name that the pickle refers to; it is never looked up."""

    module: str
    name: str


ORDERED_DICT = _Global("collections", "OrderedDict")
TENSOR = _Global("torch._utils", "_rebuild_tensor_v2")
PARAMETER = _Global("torch._utils", "_rebuild_parameter")


class _Interpreter:
    """Interprets the opcodes of a pickled state dict, and refuses all others.

    It makes numbers, strings, tuples, dictionaries with strings as keys, storages and tensors.
    Values are never printed, compared or hashed: a few opcodes can nest them without end.
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
            raise TorchFileError("damaged pickle: it takes a value from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        if not self.marks:
            raise TorchFileError("damaged pickle: it refers to a mark that is not set")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

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
            raise TorchFileError("damaged pickle: it refers to a value that is not in its memo")
        self.stack.append(self.memo[index])

    _long_binget = _get = _binget

    def _global(self, argument):
        self._refer(*argument.split(" ", 1))

    def _stack_global(self, _):
        name, module = self.pop(), self.pop()
        self._refer(_checked(module, str), _checked(name, str))

    def _refer(self, module: str, name: str) -> None:
        reference = _Global(module, name)
        is_storage = module == "torch" and name in DTYPES
        if not is_storage and reference not in (ORDERED_DICT, TENSOR, PARAMETER):
            raise TorchFileError(f"the pickle refers to {module:.80}.{name:.80}; it was not run")
        self.stack.append(DTYPES[name] if is_storage else reference)

    def _reduce(self, _):
        arguments, function = _checked(self.pop(), tuple), _checked(self.pop(), _Global)
        if function == ORDERED_DICT and not arguments:
            self.stack.append({})
        elif function == TENSOR and len(arguments) >= 4:
            self.stack.append(_tensor(*arguments[:4]))
        elif function == PARAMETER and arguments:
            self.stack.append(_checked(arguments[0], Tensor))
        else:
            raise TorchFileError(
                f"the pickle calls {function.name} with other arguments than torch"
            )

    def _build(self, _):
        self.pop()  # what torch notes about the modules

    def _binpersid(self, _):
        identity = _checked(self.pop(), tuple)
        if len(identity) != 5 or not isinstance(identity[0], str) or identity[0] != "storage":
            raise TorchFileError("the pickle refers to something that is no storage")
        _, dtype, key, _, size = identity
        storage = Storage(_checked(dtype, np.dtype), _checked(key, str), _checked(size, int))
        self.stack.append(storage)


_VALUES = frozenset(
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE BININT BININT1 BININT2 INT LONG LONG1 LONG4 "
    "BINFLOAT FLOAT".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    shape, strides = (
        tuple(_checked(n, int) for n in _checked(each, tuple)) for each in (size, stride)
    )
    return Tensor(_checked(storage, Storage), _checked(offset, int), shape, strides)


def _checked(value: Any, kind: type[T]) -> T:
    if not _is(value, kind):
        raise TorchFileError(f"the pickle has a {type(value).__name__} in place of {kind.__name__}")
    return value


def _is(value: Any, kind: type) -> bool:
    """Returns whether a value is of a type; a bool is no int, and a storage or tensor no tuple."""
    if kind is tuple:
        return type(value) is tuple
    return isinstance(value, kind) and not isinstance(value, bool)


# Writing


def _opcodes(
    storages: Mapping[str, Storage], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[bytes]:
    names = {dtype: name for name, dtype in DTYPES.items()}

    def text(value: str) -> bytes:
        data = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(data)) + data

    def number(value: int) -> bytes:
        return pickle.LONG1 + b"\x08" + struct.pack("<q", value)

    def numbers(values: Iterable[int]) -> bytes:
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
