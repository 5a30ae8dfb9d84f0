"""Self-attention with relative positions: over all frames, in blocks of them, or of a chunk.

One rule limits what a frame attends to (`AttentionMask`): a band around it, chunks with the frames
before them, or all frames. An utterance that is longer than what its frames attend to is processed
in blocks of queries, each with the window of keys that they attend to. A chunk of a stream is such
a block: the keys and values of the window that lie before it are kept from the chunks before.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from tdt_jax.config import EncoderConfig
from tdt_jax.models.layers import dropout
from tdt_jax.runtime import backend

MASKED = -1e9  # attention score of a masked frame
CUDNN_FRAMES = 64  # with no more, cuDNN's attention has nothing to gain

Length = Any  # an int, or an array where it is drawn


class AttentionMask(NamedTuple):
    """Which frames a frame attends to: those of its chunk, `left` before it and `right` after it.

    Frame t lies in chunk k = t // chunk and attends to the frames from k chunk - left to
    (k + 1) chunk - 1 + right. With chunk = 1 that is a band around each frame.
    """

    left: Length
    chunk: Length
    right: Length

    def visible(self, t: Any) -> tuple[Any, Any]:
        """Returns the first frame that each frame of t attends to, and the one after its last."""
        first = t // self.chunk * self.chunk
        return first - self.left, first + self.chunk + self.right

    def hides(self, t: jax.Array, s: jax.Array) -> jax.Array:
        """Returns whether frame t does not attend to frame s; t and s are broadcast."""
        first, end = self.visible(t)
        return (s < first) | (s >= end)

    @property
    def furthest(self) -> Length:
        """Returns the largest distance t - s of a frame t to one that it attends to."""
        return self.left + self.chunk - 1

    @property
    def nearest(self) -> Length:
        """Returns the least distance t - s, which is negative where a frame attends ahead."""
        return 1 - self.chunk - self.right


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


def attention_blocks(mask: AttentionMask | None, num_frames: int) -> AttentionMask:
    """Returns the mask whose blocks process T frames: `mask`, or one chunk of all the frames.

    The latter where `mask` is None, or traced, or blocks would save nothing.
    """
    if (
        mask is not None
        and all(isinstance(each, int) for each in mask)
        and mask.left + block_size(mask) + mask.right < num_frames
    ):
        return mask
    return AttentionMask(0, num_frames, 0)


def block_size(mask: AttentionMask) -> int:
    """Returns the queries of a block: whole chunks, about as many as they attend to outside."""
    return mask.chunk * max(1, -(-max(mask.left, mask.right) // mask.chunk))


class AttentionCache(NamedTuple):
    """What a chunk of a stream needs of the L frames before it."""

    keys: jax.Array  # [B, L, H, K]
    values: jax.Array  # [B, L, H, K]


class RelativeAttention(nnx.Module):
    """Self-attention over content and relative position (Transformer-XL, Dai et al., 2019).

    score[t, s] = ((q_t + u) . k_s + (q_t + v) . p_{t - s}) / sqrt(K)
    """

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width, heads = config.width, config.num_heads
        linear = functools.partial(
            nnx.Linear, width, width, use_bias=config.use_bias, dtype=dtype, rngs=rngs
        )
        self.query = linear()
        self.key = linear()
        self.value = linear()
        self.output = linear()
        self.position = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.content_bias = nnx.Param(jnp.zeros((heads, width // heads)))  # u
        self.position_bias = nnx.Param(jnp.zeros((heads, width // heads)))  # v
        self.num_heads = heads
        self.dropout = config.attention_dropout
        self.dtype = dtype

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        padding: jax.Array,
        *,
        mask: AttentionMask | None = None,
        key: jax.Array | None = None,
        mesh: Mesh | None = None,
    ) -> jax.Array:
        """Returns the output of the attention, [B, T, D].

        Args:
          x: [B, T, D].
          positions: [R, D] encodings of the distances furthest, ..., 0, ..., nearest of
            `attention_blocks(mask, T)`.
          padding: [B, T] bool, True on padding.
          mask: limits what a frame attends to; None: all frames.
          key: turns dropout on.
          mesh: of the devices among which the compiler splits the rows.
        """
        kernel = self._kernel(x.shape[1], mask, key)
        if kernel is not None:
            return self.output(self._by_kernel(kernel, x, positions, padding, mask, key, mesh))
        arrays = self._arrays(x)
        blocks = attention_blocks(mask, x.shape[1])
        if blocks.chunk == x.shape[1]:
            mixed = self._full(*arrays, positions, padding, mask, key)
        else:
            mixed = self._in_blocks(*arrays, self.project(positions), padding, blocks, key)
        return self.output(mixed.reshape(x.shape))

    def step(
        self,
        x: jax.Array,
        cache: AttentionCache,
        positions: jax.Array,
        first: jax.Array,
        padding: jax.Array,
    ) -> tuple[jax.Array, AttentionCache]:
        """Returns the output for the next chunk of a stream, [B, C, D], and the cache after it.

        Args:
          x: [B, C, D].
          cache: of the L frames before it.
          positions: [R, H, K], the encodings of all distances in cache and chunk by `project`.
          first: [B] frames of the stream before it; the cache holds no more than these.
          padding: [B, C] bool, True on padding.
        """
        chunk, size = x.shape[1], cache.keys.shape[1]
        by_content, by_position, keys, values = self._arrays(x)
        hidden = jnp.arange(size)[None, :] < size - first[:, None]
        old_values = jnp.where(
            hidden[:, :, None, None], jnp.zeros_like(values[:, :1]), cache.values
        )
        masked = jnp.concatenate([hidden, padding], axis=1)[:, None, None, :]
        # The cache is multiplied apart from the chunk: joined, it would be copied once more.
        content = jnp.concatenate(
            [_product(by_content, each) for each in (cache.keys, keys)], axis=-1
        )
        scores = content + _shifted(by_position, positions, 1 - chunk, size + chunk)
        weights = self._weights(scores, masked, padding, None)
        mixed = _mean(weights[..., :size], old_values) + _mean(weights[..., size:], values)
        shifted = (
            jnp.concatenate(pair, axis=1)[:, chunk:]
            for pair in ((cache.keys, keys), (cache.values, values))
        )
        return self.output(mixed.reshape(x.shape)), AttentionCache(*shifted)

    def project(self, positions: jax.Array) -> jax.Array:
        """Projects encodings of positions: [R, D] -> [R, H, K]."""
        return self._heads(self.position(positions))

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.num_heads, -1)  # [..., H, K]

    def _arrays(self, x):
        """Returns queries by content and by position, keys and values [B, T, H, K]."""

        def bias(parameter):
            return parameter[...].astype(self.dtype)[None, None]

        query = self._heads(self.query(x))
        by_content = query + bias(self.content_bias)
        by_position = query + bias(self.position_bias)
        return by_content, by_position, self._heads(self.key(x)), self._heads(self.value(x))

    def _kernel(self, num_frames, mask, key):
        """Returns the module of the kernel for this attention, or None.

        On a GPU the kernel is for training: without dropout there is cuDNN's, and blocks skip the
        keys that their queries do not attend to.
        """
        if not backend.uses_kernels():
            return None
        if backend.current() == "tpu":
            from tdt_jax.models import attention_kernel  # Pallas takes its time to import

            fits = attention_kernel.gains(num_frames, *self.content_bias.shape)
            return attention_kernel if fits else None
        if key is None or not backend.has_triton():
            return None
        from tdt_jax.models import attention_kernel_gpu

        fits = (
            attention_kernel_gpu.fits(self.content_bias.shape[-1], self.dtype)
            and attention_blocks(mask, num_frames).chunk == num_frames
        )
        return attention_kernel_gpu if fits else None

    def _by_kernel(self, kernel, x, positions, padding, mask, key, mesh):
        """Attends by a kernel, in all blocks at once: x [B, T, D] -> [B, T, D]."""
        num_frames = x.shape[1]
        blocks = attention_blocks(mask, num_frames)
        mask = mask or blocks
        extra = kernel.padded_size(num_frames) - num_frames
        padded = jnp.pad(x, ((0, 0), (0, extra), (0, 0)))
        mixed = kernel.attend(
            *self._arrays(padded),
            self.project(positions),
            jnp.sum(~padding, axis=1),
            mask.visible(np.arange(num_frames)),
            furthest=blocks.furthest,
            rate=self.dropout,
            key=key,
            mesh=mesh,
            interpret=backend.interprets_kernels(),
        )
        return mixed.reshape(padded.shape)[:, :num_frames]

    def _full(self, by_content, by_position, keys, values, positions, padding, mask, key):
        """Attends in one block: arrays [B, T, H, K], positions [2T - 1, D] -> [B, T, H, K]."""
        num_frames = padding.shape[1]
        masked = padding[:, None, None, :]
        if mask is not None:
            t = jnp.arange(num_frames)
            masked = masked | mask.hides(t[:, None], t[None, :])[None, None]
        if backend.current() == "tpu":
            scores = _product(by_content, keys) + self._rotated_scores(by_position, positions)
            return _mean(self._weights(scores, masked, padding, key), values)
        return self._attend(
            by_content, by_position, keys, values, self.project(positions), masked, padding, key,
            first=1 - num_frames,
        )  # fmt: skip

    def _rotated_scores(self, queries, positions):
        """Returns the scores [B, H, T, T] of queries with positions without `relative_shift`.

        On a TPU the shift takes several passes over the scores. A score is a sum over rates w of
        a sin(w (t - s)) + b cos(w (t - s)), where (a, b) is the query times the kernel of
        `position`. That is (b sin(w t) - a cos(w t)) sin(w s) + (a sin(w t) + b cos(w t)) cos(w s):
        the query, rotated by t, times the encoding of s.
        """
        num_frames = queries.shape[1]
        kernel = self.position.kernel[...].astype(self.dtype)
        kernel = kernel.reshape(-1, 2, *queries.shape[2:])  # sines and cosines alternate
        encoding = positions[num_frames - 1 :: -1]  # of 0, ..., T - 1
        sine, cosine = (encoding[:, None, i::2].astype(jnp.float32) for i in (0, 1))
        product = functools.partial(
            jnp.einsum, "bthk,whk->bthw", preferred_element_type=jnp.float32
        )
        a, b = product(queries, kernel[:, 0]), product(queries, kernel[:, 1])
        rotated = jnp.concatenate(
            [b * sine[None] - a * cosine[None], a * sine[None] + b * cosine[None]], axis=-1
        )
        encoding = jnp.concatenate([encoding[:, 0::2], encoding[:, 1::2]], axis=-1)
        return jnp.einsum("bthw,sw->bhts", rotated.astype(self.dtype), encoding)

    def _in_blocks(self, by_content, by_position, keys, values, positions, padding, mask, key):
        """Attends block by block: arrays [B, T, H, K], positions [R, H, K] -> [B, T, H, K].

        A block of queries attends to a window of keys: its own, those to the left of its first
        chunk and those to the right of its last.
        """
        batch, num_frames = padding.shape
        size = block_size(mask)
        num_blocks = -(-num_frames // size)
        extra = num_blocks * size - num_frames
        sides = (0, 0), (mask.left, extra + mask.right)
        width = mask.left + size + mask.right
        padding = jnp.pad(padding, sides, constant_values=True)

        def blocks(x):
            """[B, T, H, K] -> [blocks, B, size, H, K]."""
            x = jnp.pad(x, ((0, 0), (0, extra), (0, 0), (0, 0)))
            return jnp.moveaxis(x.reshape(batch, num_blocks, size, *x.shape[2:]), 1, 0)

        keys, values = (jnp.pad(x, (*sides, (0, 0), (0, 0))) for x in (keys, values))
        hidden = mask.hides(jnp.arange(size)[:, None], jnp.arange(width)[None, :] - mask.left)

        def attend(block):
            index, by_content, by_position = block

            def window(x):
                return jax.lax.dynamic_slice_in_dim(x, index * size, width, axis=1)

            masked = window(padding)  # [B, S]
            return self._attend(
                by_content,
                by_position,
                window(keys),
                window(values),
                positions,
                masked[:, None, None, :] | hidden[None, None],
                masked[:, mask.left : mask.left + size],
                None if key is None else jax.random.fold_in(key, index),
                first=1 - mask.chunk,
            )

        blocked = jnp.arange(num_blocks), blocks(by_content), blocks(by_position)
        mixed = jax.lax.map(attend, blocked)  # [blocks, B, size, H, K]
        return jnp.moveaxis(mixed, 0, 1).reshape(batch, -1, *mixed.shape[3:])[:, :num_frames]

    def _attend(
        self, by_content, by_position, keys, values, positions, masked, padding, key, *, first
    ):
        """Attends with queries [B, T, H, K] to the keys and values [B, S, H, K] of their window.

        Args:
          positions: [R, H, K]; `first` as of `relative_shift`.
          masked: [B, 1, T or 1, S] bool, True on keys that a query does not attend to.
          padding: [B, T] bool, True on queries that are padding: their output is zero.
        """
        by_distance = _shifted(by_position, positions, first, keys.shape[1])
        if key is None and self._has_cudnn(padding.shape[1], keys.shape[1]):
            return self._by_cudnn(by_content, keys, values, by_distance, masked, padding)
        scores = _product(by_content, keys) + by_distance
        return _mean(self._weights(scores, masked, padding, key), values)

    def _has_cudnn(self, num_queries, num_keys):
        """Returns whether cuDNN computes attention without dropout.

        By default only as a GPU has shown it: with all frames at once, and not few of them.
        """
        width = self.content_bias.shape[-1]
        return (
            backend.current() == "gpu"
            and self.dtype == jnp.bfloat16
            and width % 8 == 0
            and width <= 128
            and backend.uses_kernels(is_proven=num_queries == num_keys > CUDNN_FRAMES)
        )

    def _by_cudnn(self, queries, keys, values, by_distance, masked, padding):
        """Attends by cuDNN's flash attention, whose bias are the scores of positions.

        Numbers of frames are padded to multiples of 8, as its kernels want them.
        """
        num_queries, num_keys = by_distance.shape[2:]
        extra = -num_queries % 8, -num_keys % 8
        scale = 1 / math.sqrt(queries.shape[-1])
        bias = jnp.where(masked, MASKED, by_distance * scale).astype(self.dtype)
        bias = jnp.pad(bias, ((0, 0), (0, 0), (0, extra[0]), (0, extra[1])), constant_values=MASKED)

        def padded(x, extra):
            return jnp.pad(x, ((0, 0), (0, extra), (0, 0), (0, 0)))

        with jax.numpy_dtype_promotion("standard"):  # which jax.nn counts on
            mixed = jax.nn.dot_product_attention(
                padded(queries, extra[0]),
                padded(keys, extra[1]),
                padded(values, extra[1]),
                bias,
                scale=scale,
                implementation="xla" if backend.interprets_kernels() else "cudnn",
            )
        return jnp.where(padding[:, :, None, None], 0, mixed[:, :num_queries])

    def _weights(self, scores, masked, padding, key):
        """Returns the attention weights of unscaled scores [B, H, T, S].

        They are zero on `masked` keys and for all keys of a query that is padding.
        """
        scale = 1 / math.sqrt(self.content_bias.shape[-1])
        scores = (scores * scale).astype(jnp.float32)
        weights = jax.nn.softmax(jnp.where(masked, MASKED, scores), axis=-1)
        weights = jnp.where(padding[:, None, :, None], 0.0, weights).astype(self.dtype)
        return dropout(weights, self.dropout, key)


def _product(queries, keys):
    """Returns the scores [B, H, T, S] of queries [B, T, H, K] with keys [B, S, H, K]."""
    return jnp.einsum("bthk,bshk->bhts", queries, keys)


def _shifted(queries, positions, first, num_keys):
    """Returns the scores [B, H, T, S] of queries with positions [R, H, K], by `relative_shift`."""
    return relative_shift(jnp.einsum("bthk,rhk->bhtr", queries, positions), first, num_keys)


def _mean(weights, values):
    """Returns the means [B, T, H, K] of values [B, S, H, K] with weights [B, H, T, S]."""
    return jnp.einsum("bhts,bshk->bthk", weights, values)


def position_encoding(first: int, last: int, width: int) -> jax.Array:
    """Returns sinusoids [first - last + 1, D] of the relative positions first, ..., 0, ..., last.

    Sines and cosines alternate (Vaswani et al., 2017, section 3.5).
    """
    positions = jnp.arange(first, last - 1, -1, dtype=jnp.float32)
    rates = jnp.exp(jnp.arange(0, width, 2, dtype=jnp.float32) * (-math.log(10000.0) / width))
    angles = positions[:, None] * rates[None, :]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(-1, width)


def relative_shift(scores: jax.Array, first: int, num_keys: int) -> jax.Array:
    """[..., T, R] by relative position -> [..., T, S] by key: out[t, first + t + r] = in[t, r].

    Elements of the result that no position gives are finite, and of no meaning.
    """
    *batch, num_frames, num_positions = scores.shape
    before = max(first, 0)
    after = max(0, num_keys + 1 - first - num_positions)
    scores = jnp.pad(scores, [(0, 0)] * (len(batch) + 1) + [(before, after)])
    size = scores.shape[-1] - 1
    scores = scores.reshape(*batch, -1)[..., : num_frames * size]
    scores = scores.reshape(*batch, num_frames, size)
    return scores[..., before - first : before - first + num_keys]
