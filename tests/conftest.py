"""Every test runs on 8 virtual CPU devices, with strict dtype and rank promotion.

Programs are compiled once: both workers, and the next run, take them from `.pytest_cache`. XLA
compiles them without optimisation and with its older emitters, which takes much less time.

A default test takes at most MAX_SECONDS of CPU time, its fixtures included. Slower ones are
reported and listed in `.pytest_cache/too_slow`; with FAIL_TOO_SLOW set they fail the run. When a
file has ended and a worker is large, it lets go of what was compiled.

With `--backend gpu` or `tpu` programs are those that such a device would run, without kernels; they
run on the CPU all the same.
"""

import contextlib
import gc
import os
import resource
import time
from importlib.metadata import version
from pathlib import Path

import pytest

os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",
        # A jaxlib that does not know a flag ends there.
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
    ]
)

import jax

from tdt_jax.runtime import backend

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MAX_SECONDS = 3.0  # of a machine that takes REFERENCE_SECONDS for _reference()
REFERENCE_SECONDS = 0.06
MAX_BYTES = 1.2e9
TOO_SLOW = Path(__file__).parent.parent / ".pytest_cache" / "too_slow"
LONGEST_FILES = ("test_step.py", "test_tiled.py", "test_dense.py", "test_transcription.py")


def pytest_collection_modifyitems(items):
    """The files that take longest come first: no worker begins one when the other has ended."""
    items.sort(key=lambda item: item.path.name not in LONGEST_FILES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    before = _cpu_seconds()
    result = yield
    seconds = _cpu_seconds() - before
    is_long = seconds > MAX_SECONDS and not item.get_closest_marker("slow")
    if is_long and seconds > MAX_SECONDS * _reference() / REFERENCE_SECONDS:
        item.session.too_slow[item.nodeid] = seconds
    if (nextitem is None or nextitem.path != item.path) and _resident_bytes() > MAX_BYTES:
        jax.clear_caches()
        gc.collect()
    return result


def pytest_addoption(parser):
    parser.addoption("--backend", choices=("gpu", "tpu"), help="trace programs for this backend")


def pytest_sessionstart(session):
    session.too_slow = {}
    session.assumed = contextlib.ExitStack()
    if assumed := session.config.getoption("backend"):
        session.assumed.enter_context(backend.assume(assumed, kernels=False))


def pytest_sessionfinish(session):
    """Hands a worker's figures to the process that prints them."""
    session.assumed.close()
    figures = {
        "too_slow": session.too_slow,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput.update(figures)
    elif not hasattr(session.config, "figures"):
        session.config.figures = [figures]
    if not hasattr(session.config, "workerinput"):
        every = [name for each in session.config.figures for name in each["too_slow"]]
        TOO_SLOW.parent.mkdir(exist_ok=True)
        TOO_SLOW.write_text("".join(f"{name}\n" for name in every))
        if every and os.environ.get("FAIL_TOO_SLOW") and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    if output := getattr(node, "workeroutput", None):
        node.config.figures = [*getattr(node.config, "figures", []), output]


def pytest_terminal_summary(terminalreporter, config):
    figures = getattr(config, "figures", [])
    for name, seconds in [item for each in figures for item in each["too_slow"].items()]:
        terminalreporter.write_line(f"TOO SLOW {name} took {seconds:.1f} s of CPU time")
    for each in figures:
        terminalreporter.write_line(f"a worker's memory: {each['memory']:.1f} GB")


def _reference() -> float:
    """The CPU seconds of a loop of fixed length: longer on a slower or busier machine."""
    start = time.process_time()
    sum(i * i for i in range(1_000_000))
    return time.process_time() - start


def _resident_bytes() -> float:
    path = Path("/proc/self/statm")  # of Linux; elsewhere the most that it ever was
    if path.exists():
        return int(path.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
