"""The first ten minutes on an accelerator: is tdt_jax right there, and how fast is it?

Each stage of `tdt_jax.benchmarks.device_stages` is a process of its own with a time limit, the most
wanted first. Its rows lie in a folder as soon as they are measured, so whatever ends the run, what
was measured is there; the next call with the same folder continues with what is missing.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tdt_jax.benchmarks.device_stages import ROWS, STAGES, note_into
from tdt_jax.benchmarks.report import Report

TABLE = "table.md"
VERSIONS = "versions"  # the first row
END = "end"  # the last row of a stage
COMPLETED = "completed"  # how a stage ended


def run_stages(
    folder: str | Path,
    *,
    stages: Sequence[str] = (),
    seconds: float = 600.0,
    tiny: bool = False,
) -> Report:
    """Runs the stages that the folder does not hold yet, and writes their rows and a table to it.

    Args:
      folder: for rows.jsonl and table.md.
      stages: names in `STAGES`; none: all that this backend has.
      seconds: of all stages together; what is left then waits for the next call.
      tiny: with small shapes, which take about two minutes on a CPU.

    Returns:
      the Report of all rows in the folder.

    Raises:
      ValueError: for an unknown stage, for a folder with rows of other versions or shapes, and if
        the first stage fails, which notes device and versions.
    """
    if unknown := [name for name in stages if name not in STAGES]:
        raise ValueError(f"no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    folder, end = Path(folder), time.monotonic() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(STAGES))
    for name, stage in STAGES.items():
        rows = _rows(folder)
        if name != first:
            _check(folder, rows, tiny)
        left = min(stage.seconds, end - time.monotonic())
        is_wanted = name == first or not stages or name in stages
        if not is_wanted or name in _ended(rows) or left < 5:
            continue
        if name != first and rows[0]["backend"] not in stage.backends:
            continue
        _keep(folder, [row for row in rows if row["stage"] != name])
        _run(folder, name, 600.0 if tiny else left, tiny)
        report = _report(_rows(folder))
        (folder / TABLE).write_text(f"{report}\n")
    return _report(_rows(folder))


def _run(folder: Path, name: str, seconds: float, tiny: bool) -> None:
    """Runs a stage, and notes how it ended."""
    stage, variables = STAGES[name], dict(os.environ)
    for key, value in stage.variables.items():
        is_added = key == "XLA_FLAGS"
        variables[key] = f"{variables.get(key, '')} {value}".strip() if is_added else value
    command = [sys.executable, "-m", "tdt_jax.benchmarks.device_stages", str(folder), name]
    if tiny:  # compiles in less time
        flags = variables.get("XLA_FLAGS", "")
        variables["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()
    start = time.monotonic()
    try:
        code = subprocess.run(
            [*command, *["--tiny"] * tiny], env=variables, timeout=seconds
        ).returncode
        how = COMPLETED if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        how = f"cut off after {seconds:.0f} s"
    note_into(folder, name, END, how=how, seconds=time.monotonic() - start, tiny=tiny)


def _rows(folder: Path) -> list[dict]:
    path = folder / ROWS
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _keep(folder: Path, rows: list[dict]) -> None:
    (folder / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _ended(rows: list[dict]) -> set[str]:
    """Returns the stages that were completed."""
    return {row["stage"] for row in rows if row["case"] == END and row["how"] == COMPLETED}


def _check(folder: Path, rows: list[dict], tiny: bool) -> None:
    """Raises ValueError unless the folder holds rows of these versions and of this size."""
    if not rows or rows[0]["case"] != VERSIONS:
        raise ValueError("the first stage failed: what it printed says why")
    for package, found in ("tdt_jax", version("tdt-jax")), ("jax", version("jax")):
        if rows[0][package] != found:
            raise ValueError(
                f"{folder} holds figures of {package} {rows[0][package]}, and {found} is "
                "installed: name another folder"
            )
    if any(row["tiny"] != tiny for row in rows if row["case"] == END):
        raise ValueError(f"{folder} holds figures {'with' if not tiny else 'without'} --tiny")


def _report(rows: list[dict]) -> Report:
    """Returns the rows, and a table in Markdown."""
    lines = ["| stage | case | figures |", "| --- | --- | --- |"]
    for row in rows:
        figures = {key: value for key, value in row.items() if key not in ("stage", "case")}
        text = ", ".join(f"{key.replace('_', ' ')} {_text(x)}" for key, x in figures.items())
        lines.append(f"| {row['stage']} | {row['case']} | {text} |")
    return Report(rows, "\n".join(lines))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
