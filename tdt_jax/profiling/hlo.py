"""What a compiled program does, read from its text: every operation, and how often it runs.

The text is what `jax.jit(f).lower(...).compile().as_text()` gives, scheduled, for one device. A
loop's body counts as often as the loop turns and a conditional's costliest branch once; a fusion is
one operation.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

COLLECTIVES = "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"
ITEM_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}  # of other types: the digits / 8


class Operation(NamedTuple):
    """An operation that control reaches."""

    opcode: str  # such as "fusion"
    scope: str  # its op_name: what it was traced from, with `jax.named_scope`
    stack: str  # the Python functions that it was traced in, the outermost first
    cycles: int  # of one run, the compiler's estimate; 0 where it gives none
    times: int  # how often it runs


class Collective(NamedTuple):
    """An exchange between devices."""

    kind: str  # one of COLLECTIVES
    num_bytes: int  # on one device: of the whole that is reduced, gathered, scattered or sent
    num_devices: int  # that exchange with each other; 0: all of them
    dtypes: str
    hidden_cycles: int  # of what runs between its start and its end; 0: others wait for it
    times: int


class Program(NamedTuple):
    """The operations of a program on one device, in order."""

    operations: list[Operation]
    collectives: list[Collective]

    @property
    def cycles(self) -> int:
        """The compiler's estimates, added up; it gives none for collectives."""
        return sum(each.cycles * each.times for each in self.operations)

    def cycles_in(self, scope: str) -> int:
        """Of the operations with this in their scope."""
        return sum(x.cycles * x.times for x in self.operations if scope in x.scope)


UNKNOWN = 1 << 62  # cycles: libtpu writes 2^63 - 1 where it has no estimate
CALLS = "while", "conditional", "call"  # their time is that of what they call


class _Line(NamedTuple):
    name: str
    shape: str
    opcode: str
    text: str  # all of it


def read(text: str, turns: Mapping[str, int] | None = None) -> Program:
    """The program of a text.

    Args:
      text: scheduled HLO.
      turns: how often the loops turn whose length is a value, by a part of their scope.

    Raises:
      ValueError: if there is a loop whose length is neither in the text nor in `turns`.
    """
    computations, entry = _computations(text)
    stacks = _stacks(text)
    program = Program([], [])

    def walk(name: str, times: int, outer: tuple[str, str] = ("", "")) -> None:
        running: dict[str, Collective] = {}  # by channel: started, not yet ended
        for line in computations[name]:
            # What the compiler added has no origin: that of the loop then.
            scope = _found(r'op_name="([^"]*)"', line.text) or outer[0]
            stack = stacks.get(_found(r"stack_frame_id=(\d+)", line.text), "") or outer[1]
            cycles = _estimate(line.text)
            for channel, started in running.items():
                beside = started.hidden_cycles + cycles
                running[channel] = started._replace(hidden_cycles=beside)
            if line.opcode == "while":
                body = _found(r"body=%?([\w.\-]+)", line.text)
                more = times * _turns(line.text, scope, computations, turns or {})
                walk(body, more, (scope, stack))
            elif line.opcode == "conditional":
                branches = _branches(line.text)
                walk(max(branches, key=lambda x: _cycles(computations[x])), times, outer)
            elif line.opcode == "call":
                walk(_found(r"to_apply=%?([\w.\-]+)", line.text), times, outer)
            elif found := _exchange(line, computations):
                phase, channel, exchange = found
                if phase == "done" and channel in running:
                    program.collectives.append(running.pop(channel))
                elif phase:
                    started = Collective(*exchange, 0, times)
                    if phase == "start":
                        running[channel] = started
                    else:
                        program.collectives.append(started)
            program.operations.append(Operation(line.opcode, scope, stack, cycles, times))
        program.collectives.extend(running.values())

    walk(entry, 1)
    return program


def origins(text: str) -> dict[str, Operation]:
    """Every operation of a text by its name, also those that are not estimated; each once."""
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


def _exchange(line: _Line, computations):
    """Of a part of a Collective ("start", "done", "whole", or "" in between), its channel and
    (kind, bytes, devices, dtypes); None of another operation.

    A TPU's program holds some collectives in fusions: an all-reduce of which each device needs a
    share alone, and those that run beside other operations, in a chain of fusions of one channel.
    """
    kind = line.opcode.removesuffix("-start")
    if line.opcode.endswith("-done"):
        channel = _found(r"-done\(%?([\w.\-]+)", line.text)
        return ("done", channel, None) if line.opcode[:-5] in COLLECTIVES else None
    if kind in COLLECTIVES:
        is_start = line.opcode != kind
        shape = line.shape
        if is_start and kind in ("all-gather", "collective-permute"):
            shape = _second(shape)  # (what goes in, what comes out, ...)
        exchange = kind, *_payload(kind, shape, line.text)
        return "start" if is_start else "whole", line.name, exchange
    inside = computations.get(_found(r"calls=%?([\w.\-]+)", line.text), [])
    for inner in inside:
        if inner.opcode in COLLECTIVES:
            whole = "\n".join(each.text for each in inside)
            kind = "reduce-scatter" if "calls=%all-reduce-scatter" in line.text else inner.opcode
            num_bytes, num_devices, dtypes = _payload(inner.opcode, inner.shape, inner.text)
            channel = "channel " + _found(r"channel_id=(\d+)", inner.text)
            exchange = kind, num_bytes, num_devices, dtypes
            if "AsyncCollectiveStart" in whole:
                return "start", channel, exchange
            if "AsyncCollectiveDone" in whole:
                return "done", channel, None
            is_part = "async_collective_fusion" in line.text
            return "" if is_part else "whole", channel, exchange
    return None


def _payload(kind: str, shape: str, text: str) -> tuple[int, int, str]:
    num_devices = _group_size(text)
    num_bytes = shape_bytes(shape) * (num_devices if kind == "reduce-scatter" else 1)
    return num_bytes, num_devices, "+".join(sorted({x for x, _ in _arrays(shape)}))


def _second(shape: str) -> str:
    """The second of the arrays of a tuple."""
    return "{}[{}]".format(*_arrays(shape)[1])


def _group_size(text: str) -> int:
    """How many devices exchange with each other; 0 if it doesn't say."""
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


def _turns(text: str, scope: str, computations, turns: Mapping[str, int]) -> int:
    """How often a loop turns: as it says, what its counter is compared with, or `turns`."""
    if known := _found(r'known_trip_count":\{"n":"(\d+)"', text):
        return int(known)
    condition = computations[_found(r"condition=%?([\w.\-]+)", text)]
    constants = {x.name: _found(r"constant\((\d+)\)", x.text) for x in condition}
    for line in condition:
        if line.opcode == "compare" and "direction=LT" in line.text:
            limit = _found(r"compare\(.*%([\w.\-]+)\)", line.text)
            if constants.get(limit):
                return int(constants[limit])
    for name, number in turns.items():
        if name in scope:
            return number
    raise ValueError(f"how often the loop {scope!r} turns is not in the program")


def _branches(text: str) -> list[str]:
    listed = _found(r"branch_computations=\{(.*?)\}", text)
    if not listed:
        listed = ",".join(re.findall(r"(?:true|false)_computation=(%?[\w.\-]+)", text))
    return [name.strip().lstrip("%") for name in listed.split(",")]


def _cycles(lines: list[_Line]) -> int:
    return sum(_estimate(x.text) for x in lines)


def _estimate(text: str) -> int:
    """Cycles of an operation; none where the compiler gives none, or says that it knows none."""
    cycles = int(_found(r'"estimated_cycles":"(\d+)"', text) or 0)
    return 0 if cycles >= UNKNOWN else cycles


def shape_bytes(shape: str) -> int:
    """Bytes of all arrays in a shape such as "(f32[8,2]{1,0}, s32[])", tiles' padding left out."""
    return sum(
        math.prod(int(side) for side in sides.split(",") if side) * _item_bytes(dtype)
        for dtype, sides in _arrays(shape)
    )


def _arrays(shape: str) -> list[tuple[str, str]]:
    """Type and sides of every array in a shape."""
    return re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shape)


def _item_bytes(dtype: str) -> int:
    return ITEM_BYTES.get(dtype) or max(1, int(re.search(r"\d+", dtype)[0]) // 8)


def _found(pattern: str, text: str) -> str:
    """The first group of the first match, "" without one."""
    match = re.search(pattern, text)
    return match[1] if match else ""


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
    """The lines of every computation by its name, and which of them is the entry."""
    computations: dict[str, list[_Line]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if start := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{", line):
            lines = computations.setdefault(start[2], [])
            entry = start[2] if start[1] else entry
        elif found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][\w\-]*)\(", line):
            lines.append(_Line(*found.groups(), line))
    return computations, entry


def _stacks(text: str) -> dict[str, str]:
    """By its number, each frame's functions in the tables at the head of the text."""
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
        # The text counts parents from 1, where 1 is none.
        parents[number] = str(int(_found(r"parent_frame_id=(\d+)", row) or 1) - 1)
        place = locations.get(_found(r"file_location_id=(\d+)", row), "")
        name = functions.get(_found(r"function_name_id=(\d+)", place), "").strip('"')
        above = stacks.get(parents[number], "")
        stacks[number] = f"{above}/{name}" if above else name
    return stacks
