"""The FastConformer encoder (Rekesh et al., 2023, arXiv 2305.05084).

    features [B, M, F] -> Subsampling (8x) -> L x Block -> frames [B, T, D]

    Block: x + 1/2 FeedForward, x + RelativeAttention, x + Convolution, x + 1/2 FeedForward, norm

Padding never changes a result: time is masked before every convolution and in every attention.

A causal encoder also encodes chunk by chunk (`start`, `step`): each chunk is encoded once, with the
same code as a whole utterance, and what later chunks need of it is kept in the state.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from tdt_jax.config import EncoderConfig
from tdt_jax.models.attention import (
    AttentionCache,
    attention_blocks,
    attention_mask,
    position_encoding,
    random_mask,
)
from tdt_jax.models.block import Block, BlockCache
from tdt_jax.models.layers import (
    dropout,
    in_precision,
    insert,
    mask_time,
    padding_mask,
    select_rows,
    split_key,
)
from tdt_jax.models.subsampling import MARGIN, Subsampling, subsampled_length

UNKNOWN = 1 << 30  # features of an utterance that goes on


class EncoderState(NamedTuple):
    """What `encode_chunk` carries from chunk to chunk, for rows at any place of their utterances.

    A row whose counts are zero is at the start of an utterance, whatever else the state holds.
    """

    num_features: jax.Array  # [B] int32, features received of the utterance
    num_frames: jax.Array  # [B] int32, frames returned
    features: jax.Array  # [B, 7 + 8C, F], those received and not encoded, after 7 that were
    layers: BlockCache  # of all layers: [layers, B, ...]
    positions: jax.Array  # [layers, R, H, K], encodings of positions, projected

    @property
    def chunk(self) -> int:
        """Returns the frames C of a chunk, 1 + those that a frame looks ahead."""
        return (self.features.shape[1] - MARGIN) // 8

    def restart(self, rows: jax.Array) -> "EncoderState":
        """Returns the state with a new utterance in the rows where `rows` [B] is True."""
        return self._replace(
            num_features=jnp.where(rows, 0, self.num_features),
            num_frames=jnp.where(rows, 0, self.num_frames),
        )


@dataclasses.dataclass(frozen=True)
class SeparateBlocks:
    """The blocks of an encoder, each with arrays of its own.

    It holds their arrays, and not modules, which take some 0.3 ms each to flatten at every call.
    """

    leaves: tuple[tuple[jax.Array, ...], ...]  # of each block
    structure: Any  # of a block, a PyTreeDef

    def __iter__(self) -> Iterator["Block"]:
        for leaves in self.leaves:
            yield jax.tree.unflatten(self.structure, leaves)


jax.tree_util.register_dataclass(SeparateBlocks, data_fields=["leaves"], meta_fields=["structure"])


class Encoder(nnx.Module):
    """Subsampling and a stack of blocks, whose parameters are stacked: [L, ...].

    On a CPU `lax.scan` copies the parameters of a block out of the stack before it uses them. For a
    chunk of few frames that takes longer than its products, so blocks can also be separate.
    """

    blocks: Any  # a Block with parameters [L, ...], or SeparateBlocks

    def __init__(self, config: EncoderConfig, num_mels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.subsampling = Subsampling(config, num_mels, dtype=dtype, rngs=rngs)
        keys = jax.random.split(rngs.params(), config.num_layers)
        self.blocks = jax.vmap(lambda key: Block(config, dtype=dtype, rngs=nnx.Rngs(key)))(keys)
        self.config = config
        self.dtype = dtype

    @in_precision
    def __call__(
        self,
        features: jax.Array,
        num_features: jax.Array,
        *,
        context: tuple[int, ...] | None = None,
        key: jax.Array | None = None,
        mesh: Mesh | None = None,
        prepare: Callable = lambda x, block: (x, block),
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes features [B, M, F] of lengths [B]. Returns frames [B, T, D] of lengths [B].

        Frames beyond an utterance's length are zero.

        Args:
          features: [B, M, F].
          num_features: [B] int.
          context: of attention, as of `attention_mask`.
          key: turns dropout on, and draws the context.
          mesh: of the devices among which the compiler splits the rows; None: all lie on one, or
            the caller has mapped the devices' rows.
          prepare: called with the input and the parameters of each block; returns both as the
            block uses them. A training step places and gathers what is split among devices in it.
        """
        input_key, block_key, mask_key = split_key(key, 3)
        x, num_frames = self.subsampling(features, num_features)
        x = dropout(self._scaled(x), self.config.dropout, input_key)
        if key is None or context is not None:
            mask = attention_mask(self.config, context)
        else:
            mask = random_mask(self.config, mask_key, x.shape[1])
        blocks = attention_blocks(mask, x.shape[1])
        positions = position_encoding(blocks.furthest, blocks.nearest, self.config.width)
        positions = positions.astype(self.dtype)
        padding = padding_mask(num_frames, x.shape[1])

        def apply(x, layer):
            block, key = layer
            x, block = prepare(x, block)
            return block(x, positions, padding, mask=mask, key=key, mesh=mesh), None

        keys = None if key is None else jax.random.split(block_key, self.config.num_layers)
        policy = getattr(jax.checkpoint_policies, self.config.remat_policy)
        body = jax.checkpoint(apply, policy=policy) if self.config.remat is not False else apply
        x, _ = self._scan(body, x, keys, unroll=self.config.unroll)
        return mask_time(x, num_frames), num_frames

    def with_separate_blocks(self) -> "Encoder":
        """Returns the encoder with `SeparateBlocks`; on a CPU they share memory with the stack."""
        leaves, structure = jax.tree.flatten(self.blocks)
        blocks = zip(*(_unstack(leaf) for leaf in leaves), strict=True)
        encoder = jax.tree.map(lambda leaf: leaf, self)
        encoder.blocks = SeparateBlocks(tuple(blocks), structure)
        return encoder

    @in_precision
    def start(self, batch_size: int, context: tuple[int, int] | None = None) -> EncoderState:
        """Returns the state at the start of `batch_size` utterances; `context` as of `encode`."""
        config = self.config
        if not config.is_causal:
            raise ValueError(
                "encoding in chunks needs a causal model: encoder.chunked_contexts, "
                f"convolution_context ({config.kernel_size - 1}, 0) and causal_subsampling, got "
                f"{config.chunked_contexts}, {config.convolution_context} and "
                f"{config.causal_subsampling}; tdt_jax.Stream transcribes with any transducer"
            )
        mask = attention_mask(config, context)
        assert mask is not None
        positions = position_encoding(mask.furthest, mask.nearest, config.width)
        positions = positions.astype(self.dtype)

        def project(_, layer):
            return None, layer[0].attention.project(positions)

        heads, layers = config.num_heads, config.num_layers

        def zeros(*shape, dtype=self.dtype):
            return jnp.zeros(shape, dtype)

        frames = layers, batch_size, mask.left, heads, config.width // heads
        history = zeros(layers, batch_size, config.kernel_size - 1, config.width)
        num_mels = self.subsampling.num_mels
        return EncoderState(
            num_features=zeros(batch_size, dtype=jnp.int32),
            num_frames=zeros(batch_size, dtype=jnp.int32),
            features=zeros(batch_size, MARGIN + 8 * mask.chunk, num_mels, dtype=jnp.float32),
            layers=BlockCache(AttentionCache(zeros(*frames), zeros(*frames)), history),
            positions=self._scan(project, None)[1],
        )

    @in_precision
    def step(
        self, features: jax.Array, num_features: jax.Array, state: EncoderState, last: jax.Array
    ) -> tuple[jax.Array, jax.Array, EncoderState]:
        """Encodes the features that come next of each utterance, as `encode_chunk` documents."""
        chunk, size = state.chunk, 8 * state.chunk
        # The utterance begins with MARGIN features that do not exist: see `Subsampling`.
        pending = state.num_features + MARGIN - 8 * state.num_frames
        received = insert(state.features, MARGIN + pending, features, num_features)
        total = state.num_features + num_features
        lengths = jnp.where(last, total, UNKNOWN)
        num_frames = subsampled_length(lengths, causal=True)

        def is_ready(pending):
            return (pending >= size) | (last & (pending > 0))

        def encode_next(carry):
            index, received, pending, first, layers, frames = carry
            ready = is_ready(pending)
            x, layers = self._encode_chunk(
                received[:, : MARGIN + size], lengths, first, ready, layers, state.positions
            )
            count = jnp.where(ready, (num_frames - first).clip(0, chunk), 0)
            rest = jnp.pad(received[:, size:], ((0, 0), (0, size), (0, 0)))
            received = select_rows(ready, rest, received, axis=0)
            pending = jnp.where(ready, (pending - size).clip(0), pending)
            return index + 1, received, pending, first + count, layers, frames.at[index].set(x)

        num_chunks = -(-(size - 1 + features.shape[1]) // size)
        frames = jnp.zeros((num_chunks, len(total), chunk, self.config.width), self.dtype)
        carry = 0, received, pending + num_features, state.num_frames, state.layers, frames
        carry = jax.lax.while_loop(lambda carry: jnp.any(is_ready(carry[2])), encode_next, carry)
        _, received, _, first, layers, frames = carry
        frames = jnp.moveaxis(frames, 0, 1).reshape(len(first), -1, self.config.width)
        count = first - state.num_frames
        state = EncoderState(total, first, received[:, : MARGIN + size], layers, state.positions)
        return mask_time(frames, count), count, state.restart(last)

    def _encode_chunk(self, features, lengths, first, ready, layers, positions):
        """Encodes the C frames from `first` [B] on, of features [B, 7 + 8C, F].

        The caches of rows that are not `ready` [B] stay as they are.
        """
        x = self._scaled(self.subsampling.frames(features, lengths, first))
        frames = first[:, None] + jnp.arange(x.shape[1])[None, :]
        padding = frames >= subsampled_length(lengths, causal=True)[:, None]

        def apply(x, layer):
            block, cache, positions = layer
            x, new = block.step(x, cache, positions, first, padding)
            return x, jax.tree.map(functools.partial(select_rows, ready, axis=0), new, cache)

        return self._scan(apply, x, layers, positions)

    def _scan(self, body: Callable, carry: Any, *arrays: Any, unroll: int = 1) -> tuple[Any, Any]:
        """Returns what `lax.scan` of `body` over the blocks and `arrays` [L, ...] returns."""
        if not isinstance(self.blocks, SeparateBlocks):
            return jax.lax.scan(body, carry, (self.blocks, *arrays), unroll=unroll)
        outputs = []
        for index, block in enumerate(self.blocks):
            layer = jax.tree.map(lambda array, index=index: array[index], arrays)
            carry, output = body(carry, (block, *layer))
            outputs.append(output)
        return carry, jax.tree.map(lambda *each: jnp.stack(each), *outputs)

    def _scaled(self, x):
        return x * math.sqrt(self.config.width) if self.config.scale_input else x


def _unstack(array: jax.Array | np.ndarray) -> list[jax.Array]:
    """Returns array[0], array[1], ...; on a CPU without a copy."""
    if isinstance(array, jax.Array) and next(iter(array.devices())).platform != "cpu":
        return list(array)
    return [jax.device_put(each, may_alias=True) for each in np.asarray(array)]
