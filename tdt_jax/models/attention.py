"""Self-attention with relative positions, over all frames or over a window of them."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tdt_jax.config import EncoderConfig
from tdt_jax.models.layers import dropout
from tdt_jax.runtime import backend

MASKED = -1e9  # attention score of a masked frame


class RelativeAttention(nnx.Module):
    """Self-attention over content and relative position (Transformer-XL, Dai et al., 2019).

    score[t, s] = ((q_t + u) . k_s + (q_t + v) . p_{t - s}) / sqrt(K)

    With a context (left, right), frame t attends to the frames t - left to t + right only.
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
        self.context = config.attention_context
        self.dropout = config.attention_dropout
        self.dtype = dtype

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        padding: jax.Array,
        *,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the output of the attention, [B, T, D].

        Args:
          x: [B, T, D].
          positions: [R, D] encodings of the relative positions left, ..., 0, ..., -right, as
            `visible_context` limits them: from T - 1 to -(T - 1) without a context.
          padding: [B, T] bool, True on padding.
          key: turns dropout on.
        """

        def heads(y):
            return y.reshape(*y.shape[:-1], self.num_heads, -1)  # [..., H, K]

        def bias(parameter):
            return parameter[...].astype(self.dtype)[None, None]

        query = heads(self.query(x))
        by_content = query + bias(self.content_bias)
        by_position = query + bias(self.position_bias)
        arrays = by_content, by_position, heads(self.key(x)), heads(self.value(x))
        if min(visible_context(self.context, x.shape[1])) == x.shape[1] - 1:
            mixed = self._full(*arrays, positions, padding, key)
        else:
            mixed = self._local(*arrays, heads(self.position(positions)), padding, key)
        return self.output(mixed.reshape(x.shape))

    def _full(self, by_content, by_position, keys, values, positions, padding, key):
        """Attends to all frames: arrays [B, T, H, K], positions [2T - 1, D] -> [B, T, H, K]."""
        content = jnp.einsum("bthk,bshk->bhts", by_content, keys)
        on_tpu = backend.current() == "tpu"
        position_scores = self._rotated_scores if on_tpu else self._shifted_scores
        scores = content + position_scores(by_position, positions)
        weights = self._weights(scores, padding[:, None, None, :], padding[:, None, :, None], key)
        return jnp.einsum("bhts,bshk->bthk", weights, values)

    def _shifted_scores(self, queries, positions):
        """Returns scores [B, H, T, T] of queries [B, T, H, K] with positions [2T - 1, D]."""
        positions = self.position(positions).reshape(len(positions), *queries.shape[2:])
        return relative_shift(jnp.einsum("bthk,rhk->bhtr", queries, positions))

    def _rotated_scores(self, queries, positions):
        """Returns the scores of `_shifted_scores` without the shift.

        On a TPU the shift takes several passes over the scores. A score is a sum over rates w of
        a sin(w (t - s)) + b cos(w (t - s)), where (a, b) is the query times the kernel of
        `position`. That is (b sin(w t) - a cos(w t)) sin(w s) + (a sin(w t) + b cos(w t)) cos(w s):
        the query, rotated by t, times the encoding of s.
        """
        num_frames = queries.shape[1]
        kernel = self.position.kernel[...].astype(self.dtype)
        kernel = kernel.reshape(-1, 2, *queries.shape[2:])  # sines and cosines alternate
        encoding = positions[num_frames - 1 :: -1]  # of 0, ..., T - 1
        sine, cosine = encoding[:, None, 0::2], encoding[:, None, 1::2]
        product = functools.partial(
            jnp.einsum, "bthk,whk->bthw", preferred_element_type=jnp.float32
        )
        a, b = product(queries, kernel[:, 0]), product(queries, kernel[:, 1])
        rotated = jnp.concatenate(
            [b * sine[None] - a * cosine[None], a * sine[None] + b * cosine[None]], axis=-1
        )
        encoding = jnp.concatenate([encoding[:, 0::2], encoding[:, 1::2]], axis=-1)
        return jnp.einsum("bthw,sw->bhts", rotated.astype(self.dtype), encoding)

    def _local(self, by_content, by_position, keys, values, positions, padding, key):
        """Attends to the context only: arrays [B, T, H, K], positions [R, H, K] -> [B, T, H, K].

        Works in chunks of C = max(left, right) frames. The queries of a chunk can attend to the
        keys of three chunks: the previous one, their own and the next.
        """
        batch, num_frames = padding.shape
        left, right = visible_context(self.context, num_frames)
        size = max(left, right)
        num_chunks = -(-num_frames // size)
        extra = num_chunks * size - num_frames
        padding = jnp.pad(padding, ((0, 0), (size, extra + size)), constant_values=True)

        def chunks(x):
            """[B, T, H, K] -> [chunks, B, C, H, K]."""
            x = jnp.pad(x, ((0, 0), (0, extra), (0, 0), (0, 0)))
            return jnp.moveaxis(x.reshape(batch, num_chunks, size, *x.shape[2:]), 1, 0)

        keys, values = (
            jnp.pad(x, ((0, 0), (size, extra + size), (0, 0), (0, 0))) for x in (keys, values)
        )
        offset = jnp.arange(size)[:, None] + size - jnp.arange(3 * size)[None, :]  # t - s
        outside = (offset > left) | (offset < -right)  # [C, 3C]

        def attend(chunk):
            index, by_content, by_position = chunk

            def window(x):
                return jax.lax.dynamic_slice_in_dim(x, index * size, 3 * size, axis=1)

            content = jnp.einsum("bthk,bshk->bhts", by_content, window(keys))
            position = jnp.einsum("bthk,rhk->bhtr", by_position, positions)
            scores = content + local_shift(position, size - left, 3 * size)
            masked = window(padding)  # [B, 3C]
            query_padding = masked[:, size : 2 * size]
            weights = self._weights(
                scores,
                masked[:, None, None, :] | outside[None, None],
                query_padding[:, None, :, None],
                None if key is None else jax.random.fold_in(key, index),
            )
            return jnp.einsum("bhts,bshk->bthk", weights, window(values))

        chunked = jnp.arange(num_chunks), chunks(by_content), chunks(by_position)
        mixed = jax.lax.map(attend, chunked)  # [chunks, B, C, H, K]
        return jnp.moveaxis(mixed, 0, 1).reshape(batch, -1, *mixed.shape[3:])[:, :num_frames]

    def _weights(self, scores, masked, query_padding, key):
        """Returns the attention weights of unscaled scores [B, H, T, S].

        They are zero on `masked` keys and for all keys of a query that is padding.
        """
        scale = 1 / math.sqrt(self.content_bias.shape[-1])
        scores = (scores * scale).astype(jnp.float32)
        weights = jax.nn.softmax(jnp.where(masked, MASKED, scores), axis=-1)
        weights = jnp.where(query_padding, 0.0, weights).astype(self.dtype)
        return dropout(weights, self.dropout, key)


def position_encoding(first: int, last: int, width: int) -> jax.Array:
    """Returns sinusoids [first - last + 1, D] of the relative positions first, ..., 0, ..., last.

    Sines and cosines alternate (Vaswani et al., 2017, section 3.5).
    """
    positions = jnp.arange(first, last - 1, -1, dtype=jnp.float32)
    rates = jnp.exp(jnp.arange(0, width, 2, dtype=jnp.float32) * (-math.log(10000.0) / width))
    angles = positions[:, None] * rates[None, :]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(-1, width)


def visible_context(context: tuple[int, int] | None, num_frames: int) -> tuple[int, int]:
    """Returns the context (left, right), limited to what exists in an utterance of T frames."""
    left, right = context or (num_frames, num_frames)
    return min(left, num_frames - 1), min(right, num_frames - 1)


def relative_shift(scores: jax.Array) -> jax.Array:
    """[..., T, 2T - 1] by relative position -> [..., T, T] by key: out[t, s] = in[t, T-1-t+s]."""
    *batch, num_frames, num_positions = scores.shape
    scores = jnp.pad(scores, [(0, 0)] * (len(batch) + 1) + [(1, 0)])
    scores = scores.reshape(*batch, num_positions + 1, num_frames)[..., 1:, :]
    return scores.reshape(*batch, num_frames, num_positions)[..., :num_frames]


def local_shift(scores: jax.Array, first: int, num_keys: int) -> jax.Array:
    """[..., C, R] by relative position -> [..., C, num_keys]: out[t, first + t + r] = in[t, r].

    All other elements are zero.
    """
    *batch, num_frames, num_positions = scores.shape
    after = num_keys + 1 - first - num_positions
    scores = jnp.pad(scores, [(0, 0)] * (len(batch) + 1) + [(first, after)])
    scores = scores.reshape(*batch, -1)[..., : num_frames * num_keys]
    return scores.reshape(*batch, num_frames, num_keys)
