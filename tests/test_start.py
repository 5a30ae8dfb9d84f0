"""Ctrl-C before the program itself runs."""

import os
import signal
import subprocess
import sys

import pytest
from paths import ROOT


@pytest.mark.parametrize(
    "start", ["tdt_jax_start.main()", "runpy.run_path({train!r}, run_name={main!r})"]
)
def test_interrupted_while_jax_is_imported(tmp_path, start):
    """A jax that takes long: Ctrl-C ends with a line and the exit code, and no traceback."""
    (tmp_path / "tdt_jax").mkdir()
    slow = "import time; print('importing', flush=True); time.sleep(60)"
    for path in ("tdt_jax/__init__.py", "jax.py"):
        (tmp_path / path).write_text(slow)
    start = start.format(train=str(ROOT / "train.py"), main="__main__")
    # A shell that starts this in the background has it ignore Ctrl-C.
    listening = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{listening}import runpy, tdt_jax_start\n{start}"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == "interrupted\n"
    assert process.returncode == 130
