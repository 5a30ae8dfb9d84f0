"""Converts a checkpoint's tensors into a model and back, by the tables.

Reading checks the names and shapes of all tensors before it allocates anything, and then fills one
parameter after another from the file: the peak of memory is the model and a tensor or two.
"""

import dataclasses
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.checkpoints.formats.tensors import StoredTensor
from tdt_jax.checkpoints.parakeet import tables
from tdt_jax.config import ModelConfig
from tdt_jax.models.transducer import MismatchError, Placement, Transducer, abstract_model
from tdt_jax.recogniser import check_vocabulary
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves
from tdt_jax.tokenizer import SentencePiece

BATCH_NORM_EPSILON = 1e-5  # torch's
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
UNIT_VARIANCE = np.float32(1 - BATCH_NORM_EPSILON)
STRIPE = 16  # rows that are transposed at a time: what a cache line holds of float32

TensorName = Callable[[str], str]  # from NeMo's name of a tensor to a checkpoint's


class OpenedCheckpoint(NamedTuple):
    """A checkpoint whose configuration and tokenizer have been read, and its tensors not yet."""

    config: ModelConfig
    tokenizer: SentencePiece
    stored: Mapping[str, StoredTensor]
    tensor_name: TensorName  # from NeMo's names to those in `stored`
    ignored: tuple[str, ...] = ()  # names in `stored` that are not the model's
    file: BinaryIO | None = None  # that is open while tensors are read

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def assemble(
    opened: OpenedCheckpoint, *, dtype: str | None = None, sharding: Placement | None = None
) -> Transducer:
    """Returns the model that a checkpoint holds.

    Args:
      opened: the checkpoint.
      dtype: of the parameters and the computation; None: parameters in float32 and the computation
        as configured.
      sharding: where the parameters go, one for all or a function of (name, shape); None: the
        default device.

    Raises:
      MismatchError: naming every missing, extra and mis-shaped tensor.
    """
    config = dataclasses.replace(opened.config, dtype=dtype or opened.config.dtype)
    check_vocabulary(opened.tokenizer, config)
    abstract = abstract_model(config, dtype)
    shapes = {name: tuple(leaf.shape) for name, leaf in named_leaves(abstract).items()}
    _check_tensors(opened, tensor_shapes(config, shapes))
    leaves = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for parameter, is_stacked, fill in _fills(opened, config, shapes):
            array = _empty(shapes[parameter], jnp.dtype(dtype or "float32"))
            layers = list(array) if is_stacked else [array]
            list(threads.map(fill, layers, range(len(layers))))
            place = sharding(parameter, array.shape) if callable(sharding) else sharding
            leaves[parameter] = _to_device(array, place)
    return from_named_leaves(leaves, abstract)


def disassemble(model: Transducer, *, tensor_name: TensorName) -> dict[str, np.ndarray]:
    """Returns the parameters of a model as a checkpoint's tensors, by the checkpoint's names.

    A norm that was folded from a BatchNorm becomes one of mean 0 and variance 1 - epsilon, which
    divides by 1: it computes the same, and is read as the same scale and bias again.
    """
    config = model.config
    leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(model).items()}
    layers = range(config.encoder.num_layers)
    parts: dict[str, list[np.ndarray]] = {}  # of each tensor, in NeMo's layout
    for row in tables.rows(config):
        array = leaves[row.parameter]
        layout = "->".join(reversed(row.layout.split("->")))
        for layer in layers if row.is_stacked else [None]:
            part = _transposed(array if layer is None else array[layer], layout)
            parts.setdefault(row.tensor.format(layer), []).append(part)
    if config.predictor is not None and not config.predictor.blank_embedding:
        embedding = parts[tables.EMBEDDING]
        embedding.append(np.zeros_like(embedding[0][:1]))
    tensors = {
        name: np.ascontiguousarray(each[0] if len(each) == 1 else np.concatenate(each))
        for name, each in parts.items()
    }
    for parameter, tensor in tables.batch_norms(config):
        for layer in layers:
            # In float32 whatever the rest: bfloat16 has no 1 - epsilon.
            scale, bias = (
                leaves[f"{parameter}.{part}"][layer].astype(np.float32)
                for part in ("scale", "bias")
            )
            values = (scale, bias, np.zeros_like(scale), np.full_like(scale, UNIT_VARIANCE))
            prefix = tensor.format(layer)
            for part, value in zip(BATCH_NORM, values, strict=True):
                tensors[f"{prefix}.{part}"] = value
            tensors[f"{prefix}.num_batches_tracked"] = np.array(0, np.int64)
    return {tensor_name(name): tensor for name, tensor in tensors.items()}


def tensor_shapes(
    config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a model's tensors by NeMo's names, given those of its parameters."""
    expected: dict[str, tuple[int, ...]] = {}
    layers = range(config.encoder.num_layers)
    for row in tables.rows(config):
        size, *rest = _tensor_shape(row, shapes[row.parameter])
        for layer in layers if row.is_stacked else [0]:
            name = row.tensor.format(layer)
            size_before = expected[name][0] if name in expected else 0
            expected[name] = (size_before + size, *rest)
    if config.predictor is not None:
        expected[tables.EMBEDDING] = (config.vocab_size + 1, config.predictor.width)
    for parameter, tensor in tables.batch_norms(config):
        for layer in layers:
            for part in BATCH_NORM:
                expected[f"{tensor.format(layer)}.{part}"] = shapes[f"{parameter}.scale"][1:]
    return expected


def with_blank_embedding(
    config: ModelConfig, stored: Mapping[str, StoredTensor], tensor_name: TensorName
) -> ModelConfig:
    """Returns `config` with `predictor.blank_embedding` set if the checkpoint has learned one."""
    embedding = stored.get(tensor_name(tables.EMBEDDING))
    if config.predictor is None or embedding is None:
        return config
    if tuple(embedding.shape) != (config.vocab_size + 1, config.predictor.width):
        return config  # `assemble` raises an error that names it
    if not np.any(embedding.read()[-1]):
        return config
    predictor = dataclasses.replace(config.predictor, blank_embedding=True)
    return dataclasses.replace(config, predictor=predictor)


def fold_batch_norm(
    weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (scale, bias) of y = (x - mean) / sqrt(variance + epsilon) * weight + bias."""
    weight, bias, mean, variance = (
        np.asarray(each, np.float64) for each in (weight, bias, mean, variance)
    )
    # Where variance + epsilon is 1 in float32, torch divides by exactly 1; so does this.
    total = variance.astype(np.float32) + np.float32(BATCH_NORM_EPSILON)
    deviation = np.where(total == 1, 1.0, np.sqrt(variance + BATCH_NORM_EPSILON))
    scale = weight / deviation
    return scale, bias - mean * scale


# From tensors to parameters

Fill = Callable[[np.ndarray, int], None]  # fills an array with a parameter, or a layer of one


def _fills(
    opened: OpenedCheckpoint, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, bool, Fill]]:
    """Yields each parameter, whether it stacks layers, and the function that reads it."""

    def read(name: str) -> np.ndarray:
        return opened.stored[opened.tensor_name(name)].read()

    ends: dict[str, int] = {}  # where the next parameter begins in a tensor that several share
    for row in tables.rows(config):
        start = ends.get(row.tensor, 0)
        ends[row.tensor] = start + _tensor_shape(row, shapes[row.parameter])[0]
        yield row.parameter, row.is_stacked, _fill_row(row, slice(start, ends[row.tensor]), read)
    for parameter, tensor in tables.batch_norms(config):
        for index, part in enumerate(("scale", "bias")):
            yield f"{parameter}.{part}", True, _fill_folded(tensor, index, read)


def _fill_row(row: tables.Row, part: slice, read: Callable[[str], np.ndarray]) -> Fill:
    def fill(target: np.ndarray, layer: int) -> None:
        _copy(target, _transposed(read(row.tensor.format(layer))[part], row.layout))

    return fill


def _fill_folded(tensor: str, index: int, read: Callable[[str], np.ndarray]) -> Fill:
    """Returns a function that fills the scale (`index` 0) or bias (1) of a folded BatchNorm."""

    def fill(target: np.ndarray, layer: int) -> None:
        parts = (read(f"{tensor.format(layer)}.{part}") for part in BATCH_NORM)
        target[...] = fold_batch_norm(*parts)[index]

    return fill


def _check_tensors(opened: OpenedCheckpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises MismatchError unless the tensors are those expected, by NeMo's names."""
    stored = opened.stored
    wanted = {opened.tensor_name(name): shape for name, shape in expected.items()}
    known = wanted.keys() | set(opened.ignored)
    problems = [f"missing {name}" for name in wanted if name not in stored]
    problems += [
        f"extra {name}"
        for name in stored
        if name not in known and not name.endswith(".num_batches_tracked")
    ]
    problems += [
        f"{name} is {stored[name].shape}, expected {shape}"
        for name, shape in wanted.items()
        if name in stored and tuple(stored[name].shape) != tuple(shape)
    ]
    problems += [
        f"{name} is {stored[name].dtype}, expected floating point"
        for name in wanted
        if name in stored and not jnp.issubdtype(stored[name].dtype, jnp.floating)
    ]
    if problems:
        listed = problems[:50] + [f"and {len(problems) - 50} more"] * (len(problems) > 50)
        raise MismatchError(
            "the checkpoint's tensors are not what its configuration says: " + "; ".join(listed)
        )


def _tensor_shape(row: tables.Row, parameter_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of the tensor that holds a parameter, or one layer of it."""
    theirs, ours = row.layout.split("->")
    shape = parameter_shape[1:] if row.is_stacked else parameter_shape
    sizes = dict(zip(ours, shape, strict=True))
    return tuple(1 if letter == "1" else sizes[letter] for letter in theirs)


def _transposed(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns a view of an array in the layout after the arrow."""
    before, after = layout.split("->")
    sizes = dict(zip(before, array.shape, strict=True))
    letters = before.replace("1", "")
    array = array.reshape([sizes[letter] for letter in letters])
    array = array.transpose([letters.index(letter) for letter in after.replace("1", "")])
    return array.reshape([1 if letter == "1" else sizes[letter] for letter in after])


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """Does target[...] = source, by stripes where source is a large transposed matrix: faster."""
    if source.ndim == 2 and source.strides[0] < source.strides[1] and source.shape[1] > STRIPE:
        for start in range(0, source.shape[1], STRIPE):
            target[:, start : start + STRIPE] = source[:, start : start + STRIPE]
    else:
        target[...] = source


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an array whose memory jax can take over on CPU as it is: it begins a page.

    It is mapped rather than allocated, so that numpy asks for no huge pages: after a large file has
    been read, the system may take seconds to find them.
    """
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, math.prod(shape)).reshape(shape)


def _to_device(array: np.ndarray, place: jax.sharding.Sharding | None) -> jax.Array:
    if place is None and jax.default_backend() == "cpu" and array.dtype == np.float32:
        return jnp.from_dlpack(array)
    return jax.device_put(array, place)
