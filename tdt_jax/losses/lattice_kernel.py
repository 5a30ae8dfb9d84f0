"""The recursions over a lattice in one kernel (Pallas), for TPUs (Mosaic) and GPUs (Triton).

The kernel computes what `losses.lattice` computes by `lax.scan`, its reference, with the same
arithmetic. Its grid is the batch, and each program follows all diagonals of its utterances. The
last few diagonals of a recursion are its window. It is kept twice: as it is for blank arcs, and
moved by one label for label arcs.

TPU: a program has 8 utterances on the sublanes of a register and their labels on its lanes, and
computes alpha upwards and beta downwards in the same loop. The grid's second dimension is blocks of
diagonals: while one is computed, the next is copied in. The window stays in VMEM. Alpha needs the
arcs that end on a diagonal; they are kept from the diagonal on which they start.

GPU: a program computes one recursion of one utterance, with its labels on the threads and its
window in registers. A thread reads its neighbor's newest value from the result in memory, behind a
barrier of the program. Interpret mode cannot check that barrier, and it has not run on a GPU; in
the compiled program the order is store, barrier, load.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as mosaic

from tdt_jax.losses.recursion import NEG_INF, LogProbs, Recursion, Step, skew, unskew
from tdt_jax.runtime import backend

LANES, SUBLANES = 128, 8  # of a TPU's registers
# Of 16 MB of VMEM that a kernel may have on a v5e: what is left is the compiler's.
VMEM_BYTES = 10 * 2**20
BLOCKS = 32, 16, 8, 4, 2, 1  # diagonals that are copied in at a time
# Of a GPU's program: 512 threads have 128 registers each, and two labels need about that many.
GPU_COLUMNS = 1024


def fits(columns: int, steps: Sequence[Step], recursions: Sequence[Recursion]) -> bool:
    """Returns whether the kernel of the current backend takes lattices of this many columns."""
    if backend.current() == "gpu":
        return columns <= GPU_COLUMNS and backend.has_triton()
    return _block(columns, steps, recursions) is not None


def runner(steps: Sequence[Step], recursions: Sequence[Recursion]) -> Callable:
    """Returns a function that runs one or two recursions; under `vmap`, its batch is the grid.

    It takes the log-probabilities [T+1, U+1] of the arcs from each node (t, u), one array for each
    of the `steps`, and the node [2] int32 where paths end. It returns the LogProbs [T+1, U+1] of
    each recursion.
    """
    run = _on_gpu if backend.current() == "gpu" else _on_tpu

    def batch(leaving, end):
        return run(leaving, end, steps, recursions)

    @jax.custom_batching.custom_vmap
    def one(leaving, end):
        return jax.tree.map(lambda x: x[0], batch([x[None] for x in leaving], end[None]))

    @one.def_vmap
    def _(size, is_batched, leaving, end):
        def rows(x, is_batched):
            return x if is_batched else jnp.broadcast_to(x, (size, *x.shape))

        results = batch(*jax.tree.map(rows, (leaving, end), tuple(is_batched)))
        return results, jax.tree.map(lambda _: True, results)

    return one


class _Window(NamedTuple):
    """The last few diagonals of a recursion, newest first."""

    still: tuple[LogProbs, ...]  # for blank arcs
    moved: tuple[LogProbs, ...]  # for label arcs: moved by one label along them

    @classmethod
    def empty(cls, steps, shape):
        """Returns a window without any node that can be reached."""
        node = LogProbs(jnp.full(shape, NEG_INF), jnp.zeros(shape, jnp.float32))
        return cls(
            *(
                (node,) * max(step.span for step in steps if step.emitted == emitted)
                for emitted in (0, 1)
            )
        )

    def nodes(self, steps) -> list[LogProbs]:
        """Returns the node at the other end of each arc."""
        return [(self.moved if step.emitted else self.still)[step.span - 1] for step in steps]

    def push(self, newest, moved):
        """Returns the window of the next diagonal."""
        return _Window((newest, *self.still[:-1]), (moved, *self.moved[:-1]))


def _combine(
    nodes: list[LogProbs], arcs: list[jax.Array], is_certain: jax.Array, best: bool
) -> LogProbs:
    """Returns the log of the sum (or the maximum) over all arcs; 0 where `is_certain`.

    An arc's term is its probability times that of the node at its other end.
    """
    rests = [node.rest + arc for node, arc in zip(nodes, arcs, strict=True)]
    wholes = [node.whole for node in nodes]
    maximum = functools.reduce(jnp.maximum, map(operator.add, wholes, rests))
    # Rounded half up: Pallas has no other rounding on a GPU.
    base = jnp.maximum(jnp.floor(maximum + 0.5), NEG_INF)
    # Among numbers of the order of -1e30, where there is no path, rounding may be anything.
    terms = [
        jnp.exp(jnp.minimum((whole - base) + rest, 1.0))
        for whole, rest in zip(wholes, rests, strict=True)
    ]
    total = functools.reduce(jnp.maximum if best else operator.add, terms)
    rest = jnp.log(jnp.maximum(total, 1e-30))
    return LogProbs(jnp.where(is_certain, 0.0, base), jnp.where(is_certain, 0.0, rest))


def _cost(arcs, recursions):
    """Returns what the kernel computes, for XLA's scheduler."""
    num_arcs, nodes = len(arcs), arcs[0].size * len(recursions)
    return pl.CostEstimate(
        flops=nodes * (7 * num_arcs + 6),
        transcendentals=nodes * (num_arcs + 1),
        bytes_accessed=4 * nodes * (num_arcs + 2),
    )


# TPU


def _vmem(block, columns, steps, recursions):
    """Returns the bytes of VMEM that a program takes."""
    arcs, depth = len(steps), max(step.span for step in steps)
    diagonals = 2 * block * len(recursions) * (arcs + 2)  # 2: one is copied, one computed
    windows = len(recursions) * 4 * depth + depth * arcs
    return 4 * SUBLANES * _padded(columns, LANES) * (diagonals + windows)


def _block(columns, steps, recursions):
    """Returns how many diagonals a program copies in at a time; None: not even one fits."""
    sizes = (n for n in BLOCKS if _vmem(n, columns, steps, recursions) <= VMEM_BYTES)
    return next(sizes, None)


def _padded(size, multiple):
    return -(-size // multiple) * multiple


def _on_tpu(leaving, end, steps, recursions):
    batch, rows, columns = leaving[0].shape
    block = _block(columns, steps, recursions)
    height, width = _padded(rows + columns - 1, block), _padded(columns, LANES)
    sublanes, blocks = min(batch, SUBLANES), height // block

    def spec(recursion):
        """Returns which block each program computes, upwards or downwards."""

        def place(i, j):
            return j if recursion.forward else blocks - 1 - j, i, 0

        return pl.BlockSpec((block, sublanes, width), place)

    arcs = [jax.vmap(lambda x: skew(x, height, width), out_axes=1)(arc) for arc in leaving]
    result = jax.ShapeDtypeStruct((height, batch, width), jnp.float32)
    depth = max(step.span for step in steps)
    size = len(jax.tree.leaves(_Window.empty(steps, ())))
    results = pl.pallas_call(
        functools.partial(_tpu_program, steps=steps, recursions=recursions),
        grid=(pl.cdiv(batch, sublanes), blocks),
        in_specs=[
            pl.BlockSpec((sublanes, 2), lambda i, j: (i, 0)),
            [[spec(recursion)] * len(steps) for recursion in recursions],
        ],
        out_specs=[[spec(recursion)] * 2 for recursion in recursions],
        out_shape=[[result] * 2 for _ in recursions],
        scratch_shapes=[
            mosaic.VMEM((depth, len(steps), sublanes, width), jnp.float32),
            [mosaic.VMEM((size, sublanes, width), jnp.float32) for _ in recursions],
        ],
        compiler_params=mosaic.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=_cost(arcs, recursions),
        interpret=backend.interprets_kernels(),
        name="lattice",
    )(end, [arcs for _ in recursions])
    inverse = jax.vmap(lambda x: unskew(x, rows, columns), in_axes=1)
    return [LogProbs(*map(inverse, pair)) for pair in results]


def _tpu_program(end_ref, arcs_refs, *refs, steps, recursions):
    *result_refs, started_ref, window_refs = refs
    block, *shape = arcs_refs[0][0].shape
    width = shape[-1]
    columns = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    index, blocks = pl.program_id(1), pl.num_programs(1)
    empty = _Window.empty(steps, shape)
    depth = started_ref.shape[0]

    @pl.when(index == 0)
    def _():
        started_ref[:] = jnp.full(started_ref.shape, NEG_INF)
        for ref in window_refs:
            for i, x in enumerate(jax.tree.leaves(empty)):
                ref[i] = x

    def move(x, forward):
        rolled = mosaic.roll(x, 1 if forward else width - 1, 1)
        return jnp.where(columns == (0 if forward else width - 1), NEG_INF, rolled)

    def arriving(n, arcs):
        """Returns the arcs that end on diagonal n, and keeps those that start there."""
        ends = [started_ref[(n - step.span) % depth, i] for i, step in enumerate(steps)]
        for i, (arc, step) in enumerate(zip(arcs, steps, strict=True)):
            started_ref[n % depth, i] = move(arc, True) if step.emitted else arc
        return ends

    def follow(recursion, window, arcs_refs, result, count):
        """Computes the next diagonal of one recursion, and returns the window after it."""
        forward = recursion.forward
        row = count if forward else block - 1 - count
        n = row + block * (index if forward else blocks - 1 - index)
        arcs = [ref[row] for ref in arcs_refs]
        if forward:
            arcs = arriving(n + depth, arcs)  # + depth: so that n - span is never negative
            is_certain = (n == 0) & (columns == 0)
        else:
            is_certain = (n == end_ref[:, 0:1] + end_ref[:, 1:2]) & (columns == end_ref[:, 1:2])
        newest = _combine(window.nodes(steps), arcs, is_certain, recursion.best)
        for ref, x in zip(result, newest, strict=True):
            ref[row] = x
        return window.push(newest, LogProbs(*(move(x, forward) for x in newest)))

    def body(count, windows):
        parts = zip(recursions, windows, arcs_refs, result_refs, strict=True)
        return [follow(*part, count) for part in parts]

    structure = jax.tree.structure(empty)
    windows = [
        jax.tree.unflatten(structure, [ref[i] for i in range(ref.shape[0])]) for ref in window_refs
    ]
    windows = jax.lax.fori_loop(0, block, body, windows)
    for ref, window in zip(window_refs, windows, strict=True):
        for i, x in enumerate(jax.tree.leaves(window)):
            ref[i] = x


# GPU


def _on_gpu(leaving, end, steps, recursions):
    batch, rows, columns = leaving[0].shape
    sizes = rows + columns - 1, columns
    width = pl.next_power_of_2(columns)
    arcs = [jax.vmap(lambda x: skew(x, *sizes))(arc) for arc in leaving]
    result = jax.ShapeDtypeStruct((batch, len(recursions), *sizes), jnp.float32)
    nodes = pl.BlockSpec((None, None, *sizes), lambda i, j: (i, j, 0, 0))
    options = {}
    if not backend.interprets_kernels():
        from jax.experimental.pallas import triton

        # One label a thread as far as the multiprocessor's registers go.
        options["compiler_params"] = triton.CompilerParams(
            num_warps=min(max(width // 32, 1), 16), num_stages=1
        )
    results = pl.pallas_call(
        functools.partial(_gpu_program, steps=steps, recursions=recursions, width=width),
        grid=(batch, len(recursions)),
        in_specs=[
            pl.BlockSpec((None, 2), lambda i, j: (i, 0)),
            [pl.BlockSpec((None, *sizes), lambda i, j: (i, 0, 0))] * len(steps),
        ],
        out_specs=[nodes] * 2,
        out_shape=[result] * 2,
        cost_estimate=_cost(arcs, recursions),
        interpret=backend.interprets_kernels(),
        name="lattice",
        **options,
    )(end, arcs)
    inverse = jax.vmap(lambda x: unskew(x, rows, columns))
    return [LogProbs(*(inverse(x[:, i]) for x in results)) for i in range(len(recursions))]


def _gpu_program(end_ref, arcs_refs, *result, steps, recursions, width):
    from jax.experimental.pallas import triton  # which a later jax may not have

    diagonals, size = arcs_refs[0].shape
    columns = jnp.arange(width)
    # 1 for alpha, 0 for beta: of two recursions, the first is alpha.
    forward = int(recursions[0].forward)
    if len(recursions) == 2:
        forward = 1 - pl.program_id(1)
    t, u = ((1 - forward) * end_ref[i] for i in (0, 1))  # where the log-probability is 0

    def place(count):
        return forward * count + (1 - forward) * (diagonals - 1 - count)

    def arcs_at(count):
        """Returns the arcs between a diagonal and those before it in this recursion."""
        n = place(count)

        def load(ref, step):
            row, column = n - forward * step.span, columns - forward * step.emitted
            valid = (row >= 0) & (row < diagonals) & (column >= 0) & (column < size)
            return triton.load(ref.at[row, column], mask=valid, other=NEG_INF)

        return tuple(load(*pair) for pair in zip(arcs_refs, steps, strict=True))

    def moved(ref, n):
        column = columns + 1 - 2 * forward
        valid = (column >= 0) & (column < size)
        return triton.load(ref.at[n, column], mask=valid, other=NEG_INF)

    def body(count, state):
        window, arcs = state
        n = place(count)
        later = arcs_at(count + 1)  # on their way while this diagonal is computed
        is_certain = (n == t + u) & (columns == u)
        newest = _combine(window.nodes(steps), arcs, is_certain, recursions[0].best)
        for ref, x in zip(result, newest, strict=True):
            triton.store(ref.at[n, columns], x, mask=columns < size)
        if not backend.interprets_kernels():
            triton.debug_barrier()  # neighbors' values are in memory now
        return window.push(newest, LogProbs(*(moved(ref, n) for ref in result))), later

    state = _Window.empty(steps, (width,)), arcs_at(0)
    jax.lax.fori_loop(0, diagonals, body, state)
