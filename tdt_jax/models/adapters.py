"""What fine-tuning trains: parameters as they are, and low-rank adapters beside others.

An adapter (Hu et al., 2021, arXiv 2106.09685) puts W + scale A B in place of a kernel W. It is a
transform of the parameters: a model takes kernels and knows nothing of adapters.

    "joint.frame_projection.kernel"     W [I, O], or [L, I, O] in the encoder's blocks
    "joint.frame_projection.kernel.a"   A [I, R], or [L, I, R]
    "joint.frame_projection.kernel.b"   B [R, O], or [L, R, O]
"""

import functools
import hashlib
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.config import TuningConfig
from tdt_jax.models.transducer import Transducer
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

BLOCKS = "encoder.blocks."
ADAPT = (
    *(f"{BLOCKS}attention.{name}.kernel" for name in ("query", "key", "value", "output")),
    f"{BLOCKS}feed_forward*.kernel",
    f"{BLOCKS}convolution.pointwise*.kernel",
    "predictor.layers.*.kernel",
    "joint.*.kernel",
    "ctc.kernel",
)
# The parameters with a row or column for each token. With other tokens they are trained.
OF_TOKENS = ("predictor.embedding", "joint.token_head.*", "ctc.*")
NUM_PROBES = 64  # numbers of each parameter in a fingerprint

Shapes = Mapping[str, tuple[int, ...]]


class Trained(NamedTuple):
    """The names of the parameters that are trained, in full or through adapters."""

    full: tuple[str, ...]
    adapted: tuple[str, ...]


def is_partial(config: TuningConfig) -> bool:
    """Returns whether training leaves some parameters as they are."""
    return bool(config.train or config.freeze or config.rank)


def trained_names(config: TuningConfig, shapes: Shapes) -> Trained:
    """Returns what is trained of a model with parameters of these shapes, by name.

    A kernel that is to be adapted and has no more inputs or outputs than the rank is trained in
    full.

    Raises:
      ValueError: if a pattern matches no parameter, or nothing is trained.
    """
    if not is_partial(config):
        return Trained(tuple(shapes), ())
    full = set(_matches("train", config.train, shapes))
    if not config.train and not config.rank:
        full = set(shapes)
    if config.vocabulary != "kept":
        full |= {name for name in shapes if _is_like(name, OF_TOKENS)}
    adapted: set[str] = set()
    if config.rank:
        kernels = [name for name, shape in shapes.items() if _is_kernel(name, shape)]
        chosen = _matches("adapt", config.adapt, kernels)
        chosen = chosen or [name for name in kernels if _is_like(name, ADAPT)]
        small = {name for name in chosen if min(shapes[name][-2:]) <= config.rank}
        full, adapted = full | small, set(chosen) - small - full
    frozen = set(_matches("freeze", config.freeze, shapes))
    trained = Trained(
        tuple(name for name in shapes if name in full - frozen),
        tuple(name for name in shapes if name in adapted - frozen),
    )
    if not any(trained):
        raise ValueError(
            "nothing is trained: tuning.freeze="
            f"{','.join(config.freeze)} leaves no parameter of those in tuning.train and "
            "tuning.adapt"
        )
    if config.frozen_steps and all(name.startswith("encoder.") for name in sum(trained, ())):
        raise ValueError(
            f"nothing is trained in the first tuning.frozen_steps={config.frozen_steps} steps, as "
            "all that is trained belongs to the encoder"
        )
    return trained


def rate_factors(config: TuningConfig, shapes: Shapes) -> dict[str, Any]:
    """Returns by name what a parameter's learning rate is multiplied by, where it is not 1.

    Factors are numbers, or arrays [L, 1, ...] in the encoder's blocks.

    Args:
      config: has the factors of patterns and of layers.
      shapes: of the parameters that are trained, and of adapters.

    Raises:
      ValueError: if a pattern matches no parameter.
    """
    factors: dict[str, Any] = {}
    depth = max((shape[0] for name, shape in shapes.items() if name.startswith(BLOCKS)), default=0)
    for name, shape in shapes.items():
        if config.layer_decay == 1 or not name.startswith("encoder."):
            continue
        below = np.arange(depth, 0, -1) - 1 if name.startswith(BLOCKS) else np.array([depth])
        decay = (config.layer_decay**below).astype(np.float32)
        rank = len(shape) if name.startswith(BLOCKS) else 1
        factors[name] = decay.reshape(-1, *[1] * (rank - 1))
    for pattern, factor in config.rates:
        for name in _matches("rates", [pattern], shapes, with_adapters=True):
            factors[name] = factors.get(name, 1.0) * factor
    return factors


def adapter_shapes(shapes: Shapes, rank: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the adapters of kernels of these shapes, by name."""
    result = {}
    for name, (*stack, inputs, outputs) in shapes.items():
        result |= {f"{name}.a": (*stack, inputs, rank), f"{name}.b": (*stack, rank, outputs)}
    return result


def new_adapters(shapes: Shapes, rank: int, key: jax.Array) -> dict[str, jax.Array]:
    """Returns adapters of kernels of these shapes that change nothing yet: A is random, B zero."""

    def draw(name, shape):
        if name.endswith(".b"):
            return jnp.zeros(shape)
        own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return jax.random.normal(own_key, shape) / math.sqrt(shape[-2])

    return {name: draw(name, shape) for name, shape in adapter_shapes(shapes, rank).items()}


def merge_adapters(
    leaves: Mapping[str, jax.Array], adapters: Mapping[str, jax.Array], scale: float
) -> dict[str, jax.Array]:
    """Returns parameters by name, in float32 those that have an adapter: W + scale A B."""
    merged = dict(leaves)
    for name in adapted_by(adapters):
        a, b = (adapters[f"{name}.{part}"].astype(jnp.float32) for part in "ab")
        change = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        merged[name] = leaves[name].astype(jnp.float32) + scale * change
    return merged


def adapted_by(adapters: Iterable[str]) -> list[str]:
    """Returns the names of the kernels that arrays of these names adapt."""
    return [name.removesuffix(".a") for name in adapters if name.endswith(".kernel.a")]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["blocks", "adapters"], meta_fields=["scale"]
)
@dataclass(frozen=True)
class AdaptedBlocks:
    """The blocks of an encoder and their adapters, which are merged a block at a time.

    So neither the merged kernels of all blocks nor their gradients are ever in memory at once.
    """

    blocks: Any  # with parameters [L, ...]
    adapters: dict[str, jax.Array]  # by the names within a block
    scale: float

    def merged(self) -> Any:
        """Returns a block with its adapters merged; of those that a loop over the blocks slices."""
        leaves = merge_adapters(named_leaves(self.blocks), self.adapters, self.scale)
        return from_named_leaves(leaves, self.blocks)


def with_adapters(model: Transducer, adapters: Mapping[str, jax.Array], scale: float) -> Transducer:
    """Returns a model to train, with adapters: those of the blocks apart, as `AdaptedBlocks`."""
    inner = {name: each for name, each in adapters.items() if name.startswith(BLOCKS)}
    outer = {name: each for name, each in adapters.items() if name not in inner}
    model = from_named_leaves(merge_adapters(named_leaves(model), outer, scale), model)
    if inner:
        inner = {name.removeprefix(BLOCKS): each for name, each in inner.items()}
        model.encoder.blocks = AdaptedBlocks(model.encoder.blocks, inner, scale)
    return model


@functools.partial(jax.jit, static_argnames="scale")
def merged_model(model: Transducer, tuned: Mapping[str, jax.Array], scale: float) -> Transducer:
    """Returns the model with parameters and adapters `tuned`, merged, in the dtypes of `model`.

    Args:
      model: stays as it is.
      tuned: parameters in place of the model's, and adapters, by name.
      scale: of A B.
    """
    leaves = named_leaves(model)
    replaced = {name: tuned.get(name, leaf) for name, leaf in leaves.items()}
    merged = merge_adapters(replaced, tuned, scale)
    return from_named_leaves(
        {name: merged[name].astype(leaf.dtype) for name, leaf in leaves.items()}, model
    )


def fingerprint(model: Transducer) -> str:
    """Returns a few hexadecimal digits that tell a model's parameters from others.

    They are the same in float32 and in bfloat16.
    """
    digest = hashlib.sha256()
    for name, probes in sorted(jax.device_get(_probes(named_leaves(model))).items()):
        digest.update(name.encode() + np.asarray(probes, "<f4").tobytes())
    return digest.hexdigest()[:16]


@jax.jit
def _probes(leaves: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    def probe(leaf):
        where = np.linspace(0, leaf.size - 1, min(leaf.size, NUM_PROBES)).astype(np.int64)
        index = np.unravel_index(where, leaf.shape)
        return leaf[index].astype(jnp.bfloat16).astype(jnp.float32)

    return {f"{name} {leaf.shape}": probe(leaf) for name, leaf in leaves.items()}


def _matches(
    field: str, patterns: Sequence[str], names: Iterable[str], *, with_adapters: bool = False
) -> list[str]:
    """Returns the names that match a pattern; raises ValueError if one matches none."""
    names = list(names)
    plain = {
        name: name.removesuffix(".a").removesuffix(".b") if with_adapters else name
        for name in names
    }
    for pattern in patterns:
        if not any(fnmatchcase(each, pattern) for each in plain.values()):
            rooms = sorted({".".join(name.split(".")[:3]) for name in names})
            what = "kernel" if field == "adapt" else "parameter"
            raise ValueError(
                f"tuning.{field}: {pattern} matches no {what} that could be meant; there are "
                + ", ".join(f"{room}*" for room in rooms)
            )
    return [name for name in names if _is_like(plain[name], patterns)]


def _is_like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_kernel(name: str, shape: tuple[int, ...]) -> bool:
    """Returns whether a parameter is the kernel of a product: [I, O], stacked in the blocks."""
    return name.endswith(".kernel") and len(shape) == 2 + name.startswith(BLOCKS)
