"""Programs that load a module of tdt_jax/runtime alone, so that they start in milliseconds."""

import os
import subprocess
import sys

from paths import ROOT


def python(program: str, **options) -> subprocess.Popen:
    """Starts a program in which `module(NAME)` returns the names of tdt_jax/runtime/NAME.py."""
    path = f"{ROOT}/tdt_jax/runtime/{{name}}.py"
    start = f"import runpy\nmodule = lambda name: runpy.run_path(f'{path}')\n"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", start + program]
    return subprocess.Popen(command, text=True, env=environment, **options)


def without_home(monkeypatch) -> None:
    """Takes away the home folder, as in a container whose user is only a number."""
    import pwd

    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "LOGNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
