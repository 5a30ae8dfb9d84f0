"""Builds ONNX graphs node by node; the one file that imports onnx."""

import hashlib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

OPSET, IR_VERSION = 17, 8  # the oldest with LayerNormalization: ONNX Runtime 1.12 runs it
# Rows are rounded to 7 bits and not 8: processors without VNNI add pairs of products in 16 bits.
LEVELS, ZERO = 63, 64
END = np.iinfo(np.int64).max  # of a slice to the end of an axis
LARGEST_FILE = 2**31 - 2**24  # bytes of a file of protocol buffers; more weights lie beside it


class Graph:
    """A graph of ONNX operators; values are known by their names.

    Args:
      weights: how `linear` stores what it multiplies by: "float32"; "float16", which ONNX Runtime
        widens when it loads them; "int8", with a scale for each column.
      parent: the graph around a loop's body, whose values the body may use.
    """

    def __init__(self, weights: str = "float32", parent: "Graph | None" = None):
        self._onnx = onnx = import_onnx()
        self._helper = onnx.helper
        self.weights = weights
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._rounded: dict[str, tuple[str, str]] = {}  # values as integers, and their scales
        self._root = parent._root if parent else self
        if parent is None:
            self._initializers: list[Any] = []
            self._constants: dict[tuple, str] = {}
            self._num_names = 0

    def input(self, name: str, dtype: Any, shape: Sequence[int | str]) -> str:
        """Adds an input; a size that may differ from call to call is a name."""
        self._inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: Any, shape: Sequence[int | str]) -> None:
        """Hands a value on as an output of this name."""
        self._nodes.append(self._helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._value(name, dtype, shape))

    def move_output(self, name: str, place: int) -> None:
        """Moves an output to another place among the outputs."""
        names = [each.name for each in self._outputs]
        self._outputs.insert(place, self._outputs.pop(names.index(name)))

    def constant(self, array: Any, dtype: Any = None) -> str:
        """Returns the name of a constant; equal ones are stored once."""
        array = np.asarray(array, dtype)
        key = array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()
        root = self._root
        if key not in root._constants:
            name = root._constants[key] = self.name("constant")
            root._initializers.append(self._onnx.numpy_helper.from_array(array, name))
        return root._constants[key]

    def op(self, kind: str, *inputs: Any, outputs: int = 1, **attributes) -> Any:
        """Adds a node. Returns the name of its output, or the names where it has several.

        Args:
          kind: of operator, such as "MatMul".
          inputs: names of values; numbers and arrays become constants, int64 if they are integers
            and float32 otherwise; "" for one that is left out.
        """
        names = [each if isinstance(each, str) else self._number(each) for each in inputs]
        results = [self.name(kind) for _ in range(outputs)]
        self._nodes.append(self._helper.make_node(kind, names, results, **attributes))
        return results[0] if outputs == 1 else results

    def linear(
        self, x: str, kernel: np.ndarray, bias: np.ndarray | None, *, exact: bool = False
    ) -> str:
        """Returns x [..., N] times kernel [N, M], plus a bias [M].

        With `exact`, weights are float32 or float16 where others are int8.
        """
        if self.weights == "int8" and not exact:
            product = self._int8_product(x, np.asarray(kernel, np.float32))
        else:
            product = self.op("MatMul", x, self.weight(kernel))
        return product if bias is None else self.op("Add", product, np.asarray(bias, np.float32))

    def weight(self, array: np.ndarray) -> str:
        """Returns the name of an array of weights in float32, which may be stored in float16."""
        array = np.asarray(array, np.float32)
        if self.weights == "float32":
            return self.constant(array)
        with np.errstate(over="ignore"):
            narrow = array.astype(np.float16)
        if not np.all(np.isfinite(narrow)):
            return self.constant(array)
        return self.cast(self.constant(narrow), np.float32)

    def cast(self, x: str, dtype: Any) -> str:
        """Returns x in another dtype."""
        return self.op("Cast", x, to=self._type(dtype))

    def size(self, x: str, axis: int) -> str:
        """Returns the size [1] of an axis of x, int64."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def reshape(self, x: str, *sizes: int | str) -> str:
        """Returns x in another shape: 0 keeps an axis, -1 is what is left, names are sizes [1]."""
        if all(isinstance(each, int) for each in sizes):
            return self.op("Reshape", x, np.array(sizes, np.int64))
        parts = [each if isinstance(each, str) else self.constant([each], np.int64)
                 for each in sizes]  # fmt: skip
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))

    def slice(self, x: str, axis: int, start: Any, end: Any) -> str:
        """Returns x[start:end] along an axis; start and end are numbers or sizes [1]."""
        bounds = [each if isinstance(each, str) else np.array([each]) for each in (start, end)]
        return self.op("Slice", x, *bounds, np.array([axis]))

    def range(self, size: str) -> str:
        """Returns 0, ..., size - 1 [size] int64 of a size [1]."""
        return self.op("Range", 0, self.op("Squeeze", size, np.array([0])), 1)

    def expand(self, x: str, *axes: int) -> str:
        """Returns x with new axes of size 1."""
        return self.op("Unsqueeze", x, np.array(axes))

    def body(self) -> Any:
        """Returns this graph as the attribute of a node, such as a loop's body."""
        return self._helper.make_graph(self._nodes, "body", self._inputs, self._outputs)

    def model(self, name: str, metadata: dict[str, Any]) -> Any:
        """Returns the graph as an ONNX model with metadata."""
        graph = self._helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, self._initializers
        )
        opsets = [self._helper.make_opsetid("", OPSET)]
        model = self._helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "tdt_jax"
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=str(value))
        return model

    def _int8_product(self, x, kernel):
        """Multiplies integers: each column of the kernel has a scale, and each row of x."""
        scales = np.abs(kernel).max(axis=0, keepdims=True) / 127
        scales = np.where(scales == 0, 1, scales).astype(np.float32)
        if x not in self._rounded:
            largest = self.op("ReduceMax", self.op("Abs", x), axes=[-1], keepdims=1)
            scale = self.op("Div", self.op("Max", largest, np.float32(1e-30)), np.float32(LEVELS))
            integers = self.op("Round", self.op("Div", x, scale))
            integers = self.op("Add", integers, np.float32(ZERO))
            self._rounded[x] = self.cast(integers, np.uint8), scale
        integers, scale = self._rounded[x]
        columns = self.constant(np.rint(kernel / scales).astype(np.int8))
        product = self.op("MatMulInteger", integers, columns, np.uint8(ZERO))
        return self.op("Mul", self.op("Mul", self.cast(product, np.float32), scale), scales[0])

    def _number(self, value):
        array = np.asarray(value)
        dtype = {"i": np.int64, "f": np.float32}.get(array.dtype.kind)
        return self.constant(array, dtype)

    def _value(self, name, dtype, shape):
        return self._helper.make_tensor_value_info(name, self._type(dtype), shape)

    def _type(self, dtype):
        return self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def name(self, kind: str) -> str:
        """Returns a new name."""
        self._root._num_names += 1
        return f"{kind}_{self._root._num_names}"


def import_onnx() -> Any:
    """Returns the package onnx; an ImportError says how to install it."""
    try:
        onnx = importlib.import_module("onnx")
        importlib.import_module("onnx.numpy_helper")
    except ImportError as error:
        raise ImportError(
            "an export to ONNX needs the package onnx: pip install 'tdt-jax[onnx]'"
        ) from error
    return onnx


def num_bytes(model: Any) -> int:
    """Returns the bytes of the model's weights."""
    return sum(len(each.raw_data) for each in model.graph.initializer)


def save(model: Any, path: str | os.PathLike) -> None:
    """Writes a model; weights of more than 2 GB go to the file PATH.data beside it."""
    onnx, path = import_onnx(), Path(path)
    if num_bytes(model) < LARGEST_FILE:
        path.write_bytes(model.SerializeToString())
        return
    onnx.save_model(
        model, str(path), save_as_external_data=True, location=f"{path.name}.data",
        size_threshold=1024,
    )  # fmt: skip
