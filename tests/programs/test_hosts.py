"""Several processes over loopback, with several devices each, train as one process does."""

import re
import signal

import numpy as np
import pytest
from program import Program, arrays, compare, finish

# Wide enough that its matrices are split: see sharding.SMALL.
WIDE = (
    "model.encoder.width=64",
    "model.encoder.feed_forward_factor=4",
    'data.buckets=[{"seconds": 8.96, "tokens": 40, "batch_size": 8}]',
    "training.num_steps=4",
    "training.save_every=2",
    "training.eval_every=4",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Program(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    return reported(finish(run(folder, *WIDE, devices=8))), arrays(folder, 4)


def reported(output: str) -> list[str]:
    """Returns the losses, the gradients' norms and the error rates in a run's output."""
    return re.findall(r"loss [\d.]+  gradient [\d.]+|WER [\d.]+ % \([^)]*\)  CER [\d.]+", output)


def assert_close(array, expected, err_msg):
    np.testing.assert_allclose(array, expected, rtol=1e-3, atol=2e-5, err_msg=err_msg)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices", "fsdp"), [(2, 4, 1), (4, 2, 4)])
def test_processes_train_as_one(run, alone, tmp_path, processes, devices, fsdp):
    overrides = (*WIDE, f"training.fsdp={fsdp}")
    started = run.together(processes, tmp_path / "run", *overrides, devices=devices)
    outputs = [finish(process) for process in started]
    assert f"in {processes} processes" in outputs[0]
    assert len(reported(outputs[0])) == len(alone[0]) >= 4
    for line, expected in zip(reported(outputs[0]), alone[0], strict=True):
        numbers, expected_numbers = (
            list(map(float, re.findall(r"\d+(?:\.\d+)?", x))) for x in (line, expected)
        )
        # printed digits round
        np.testing.assert_allclose(numbers, expected_numbers, rtol=1e-4, err_msg=line)
    assert all(not reported(output) for output in outputs[1:])  # process 0 alone prints them
    compare(arrays(tmp_path / "run", 4), alone[1], assert_close)


@pytest.mark.slow
def test_a_run_moves_to_other_meshes_and_numbers_of_processes(run, alone, tmp_path):
    """One SIGTERM ends two processes; one process continues on another mesh."""
    overrides = *WIDE, "training.save_every=100", "training.num_steps=40"
    started = run.together(2, tmp_path / "run", *overrides, "training.fsdp=8", devices=4)
    for line in started[0].stdout:
        if line.startswith("TDT"):
            started[1].send_signal(signal.SIGTERM)
            break
    output = finish(started[0], code=128 + signal.SIGTERM)
    finish(started[1], code=128 + signal.SIGTERM)
    (step,) = re.findall(r"stopped at step (\d+), which is saved", output)
    before = arrays(tmp_path / "run", int(step))
    last = f"training.num_steps={int(step) + 1}"
    output = finish(run(tmp_path / "run", *WIDE[:3], last, "training.fsdp=2", devices=2))
    assert f"going on from step {step} " in output
    after = arrays(tmp_path / "run", int(step) + 1)
    assert int(after["optimizer"]["step"]) == int(before["optimizer"]["step"]) + 1
