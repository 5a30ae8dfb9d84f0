"""A checkpoint's tensors into a model and back, by the tables.

Reading checks every name and shape against the model before it allocates anything, and then fills
one parameter after another from the tensors on disk: the peak is the model and a tensor or two.
"""

import dataclasses
import math
import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.checkpoints.formats.tensors import StoredTensor
from tdt_jax.checkpoints.parakeet import tables
from tdt_jax.config import ModelConfig
from tdt_jax.models.transducer import MismatchError, Placement
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves
from tdt_jax.tokenizer import SentencePiece

BATCH_NORM_EPSILON = 1e-5  # torch's
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
STRIPE = 16  # rows that are transposed at a time: what a cache line holds of float32


def assemble(
    config: ModelConfig,
    abstract,
    stored: Mapping[str, StoredTensor],
    *,
    name: Callable[[str], str],
    ignored: Iterable[str] = (),
    dtype=np.float32,
    sharding: Placement | None = None,
):
    """The model with the parameters that `stored` holds under the names `name(NeMo's name)`.

    Args:
      config: of the model.
      abstract: the model's pytree, of shapes.
      stored: the checkpoint's tensors, by name.
      name: from NeMo's name to the checkpoint's.
      ignored: names that may be there and are not needed.
      dtype: of the parameters.
      sharding: where they go, one for all or by (name, shape); None: the default device.

    Raises:
      MismatchError: naming every missing, extra and mis-shaped tensor.
    """
    shapes = {key: tuple(leaf.shape) for key, leaf in named_leaves(abstract).items()}
    expected = _expected(config, shapes)
    wanted = {name(key): shape for key, shape in expected.items()}
    _check(wanted, stored, ignored)
    num_layers = config.encoder.num_layers
    arrays = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:

        def put(ours: str, fill: Callable[[np.ndarray, int], None], is_stacked: bool):
            array = _empty(shapes[ours], dtype)
            slots = [(array[i], i) for i in range(num_layers)] if is_stacked else [(array, 0)]
            list(threads.map(lambda slot: fill(*slot), slots))
            where = sharding(ours, array.shape) if callable(sharding) else sharding
            arrays[ours] = _to_device(array, where)

        starts: dict[str, int] = {}  # the next row of a tensor that several parameters share
        for row in tables.rows(config):
            first = starts.get(row.theirs, 0) if row.layout[0] in "ov" else 0
            size = _theirs_shape(row, shapes[row.ours])[0]
            starts[row.theirs] = first + size

            def fill(slot, layer, row=row, part=slice(first, first + size)):
                tensor = stored[name(row.theirs.format(layer))].read()[part]
                _copy(slot, _moved(tensor, row.layout))

            put(row.ours, fill, row.is_stacked)
        for ours, theirs in tables.batch_norms(config):
            for index, part in enumerate(("scale", "bias")):

                def fold(slot, layer, theirs=theirs, index=index):
                    prefix = theirs.format(layer)
                    tensors = (stored[name(f"{prefix}.{part}")].read() for part in BATCH_NORM)
                    slot[...] = fold_batch_norm(*tensors)[index]

                put(f"{ours}.{part}", fold, True)
    return from_named_leaves(arrays, abstract)


def disassemble(model, *, name: Callable[[str], str]) -> dict[str, np.ndarray]:
    """The model's parameters as a checkpoint's tensors, by `name(NeMo's name)`.

    A folded BatchNorm is written back as one of mean 0 and variance 1 - epsilon, which divides by
    1: the outputs agree, and reading it gives the same scale and bias again.
    """
    config = model.config
    leaves = {key: np.asarray(leaf) for key, leaf in named_leaves(model).items()}
    layers = range(config.encoder.num_layers)
    parts: dict[str, list[np.ndarray]] = {}
    for row in tables.rows(config):
        array = leaves[row.ours]
        for layer in layers if row.is_stacked else [None]:
            each = array if layer is None else array[layer]
            moved = _moved(each, "->".join(reversed(row.layout.split("->"))))
            parts.setdefault(row.theirs.format(layer), []).append(moved)
    if config.predictor is not None and not config.predictor.blank_embedding:
        rows = parts[tables.EMBEDDING]
        rows.append(np.zeros_like(rows[0][:1]))
    tensors = {
        name(key): np.ascontiguousarray(each[0] if len(each) == 1 else np.concatenate(each))
        for key, each in parts.items()
    }
    for ours, theirs in tables.batch_norms(config):
        for layer in layers:
            # In float32 whatever the rest: bfloat16 has no 1 - epsilon.
            scale, bias = (
                leaves[f"{ours}.{part}"][layer].astype(np.float32) for part in ("scale", "bias")
            )
            values = (scale, bias, np.zeros_like(scale), np.full_like(scale, UNIT_VARIANCE))
            for part, value in zip(BATCH_NORM, values, strict=True):
                tensors[name(f"{theirs.format(layer)}.{part}")] = np.ascontiguousarray(value)
            tensors[name(f"{theirs.format(layer)}.num_batches_tracked")] = np.array(0, np.int64)
    return tensors


UNIT_VARIANCE = np.float32(1 - BATCH_NORM_EPSILON)


def fold_batch_norm(weight, bias, mean, variance):
    """The scale and bias of y = (x - mean) / sqrt(variance + epsilon) * weight + bias."""
    weight, bias, mean, variance = (
        np.asarray(each, np.float64) for each in (weight, bias, mean, variance)
    )
    # Where variance + epsilon is 1 in float32, torch divides by exactly 1; so does this.
    total = np.float32(variance) + np.float32(BATCH_NORM_EPSILON)
    deviation = np.where(total == 1, 1.0, np.sqrt(variance + BATCH_NORM_EPSILON))
    scale = weight / deviation
    return scale, bias - mean * scale


def _expected(config: ModelConfig, shapes: dict) -> dict[str, tuple[int, ...]]:
    """NeMo's names with the shapes that the model needs."""
    expected: dict[str, tuple[int, ...]] = {}
    layers = range(config.encoder.num_layers)
    for row in tables.rows(config):
        first, *rest = _theirs_shape(row, shapes[row.ours])
        for layer in layers if row.is_stacked else [0]:
            key = row.theirs.format(layer)
            shared = expected[key][0] if key in expected else 0
            expected[key] = (shared + first, *rest)
    if config.predictor is not None:
        expected[tables.EMBEDDING] = (config.vocab_size + 1, config.predictor.width)
    for ours, theirs in tables.batch_norms(config):
        for layer in layers:
            for part in BATCH_NORM:
                expected[f"{theirs.format(layer)}.{part}"] = shapes[f"{ours}.scale"][1:]
    return expected


def _check(wanted: dict, stored: Mapping[str, StoredTensor], ignored: Iterable[str]) -> None:
    known = set(wanted) | set(ignored)
    problems = [f"missing {key}" for key in wanted if key not in stored]
    problems += [
        f"extra {key}"
        for key in stored
        if key not in known and not key.endswith(".num_batches_tracked")
    ]
    problems += [
        f"{key} is {stored[key].shape}, expected {shape}"
        for key, shape in wanted.items()
        if key in stored and tuple(stored[key].shape) != tuple(shape)
    ]
    problems += [
        f"{key} is {stored[key].dtype}, expected floating point"
        for key in wanted
        if key in stored and not jnp.issubdtype(stored[key].dtype, jnp.floating)
    ]
    if problems:
        shown = problems[:50] + [f"and {len(problems) - 50} more"] * (len(problems) > 50)
        raise MismatchError(
            "the checkpoint's tensors are not what its configuration says: " + "; ".join(shown)
        )


def _theirs_shape(row: tables.Row, ours: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the tensor that holds a parameter of shape `ours`, without the layers."""
    theirs, mine = row.layout.split("->")
    sizes = dict(zip(mine, ours[1:] if row.is_stacked else ours, strict=True))
    return tuple(1 if letter == "1" else sizes[letter] for letter in theirs)


def _moved(array: np.ndarray, layout: str) -> np.ndarray:
    """A view of `array` in the layout after the arrow."""
    before, after = layout.split("->")
    sizes = dict(zip(before, array.shape, strict=True))
    letters = before.replace("1", "")
    array = array.reshape([sizes[letter] for letter in letters])
    array = array.transpose([letters.index(letter) for letter in after.replace("1", "")])
    return array.reshape([1 if letter == "1" else sizes[letter] for letter in after])


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """target[...] = source, quick where source is a large transposed matrix."""
    if source.ndim == 2 and source.strides[0] < source.strides[1] and source.shape[1] > STRIPE:
        for start in range(0, source.shape[1], STRIPE):
            target[:, start : start + STRIPE] = source[:, start : start + STRIPE]
    else:
        target[...] = source


def _empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array whose memory jax can take over on CPU as it is: it begins a page.

    Mapped rather than allocated, so that numpy asks for no huge pages: after a large file has been
    read, the system may take seconds to find them.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, math.prod(shape)).reshape(shape)


def _to_device(array: np.ndarray, sharding):
    if sharding is None and jax.default_backend() == "cpu" and array.dtype == np.float32:
        return jnp.from_dlpack(array)
    return jax.device_put(array, sharding)


class OpenedCheckpoint(NamedTuple):
    """A checkpoint that has been opened."""

    config: ModelConfig
    tokenizer: SentencePiece
    stored: Mapping[str, StoredTensor]
    name: Callable[[str], str]  # from NeMo's name of a tensor to the one in `stored`
    ignored: tuple[str, ...]  # names in `stored` that are not the model's
    file: BinaryIO | None = None  # that is open while tensors are read

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def blank_embedding(
    config: ModelConfig, stored: Mapping[str, StoredTensor], name: Callable[[str], str]
) -> ModelConfig:
    """The configuration, told whether the predictor has learned an embedding of blank."""
    embedding = stored.get(name(tables.EMBEDDING))
    if config.predictor is None or embedding is None:
        return config
    if tuple(embedding.shape) != (config.vocab_size + 1, config.predictor.width):
        return config  # `assemble` says so
    if not np.any(embedding.read()[-1]):
        return config
    predictor = dataclasses.replace(config.predictor, blank_embedding=True)
    return dataclasses.replace(config, predictor=predictor)
