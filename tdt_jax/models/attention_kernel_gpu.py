"""Self-attention with relative positions in GPU kernels (Pallas, lowered by Triton).

`attention_kernel` is that of TPUs. Here as there, attention is computed tile by tile with a softmax
in float32 (flash attention, Dao et al., 2022, arXiv 2205.14135), dropout is a hash, and the
backward pass computes the weights again. Of all arrays [B, H, T, T], one is in memory: the scores
of positions, and later the gradients of scores in their place.

The relative shift is a matter of addresses. A product of a tile of queries t with a tile of
positions p_d gives the scores of distances d; each is stored at its key s = t - d:

             d=1   0   -1               s=0   1    2    3
      t=1     a    b    c       ->       a    b    c
      t=2     d    e    f                     d    e    f

The gradients of queries and positions load the gradients of scores by the same addresses.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import Mesh
from jax.typing import DTypeLike

from tdt_jax.models.layers import dropout_threshold, hash_words, hashed
from tdt_jax.runtime import sharding

TILE = 64  # queries, keys or positions
ROWS = 4  # utterances, at most, over which a program sums the gradient of positions
MASKED = -1e30  # score of a key that a query does not attend to


def padded_size(num_frames: int) -> int:
    """Returns the frames of as many whole tiles as `num_frames` need."""
    return TILE * -(-num_frames // TILE)


def fits(head_width: int, dtype: DTypeLike) -> bool:
    """Returns whether the kernels are for heads of this width and dtype.

    They compute float32 as well, but tiles of it leave a GPU's threads too few registers.
    """
    return head_width in (16, 32, 64, 128) and dtype == jnp.bfloat16


def attend(
    by_content: jax.Array,
    by_position: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    positions: jax.Array,
    num_frames: jax.Array,
    visible: tuple[Any, Any],
    *,
    furthest: int,
    rate: float = 0.0,
    key: jax.Array | None = None,
    mesh: Mesh | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Returns the means of the values by attention weight, [B, S, H, K].

    They are zero for queries that are padding.

    Args:
      as of `attention_kernel.attend`, with the weights that `dropout` drops on a GPU. `visible` may
      come in any order.
    """
    batch, given, num_heads, width = keys.shape
    num_visible = len(visible[0])
    size = padded_size(given)
    threshold = 0 if key is None else dropout_threshold(rate)
    words = jnp.zeros(2, jnp.uint32) if key is None else hash_words(key)
    plan = _Plan(num_heads, width, num_visible, size, furthest, threshold, interpret)

    def padded(x, size, axis):
        sides = [(0, 0)] * x.ndim
        sides[axis] = 0, size - x.shape[axis]
        return jnp.pad(x, sides)

    begin, end = (padded(jnp.asarray(x, jnp.int32), size, 0) for x in visible)
    run = functools.partial(_attend, plan)
    if mesh is not None and mesh.size > 1:
        run = sharding.map_rows(run, mesh, num_replicated=1)
    means = run(
        _Shared(
            words.astype(jnp.int32),
            begin,
            end,
            padded(positions, padded_size(len(positions)), 0),
        ),
        _Rows(
            jnp.minimum(num_frames.astype(jnp.int32), num_visible),
            jnp.arange(batch, dtype=jnp.int32),
            *(padded(x, size, 1) for x in (by_content, by_position, keys, values)),
        ),
    )
    return means[:, :given]


class _Plan(NamedTuple):
    """What is known when a kernel is compiled."""

    num_heads: int
    head_width: int
    num_frames: int  # T, without padding to tiles
    size: int  # T, padded to tiles
    furthest: int  # the distance of the first of the positions
    threshold: int  # of dropout: a weight is dropped where its random byte is less
    interpret: bool

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.head_width)

    @property
    def kept_scale(self) -> float:
        """Returns the factor of a weight that dropout leaves."""
        return 256 / (256 - self.threshold)


class _Shared(NamedTuple):
    """Operands that all rows of the batch share; T and R are padded to tiles."""

    words: jax.Array  # [2], of the dropout's key
    begin: jax.Array  # [T], the first key that a query attends to
    end: jax.Array  # [T], the one after its last
    positions: jax.Array  # [R, H, K]


class _Rows(NamedTuple):
    """Operands by row of the batch; T is padded to tiles."""

    num_frames: jax.Array  # [B]
    rows: jax.Array  # [B], the row's index in the batch of all devices
    by_content: jax.Array  # [B, T, H, K]
    by_position: jax.Array  # [B, T, H, K]
    keys: jax.Array  # [B, T, H, K]
    values: jax.Array  # [B, T, H, K]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan, shared, rows):
    return _attend_forward(plan, shared, rows)[0]


def _attend_forward(plan, shared, rows):
    means, logs = _means(plan, shared, rows, _position_scores(plan, shared, rows))
    return means, (shared, rows, means, logs)


def _attend_backward(plan, saved, gradient):
    shared, rows, means, logs = saved
    # Softmax: a weight's gradient counts as far as it differs from the query's mean.
    average = jnp.einsum("bthk,bthk->bht", *(x.astype(jnp.float32) for x in (means, gradient)))
    scores = _position_scores(plan, shared, rows)
    scores, keys, values = _key_gradients(plan, shared, rows, scores, gradient, logs, average)
    queries = _query_gradients(plan, shared, rows, scores)
    positions = _position_gradient(plan, shared, rows, scores)
    none: Any = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), (shared, rows))
    of_rows = _Rows._make((*none[1][:2], *queries, keys, values))
    return none[0]._replace(positions=positions), of_rows


_attend.defvjp(_attend_forward, _attend_backward)


def _call(plan, kernel, name, *, grid, ins, outs, aliases=None):
    """Runs a kernel: `ins` are pairs of an array and its block, `outs` of a shape and its block."""
    arrays, in_specs = zip(*ins, strict=True)
    out_shape, out_specs = zip(*outs, strict=True)
    options: Any = {}
    if not plan.interpret:
        # With 4 warps, tiles of heads of 128 do not fit into the registers.
        num_warps, num_stages = 8 if plan.head_width == 128 else 4, 2
        options["compiler_params"] = triton.CompilerParams(
            num_warps=num_warps, num_stages=num_stages
        )
    return pl.pallas_call(
        functools.partial(kernel, plan),
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=out_shape,
        input_output_aliases=aliases or {},
        interpret=plan.interpret,
        name=name,
        **options,
    )(*arrays)


# The blocks of a program (i, h, b): a tile of the frames or all of them, of one head and row.


def _tile(plan):
    return pl.BlockSpec((None, TILE, None, plan.head_width), lambda i, h, b: (b, i, h, 0))


def _whole(plan):
    return pl.BlockSpec((None, plan.size, None, plan.head_width), lambda i, h, b: (b, 0, h, 0))


def _all_positions(plan, shared):
    block = len(shared.positions), None, plan.head_width
    return pl.BlockSpec(block, lambda i, h, b: (0, h, 0))


def _by_query(plan):
    """Returns the block of scores [B, H, T, S] of a tile of queries with all keys."""
    return pl.BlockSpec((None, None, TILE, plan.size), lambda i, h, b: (b, h, i, 0))


def _by_key(plan):
    """Returns the block of scores [B, H, T, S] of all queries with a tile of keys."""
    return pl.BlockSpec((None, None, plan.size, TILE), lambda i, h, b: (b, h, 0, i))


_ROW = pl.BlockSpec((1,), lambda i, h, b: (b,))
_WORDS = pl.BlockSpec((2,), lambda i, h, b: (0,))


def _position_scores(plan, shared, rows):
    """Returns the scores of queries with positions, by key: [B, H, T, S].

    Where no position belongs to a query and a key, or one is padding, they are undefined.
    """
    batch = len(rows.num_frames)
    shape = batch, plan.num_heads, plan.size, plan.size
    (scores,) = _call(
        plan,
        _position_scores_kernel,
        "attention_positions",
        grid=(plan.size // TILE, plan.num_heads, batch),
        ins=[
            (rows.num_frames, _ROW),
            (rows.by_position, _tile(plan)),
            (shared.positions, _all_positions(plan, shared)),
        ],
        outs=[(jax.ShapeDtypeStruct(shape, rows.keys.dtype), _by_query(plan))],
    )
    return scores


def _position_scores_kernel(plan, num_frames, by_position, positions, scores):
    i = pl.program_id(0)
    query = by_position[...]
    count = num_frames[0]
    size = _tiles(count) * TILE

    def body(j, _):
        by_distance = _product(query, positions[_frames(j), :], axis=1)
        s = _keys_of(plan, i, j)
        inside = (s >= 0) & (s < size)
        place = jnp.arange(TILE)[:, None], jnp.where(inside, s, plan.size)
        triton.store(scores.at[place], by_distance.astype(scores.dtype), mask=inside)

    jax.lax.fori_loop(*_position_tiles(plan, i, count, positions), body, None)


def _means(plan, shared, rows, scores):
    """Returns the means [B, T, H, K], and the logarithms (base 2) [B, H, T] of sums of weights."""
    batch = len(rows.num_frames)
    by_frame = pl.BlockSpec((TILE,), lambda i, h, b: (i,))
    logs = jax.ShapeDtypeStruct((batch, plan.num_heads, plan.size), jnp.float32)
    return _call(
        plan,
        _means_kernel,
        "attention",
        grid=(plan.size // TILE, plan.num_heads, batch),
        ins=[
            (rows.num_frames, _ROW),
            (rows.rows, _ROW),
            (shared.words, _WORDS),
            (shared.begin, by_frame),
            (shared.end, by_frame),
            (rows.by_content, _tile(plan)),
            (rows.keys, _whole(plan)),
            (rows.values, _whole(plan)),
            (scores, _by_query(plan)),
        ],
        outs=[
            (jax.ShapeDtypeStruct(rows.keys.shape, rows.values.dtype), _tile(plan)),
            (logs, pl.BlockSpec((None, None, TILE), lambda i, h, b: (b, h, i))),
        ],
    )


def _means_kernel(
    plan, num_frames, rows, words, begin, end, by_content, keys, values, position_scores, *results
):
    means, logs = results
    i, h = (pl.program_id(axis) for axis in range(2))
    query, count = by_content[...], num_frames[0]
    first, last = begin[...], end[...]

    def body(j, state):
        top, total, mixed = state
        tile = _frames(j)
        scores = _product(query, keys[tile, :], axis=1)
        scores += position_scores[:, tile].astype(jnp.float32)
        hidden = _hidden(i, j, first, last, count)
        scores = jnp.where(hidden, MASKED, scores * (plan.scale * math.log2(math.e)))
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        # A tile may hide all keys from a query: the weights it adds decay to zero later.
        weights = jnp.exp2(scores - new_top[:, None])
        decay = jnp.exp2(top - new_top)
        total = decay * total + jnp.sum(weights, axis=1)
        if plan.threshold:
            weights = jnp.where(_dropped(plan, words, rows[0], h, i, j), 0.0, weights)
        added = _product(weights.astype(values.dtype), values[tile, :])
        return new_top, total, decay[:, None] * mixed + added

    state = (
        jnp.full((TILE,), MASKED, jnp.float32),
        jnp.zeros((TILE,), jnp.float32),
        jnp.zeros((TILE, plan.head_width), jnp.float32),
    )
    # A tile of queries that are padding attends to no key.
    num_tiles = jnp.where(i < _tiles(count), _tiles(count), 0)
    top, total, mixed = jax.lax.fori_loop(0, num_tiles, body, state)
    total = jnp.maximum(total, 1e-30)
    logs[...] = top + jnp.log2(total)
    mixed = mixed * (plan.kept_scale / total)[:, None]
    is_padding = i * TILE + jnp.arange(TILE) >= count
    means[...] = jnp.where(is_padding[:, None], 0.0, mixed).astype(means.dtype)


def _key_gradients(plan, shared, rows, scores, gradient, logs, average):
    """Returns the gradients of scores, in the place of `scores`, of keys and of values.

    Those of scores are of scores before they are divided by sqrt(K), and undefined where a whole
    tile of queries or keys is padding.
    """
    batch = len(rows.num_frames)
    by_frame = pl.BlockSpec((plan.size,), lambda j, h, b: (0,))
    by_row = pl.BlockSpec((None, None, plan.size), lambda j, h, b: (b, h, 0))
    result = jax.ShapeDtypeStruct(rows.keys.shape, gradient.dtype)
    return _call(
        plan,
        _key_gradients_kernel,
        "attention_gradient",
        grid=(plan.size // TILE, plan.num_heads, batch),
        ins=[
            (scores, _by_key(plan)),
            (rows.num_frames, _ROW),
            (rows.rows, _ROW),
            (shared.words, _WORDS),
            (shared.begin, by_frame),
            (shared.end, by_frame),
            (rows.by_content, _whole(plan)),
            (rows.keys, _tile(plan)),
            (rows.values, _tile(plan)),
            (gradient, _whole(plan)),
            (logs, by_row),
            (average, by_row),
        ],
        outs=[
            (jax.ShapeDtypeStruct(scores.shape, scores.dtype), _by_key(plan)),
            *[(result, _tile(plan))] * 2,
        ],
        aliases={0: 0},
    )


def _key_gradients_kernel(
    plan, position_scores, num_frames, rows, words, begin, end, by_content, keys, values, gradient,
    logs, average, *results,
):  # fmt: skip
    j, h = (pl.program_id(axis) for axis in range(2))
    score_gradients, key_gradients, value_gradients = results
    key, value, count = keys[...], values[...], num_frames[0]

    def body(i, state):
        key_sums, value_sums = state
        tile = _frames(i)
        query, mean_gradient = by_content[tile, :], gradient[tile, :]
        scores = _product(key, query, axis=1)
        scores += position_scores[tile, :].T.astype(jnp.float32)
        scores = scores * (plan.scale * math.log2(math.e))
        hidden = _hidden(i, j, begin[tile], end[tile], count, axis=1)
        weights = jnp.where(hidden, 0.0, jnp.exp2(scores - logs[tile][None, :]))
        used, used_gradient = weights, _product(value, mean_gradient, axis=1)
        if plan.threshold:
            dropped = _dropped(plan, words, rows[0], h, i, j, axis=1)
            used = jnp.where(dropped, 0.0, weights * plan.kept_scale)
            used_gradient = jnp.where(dropped, 0.0, used_gradient * plan.kept_scale)
        value_sums += _product(used.astype(value.dtype), mean_gradient)
        scores = weights * (used_gradient - average[tile][None, :]) * plan.scale
        scores = scores.astype(key.dtype)
        score_gradients[tile, :] = scores.T
        return key_sums + _product(scores, query), value_sums

    zeros = jnp.zeros((TILE, plan.head_width), jnp.float32)
    last = jnp.where(j < _tiles(count), _tiles(count), 0)
    key_sums, value_sums = jax.lax.fori_loop(0, last, body, (zeros, zeros))
    key_gradients[...] = key_sums.astype(key_gradients.dtype)
    value_gradients[...] = value_sums.astype(value_gradients.dtype)


def _query_gradients(plan, shared, rows, scores):
    """Returns the gradients of the queries by content and by position, from those of scores."""
    result = jax.ShapeDtypeStruct(rows.keys.shape, scores.dtype)
    return _call(
        plan,
        _query_gradients_kernel,
        "attention_query_gradient",
        grid=(plan.size // TILE, plan.num_heads, len(rows.num_frames)),
        ins=[
            (rows.num_frames, _ROW),
            (rows.keys, _whole(plan)),
            (shared.positions, _all_positions(plan, shared)),
            (scores, _by_query(plan)),
        ],
        outs=[(result, _tile(plan))] * 2,
    )


def _query_gradients_kernel(plan, num_frames, keys, positions, scores, of_content, of_position):
    i, count = pl.program_id(0), num_frames[0]

    def by_key(j, total):
        return total + _product(scores[:, _frames(j)], keys[_frames(j), :])

    def by_distance(j, total):
        row, s = jnp.arange(TILE)[:, None], _keys_of(plan, i, j)
        x = triton.load(scores.at[row, s], mask=(s >= 0) & (s < count), other=0.0)
        return total + _product(x, positions[_frames(j), :])

    zeros = jnp.zeros((TILE, plan.head_width), jnp.float32)
    last = jnp.where(i < _tiles(count), _tiles(count), 0)
    total = jax.lax.fori_loop(0, last, by_key, zeros)
    of_content[...] = total.astype(of_content.dtype)
    tiles = _position_tiles(plan, i, count, positions)
    of_position[...] = jax.lax.fori_loop(*tiles, by_distance, zeros).astype(of_position.dtype)


def _position_gradient(plan, shared, rows, scores):
    """Returns the gradient of the positions, [R, H, K], from those of scores."""
    batch, num_positions = len(rows.num_frames), len(shared.positions)
    together = math.gcd(batch, ROWS)
    block = together, plan.size, None, plan.head_width
    shape = batch // together, num_positions, plan.num_heads, plan.head_width
    (parts,) = _call(
        plan,
        _position_gradient_kernel,
        "attention_position_gradient",
        grid=(num_positions // TILE, plan.num_heads, batch // together),
        ins=[
            (rows.num_frames, pl.BlockSpec((together,), lambda r, h, b: (b,))),
            (rows.by_position, pl.BlockSpec(block, lambda r, h, b: (b, 0, h, 0))),
            (
                scores,
                pl.BlockSpec((together, None, plan.size, plan.size), lambda r, h, b: (b, h, 0, 0)),
            ),
        ],
        outs=[
            (
                jax.ShapeDtypeStruct(shape, jnp.float32),
                pl.BlockSpec((None, TILE, None, plan.head_width), lambda r, h, b: (b, r, h, 0)),
            )
        ],
    )
    return jnp.sum(parts, axis=0).astype(scores.dtype)


def _position_gradient_kernel(plan, num_frames, by_position, scores, result):
    r = pl.program_id(0)

    def by_row(b, total):
        count = num_frames[b]

        def body(i, total):
            t, s = i * TILE + jnp.arange(TILE)[:, None], _keys_of(plan, i, r)
            inside = (s >= 0) & (s < count) & (t < count)
            x = triton.load(scores.at[b, t, s], mask=inside, other=0.0)
            return total + _product(x.T, by_position[b, _frames(i), :])

        # Queries whose keys t - d, for some distance d of the tile, are any of the frames.
        first = plan.furthest - (r + 1) * TILE + 1
        last = count + plan.furthest - r * TILE
        return jax.lax.fori_loop(
            jnp.maximum(first, 0) // TILE, jnp.minimum(_tiles(last), _tiles(count)), body, total
        )

    zeros = jnp.zeros((TILE, plan.head_width), jnp.float32)
    result[...] = jax.lax.fori_loop(0, len(num_frames), by_row, zeros)


def _tiles(count):
    """Returns the number of tiles that hold `count` frames."""
    return (count + TILE - 1) // TILE


def _frames(i):
    return pl.ds(i * TILE, TILE)


def _keys_of(plan, i, j):
    """Returns the key s = t - d of each query of tile i and each position of tile j."""
    t = i * TILE + jnp.arange(TILE)[:, None]
    return t + (j * TILE + jnp.arange(TILE))[None, :] - plan.furthest


def _position_tiles(plan, i, count, positions):
    """Returns the first tile of positions between tile i of queries and any key, and the last."""
    first = plan.furthest - (i + 1) * TILE + 1  # the last query with key 0
    last = plan.furthest - i * TILE + count  # the first query with the last key
    last = jnp.minimum(_tiles(last), len(positions) // TILE)
    return jnp.maximum(first, 0) // TILE, jnp.where(i < _tiles(count), last, 0)


def _pairs(i, j, axis):
    """Returns the queries of tile i, along an axis, and the keys of tile j along the other."""
    t, s = (first * TILE + jnp.arange(TILE) for first in (i, j))
    return jnp.expand_dims(t, 1 - axis), jnp.expand_dims(s, axis)


def _hidden(i, j, begin, end, count, axis=0):
    """Returns whether a query of tile i does not attend to a key of tile j; padding to none.

    Queries, with `begin` and `end`, are along an axis.
    """
    t, s = _pairs(i, j, axis)
    begin, end = (jnp.expand_dims(x, 1 - axis) for x in (begin, end))
    return (s < begin) | (s >= jnp.where(t < count, jnp.minimum(end, count), 0))


def _dropped(plan, words, row, head, i, j, axis=0):
    """Returns whether dropout drops a weight, by its index in all weights [B, H, T, T]."""
    t, s = _pairs(i, j, axis)
    index = ((row * plan.num_heads + head) * plan.num_frames + t) * plan.num_frames + s
    pair = (words[k].astype(jnp.uint32) for k in range(2))
    return hashed(index.astype(jnp.uint32), *pair).astype(jnp.int32) < plan.threshold


def _product(x, y, axis=0):
    """Returns x [M, N] times y [N, P], or with axis 1 times y [P, N] transposed, in float32."""
    dimensions = ((1,), (axis,)), ((), ())
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
