"""Self-attention with relative positions, over all frames or over a window of them."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tdt_jax.config import EncoderConfig
from tdt_jax.models.layers import dropout
from tdt_jax.runtime import backend

MASKED = -1e9  # attention score of a masked frame


def position_encoding(first: int, last: int, width: int):
    """Sinusoids [first - last + 1, D] of the relative positions first, ..., 0, ..., last."""
    positions = jnp.arange(first, last - 1, -1, dtype=jnp.float32)
    rates = jnp.exp(jnp.arange(0, width, 2, dtype=jnp.float32) * (-math.log(10000.0) / width))
    angles = positions[:, None] * rates[None, :]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(-1, width)


def clipped(context: tuple[int, int] | None, num_frames: int) -> tuple[int, int]:
    """How many frames to the (left, right) can be seen at all, of T frames and within a context."""
    left, right = context or (num_frames, num_frames)
    return min(left, num_frames - 1), min(right, num_frames - 1)


def relative_shift(scores):
    """[..., T, 2T - 1] by relative position -> [..., T, T] by key: out[t, s] = in[t, T-1-t+s]."""
    *batch, num_frames, num_positions = scores.shape
    scores = jnp.pad(scores, [(0, 0)] * (len(batch) + 1) + [(1, 0)])
    scores = scores.reshape(*batch, num_positions + 1, num_frames)[..., 1:, :]
    return scores.reshape(*batch, num_frames, num_positions)[..., :num_frames]


def local_shift(scores, first: int, num_keys: int):
    """[..., C, R] by relative position -> [..., C, num_keys]: out[t, first + t + r] = in[t, r].

    The rest is zero.
    """
    *batch, num_frames, num_positions = scores.shape
    after = num_keys + 1 - first - num_positions
    scores = jnp.pad(scores, [(0, 0)] * (len(batch) + 1) + [(first, after)])
    scores = scores.reshape(*batch, -1)[..., : num_frames * num_keys]
    return scores.reshape(*batch, num_frames, num_keys)


class RelativeAttention(nnx.Module):
    """Self-attention over content and relative position (Transformer-XL, Dai et al., 2019).

    score[t, s] = ((q_t + u) . k_s + (q_t + v) . p_{t - s}) / sqrt(K)

    With a context (left, right) frame t sees the frames t - left to t + right only.
    """

    def __init__(self, config: EncoderConfig, *, dtype, rngs: nnx.Rngs):
        width, heads = config.width, config.num_heads
        options = dict(use_bias=config.use_bias, dtype=dtype, rngs=rngs)
        self.query = nnx.Linear(width, width, **options)
        self.key = nnx.Linear(width, width, **options)
        self.value = nnx.Linear(width, width, **options)
        self.output = nnx.Linear(width, width, **options)
        self.position = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.content_bias = nnx.Param(jnp.zeros((heads, width // heads)))  # u
        self.position_bias = nnx.Param(jnp.zeros((heads, width // heads)))  # v
        self.num_heads = heads
        self.context = config.attention_context
        self.dropout = config.attention_dropout
        self.dtype = dtype

    def __call__(self, x, positions, padding, *, key=None):
        """x [B, T, D], positions [R, D], padding [B, T] -> [B, T, D].

        The R relative positions go from T - 1 down to -(T - 1), or from left to -right.
        """

        def heads(y):
            return y.reshape(*y.shape[:-1], self.num_heads, -1)  # [..., H, K]

        def bias(parameter):
            return parameter[...].astype(self.dtype)[None, None]

        query = heads(self.query(x))
        by_content = query + bias(self.content_bias)
        by_position = query + bias(self.position_bias)
        arrays = by_content, by_position, heads(self.key(x)), heads(self.value(x))
        if min(clipped(self.context, x.shape[1])) == x.shape[1] - 1:
            mixed = self._full(*arrays, positions, padding, key)
        else:
            mixed = self._local(*arrays, heads(self.position(positions)), padding, key)
        return self.output(mixed.reshape(x.shape))

    def _full(self, by_content, by_position, keys, values, positions, padding, key):
        """Each of [B, T, H, K], positions [2T - 1, D] -> [B, T, H, K]."""
        content = jnp.einsum("bthk,bshk->bhts", by_content, keys)
        by = self._rotated if backend.current() == "tpu" else self._shifted
        scores = content + by(by_position, positions)
        weights = self._weights(scores, padding[:, None, None, :], padding[:, None, :, None], key)
        return jnp.einsum("bhts,bshk->bthk", weights, values)

    def _shifted(self, queries, positions):
        """Scores [B, H, T, T] of queries [B, T, H, K] with positions [2T - 1, D]."""
        positions = self.position(positions).reshape(len(positions), *queries.shape[2:])
        return relative_shift(jnp.einsum("bthk,rhk->bhtr", queries, positions))

    def _rotated(self, queries, positions):
        """The same with no shift, which a TPU can but do in several passes over the scores.

        A score is a sum over rates w of a sin(w (t - s)) + b cos(w (t - s)), where (a, b) is the
        query times the kernel of `position`. That is (b sin(w t) - a cos(w t)) sin(w s) +
        (a sin(w t) + b cos(w t)) cos(w s): the query, rotated by t, times the encoding of s.
        """
        num_frames = queries.shape[1]
        kernel = self.position.kernel[...].astype(self.dtype)
        kernel = kernel.reshape(-1, 2, *queries.shape[2:])  # sine and cosine by turns
        encoding = positions[num_frames - 1 :: -1]  # of 0, ..., T - 1
        sine, cosine = encoding[:, None, 0::2], encoding[:, None, 1::2]
        options = dict(preferred_element_type=jnp.float32)
        a = jnp.einsum("bthk,whk->bthw", queries, kernel[:, 0], **options)
        b = jnp.einsum("bthk,whk->bthw", queries, kernel[:, 1], **options)
        rotated = jnp.concatenate(
            [b * sine[None] - a * cosine[None], a * sine[None] + b * cosine[None]], axis=-1
        )
        encoding = jnp.concatenate([encoding[:, 0::2], encoding[:, 1::2]], axis=-1)
        return jnp.einsum("bthw,sw->bhts", rotated.astype(self.dtype), encoding)

    def _local(self, by_content, by_position, keys, values, positions, padding, key):
        """The same with positions [left + right + 1, H, K], in chunks of C = max(left, right).

        The queries of a chunk see the keys of three: the one before, their own, the one after.
        """
        batch, num_frames = padding.shape
        left, right = clipped(self.context, num_frames)
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
            hidden = window(padding)  # [B, 3C]
            query_padding = hidden[:, size : 2 * size]
            weights = self._weights(
                scores,
                hidden[:, None, None, :] | outside[None, None],
                query_padding[:, None, :, None],
                None if key is None else jax.random.fold_in(key, index),
            )
            return jnp.einsum("bhts,bshk->bthk", weights, window(values))

        chunked = jnp.arange(num_chunks), chunks(by_content), chunks(by_position)
        mixed = jax.lax.map(attend, chunked)  # [chunks, B, C, H, K]
        return jnp.moveaxis(mixed, 0, 1).reshape(batch, -1, *mixed.shape[3:])[:, :num_frames]

    def _weights(self, scores, hidden, query_padding, key):
        """Scores [B, H, T, S], not yet scaled, to weights: none on hidden keys, none of padding."""
        scale = 1 / math.sqrt(self.content_bias.shape[-1])
        scores = (scores * scale).astype(jnp.float32)
        weights = jax.nn.softmax(jnp.where(hidden, MASKED, scores), axis=-1)
        weights = jnp.where(query_padding, 0.0, weights).astype(self.dtype)
        return dropout(weights, self.dropout, key)
