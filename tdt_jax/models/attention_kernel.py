"""Self-attention with relative positions as a TPU kernel, which never has the scores in memory.

The kernel computes the scores of a tile of queries t with a tile of keys s, and needs the encoding
p_{t - s} of every pair. A tile has few distances: they are a window of consecutive rows of p. One
product with the window gives the score of each query with each distance. Then each row is rotated
by its index, which puts the score of (t, s) into column s: the skew. For three queries and keys:

             p_2  p_1  p_0  p_-1 p_-2               s=0  1    2
      t=0     .    .   [0    1    2 ]               [0    1    2 ]
      t=1     .   [0    1    2 ]   .        ->      [0    1    2 ]
      t=2    [0    1    2 ]   .    .                [0    1    2 ]

The rest is flash attention (Dao et al., 2022, arXiv 2205.14135): each query keeps the maximum of
its scores and the sum of its weights, in float32, while tiles of keys pass by. The backward pass
computes the weights again from the logarithm of that sum, and skews the gradients of scores the
other way. The hardware rotates a row by its index to the right only, so a product with a
permutation matrix reverses the rows first.

A tile has 128 lanes, the width of a register: one head, or several narrow ones. A product takes all
lanes, those of the other heads zeroed, which costs as much as a product of fewer lanes.
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
FEW = 64  # frames of which XLA computes the attention in the kernel's time or less
MASKED = -1e30  # score of a key that a query does not attend to
VMEM = 16 << 20  # bytes of a TPU's fast memory that tiles may take


class Tiles(NamedTuple):
    """The queries of a tile, and its keys: a multiple of the queries, and of 128."""

    queries: int
    keys: int


def tiles_for(num_frames: int) -> Tiles:
    """Returns tiles of 128 queries and at most 512 keys.

    Few queries and many keys: a window has as many positions as both together.
    """
    blocks = -(-num_frames // LANES)
    num_tiles = -(-blocks // 4)
    return Tiles(LANES, LANES * -(-blocks // num_tiles))


def padded_size(num_frames: int) -> int:
    """Returns the frames of as many whole tiles as `num_frames` need."""
    keys = tiles_for(num_frames).keys
    return keys * -(-num_frames // keys)


def gains(num_frames: int, num_heads: int, head_width: int) -> bool:
    """Returns whether the kernel is faster, and tiles of lanes hold whole heads."""
    if num_frames <= FEW:
        return False
    if head_width < LANES:
        return LANES % head_width == 0 and num_heads * head_width % LANES == 0
    return head_width % LANES == 0


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
    """Returns the means of the values by attention weight, [B, S, H, K].

    They are zero for queries that are padding. Frames beyond T <= S are padding as well; with
    S = `padded_size(T)` nothing is copied.

    Args:
      by_content: [B, S, H, K], queries plus bias u.
      by_position: [B, S, H, K], queries plus bias v.
      keys: [B, S, H, K].
      values: [B, S, H, K].
      positions: [R, H, K], encodings of the distances t - s from `furthest` down.
      num_frames: [B]; later frames are padding.
      visible: [T] each, the first key that a query attends to and the one after its last, neither
        ever decreasing. If they are numpy arrays, only tiles that a query attends to take time.
      furthest: the distance of the first of the positions.
      rate: of attention dropout.
      key: turns dropout on. It drops the weights that `dropout` drops on a TPU.
      mesh: of the devices among which the compiler splits the rows, which it cannot do with a
        kernel; None: all arrays lie on one device, or the caller has mapped the devices' rows.
      tiles: None: `tiles_for(T)`.
      interpret: runs the kernel by Pallas' interpreter.
    """
    batch, given, num_heads, width = keys.shape
    num_visible = len(visible[0])
    tiles = tiles or tiles_for(num_visible)
    size = given + -given % tiles.keys
    positions, origin = _padded(positions, furthest, size, tiles)
    first, last, bounds, visits = _visits(visible, size, tiles)
    threshold = 0 if key is None else dropout_threshold(rate)
    words = jnp.zeros(2, jnp.uint32) if key is None else hash_words(key)
    plan = _Plan(tiles, num_heads, width, num_visible, origin, visits, threshold, interpret)

    def lanes(x):
        return jnp.pad(x.reshape(batch, given, -1), ((0, 0), (0, size - given), (0, 0)))

    run = functools.partial(_attend, plan)
    if mesh is not None and mesh.size > 1:
        run = sharding.map_rows(run, mesh, num_replicated=1)
    means = run(
        _Shared(first, last, words.astype(jnp.int32), bounds, positions),
        _Rows(
            num_frames.astype(jnp.int32),
            jnp.arange(batch, dtype=jnp.int32),
            *map(lanes, (by_content, by_position, keys, values)),
        ),
    )
    return means[:, :given].reshape(keys.shape)


class _Plan(NamedTuple):
    """What is known when a kernel is compiled."""

    tiles: Tiles
    num_heads: int
    head_width: int
    num_frames: int  # T, without padding to tiles
    origin: int  # first row of the window of the first tiles of queries and keys
    visits: int  # tiles of keys that a tile of queries visits, at most
    threshold: int  # of dropout: a weight is dropped where its random byte is less
    interpret: bool

    @property
    def lanes(self) -> int:
        return max(LANES, self.head_width)

    @property
    def heads(self) -> int:
        """Returns the heads of a tile."""
        return self.lanes // self.head_width

    @property
    def window(self) -> int:
        """Returns the positions of a tile, and one more."""
        return self.tiles.queries + self.tiles.keys

    @property
    def groups(self) -> int:
        """Returns the tiles that hold all heads."""
        return self.num_heads // self.heads


class _Shared(NamedTuple):
    """Operands that all rows of the batch share; T is padded to tiles."""

    first: jax.Array  # [Q], the tile of keys that each tile of queries visits first
    last: jax.Array  # [Q]
    words: jax.Array  # [2], of the dropout's key
    bounds: jax.Array  # [T, 2], the first key that a query attends to, and the one after its last
    positions: jax.Array  # [P, D]


class _Rows(NamedTuple):
    """Operands by row of the batch; T is padded to tiles."""

    num_frames: jax.Array  # [B]
    rows: jax.Array  # [B], the row's index in the batch of all devices
    by_content: jax.Array  # [B, T, D]
    by_position: jax.Array  # [B, T, D]
    keys: jax.Array  # [B, T, D]
    values: jax.Array  # [B, T, D]


class _Scalars(NamedTuple):
    """Operands that a kernel reads before its tiles."""

    first: Any
    last: Any
    words: Any
    num_frames: Any
    rows: Any


def _operands(shared, rows):
    return *shared[:3], *rows[:2], shared.bounds, *rows[2:], shared.positions


def _padded(positions, furthest, size, tiles):
    """Returns positions [P, D] with zeros where windows exceed them, and `_Plan.origin`."""
    queries, keys = tiles
    nearest = furthest + 1 - len(positions)
    origin = min(queries * -(-(furthest + keys - 1) // queries), size - queries)
    rows = origin + queries + min(queries + keys - 1 - nearest, size)
    rows = queries * -(-rows // queries)
    before = origin + queries - 1 - furthest
    after = rows - before - len(positions)
    return jnp.pad(positions.reshape(len(positions), -1), ((before, after), (0, 0))), origin


def _visits(visible, size, tiles):
    """Returns `first`, `last` and `bounds` of `_Shared`, and `_Plan.visits`."""
    num_frames = len(visible[0])
    xp = np if all(isinstance(x, np.ndarray) for x in visible) else jnp
    begin, end = (
        xp.pad(xp.clip(x, 0, num_frames).astype(np.int32), (0, size - num_frames), mode="edge")
        for x in visible
    )
    first = begin[:: tiles.queries] // tiles.keys
    last = (end[tiles.queries - 1 :: tiles.queries] - 1) // tiles.keys
    visits = int(np.max(last - first)) + 1 if xp is np else size // tiles.keys
    return jnp.asarray(first), jnp.asarray(last), jnp.stack([begin, end], axis=1), visits


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan, shared, rows):
    return _forward(plan, shared, rows)[0]


def _attend_forward(plan, shared, rows):
    means, logs = _forward(plan, shared, rows)
    return means, (shared, rows, means, logs)


def _attend_backward(plan, saved, gradient):
    shared, rows, means, logs = saved
    *gradients, positions = _backward(plan, shared, rows, means, gradient, logs)
    none: Any = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), (shared, rows))
    of_shared = none[0]._replace(positions=positions.astype(gradient.dtype))
    return of_shared, _Rows._make((*none[1][:2], *gradients))


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(plan, shared, rows):
    """Returns the means [B, T, D] and the logs of the sums of weights [B, groups, heads, T]."""
    batch, size, width = rows.keys.shape
    tiles, lanes = plan.tiles, plan.lanes

    def visited(b, i, j, scalars):
        """Returns the tile of keys of visit j; after the last one it stays, so nothing is read."""
        return jnp.minimum(scalars.first[i] + j, _last_visit(plan, scalars, b, i))

    def queries(h, b, i, j, *_):
        return b, i, h

    def keys(h, b, i, j, *scalars):
        return b, visited(b, i, j, _Scalars(*scalars)), h

    def window(h, b, i, j, *scalars):
        return _window(plan, i, visited(b, i, j, _Scalars(*scalars)), len(shared.positions), h)

    query_tile, key_tile = (1, tiles.queries, lanes), (1, tiles.keys, lanes)
    column = pltpu.VMEM((plan.heads, tiles.queries, LANES), jnp.float32)
    return pl.pallas_call(
        functools.partial(_forward_kernel, plan),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(_Scalars._fields),
            grid=(plan.groups, batch, size // tiles.queries, plan.visits),
            in_specs=[
                pl.BlockSpec((tiles.queries, 2), lambda h, b, i, j, *_: (i, 0)),
                *[pl.BlockSpec(query_tile, queries)] * 2,
                *[pl.BlockSpec(key_tile, keys)] * 2,
                pl.BlockSpec((pl.Element(plan.window), pl.Element(lanes)), window),
            ],
            out_specs=[
                pl.BlockSpec(query_tile, queries),
                pl.BlockSpec(
                    (1, 1, plan.heads, tiles.queries), lambda h, b, i, j, *_: (b, h, 0, i)
                ),
            ],
            scratch_shapes=[column, column, pltpu.VMEM((tiles.queries, lanes), jnp.float32)],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((batch, size, width), rows.values.dtype),
            jax.ShapeDtypeStruct((batch, plan.groups, plan.heads, size), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        cost_estimate=_cost(plan, shared, rows, plan.visits, num_products=(2, 1), num_arrays=5),
        interpret=plan.interpret,
        name="attention",
    )(*_operands(shared, rows))


def _forward_kernel(plan, *refs):
    scalars, refs = _Scalars(*refs[:5]), refs[5:]
    bounds, by_content, by_position, keys, values, positions, means, logs, *refs = refs
    tops, sums, totals = refs  # of a query: largest score; sum of weights, and of weighted values
    h, b, i, j = (pl.program_id(axis) for axis in range(4))

    @pl.when(j == 0)
    def _():
        tops[...] = jnp.full(tops.shape, MASKED)
        sums[...] = jnp.zeros(sums.shape, jnp.float32)
        totals[...] = jnp.zeros(totals.shape, jnp.float32)

    tile = scalars.first[i] + j

    @pl.when(tile <= _last_visit(plan, scalars, b, i))
    def _():
        hidden = _hidden(plan, bounds, scalars.num_frames[b], i, tile)
        all_scores = [
            _scores(
                plan,
                _selected(own, by_content[0]),
                _selected(own, by_position[0]),
                keys[0],
                positions[...],
            )
            for own in _heads(plan)
        ]
        for head, (own, scores) in enumerate(zip(_heads(plan), all_scores, strict=True)):
            scores = jnp.where(hidden, MASKED, scores)
            top = jnp.maximum(tops[head], jnp.max(scores, axis=1, keepdims=True))
            # A tile may hide all keys from a query: the weights it adds decay to zero later.
            weights = jnp.exp(scores - _repeated(top, plan.tiles.keys))
            decay = jnp.exp(tops[head] - top)
            tops[head] = top
            sums[head] = decay * sums[head] + jnp.sum(weights, axis=1, keepdims=True)
            if plan.threshold:
                dropped = _dropped(plan, scalars, h * plan.heads + head, b, i, tile)
                weights = jnp.where(dropped, 0.0, weights)
            added = _product(weights.astype(values.dtype), values[0])
            decay = _repeated(decay, plan.lanes)
            totals[...] = jnp.where(own, decay * totals[...] + added, totals[...])

    @pl.when(j == plan.visits - 1)
    def _():
        result = totals[...]
        for head, own in enumerate(_heads(plan)):
            total = jnp.maximum(sums[head], 1e-30)  # zero if nothing was visited: padding
            logs[0, 0, head, :] = (tops[head] + jnp.log(total)).T[0]
            factor = _repeated(_scale(plan) / total, plan.lanes)
            result = jnp.where(own, result * factor, result)
        padding = _frames(plan.tiles.queries, i, 0) >= scalars.num_frames[b]
        means[0] = jnp.where(padding, 0.0, result).astype(means.dtype)


def _backward(plan, shared, rows, means, gradient, logs):
    """Returns the gradients of queries, keys and values [B, T, D] and of positions [P, D].

    Tiles of queries are the inner loop: the gradients of a tile of keys are summed while they pass
    by. Those of all queries of an utterance, and of positions over the whole batch, stay in the
    fast memory: 2 kB for each frame.
    """
    batch, size, width = rows.keys.shape
    num_positions = len(shared.positions)
    tiles, lanes = plan.tiles, plan.lanes
    num_key_tiles = size // tiles.keys

    def queries(h, b, j, i, *_):
        return b, i, h

    def keys(h, b, j, i, *_):
        return b, j, h

    def finished(h, b, j, i, *_):
        """Returns the tile of queries that is written: none before the last tile of keys."""
        return b, jnp.where(j == num_key_tiles - 1, i, 0), h

    def window(h, b, j, i, *_):
        return _window(plan, i, j, num_positions, h)

    query_tile, key_tile = (1, tiles.queries, lanes), (1, tiles.keys, lanes)
    query_sums, key_sums = (pltpu.VMEM((n, lanes), jnp.float32) for n in (size, tiles.keys))
    result = jax.ShapeDtypeStruct((batch, size, width), gradient.dtype)
    return pl.pallas_call(
        functools.partial(_backward_kernel, plan),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(_Scalars._fields),
            grid=(plan.groups, batch, num_key_tiles, size // tiles.queries),
            in_specs=[
                pl.BlockSpec((tiles.queries, 2), lambda h, b, j, i, *_: (i, 0)),
                *[pl.BlockSpec(query_tile, queries)] * 2,
                *[pl.BlockSpec(key_tile, keys)] * 2,
                pl.BlockSpec((pl.Element(plan.window), pl.Element(lanes)), window),
                *[pl.BlockSpec(query_tile, queries)] * 2,
                pl.BlockSpec(
                    (1, 1, plan.heads, tiles.queries), lambda h, b, j, i, *_: (b, h, 0, i)
                ),
            ],
            out_specs=[
                *[pl.BlockSpec(query_tile, finished)] * 2,
                *[pl.BlockSpec(key_tile, keys)] * 2,
                pl.BlockSpec((num_positions, lanes), lambda h, b, j, i, *_: (0, h)),
            ],
            scratch_shapes=[query_sums, query_sums, key_sums, key_sums],
        ),
        out_shape=[*[result] * 4, jax.ShapeDtypeStruct((num_positions, width), jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary", "arbitrary"),
            vmem_limit_bytes=VMEM + 8 * lanes * (size + num_positions),
        ),
        cost_estimate=_cost(plan, shared, rows, num_key_tiles, num_products=(5, 3), num_arrays=10),
        interpret=plan.interpret,
        name="attention_gradient",
    )(*_operands(shared, rows), means, gradient, logs)


def _backward_kernel(plan, *refs):
    scalars, refs = _Scalars(*refs[:5]), refs[5:]
    bounds, by_content, by_position, keys, values, positions, means, gradient, logs, *refs = refs
    *results, position_sums = refs[:5]
    content_sums, distance_sums, key_sums, value_sums = refs[5:]
    h, b, j, i = (pl.program_id(axis) for axis in range(4))
    size = plan.tiles.queries
    tile = pl.ds(pl.multiple_of(i * size, size), size)

    @pl.when((b == 0) & (j == 0) & (i == 0))
    def _():
        position_sums[...] = jnp.zeros(position_sums.shape, jnp.float32)

    @pl.when(i == 0)
    def _():
        key_sums[...] = jnp.zeros(key_sums.shape, jnp.float32)
        value_sums[...] = jnp.zeros(value_sums.shape, jnp.float32)

    @pl.when(j == 0)
    def _():
        for sums in content_sums, distance_sums:
            sums[tile, :] = jnp.zeros((size, plan.lanes), jnp.float32)

    @pl.when((scalars.first[i] <= j) & (j <= _last_visit(plan, scalars, b, i)))
    def _():
        start, _ = _window(plan, i, j, len(position_sums), h)
        window = pl.ds(pl.multiple_of(start, size), plan.window)
        hidden = _hidden(plan, bounds, scalars.num_frames[b], i, j)
        for head, own in enumerate(_heads(plan)):
            content, position, mean_gradient = (
                _selected(own, x[0]) for x in (by_content, by_position, gradient)
            )
            scores = _scores(plan, content, position, keys[0], positions[...])
            log = _repeated(_as_column(logs[0, 0, head : head + 1, :]), plan.tiles.keys)
            weights = jnp.where(hidden, 0.0, jnp.exp(scores - log))
            used, used_gradient = weights, _product(mean_gradient, values[0], axis=1)
            if plan.threshold:
                dropped = _dropped(plan, scalars, h * plan.heads + head, b, i, j)
                used = jnp.where(dropped, 0.0, weights * _scale(plan))
                used_gradient = jnp.where(dropped, 0.0, used_gradient * _scale(plan))
            value_sums[...] += _product(used.astype(values.dtype).T, mean_gradient)

            # Softmax: a weight's gradient counts as far as it differs from the query's mean.
            mean = mean_gradient.astype(jnp.float32) * means[0].astype(jnp.float32)
            mean = jnp.sum(mean, axis=1, keepdims=True)
            scores = weights * (used_gradient - mean) * (1 / math.sqrt(plan.head_width))
            scores = scores.astype(keys.dtype)
            key_sums[...] += _product(scores.T, content)
            content_sums[tile, :] += jnp.where(own, _product(scores, keys[0]), 0.0)
            scores = _by_distance(plan, scores)
            position_sums[window, :] += _product(scores.T, _reversed(position))
            distance_sums[tile, :] += jnp.where(own, _product(scores, positions[...]), 0.0)

    @pl.when(j == pl.num_programs(2) - 1)
    def _():
        results[0][0] = content_sums[tile, :].astype(gradient.dtype)
        results[1][0] = _reversed(distance_sums[tile, :].astype(gradient.dtype))

    @pl.when(i == pl.num_programs(3) - 1)
    def _():
        results[2][0] = key_sums[...].astype(gradient.dtype)
        results[3][0] = value_sums[...].astype(gradient.dtype)


def _cost(plan, shared, rows, visits, *, num_products, num_arrays):
    """Returns the operations and bytes of a kernel, for the compiler's schedule.

    Args:
      num_products: of queries with keys or values, and with a window of positions.
      num_arrays: [B, T, D] that are read or written.
    """
    batch, size, _ = rows.keys.shape
    columns = num_products[0] * plan.tiles.keys + num_products[1] * plan.window
    pairs = plan.num_heads * batch * size * visits
    return pl.CostEstimate(
        flops=2 * plan.lanes * pairs * columns,
        transcendentals=pairs * plan.tiles.keys,
        bytes_accessed=num_arrays * rows.keys.nbytes + shared.positions.nbytes,
    )


def _last_visit(plan, scalars, b, i):
    """Returns the last tile of keys with a frame that a tile of queries attends to."""
    longest = jax.lax.div(jnp.maximum(scalars.num_frames[b] - 1, 0), plan.tiles.keys)
    return jnp.minimum(scalars.last[i], jnp.maximum(longest, scalars.first[i]))


def _window(plan, i, j, num_positions, h):
    """Returns where the window of tiles i of queries and j of keys begins: row and lane."""
    step, keys = plan.tiles
    block = plan.origin // step - i + j * (keys // step)
    return jnp.clip(block, 0, (num_positions - plan.window) // step) * step, h * plan.lanes


def _frames(size, index, axis):
    """Returns the frames of a tile as a column (axis 0) or a row (axis 1)."""
    shape = (size, 1) if axis == 0 else (1, size)
    return index * size + jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def _pairs(plan, i, j):
    """Returns the frames t [N, 1] and s [1, S] of tiles i of queries and j of keys."""
    return _frames(plan.tiles.queries, i, 0), _frames(plan.tiles.keys, j, 1)


def _hidden(plan, bounds, num_frames, i, j):
    """Returns whether a query does not attend to a key, [N, S]; padding attends to nothing."""
    t, s = _pairs(plan, i, j)
    end = jnp.where(t < num_frames, jnp.minimum(bounds[:, 1:], num_frames), 0)
    return (s < bounds[:, :1]) | (s >= end)


def _dropped(plan, scalars, head, b, i, j):
    """Returns whether dropout drops a weight [N, S], by its index in all weights [B, H, T, T]."""
    t, s = _pairs(plan, i, j)
    size = plan.num_frames
    index = ((scalars.rows[b] * plan.num_heads + head) * size + t) * size + s
    words = (scalars.words[k].astype(jnp.uint32) for k in range(2))
    return hashed(index.astype(jnp.uint32), *words).astype(jnp.int32) < plan.threshold


def _scale(plan):
    """Returns the factor of a weight that dropout leaves."""
    return 256 / (256 - plan.threshold)


def _heads(plan):
    """Returns which lanes of a tile are a head's, [1, lanes], for each of its heads."""
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, plan.lanes), 1)
    starts = [head * plan.head_width for head in range(plan.heads)]
    return [(lane >= start) & (lane < start + plan.head_width) for start in starts]


def _selected(own, x):
    """Returns x with the lanes of other heads zeroed."""
    return jnp.where(own, x.astype(jnp.float32), 0.0).astype(x.dtype)


def _product(x, y, axis=0):
    """Returns x [M, N] times y [N, P], or with axis 1 times y [P, N] transposed, in float32."""
    dimensions = ((1,), (axis,)), ((), ())
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def _scores(plan, by_content, by_position, keys, positions):
    """Returns the scores [N, S] of queries [N, lanes] with keys and a window of positions."""
    by_distance = _product(by_position, positions, axis=1)
    shift = plan.window + 1 - plan.tiles.queries  # row N - 1 stays where it is
    by_key = pltpu.roll(by_distance, shift, axis=1, stride=1, stride_axis=0)
    scores = _product(by_content, keys, axis=1) + by_key[:, : plan.tiles.keys]
    return scores * (1 / math.sqrt(plan.head_width))


def _by_distance(plan, x):
    """Returns x [N, S] by distance, [N, window], with its rows in reverse order."""
    rows = _reversed(x).astype(jnp.float32)
    zeros = jnp.zeros((len(x), plan.tiles.queries), jnp.float32)
    rows = jnp.concatenate([rows, zeros], axis=1)
    return pltpu.roll(rows, 0, axis=1, stride=1, stride_axis=0).astype(x.dtype)


def _reversed(x):
    """Returns x [N, ...] with its rows in reverse order, exactly."""
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (len(x),) * 2, axis) for axis in (0, 1))
    permutation = (row + column == len(x) - 1).astype(jnp.float32).astype(x.dtype)
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    product = jnp.dot(permutation, x, precision=precision, preferred_element_type=jnp.float32)
    return product.astype(x.dtype)


def _repeated(x, size):
    """[N, 128] of equal columns -> [N, size]."""
    return jnp.concatenate([x] * (size // LANES), axis=1)


def _as_column(row):
    """[1, N] -> [N, 128] of equal columns."""
    return jnp.broadcast_to(row, (LANES, row.shape[1])).T
