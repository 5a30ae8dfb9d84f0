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
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from tdt_jax.config import EncoderConfig
from tdt_jax.models.attention import (
    AttentionCache,
    AttentionMask,
    RelativeAttention,
    attention_blocks,
    position_encoding,
)
from tdt_jax.models.depthwise import depthwise, depthwise_stride2
from tdt_jax.models.layers import (
    Affine,
    LayerNorm,
    dropout,
    insert,
    padding_mask,
    select_rows,
    split_key,
)

MAX_FEATURES = 8192  # feature frames that are subsampled at once
MARGIN = 7  # features on both sides of feature 8t that frame t depends on
UNKNOWN = 1 << 30  # features of an utterance that goes on

Length = TypeVar("Length", int, jax.Array)


def subsampled_length(num_features: Length, *, causal: bool = False) -> Length:
    """Returns the encoder frames T of `num_features` feature frames.

    That is an eighth, rounded up; with causal subsampling one more, unless M = 8k + 1 (or 0).
    """
    if not causal:
        return (num_features + MARGIN) // 8
    num_frames = (num_features + 2 * MARGIN) // 8  # 1 for no features
    if isinstance(num_features, int):
        return min(num_features, num_frames)
    return jnp.minimum(num_features, num_frames)


class BlockCache(NamedTuple):
    """What a block needs of the frames before a chunk."""

    attention: AttentionCache
    convolution: jax.Array  # [B, k - 1, D], the inputs of the depthwise convolution


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

    def __call__(
        self,
        features: jax.Array,
        num_features: jax.Array,
        *,
        context: tuple[int, ...] | None = None,
        key: jax.Array | None = None,
        prepare: Callable = lambda x, block: (x, block),
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes features [B, M, F] of lengths [B]. Returns frames [B, T, D] of lengths [B].

        Frames beyond an utterance's length are zero.

        Args:
          features: [B, M, F].
          num_features: [B] int.
          context: of attention, as of `attention_mask`.
          key: turns dropout on, and draws the context.
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
            return block(x, positions, padding, mask=mask, key=key), None

        keys = None if key is None else jax.random.split(block_key, self.config.num_layers)
        policy = getattr(jax.checkpoint_policies, self.config.remat_policy)
        body = jax.checkpoint(apply, policy=policy) if self.config.remat else apply
        x, _ = self._scan(body, x, keys, unroll=self.config.unroll)
        return _mask_time(x, num_frames), num_frames

    def with_separate_blocks(self) -> "Encoder":
        """Returns the encoder with `SeparateBlocks`; on a CPU they share memory with the stack."""
        leaves, structure = jax.tree.flatten(self.blocks)
        blocks = zip(*(_unstack(leaf) for leaf in leaves), strict=True)
        encoder = jax.tree.map(lambda leaf: leaf, self)
        encoder.blocks = SeparateBlocks(tuple(blocks), structure)
        return encoder

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
        return _mask_time(frames, count), count, state.restart(last)

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


def attention_mask(
    config: EncoderConfig, context: tuple[int, ...] | None = None
) -> AttentionMask | None:
    """Returns what limits attention in a context that the model has; None for full attention.

    Args:
      config: of the encoder.
      context: one of `config.chunked_contexts`, or (left, chunk, right) out of
        `config.unified_contexts`. None: the first of the former, full attention for the latter, and
        for other models `config.attention_context`.

    Raises:
      ValueError: if the model does not have this context; the message names those it has.
    """
    chunked, unified = config.chunked_contexts, config.unified_contexts
    if context is None:
        if config.attention_context is not None:
            left, right = config.attention_context
            return AttentionMask(left, 1, right)
        if not chunked:
            return None
        context = chunked[0]
    context = tuple(context)
    if context in chunked:
        left, right = context
        return AttentionMask(left, right + 1, 0)
    known_parts = zip(context, unified, strict=False)
    if unified and len(context) == 3 and all(each in choices for each, choices in known_parts):
        return AttentionMask(*context)
    if unified:
        known = "(left, chunk, right) from " + " and ".join(map(str, unified))
    else:
        known = " and ".join(map(str, chunked)) or "none to choose from"
    raise ValueError(f"the model has no attention context {context}; it has {known}")


def random_mask(config: EncoderConfig, key: jax.Array, num_frames: int) -> AttentionMask | None:
    """Returns the mask of a training batch: of a random context, where the model has several."""
    if len(config.chunked_contexts) > 1:
        left, right = jax.random.choice(key, jnp.array(config.chunked_contexts))
        return AttentionMask(left, right + 1, jnp.zeros_like(right))
    if config.unified_contexts:
        whole_key, *keys = jax.random.split(key, 4)
        drawn = [
            jax.random.choice(each, jnp.array(choices))
            for each, choices in zip(keys, config.unified_contexts, strict=True)
        ]
        is_whole = jax.random.bernoulli(whole_key)
        whole = 0, num_frames, 0
        return AttentionMask(
            *(jnp.where(is_whole, *pair) for pair in zip(whole, drawn, strict=True))
        )
    return attention_mask(config)


class Subsampling(nnx.Module):
    """Depthwise-separable convolutions that turn 8 feature frames into one encoder frame.

    conv 3x3 stride 2, ReLU; twice: depthwise 3x3 stride 2, pointwise, ReLU; linear. The flattening
    before the linear layer is channel-major, C x F/8.

    Frame t depends on the features 8t - 7 to 8t + 7: each stage begins with a zero in time and in
    frequency. A causal one begins with two, so that its frame t depends on the features 8t - 14 to
    8t: as if 7 features that do not exist came before the utterance.
    """

    def __init__(self, config: EncoderConfig, num_mels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        channels = config.subsampling_channels
        linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.convolution = nnx.Conv(
            1, channels, (3, 3), strides=2, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.depthwise1 = nnx.Param(_uniform(rngs, (3, 3, channels), 9))
        self.depthwise1_bias = nnx.Param(jnp.zeros((channels,)))
        self.pointwise1 = linear(channels, channels)
        self.depthwise2 = nnx.Param(_uniform(rngs, (3, 3, channels), 9))
        self.depthwise2_bias = nnx.Param(jnp.zeros((channels,)))
        self.pointwise2 = linear(channels, channels)
        bins = subsampled_bins(num_mels, causal=config.causal_subsampling)
        self.output = linear(channels * bins, config.width)
        if config.causal_subsampling:
            # The first frame may depend on a single, masked feature, and attend to itself alone.
            # Were it zero in all blocks, their LayerNorms' gradients would multiply to infinity.
            bias = _uniform(rngs, (config.width,), channels * bins)
            self.output.bias = nnx.Param(bias)
        self.num_mels = num_mels
        self.causal = config.causal_subsampling
        self.dtype = dtype

    def __call__(self, features: jax.Array, num_features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, M, F], [B] -> [B, T, D], [B]; processes long features in parts, to save memory."""
        num_frames = subsampled_length(num_features, causal=self.causal)
        size = features.shape[1]
        total = subsampled_length(size, causal=self.causal)
        num_parts = 1 if size <= MAX_FEATURES + 8 else -(-8 * total // MAX_FEATURES)
        part_size = 8 * total if num_parts == 1 else MAX_FEATURES
        before = MARGIN * (1 + self.causal)
        after = max(0, num_parts * part_size + MARGIN - before - size)
        features = jnp.pad(features, ((0, 0), (before, after), (0, 0)))
        if num_parts == 1:
            return self.frames(features[:, : part_size + MARGIN], num_features, 0), num_frames

        def part(index):
            start = index * part_size
            part = jax.lax.dynamic_slice_in_dim(features, start, part_size + MARGIN, axis=1)
            return self.frames(part, num_features, start // 8)

        frames = jax.lax.map(part, jnp.arange(num_parts))  # [parts, B, MAX_FEATURES / 8, D]
        frames = jnp.moveaxis(frames, 0, 1).reshape(len(features), -1, frames.shape[-1])
        return frames[:, :total], num_frames

    def frames(
        self, features: jax.Array, num_features: jax.Array, first: jax.Array | int
    ) -> jax.Array:
        """Returns the frames `first`, ..., `first` + n - 1 of utterances: [B, n, D].

        Args:
          features: [B, 7 + 8n, F], beginning with the first that frame `first` depends on.
          num_features: [B], of the utterances.
          first: [] or [B].
        """
        x = features.astype(self.dtype)[..., None]  # [B, M, F, 1]
        stages = (
            (self.convolution, lambda x: x),
            (_Depthwise(self.depthwise1, self.depthwise1_bias), self.pointwise1),
            (_Depthwise(self.depthwise2, self.depthwise2_bias), self.pointwise2),
        )
        zeros = 1 + self.causal  # before time and frequency begin
        for stride, (convolve, pointwise) in zip((8, 4, 2), stages, strict=True):
            x = _mask_time(x, num_features, stride * first - (stride - 1) * zeros)
            x = jnp.pad(x, ((0, 0), (0, 0), (zeros, 1), (0, 0)))
            x = jax.nn.relu(pointwise(convolve(x)))
            num_features = _halved(num_features, self.causal)
        batch, num_times, bins, channels = x.shape
        x = jnp.swapaxes(x, 2, 3).reshape(batch, num_times, channels * bins)
        return self.output(x)


class _Depthwise(NamedTuple):
    """A depthwise convolution of stride 2 with its bias."""

    kernel: nnx.Param
    bias: nnx.Param

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = (each[...].astype(x.dtype) for each in self)
        return depthwise_stride2(x, kernel) + bias[None, None, None]


def subsampled_bins(num_mels: int, *, causal: bool) -> int:
    """Returns the bins that three stages of subsampling leave of `num_mels`."""
    for _ in range(3):
        num_mels = _halved(num_mels, causal)
    return num_mels


def _halved(length: Length, causal: bool) -> Length:
    """Returns the outputs of a stage of subsampling for `length` inputs."""
    return length // 2 + 1 if causal else (length - 1) // 2 + 1


class Block(nnx.Module):
    """One Conformer block (Gulati et al., 2020): feed-forwards around attention and convolution."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        norm = functools.partial(LayerNorm, config.width, dtype=dtype, rngs=rngs)
        self.feed_forward1_norm = norm()
        self.feed_forward1 = FeedForward(config, dtype=dtype, rngs=rngs)
        self.attention_norm = norm()
        self.attention = RelativeAttention(config, dtype=dtype, rngs=rngs)
        self.convolution_norm = norm()
        self.convolution = Convolution(config, dtype=dtype, rngs=rngs)
        self.feed_forward2_norm = norm()
        self.feed_forward2 = FeedForward(config, dtype=dtype, rngs=rngs)
        self.output_norm = norm()
        self.dropout = config.dropout

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        padding: jax.Array,
        *,
        mask: AttentionMask | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """x [B, T, D], padding [B, T] -> [B, T, D]; arguments as of `RelativeAttention`."""
        keys = split_key(key, 7)
        attention_key = keys.pop(2)

        def attend(x):
            return self.attention(x, positions, padding, mask=mask, key=attention_key), None

        def convolve(x):
            return self.convolution(x, padding), None

        return self._apply(x, attend, convolve, keys)[0]

    def step(
        self,
        x: jax.Array,
        cache: BlockCache,
        positions: jax.Array,
        first: jax.Array,
        padding: jax.Array,
    ) -> tuple[jax.Array, BlockCache]:
        """Returns the output for the next chunk of a stream, [B, C, D], and the cache after it.

        Args:
          x: [B, C, D].
          cache: of the frames before it.
          positions: [R, H, K], as `RelativeAttention.project` returns them.
          first: [B] frames of the stream before it.
          padding: [B, C] bool, True on padding.
        """

        def attend(x):
            return self.attention.step(x, cache.attention, positions, first, padding)

        def convolve(x):
            return self.convolution.step(x, cache.convolution, first, padding)

        x, *caches = self._apply(x, attend, convolve, [None] * 6)
        return x, BlockCache._make(caches)

    def _apply(self, x, attend, convolve, keys):
        """Returns the output, and what `attend` and `convolve` return beside theirs."""
        y = self.feed_forward1(self.feed_forward1_norm(x), key=keys[0])
        x = x + 0.5 * dropout(y, self.dropout, keys[1])
        y, attention_cache = attend(self.attention_norm(x))
        x = x + dropout(y, self.dropout, keys[2])
        y, convolution_cache = convolve(self.convolution_norm(x))
        x = x + dropout(y, self.dropout, keys[3])
        y = self.feed_forward2(self.feed_forward2_norm(x), key=keys[4])
        x = x + 0.5 * dropout(y, self.dropout, keys[5])
        return self.output_norm(x), attention_cache, convolution_cache


class FeedForward(nnx.Module):
    """Linear, SiLU, dropout, linear."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        hidden = config.feed_forward_factor * config.width
        self.linear1 = linear(config.width, hidden)
        self.linear2 = linear(hidden, config.width)
        self.dropout = config.dropout

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """[B, T, D] -> [B, T, D]. A `key` turns dropout on."""
        return self.linear2(dropout(jax.nn.silu(self.linear1(x)), self.dropout, key))


class Convolution(nnx.Module):
    """Pointwise, GLU, depthwise along time, LayerNorm (or affine), SiLU, pointwise."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width = config.width
        linear = functools.partial(nnx.Linear, use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        self.pointwise1 = linear(width, 2 * width)
        self.depthwise = nnx.Param(_uniform(rngs, (config.kernel_size, width), config.kernel_size))
        self.depthwise_bias = nnx.Param(jnp.zeros((width,))) if config.use_bias else None
        is_affine = config.convolution_norm == "affine"
        self.norm = Affine(width) if is_affine else LayerNorm(width, dtype=dtype, rngs=rngs)
        self.pointwise2 = linear(width, width)
        self.sides = config.convolution_sides
        self.dtype = dtype

    def __call__(self, x: jax.Array, padding: jax.Array) -> jax.Array:
        """[B, T, D], padding [B, T] -> [B, T, D]."""
        x = jnp.pad(self._gated(x, padding), ((0, 0), self.sides, (0, 0)))
        return self._mixed(x)

    def step(
        self, x: jax.Array, history: jax.Array, first: jax.Array, padding: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the output for the next chunk of a stream, [B, C, D], and the history after it.

        Args:
          x: [B, C, D].
          history: [B, k - 1, D], inputs of the depthwise convolution before the chunk.
          first: [B] frames of the stream before the chunk.
          padding: [B, C] bool, True on padding.
        """
        size = history.shape[1]
        history = _mask_time(history, first, first - size)
        x = jnp.concatenate([history, self._gated(x, padding)], axis=1)
        return self._mixed(x), x[:, x.shape[1] - size :]

    def _gated(self, x, padding):
        x = jax.nn.glu(self.pointwise1(x))
        return jnp.where(padding[:, :, None], jnp.zeros_like(x), x)

    def _mixed(self, x):
        x = depthwise(x, self.depthwise[...].astype(self.dtype))
        if self.depthwise_bias is not None:
            x = x + self.depthwise_bias[...].astype(self.dtype)[None, None]
        return self.pointwise2(jax.nn.silu(self.norm(x)))


def _unstack(array: jax.Array | np.ndarray) -> list[jax.Array]:
    """Returns array[0], array[1], ...; on a CPU without a copy."""
    if isinstance(array, jax.Array) and next(iter(array.devices())).platform != "cpu":
        return list(array)
    return [jax.device_put(each, may_alias=True) for each in np.asarray(array)]


def _mask_time(x, lengths, start: jax.Array | int = 0):
    """Zeroes x [B, M, ...], whose first frame has the index `start`, outside 0..length - 1.

    `start` is [] or [B].
    """
    time = jnp.reshape(start, (-1, 1)) + jnp.arange(x.shape[1])[None, :]
    padding = (time < 0) | (time >= lengths[:, None])
    return jnp.where(jnp.expand_dims(padding, range(2, x.ndim)), jnp.zeros_like(x), x)


def _uniform(rngs: nnx.Rngs, shape, fan_in: int):
    """Returns initial weights, uniform between -1 / sqrt(fan_in) and 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
