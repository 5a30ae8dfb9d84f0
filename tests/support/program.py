"""Runs train.py as a program for tests, and reads what it saved."""

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from paths import ROOT

from tdt_jax.checkpoints.store import Checkpoints
from tdt_jax.config import from_json
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.training.step import init_state

TINY = Path(__file__).parent / "run_config.py"


class Program:
    """Starts train.py, by default on the tiny configuration and one device."""

    def __init__(self, cache: Path):
        self.environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def __call__(self, folder, *overrides, config=TINY, options=(), devices=1, file_size=None):
        """Starts the program. `file_size` limits the size of each file, as a full disk would."""
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(config), *options]
        for assignment in (f"training.folder={folder}", *overrides):
            command += ["--set", assignment]
        flags = (
            f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
        )

        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**self.environment, "XLA_FLAGS": flags},
        )
        if file_size is not None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_size, file_size))
        return process

    def together(self, num_processes: int, folder, *overrides, devices: int):
        """Starts several processes that train as one over loopback."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        return [
            self(
                folder,
                *overrides,
                devices=devices,
                options=(
                    f"--coordinator=localhost:{port}",
                    f"--process={process}",
                    f"--num-processes={num_processes}",
                ),
            )
            for process in range(num_processes)
        ]


def finish(process, code=0) -> str:
    """Waits for a process to end with the exit code `code`. Returns its output."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output


def arrays(folder: Path, step: int) -> dict:
    """Returns every array of a checkpoint, by item and name."""
    config = from_json((folder / "config.json").read_text())
    state = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
    rest = {"step": state.step, "optimizer": state.optimizer}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        items = checkpoints.restore(step, model=state.model, average=state.average, optimizer=rest)
    return {name: named_leaves(tree) for name, tree in items.items()}


def assert_same_bits(items: dict, expected: dict) -> None:
    """Asserts that the `arrays` of two checkpoints are the same."""
    compare(items, expected, np.testing.assert_array_equal)


def compare(items: dict, expected: dict, assert_alike) -> None:
    """Calls `assert_alike` on each pair of arrays of two checkpoints."""
    assert items.keys() == expected.keys()
    for item, leaves in expected.items():
        assert items[item].keys() == leaves.keys() and len(leaves) > 1
        for name, leaf in leaves.items():
            assert_alike(items[item][name], leaf, err_msg=f"{item} {name}")
