"""Self-attention with relative positions as a TPU kernel, which never has the scores in memory.

A step of the kernel has a tile of queries t and a tile of keys s, and needs p_{t - s} for all pairs
of them. These are the rows of a window of p, one product with which gives every query's scores with
all distances of the tile. Each row is then rotated by its index: the skew.

    query      product with the window          skewed: by key s
             p_3  p_2  p_1  p_0  p_-1  ...        0    1    2
      0       .    .   [0    1    2]             [0    1    2]
      1       .   [0    1    2]   .       ->     [0    1    2]
      2      [0    1    2]   .    .              [0    1    2]

The rest is flash attention (Dao et al., 2022, arXiv 2205.14135): a running maximum and sum of each
query over its tiles of keys, in float32. The backward pass computes the weights again from the
logarithm of that sum. There the skew goes the other way: the gradients of the scores are placed by
distance. The hardware rotates a row by its index in one direction only, so the rows are reversed
before it, by a product with a permutation matrix.

Heads of 64 lie two in the 128 lanes of a register. A product takes all lanes, with those of the
other head's queries zeroed, which costs a TPU as much as a product of 64 lanes.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh

from tdt_jax.models.layers import dropout_threshold, hash_words, hashed
from tdt_jax.runtime import sharding

LANES = 128
MASKED = -1e30  # score of a key that a query does not attend to


class Tiles(NamedTuple):
    """The sizes of tiles; the keys of one are a multiple of the queries."""

    queries: int
    keys: int


def tiles_for(num_frames: int) -> Tiles:
    """Returns 128 queries, and about 512 keys: a window has as many positions as both together."""
    blocks = -(-num_frames // LANES)
    return Tiles(LANES, LANES * -(-blocks // -(-blocks // 4)))


def fits(num_heads: int, head_width: int) -> bool:
    """Returns whether the kernel has tiles of whole heads: of 128 lanes, or of a wider head."""
    if head_width < LANES:
        return LANES % head_width == 0 and num_heads * head_width % LANES == 0
    return head_width % LANES == 0


class _Plan(NamedTuple):
    """What a kernel knows when it is compiled."""

    tiles: Tiles
    num_heads: int
    head_width: int
    num_frames: int  # T, without padding to tiles
    visits: int  # tiles of keys that a tile of queries visits, at most
    origin: int  # row of the positions at which the window of query tile 0 and key tile 0 begins
    threshold: int  # of dropout: a weight is dropped where its random byte is less
    interpret: bool

    @property
    def lanes(self) -> int:
        return max(LANES, self.head_width)

    @property
    def heads(self) -> int:
        """Returns the heads of a tile of lanes."""
        return self.lanes // self.head_width

    @property
    def window(self) -> int:
        """Returns the positions of a pair of tiles, and one more."""
        return self.tiles.queries + self.tiles.keys


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
    tiles: Tiles | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Returns the output of the attention before its last product, [B, T, H, K].

    It is zero for queries that are padding.

    Args:
      by_content: queries plus bias u, [B, T, H, K].
      by_position: queries plus bias v, [B, T, H, K].
      keys: [B, T, H, K].
      values: [B, T, H, K].
      positions: [R, H, K], of the distances t - s from `furthest` downwards.
      num_frames: [B]; frames from there on are padding.
      visible: first key that each query [T] attends to, and the key after its last. If these are
        numpy arrays, tiles of which no query sees a key take no time at all.
      furthest: distance of the first of the positions.
      rate: of attention dropout.
      key: turns dropout on. The weights that it drops are those of `dropout` by `hashed_bytes`.
      mesh: of the devices among which the compiler splits the rows, which it cannot do with a
        kernel; None: all arrays lie on one device, or the caller has mapped the devices' rows.
      tiles: None: `tiles_for(T)`.
      interpret: runs the kernel by Pallas' interpreter.
    """
    batch, size, num_heads, width = keys.shape
    tiles = tiles or tiles_for(size)
    extra = -size % tiles.keys
    first, last, bounds, visits = _visits(visible, size, size + extra, tiles)
    threshold = 0 if key is None else dropout_threshold(rate)
    words = hash_words(key) if key is not None and threshold else jnp.zeros(2, jnp.uint32)
    positions, origin = _padded(positions, furthest, size + extra, tiles)
    plan = _Plan(tiles, num_heads, width, size, visits, origin, threshold, interpret)

    def merged(x):
        return jnp.pad(x.reshape(batch, size, -1), ((0, 0), (0, extra), (0, 0)))

    run = functools.partial(_attend, plan)
    if mesh is not None and mesh.size > 1:
        run = sharding.map_rows(run, mesh, num_replicated=1)
    words = jax.lax.bitcast_convert_type(words, jnp.int32)
    mixed = run(
        _Shared(first, last, words, bounds, positions),
        _Rows(
            num_frames.astype(jnp.int32),
            jnp.arange(batch, dtype=jnp.int32),
            *map(merged, (by_content, by_position, keys, values)),
        ),
    )
    return mixed[:, :size].reshape(keys.shape)


def _visits(visible, size, padded, tiles):
    """Returns what the tiles of queries visit.

    That is the first and the last tile of keys of each tile of queries [Q], `visible` as [T, 2]
    with frames padded to tiles, and how many tiles of keys a tile of queries visits at most.
    """
    xp = np if all(isinstance(x, np.ndarray) for x in visible) else jnp
    begin, end = (xp.clip(xp.asarray(x), 0, size).astype(np.int32) for x in visible)
    begin = xp.pad(begin, (0, padded - size), mode="edge")
    end = xp.pad(end, (0, padded - size), mode="edge")
    first = begin.reshape(-1, tiles.queries).min(axis=1) // tiles.keys
    last = (end.reshape(-1, tiles.queries).max(axis=1) - 1) // tiles.keys
    visits = int((last - first).max()) + 1 if xp is np else padded // tiles.keys
    bounds = xp.stack([begin, end], axis=1)
    return jnp.asarray(first), jnp.asarray(last), jnp.asarray(bounds), visits


def _padded(positions, furthest, size, tiles):
    """Returns positions [R', D] with zeros where windows exceed them, and `_Plan.origin`."""
    queries, keys = tiles
    count = len(positions)
    nearest = furthest + 1 - count
    origin = min(queries * -(-(furthest + keys - 1) // queries), size - queries)
    rows = min(origin + 2 * queries + keys - nearest - 1, origin + size + queries)
    rows = queries * -(-rows // queries)
    before = origin + queries - 1 - furthest
    positions = positions.reshape(count, -1)
    return jnp.pad(positions, ((before, rows - before - count), (0, 0))), origin


class _Shared(NamedTuple):
    """The operands of a kernel that all rows of the batch share."""

    first: jax.Array  # [Q], the tile of keys that each tile of queries visits first
    last: jax.Array  # [Q]
    words: jax.Array  # [2], of the dropout's key
    bounds: jax.Array  # [T, 2], first key that a query attends to, and the one after its last
    positions: jax.Array  # [R', D]


class _Rows(NamedTuple):
    """The operands of a kernel by row of the batch."""

    num_frames: jax.Array  # [B]
    rows: jax.Array  # [B], index of the row in the batch of all devices
    by_content: jax.Array  # [B, T, D]
    by_position: jax.Array  # [B, T, D]
    keys: jax.Array  # [B, T, D]
    values: jax.Array  # [B, T, D]


class _Scalars(NamedTuple):
    """What a kernel reads before its tiles."""

    first: Any
    last: Any
    num_frames: Any
    rows: Any
    words: Any


def _operands(shared, rows):
    scalars = _Scalars(shared.first, shared.last, rows.num_frames, rows.rows, shared.words)
    return *scalars, shared.bounds, *rows[2:], shared.positions


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan, shared, rows):
    return _forward(plan, shared, rows)[0]


def _attend_forward(plan, shared, rows):
    mixed, logs = _forward(plan, shared, rows)
    return mixed, (shared, rows, mixed, logs)


def _attend_backward(plan, saved, gradient):
    shared, rows, mixed, logs = saved
    *gradients, positions = _backward(plan, shared, rows, mixed, gradient, logs)
    shared, rows = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), (shared, rows))
    positions = positions.astype(gradient.dtype)
    return shared._replace(positions=positions), _Rows(*rows[:2], *gradients)


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(plan, shared, rows):
    """Returns the output [B, T, D] and the log of each query's sum [B, H / heads, heads, T]."""
    batch, size, width = rows.keys.shape
    tiles, lanes = plan.tiles, plan.lanes
    groups = width // lanes
    grid = groups, batch, size // tiles.queries, plan.visits

    def tile_of_keys(b, i, j, first, last, num_frames):
        return jnp.minimum(first[i] + j, _last_visit(plan, b, i, first, last, num_frames))

    def queries(h, b, i, j, *_):
        return b, i, h

    def keys(h, b, i, j, first, last, num_frames, *_):
        return b, tile_of_keys(b, i, j, first, last, num_frames), h

    def window(h, b, i, j, first, last, num_frames, *_):
        j = tile_of_keys(b, i, j, first, last, num_frames)
        return _window(plan, i, j, len(shared.positions)), h * lanes

    def kernel(*refs):
        scalars, refs = _Scalars(*refs[:5]), refs[5:]
        bounds, by_content, by_position, keys, values, positions, mixed, logs = refs[:8]
        total, top, mean = refs[8:]
        h, b, i, j = (pl.program_id(axis) for axis in range(4))

        @pl.when(j == 0)
        def _():
            total[...] = jnp.zeros(total.shape, jnp.float32)
            top[...] = jnp.full(top.shape, MASKED)
            mean[...] = jnp.zeros(mean.shape, jnp.float32)

        tile = scalars.first[i] + j

        @pl.when(tile <= _last_visit(plan, b, i, *scalars[:3]))
        def _():
            hidden = _hidden(plan, bounds, scalars.num_frames[b], i, tile)
            for head in range(plan.heads):
                own = _own(plan, head)
                scores = _scores(
                    plan,
                    _select(own, by_content[0]),
                    _select(own, by_position[0]),
                    keys[0],
                    positions[...],
                )
                scores = jnp.where(hidden, MASKED, scores)
                new_top = jnp.maximum(top[head], jnp.max(scores, axis=1, keepdims=True))
                weights = jnp.exp(scores - new_top)
                decay = jnp.exp(top[head] - new_top)
                total[head] = decay * total[head] + jnp.sum(weights, axis=1, keepdims=True)
                top[head] = new_top
                if plan.threshold:
                    drops = _drops(plan, scalars, h * plan.heads + head, b, i, tile)
                    weights = jnp.where(drops, 0.0, weights)
                added = _product(weights.astype(values.dtype), values[0])
                mean[...] = jnp.where(own, decay * mean[...] + added, mean[...])

        @pl.when(j == plan.visits - 1)
        def _():
            frames = _frames(plan.tiles.queries, i)
            scale = 256 / (256 - plan.threshold)
            whole = jnp.zeros(mean.shape, jnp.float32)
            for head in range(plan.heads):
                sums = jnp.maximum(total[head], 1e-30)
                whole = jnp.where(_own(plan, head), mean[...] * (scale / sums), whole)
                logs[0, 0, head, :] = _as_row(top[head] + jnp.log(sums))
            mixed[0] = jnp.where(frames < scalars.num_frames[b], whole, 0.0).astype(mixed.dtype)

    tile = (1, tiles.queries, lanes)
    log_shape = batch, groups, plan.heads, size
    column = pltpu.VMEM((plan.heads, tiles.queries, 1), jnp.float32)
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=grid,
            in_specs=[
                pl.BlockSpec((tiles.queries, 2), lambda h, b, i, j, *_: (i, 0)),
                pl.BlockSpec(tile, queries),
                pl.BlockSpec(tile, queries),
                pl.BlockSpec((1, tiles.keys, lanes), keys),
                pl.BlockSpec((1, tiles.keys, lanes), keys),
                pl.BlockSpec((pl.Element(plan.window), pl.Element(lanes)), window),
            ],
            out_specs=[
                pl.BlockSpec(tile, queries),
                pl.BlockSpec(
                    (1, 1, plan.heads, tiles.queries), lambda h, b, i, j, *_: (b, h, 0, i)
                ),
            ],
            scratch_shapes=[column, column, pltpu.VMEM((tiles.queries, lanes), jnp.float32)],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((batch, size, width), rows.keys.dtype),
            jax.ShapeDtypeStruct(log_shape, jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        interpret=plan.interpret,
        name="attention",
    )(*_operands(shared, rows))


def _last_visit(plan, b, i, first, last, num_frames):
    """Returns the last tile of keys with a frame that a tile of queries attends to."""
    longest = jax.lax.div(jnp.maximum(num_frames[b] - 1, 0), plan.tiles.keys)
    return jnp.minimum(last[i], jnp.maximum(longest, first[i]))


def _window(plan, i, j, num_positions):
    """Returns the first row of the window of tiles i of queries and j of keys."""
    step, keys = plan.tiles
    block = plan.origin // step - i + j * (keys // step)
    return jnp.clip(block, 0, (num_positions - plan.window) // step) * step


def _frames(size, index, axis=0):
    """Returns the frames of a tile, as a column or as a row."""
    shape = (size, 1) if axis == 0 else (1, size)
    return index * size + jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def _hidden(plan, bounds, num_frames, i, j):
    """Returns whether a query does not attend to a key, of tiles i and j."""
    t, s = _frames(plan.tiles.queries, i), _frames(plan.tiles.keys, j, axis=1)
    end = jnp.where(t < num_frames, jnp.minimum(bounds[:, 1:], num_frames), 0)
    return (s < bounds[:, :1]) | (s >= end)


def _own(plan, head):
    """Returns which lanes are those of a head of the tile, [1, lanes]."""
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, plan.lanes), 1) - head * plan.head_width
    return (lane >= 0) & (lane < plan.head_width)


def _select(own, x):
    """Returns x with the lanes of other heads zeroed."""
    return jnp.where(own, x.astype(jnp.float32), 0.0).astype(x.dtype)


def _product(x, y, axis=0):
    """Returns the product of x [M, N] with y [N, P], or with y [P, N] transposed (axis 1)."""
    dimensions = ((1,), (axis,)), ((), ())
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def _scores(plan, by_content, by_position, keys, positions):
    """Returns the scores of a tile, of queries [., lanes], keys and a window of positions."""
    by_distance = _product(by_position, positions, axis=1)
    shift = plan.window - (plan.tiles.queries - 1)
    skewed = pltpu.roll(by_distance, shift, axis=1, stride=1, stride_axis=0)
    content = _product(by_content, keys, axis=1)
    return (content + skewed[:, : plan.tiles.keys]) * (1 / math.sqrt(plan.head_width))


def _drops(plan, scalars, head, b, i, j):
    """Returns which weights of a tile `dropout` drops, by their indices in [B, H, T, S]."""
    size = plan.num_frames
    row = (scalars.rows[b] * plan.num_heads + head) * size
    t, s = _frames(plan.tiles.queries, i), _frames(plan.tiles.keys, j, axis=1)
    index = ((row + t) * size + s).astype(jnp.uint32)
    byte = hashed(index, *(scalars.words[k].astype(jnp.uint32) for k in range(2)))
    return byte.astype(jnp.int32) < plan.threshold


def _as_row(column):
    """[N, 1] -> [N]."""
    return jnp.broadcast_to(column, (len(column), LANES)).T[0]


def _as_column(row):
    """[1, N] -> [N, 1]."""
    return jnp.broadcast_to(row, (LANES, row.shape[1])).T[:, :1]


def _backward(plan, shared, rows, mixed, gradient, logs):
    """Returns the gradients of queries, keys, values [B, T, D] and positions [R', D].

    The outer loop is over tiles of keys, the inner one over tiles of queries. The gradients of a
    tile of keys are summed in the inner loop, those of queries and positions as a whole.
    """
    batch, size, width = rows.keys.shape
    num_positions = len(shared.positions)
    tiles, lanes = plan.tiles, plan.lanes
    groups = width // lanes
    grid = groups, batch, size // tiles.keys, size // tiles.queries

    def queries(h, b, j, i, *_):
        return b, i, h

    def keys(h, b, j, i, *_):
        return b, j, h

    def window(h, b, j, i, *_):
        return _window(plan, i, j, num_positions), h * lanes

    def place_of_logs(h, b, j, i, *_):
        return b, h, 0, i

    def written(h, b, j, i, *_):
        return b, jnp.where(j == grid[2] - 1, i, 0), h

    def kernel(*refs):
        scalars, refs = _Scalars(*refs[:5]), refs[5:]
        bounds, by_content, by_position, keys, values, positions, mixed, gradient, logs = refs[:9]
        results, refs = refs[9:14], refs[14:]
        by_content_sum, by_position_sum, keys_sum, values_sum = refs
        positions_sum = results[4]
        h, b, j, i = (pl.program_id(axis) for axis in range(4))

        @pl.when((b == 0) & (j == 0) & (i == 0))
        def _():
            positions_sum[...] = jnp.zeros(positions_sum.shape, jnp.float32)

        @pl.when(i == 0)
        def _():
            keys_sum[...] = jnp.zeros(keys_sum.shape, jnp.float32)
            values_sum[...] = jnp.zeros(values_sum.shape, jnp.float32)

        tile = pl.ds(pl.multiple_of(i * tiles.queries, tiles.queries), tiles.queries)

        @pl.when(j == 0)
        def _():
            zeros = jnp.zeros((tiles.queries, lanes), jnp.float32)
            by_content_sum[tile, :] = zeros
            by_position_sum[tile, :] = zeros

        @pl.when((scalars.first[i] <= j) & (j <= _last_visit(plan, b, i, *scalars[:3])))
        def _():
            start = pl.multiple_of(_window(plan, i, j, num_positions), tiles.queries)
            hidden = _hidden(plan, bounds, scalars.num_frames[b], i, j)
            scale = 1 / math.sqrt(plan.head_width)
            kept = 256 / (256 - plan.threshold)
            for head in range(plan.heads):
                own = _own(plan, head)
                content, position, output = (
                    _select(own, x[0]) for x in (by_content, by_position, gradient)
                )
                scores = _scores(plan, content, position, keys[0], positions[...])
                weights = jnp.exp(scores - _as_column(logs[0, 0, head : head + 1, :]))
                weights = jnp.where(hidden, 0.0, weights)
                from_output = _product(output, values[0], axis=1)
                used = weights
                if plan.threshold:
                    drops = _drops(plan, scalars, h * plan.heads + head, b, i, j)
                    used = jnp.where(drops, 0.0, weights * kept)
                    from_output = jnp.where(drops, 0.0, from_output * kept)
                inner = output.astype(jnp.float32) * mixed[0].astype(jnp.float32)
                inner = jnp.sum(inner, axis=1, keepdims=True)
                scores = weights * (from_output - inner) * scale
                values_sum[...] += _transposed_product(used.astype(output.dtype), output)
                scores = scores.astype(content.dtype)
                keys_sum[...] += _transposed_product(scores, content)
                by_content_sum[tile, :] += jnp.where(own, _product(scores, keys[0]), 0.0)
                by_distance = _by_distance(plan, scores)
                by_position_sum[tile, :] += jnp.where(
                    own, _product(by_distance, positions[...]), 0.0
                )
                added = _transposed_product(by_distance, _reversed(position))
                positions_sum[pl.ds(start, plan.window), :] += added

        @pl.when(j == grid[2] - 1)
        def _():
            results[0][0] = by_content_sum[tile, :].astype(results[0].dtype)
            results[1][0] = _reversed(by_position_sum[tile, :].astype(results[1].dtype))

        @pl.when(i == grid[3] - 1)
        def _():
            results[2][0] = keys_sum[...].astype(results[2].dtype)
            results[3][0] = values_sum[...].astype(results[3].dtype)

    queries_shape, keys_shape = (1, tiles.queries, lanes), (1, tiles.keys, lanes)
    sums = pltpu.VMEM((size, lanes), jnp.float32)
    key_sums = pltpu.VMEM((tiles.keys, lanes), jnp.float32)
    result = jax.ShapeDtypeStruct((batch, size, width), rows.keys.dtype)
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=grid,
            in_specs=[
                pl.BlockSpec((tiles.queries, 2), lambda h, b, j, i, *_: (i, 0)),
                *[pl.BlockSpec(queries_shape, queries)] * 2,
                *[pl.BlockSpec(keys_shape, keys)] * 2,
                pl.BlockSpec((pl.Element(plan.window), pl.Element(lanes)), window),
                *[pl.BlockSpec(queries_shape, queries)] * 2,
                pl.BlockSpec((1, 1, plan.heads, tiles.queries), place_of_logs),
            ],
            out_specs=[
                *[pl.BlockSpec(queries_shape, written)] * 2,
                *[pl.BlockSpec(keys_shape, keys)] * 2,
                pl.BlockSpec((num_positions, lanes), lambda h, b, j, i, *_: (0, h)),
            ],
            scratch_shapes=[sums, sums, key_sums, key_sums],
        ),
        out_shape=[*[result] * 4, jax.ShapeDtypeStruct((num_positions, width), jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary", "arbitrary")
        ),
        interpret=plan.interpret,
        name="attention_gradient",
    )(*_operands(shared, rows), mixed, gradient, logs)


def _by_distance(plan, scores):
    """Returns a tile by distance: scores [N, S] -> [N, window], the rows in reverse order.

    The score of (t, s) is in column N - 1 - t + s, so that of row N - 1 - t is rotated by its index.
    """
    rows = _reversed(scores).astype(jnp.float32)
    rows = jnp.concatenate([rows, jnp.zeros((len(rows), plan.tiles.queries), jnp.float32)], axis=1)
    return pltpu.roll(rows, 0, axis=1, stride=1, stride_axis=0).astype(scores.dtype)


def _reversed(x):
    """Returns x [N, ...] with its rows in reverse order, exactly."""
    size = len(x)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))
    permutation = (row + column == size - 1).astype(jnp.float32).astype(x.dtype)
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    product = jnp.dot(permutation, x, precision=precision, preferred_element_type=jnp.float32)
    return product.astype(x.dtype)


def _transposed_product(x, y):
    """Returns the product of x [N, M], transposed, with y [N, P]."""
    return _product(x.T, y)
