"""What the device and its host start when a GPU program runs, from XLA's dump of its thunks.

A thunk is what XLA's runtime executes: a kernel, a copy, a product by cuBLAS, or a sequence of
others such as the body of a loop. The host submits a CUDA graph (in XLA a command buffer) once, and
the device starts everything in it. These are the program's own counts, not estimates; only cuBLAS
and cuDNN, which choose their kernels on the device, may start more than one for a thunk.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tdt_jax.profiling import hlo

GRAPH, LOOP, CONDITIONAL = "kCommandBuffer", "kWhile", "kConditional"
SILENT = "kSequential", "kWaitForStreams"  # start nothing; neither do those that end in Done


class Thunk(NamedTuple):
    """A step of a program."""

    kind: str  # such as kCustomKernel
    name: str  # of its HLO operation; "" if the dump does not say
    parts: dict[str, list["Thunk"]]  # "condition" and "body", the branches, or "" for a sequence


class Launches(NamedTuple):
    """What one run of some thunks starts."""

    fewest: int = 0  # kernels and copies, with the smallest branch of every conditional
    most: int = 0  # the same, with the largest
    in_graphs: int = 0  # of the most, those that lie in CUDA graphs
    by_host: int = 0  # what the host submits: graphs, and what lies in none
    waits: int = 0  # how often the host waits for a value from the device

    def plus(self, other: "Launches", times: int = 1) -> "Launches":
        """Returns the launches of this, and `times` those of another."""
        return Launches(*(ours + times * its for ours, its in zip(self, other, strict=True)))


class Loop(NamedTuple):
    """A loop of a program."""

    scope: str  # the functions and `jax.named_scope`s that it was traced from
    iterations: int
    is_known: bool  # whether the compiler knows their number: then there is no condition
    launches: Launches  # of an iteration, with the evaluation of the condition


class Counts(NamedTuple):
    """The launches of a program."""

    launches: Launches
    loops: list[Loop]  # a loop inside another comes after it


def read_dump(folder: Path) -> list[Thunk]:
    """Returns the thunks of the program that was compiled with `xla_dump_to`.

    Raises:
      ValueError: if the folder does not have the thunks of exactly one program.
    """
    sequence, metadata, with_graphs = (
        list(folder.glob(f"*.thunk_{name}.txt"))
        for name in ("sequence", "metadata", "sequence_after_thunk_passes")
    )
    if (len(sequence), len(metadata)) != (1, 1):
        raise ValueError(f"XLA has written the thunks of {len(sequence)} programs, not of one")
    (path,) = with_graphs or sequence  # XLA writes the former only if there are graphs
    return parse(path.read_text(), metadata[0].read_text())


def parse(sequence: str, metadata: str) -> list[Thunk]:
    """Returns the thunks of a dump: their sequence, and metadata with their operations' names."""
    names = {
        number: name
        for name, number in re.findall(r'annotation: "([^"]*)"\s+thunk_id: (\d+)', metadata)
    }
    top = Thunk("kSequential", "", {})
    outer = [(-1, top)]  # the thunks around a line, each with its indentation
    label = ""
    for line in sequence.splitlines():
        if found := re.fullmatch(r"\s*(\w+):\s*", line):
            label = found[1]  # of the part that the next line begins
        elif found := re.match(r"( *)(\d+): (\w+) ", line):
            indent = len(found[1])
            while outer[-1][0] >= indent:
                outer.pop()
            thunk = Thunk(found[3], names.get(str(int(found[2])), ""), {})
            parts = outer[-1][1].parts
            if label or not parts:
                parts[label] = []
            parts[next(reversed(parts))].append(thunk)
            outer.append((indent, thunk))
            label = ""
    return top.parts.get("", [])


def count(thunks: list[Thunk], loops: Mapping[str, hlo.Loop]) -> Counts:
    """Returns the launches of a program; `loops` are those of its text (`hlo.loops`)."""
    found: list[Loop] = []
    return Counts(_sum(thunks, loops, found, in_graph=False), found)


def _sum(
    thunks: list[Thunk], loops: Mapping[str, hlo.Loop], found: list[Loop], *, in_graph: bool
) -> Launches:
    """Returns the launches of a sequence of thunks; adds its loops to `found`."""
    total = Launches()
    for thunk in thunks:
        total = total.plus(_launches(thunk, loops, found, in_graph))
    return total


def _launches(
    thunk: Thunk, loops: Mapping[str, hlo.Loop], found: list[Loop], in_graph: bool
) -> Launches:
    wait = Launches(waits=0 if in_graph else 1)
    if thunk.kind == LOOP:
        loop, place = loops[thunk.name], len(found)
        body = _sum(thunk.parts["body"], loops, found, in_graph=in_graph)
        condition = Launches()
        if not loop.is_known:
            condition = wait.plus(_sum(thunk.parts["condition"], loops, found, in_graph=in_graph))
        iteration = body.plus(condition)
        found.insert(place, Loop(loop.scope, loop.iterations, loop.is_known, iteration))
        return condition.plus(iteration, loop.iterations)
    is_graph = thunk.kind == GRAPH
    parts = [
        _sum(part, loops, found, in_graph=in_graph or is_graph) for part in thunk.parts.values()
    ]
    if thunk.kind == CONDITIONAL:
        largest = Launches(*map(max, zip(*parts, strict=True)))
        return wait.plus(largest._replace(fewest=min(part.fewest for part in parts)))
    if parts:
        (launches,) = parts
        return launches.plus(Launches(by_host=1)) if is_graph and not in_graph else launches
    if thunk.kind in SILENT or thunk.kind.endswith("Done"):
        return Launches()
    return Launches(fewest=1, most=1, in_graphs=int(in_graph), by_host=int(not in_graph))
