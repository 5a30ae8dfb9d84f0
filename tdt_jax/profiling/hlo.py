"""The operations and collectives of a compiled program, read from its text.

The text is that of `jax.jit(f).lower(...).compile().as_text()`: scheduled HLO, for one device. A
loop's body counts once per iteration, and of a conditional only the costliest branch counts. A
fusion is one operation.
"""

import itertools
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

COLLECTIVES = "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"
ITEM_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}  # of other types: the digits / 8


class Operation(NamedTuple):
    """An operation of a program."""

    opcode: str  # such as "fusion"
    scope: str  # its op_name: the functions and `jax.named_scope`s that it was traced from
    stack: str  # the Python functions that it was traced in, the outermost first
    cycles: int  # of one run, by the compiler's estimate; 0 if there is none
    times: int  # how often it runs
    kernel: str = ""  # what it calls, if it has no estimate or one known to be wrong
    num_bytes: int = 0  # that such a kernel reads and writes
    flops: int = 0  # of such a kernel; 0 if the program does not say


class Collective(NamedTuple):
    """A communication between devices."""

    kind: str  # one of COLLECTIVES
    num_bytes: int  # of the whole array that is reduced, gathered, scattered or sent, on one device
    num_devices: int  # that communicate with each other; 0: all of them
    dtypes: str
    hidden_cycles: int  # of operations that run between its start and its end
    times: int  # how often it runs


class Program(NamedTuple):
    """The operations of a program on one device, in order."""

    operations: list[Operation]
    collectives: list[Collective]

    @property
    def cycles(self) -> int:
        """The sum of the compiler's estimates, which leave out collectives and `kernels`."""
        return sum(each.cycles * each.times for each in self.operations)

    def within(self, scope: str) -> "Program":
        """Returns the operations whose scope contains `scope`, without collectives."""
        return Program([each for each in self.operations if scope in each.scope], [])

    @property
    def kernels(self) -> list[Operation]:
        """The kernels that `cycles` leaves out."""
        return [each for each in self.operations if each.kernel]


class Loop(NamedTuple):
    """A loop of a program."""

    scope: str
    iterations: int
    is_known: bool  # whether the compiler knows the number of iterations


CALLS = "while", "conditional", "call"  # opcodes whose time is that of what they call
KERNELS = "tpu_custom_call", "__gpu$xla.gpu.triton", "mosaic_gpu", "__cudnn"  # what they call
KNOWN_TRIPS = "known_trip_count"
UNKNOWN = 1 << 62  # cycles: libtpu writes 2^63 - 1 if it has no estimate


class _Line(NamedTuple):
    name: str
    shape: str
    opcode: str
    text: str  # the whole line


def read(text: str, iterations: Mapping[str, int] | None = None) -> Program:
    """Returns the program of a text.

    Args:
      text: scheduled HLO.
      iterations: of loops whose length the compiler does not know, by a substring of their scope.

    Raises:
      ValueError: if the length of a loop is neither in the text nor in `iterations`.
    """
    computations, entry = _computations(text)
    stacks = _stacks(text)
    program = Program([], [])

    def walk(name: str, times: int, outer: tuple[str, str] = ("", "")) -> None:
        running: dict[str, Collective] = {}  # started, not yet done; by channel
        shapes = {line.name: line.shape for line in computations[name]}
        for line in computations[name]:
            # Operations that the compiler added have no origin; they get that of the loop.
            scope = _found(r'op_name="([^"]*)"', line.text) or outer[0]
            stack = stacks.get(_found(r"stack_frame_id=(\d+)", line.text), "") or outer[1]
            cycles = _estimate(line.text)
            for channel, started in running.items():
                hidden = started.hidden_cycles + cycles
                running[channel] = started._replace(hidden_cycles=hidden)
            if line.opcode == "while":
                body = _found(r"body=%?([\w.\-]+)", line.text)
                number = _num_iterations(line.text, scope, computations, iterations or {})
                walk(body, times * number, (scope, stack))
            elif line.opcode == "conditional":
                branches = _branches(line.text)
                walk(max(branches, key=lambda x: _cycles(computations[x])), times, outer)
            elif line.opcode == "call":
                walk(_found(r"to_apply=%?([\w.\-]+)", line.text), times, outer)
            elif event := _collective_event(line, computations, times):
                if event.collective is None:
                    if event.channel in running:
                        program.collectives.append(running.pop(event.channel))
                elif event.is_start:
                    running[event.channel] = event.collective
                else:
                    program.collectives.append(event.collective)
            operation = Operation(line.opcode, scope, stack, cycles, times)
            program.operations.append(_with_kernel(operation, line, shapes))
        program.collectives.extend(running.values())

    walk(entry, 1)
    return program


def loops(text: str, iterations: Mapping[str, int] | None = None) -> dict[str, Loop]:
    """Returns the loops of a GPU's program by the names of their operations.

    Args, Raises: as `read`.
    """
    computations, _ = _computations(text)
    found = {}
    for line in itertools.chain.from_iterable(computations.values()):
        if line.opcode == "while":
            scope = _found(r'op_name="([^"]*)"', line.text)
            number = _num_iterations(line.text, scope, computations, iterations or {})
            found[line.name] = Loop(scope, number, KNOWN_TRIPS in line.text)
    return found


def origins(text: str) -> dict[str, Operation]:
    """Returns every operation of a text by its name, each with 0 cycles and 1 run."""
    computations, _ = _computations(text)
    stacks = _stacks(text)
    return {
        line.name: Operation(
            line.opcode,
            _found(r'op_name="([^"]*)"', line.text),
            stacks.get(_found(r"stack_frame_id=(\d+)", line.text), ""),
            0,
            1,
        )
        for lines in computations.values()
        for line in lines
    }


class _Event(NamedTuple):
    """A line that starts a collective, ends one, or both."""

    channel: str  # the same at the start and at the end
    collective: Collective | None  # None at the end
    is_start: bool = False  # the end comes later


def _collective_event(
    line: _Line, computations: Mapping[str, list[_Line]], times: int
) -> _Event | None:
    """Returns what a line does to a collective; None for another operation.

    A TPU's program holds some collectives in fusions: an all-reduce of which each device needs only
    a shard, and those that run beside other operations, as a chain of fusions with one channel.
    """
    if line.opcode.endswith("-done"):
        is_collective = line.opcode.removesuffix("-done") in COLLECTIVES
        channel = _found(r"-done\(%?([\w.\-]+)", line.text)
        return _Event(channel, None) if is_collective else None
    kind = line.opcode.removesuffix("-start")
    if kind in COLLECTIVES:
        shape, is_start = line.shape, line.opcode != kind
        if is_start and kind in ("all-gather", "collective-permute"):
            shape = _second(shape)  # (input, output, ...)
        return _Event(line.name, _collective(kind, shape, line.text, times), is_start)
    fused = computations.get(_found(r"calls=%?([\w.\-]+)", line.text), [])
    inner = next((each for each in fused if each.opcode in COLLECTIVES), None)
    if inner is None:
        return None
    text = "\n".join(each.text for each in fused)
    channel = "channel " + _found(r"channel_id=(\d+)", inner.text)
    if "AsyncCollectiveDone" in text:
        return _Event(channel, None)
    is_start = "AsyncCollectiveStart" in text
    if not is_start and "async_collective_fusion" in line.text:  # neither start nor end
        return None
    collective = _collective(inner.opcode, inner.shape, inner.text, times)
    if "calls=%all-reduce-scatter" in line.text:
        collective = collective._replace(kind="reduce-scatter")
    return _Event(channel, collective, is_start)


def _collective(kind: str, shape: str, text: str, times: int) -> Collective:
    num_devices = _group_size(text)
    num_bytes = shape_bytes(shape) * (num_devices if kind == "reduce-scatter" else 1)
    dtypes = "+".join(sorted({dtype for dtype, _ in _arrays(shape)}))
    return Collective(kind, num_bytes, num_devices, dtypes, 0, times)


def _second(shape: str) -> str:
    """Returns the second array of a tuple."""
    dtype, sides = _arrays(shape)[1]
    return f"{dtype}[{sides}]"


def _group_size(text: str) -> int:
    """Returns how many devices communicate with each other; 0 if the text does not say."""
    groups = text.partition("replica_groups=")[2]
    # mesh['a'=2,'b'=4] {'b'}, or mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}
    if named := re.match(r"mesh\[(.*?)\](?:, device_ids=\S+)? \{(.*?)\}", groups):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if listed := re.match(r"\[\d+,(\d+)\]", groups):  # [groups,devices]<=[...]
        return int(listed[1])
    first = _found(r"^\{\{([\d,]+)\}", groups)
    return first.count(",") + 1 if first else 0


def _num_iterations(
    text: str,
    scope: str,
    computations: Mapping[str, list[_Line]],
    iterations: Mapping[str, int],
) -> int:
    """Returns the length of a loop: from its text, from its condition, or from `iterations`."""
    if known := _found(KNOWN_TRIPS + r'":\{"n":"(\d+)"', text):
        return int(known)
    condition = computations[_found(r"condition=%?([\w.\-]+)", text)]
    constants = {x.name: _found(r"constant\((\d+)\)", x.text) for x in condition}
    for line in condition:
        if line.opcode == "compare" and "direction=LT" in line.text:
            limit = _found(r"compare\(.*%([\w.\-]+)\)", line.text)
            if constants.get(limit):
                return int(constants[limit])
    for part, number in iterations.items():
        if part in scope:
            return number
    raise ValueError(f"the number of iterations of the loop {scope!r} is not in the program")


def _with_kernel(operation: Operation, line: _Line, shapes: Mapping[str, str]) -> Operation:
    """Returns an operation with what it moves and computes if it has no estimate, or a wrong one.

    There is none for kernels of Pallas (which say themselves what they move and compute) and of
    cuDNN. A product of bfloat16 matrices into float32 gets the time of one of float32 matrices by
    XLA's model of a GPU, up to a hundred times too much.
    """
    target = _found(r'custom_call_target="([^"]*)"', line.text)
    is_product = target.startswith("__cublas")
    if not (is_product or (target.startswith(KERNELS) and not operation.cycles)):
        return operation
    arguments = _found(rf"{line.opcode}\(([^)]*)\)", line.text)
    operands = [shapes.get(name, "") for name in re.findall(r"%([\w.\-]+)", arguments)]
    flops = int(_found(r'"flops":"?(\d+)', line.text) or 0)
    if is_product:
        (left, sides), (right, _), *_ = _arrays(" ".join(operands))
        out, out_sides = _arrays(line.shape)[0]
        if (left, right, out) != ("bf16", "bf16", "f32"):
            return operation
        contracted = _found(r'"lhs_contracting_dimensions":\[([^\]]*)', line.text)
        depth = math.prod(_sides(sides)[int(i)] for i in re.findall(r"\d+", contracted))
        flops = 2 * math.prod(_sides(out_sides)) * depth
    counted = int(_found(r'"bytes_accessed":"?(\d+)', line.text) or 0)
    num_bytes = counted or sum(map(shape_bytes, (*operands, line.shape)))
    return operation._replace(cycles=0, kernel=target, num_bytes=num_bytes, flops=flops)


def _branches(text: str) -> list[str]:
    listed = _found(r"branch_computations=\{(.*?)\}", text)
    if not listed:
        listed = ",".join(re.findall(r"(?:true|false)_computation=(%?[\w.\-]+)", text))
    return [name.strip().lstrip("%") for name in listed.split(",")]


def _cycles(lines: list[_Line]) -> int:
    return sum(_estimate(x.text) for x in lines)


def _estimate(text: str) -> int:
    """Returns the cycles of an operation by the compiler's estimate; 0 if there is none.

    A GPU's compiler estimates microseconds, of which each counts as 1000 cycles. Its first estimate
    of a fusion by Triton is a thousand times too long; the one by the indexing model is not.
    """
    time = r'"exec_time_us":([\d.]+)'
    by_indexing = _found(time + r'[^{}]*"name":"indexing-cost-model"', text)
    if microseconds := by_indexing or _found(time, text):
        return round(1000 * float(microseconds))
    cycles = int(_found(r'"estimated_cycles":"(\d+)"', text) or 0)
    return 0 if cycles >= UNKNOWN else cycles


def shape_bytes(shape: str) -> int:
    """Returns the bytes of all arrays in a shape such as "(f32[8,2]{1,0}, s32[])", unpadded."""
    return sum(math.prod(_sides(sides)) * _item_bytes(dtype) for dtype, sides in _arrays(shape))


def _sides(text: str) -> list[int]:
    return [int(side) for side in text.split(",") if side]


def _arrays(shape: str) -> list[tuple[str, str]]:
    """Returns the type and sides of every array in a shape."""
    return re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shape)


def _item_bytes(dtype: str) -> int:
    return ITEM_BYTES.get(dtype) or max(1, int(_found(r"(\d+)", dtype)) // 8)


def _found(pattern: str, text: str) -> str:
    """Returns the first group of the first match, or "" without a match."""
    match = re.search(pattern, text)
    return match[1] if match else ""


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
    """Returns the lines of every computation by its name, and the name of the entry."""
    computations: dict[str, list[_Line]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if start := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{", line):
            lines = computations.setdefault(start[2], [])
            entry = start[2] if start[1] else entry
        elif match := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][\w\-]*)\(", line):
            lines.append(_Line(match[1], match[2], match[3], line))
    return computations, entry


def _stacks(text: str) -> dict[str, str]:
    """Returns each stack frame's functions by its number, from the tables at the head of a text."""
    tables: dict[str, dict[str, str]] = {}
    rows: dict[str, str] = {}
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            rows = tables.setdefault(line, {})
        elif row := re.match(r"(\d+) (.*)", line):
            rows[row[1]] = row[2]
        elif line.startswith(("%", "ENTRY")):
            break
    functions, locations = tables.get("FunctionNames", {}), tables.get("FileLocations", {})
    stacks: dict[str, str] = {"": ""}
    parents = {"": ""}
    for number, row in tables.get("StackFrames", {}).items():
        # Parents are counted from 1, and 1 means none.
        parents[number] = str(int(_found(r"parent_frame_id=(\d+)", row) or 1) - 1)
        place = locations.get(_found(r"file_location_id=(\d+)", row), "")
        name = functions.get(_found(r"function_name_id=(\d+)", place), "").strip('"')
        above = stacks.get(parents[number], "")
        stacks[number] = f"{above}/{name}" if above else name
    return stacks
