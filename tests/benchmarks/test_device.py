"""Stages in processes of their own: in order, within limits, continued, and in a table."""

import json
import subprocess
import types

import numpy as np
import pytest

from tdt_jax.benchmarks import device, device_stages

FIRST, *OTHERS = device_stages.STAGES
HERE = [name for name in device_stages.STAGES if "cpu" in device_stages.STAGES[name].backends]


@pytest.fixture
def runs(monkeypatch):
    """The stages that ran, each with its variables; a stage in `runs.ends` ends in another way."""
    runs = types.SimpleNamespace(names=[], variables={}, ends={}, backend="cpu")

    def run(command, *, env, timeout):
        folder, name = command[3:5]
        runs.names.append(name)
        runs.variables[name] = env
        if (end := runs.ends.get(name, 0)) == "late":
            raise subprocess.TimeoutExpired(command, timeout)
        figures = {"seconds": 0.5}
        if name == FIRST and end == 0:
            versions = {package: device.version(package) for package in ("jax",)}
            versions |= {"tdt_jax": device.version("tdt-jax"), "backend": runs.backend}
            device_stages.note_into(device.Path(folder), name, device.VERSIONS, **versions)
        elif end == 0:
            device_stages.note_into(device.Path(folder), name, "a case", **figures)
        return types.SimpleNamespace(returncode=end)

    monkeypatch.setattr(device.subprocess, "run", run)
    return runs


def test_stages_run_in_order_and_rows_are_a_table(runs, tmp_path):
    report = device.run_stages(tmp_path)
    assert runs.names == HERE
    table = (tmp_path / "table.md").read_text()
    assert table == f"{report}\n" and "| loss | a case | seconds 0.5 |" in table
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows == report.rows and len(rows) == 2 * len(HERE)


def test_what_is_missing_is_continued(runs, tmp_path):
    runs.ends = {"loss": "late", "encoder": 3}
    report = device.run_stages(tmp_path)
    ends = {row["stage"]: row["how"] for row in report.rows if row["case"] == device.END}
    assert "cut off" in ends["loss"] and "exit code 3" in ends["encoder"]
    assert ends["training step"] == "completed"
    runs.ends = {}
    runs.names.clear()
    report = device.run_stages(tmp_path)
    assert runs.names == ["loss", "encoder"]
    assert sum(row["stage"] == "loss" for row in report.rows) == 2  # nothing of the first try
    assert all(row["how"] == "completed" for row in report.rows if row["case"] == device.END)


def test_some_stages_and_no_time(runs, tmp_path):
    device.run_stages(tmp_path, stages=["loss"])
    assert runs.names == [FIRST, "loss"]
    device.run_stages(tmp_path, seconds=1)
    assert runs.names == [FIRST, "loss"]
    with pytest.raises(ValueError, match=r"no stage 'lost'; there are environment, "):
        device.run_stages(tmp_path, stages=["lost"])


def test_a_backend_has_its_stages_and_a_stage_its_variables(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--of-mine")
    runs.backend = "gpu"
    device.run_stages(tmp_path)
    assert runs.names == list(device_stages.STAGES)
    kernels = {name: runs.variables[name].get(device_stages.KERNELS) for name in OTHERS}
    assert kernels["loss"] == "off" and kernels["loss, kernels"] == "on"
    assert runs.variables["decoder"]["XLA_FLAGS"] == "--of-mine"
    graphs = runs.variables["decoder, loop as a CUDA graph"]["XLA_FLAGS"]
    assert graphs.split() == ["--of-mine", "--xla_gpu_enable_command_buffer=+WHILE"]


def test_figures_of_others_are_not_mixed_in(runs, tmp_path, monkeypatch):
    device.run_stages(tmp_path, stages=["loss"])
    with pytest.raises(ValueError, match="without --tiny"):
        device.run_stages(tmp_path, tiny=True)
    monkeypatch.setattr(device, "version", lambda package: "99")
    with pytest.raises(ValueError, match=r"tdt_jax .*99 is installed: name another folder"):
        device.run_stages(tmp_path)
    runs.ends = {FIRST: 1}
    with pytest.raises(ValueError, match="the first stage failed"):
        device.run_stages(tmp_path / "new")


def test_errors_are_relative_to_the_largest_number():
    expected = {"a": np.array([4.0, 0.0]), "b": np.array([1e-3])}
    found = {"a": np.array([4.0, 0.1]), "b": np.array([1.1e-3])}
    np.testing.assert_allclose(device_stages._error(found["b"], expected["b"]), 0.1)
    np.testing.assert_allclose(device_stages._error(found, expected), 0.025)  # of 4; b as of 0.04
    assert device_stages._error(expected, expected) == 0


@pytest.mark.slow
def test_every_stage_runs_here(tmp_path):
    report = device.run_stages(tmp_path, tiny=True)
    ends = [row for row in report.rows if row["case"] == device.END]
    assert [row["stage"] for row in ends] == HERE
    assert all(row["how"] == "completed" for row in ends), str(report)
    decoded = [row for row in report.rows if row["case"].startswith("decoder, ")]
    assert len(decoded) == 2
    assert all(row["alike"] == row["utterances"] and row["labels"] > 0 for row in decoded)
    errors = {row["case"]: row["error"] for row in report.rows if "error" in row}
    frames, gradients = (errors.pop(case) for case in list(errors) if "bfloat16" in case)
    assert 1e-3 < frames < 0.02 and gradients > 1e-3
    assert len(errors) > 5 and max(errors.values()) == 0  # the CPU is compared with itself
    assert min(row["ms"] for row in report.rows if "ms" in row) > 0
