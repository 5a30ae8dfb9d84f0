"""A folder that one process uses at a time."""

import os
import subprocess

import pytest
from without_jax import python

from tdt_jax.runtime.distributed import lock_folder
from tdt_jax.runtime.lock import locked


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    path = tmp_path / "run" / ".lock"
    mine = rf"run is in use by process {os.getpid()} on "
    with lock_folder(path.parent), pytest.raises(ValueError, match=mine), locked(path):
        pass
    program = (
        f"import pathlib, time\nwith module('lock')['locked'](pathlib.Path({str(path)!r})):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = python(program, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ValueError) as error, lock_folder(path.parent):
            pass
        assert str(error.value).startswith(
            f"{path.parent} is in use by process {process.pid} on {os.uname().nodename}, since 2"
        )
    finally:
        process.kill()
        process.communicate()
    with lock_folder(path.parent):
        pass
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="Is a directory"), lock_folder(path.parent):
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "lock"):
        assert "nothing keeps a second process away (Function not implemented)" in caplog.text
