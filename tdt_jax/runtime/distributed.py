"""Several processes that train as one: start, meet, gather, and end together when asked to.

Every function here but `start` must be called by all processes alike; with one process each is
simple.
"""

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from tdt_jax.runtime import streams
from tdt_jax.runtime.lock import locked

LOCK = ".lock"  # in a run's folder


def start(coordinator: str = "", process: int | None = None, num_processes: int | None = None):
    """Join the other processes; before anything else touches a device.

    Args:
      coordinator: "HOST:PORT" of process 0, "auto" where the cluster says it all (TPU pods, Slurm,
        Open MPI), or "" for one process alone.
      process, num_processes: which one this is, of how many; None where the cluster says it.

    Raises:
      ValueError: if only some of the three are given.
    """
    if not coordinator:
        if process is not None or num_processes is not None:
            raise ValueError("--process and --num-processes need --coordinator HOST:PORT")
        return
    if coordinator == "auto":
        jax.distributed.initialize(process_id=process, num_processes=num_processes)
        return
    if process is None or num_processes is None:
        raise ValueError("--coordinator HOST:PORT needs --process and --num-processes")
    if not 0 <= process < num_processes:
        raise ValueError(f"--process must be in 0..{num_processes - 1}, got {process}")
    if not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator reads HOST:PORT, got {coordinator!r}")
    jax.distributed.initialize(coordinator, num_processes, process)


def exit_with(error: BaseException) -> None:
    """End: for a user's mistake with a message, else with the traceback.

    The exit code is 1, or 130 for Ctrl-C and 141 if nobody reads the output any more. One of
    several processes ends at once, since no other would come to a barrier; they end when the
    coordination service misses it.
    """
    with contextlib.suppress(OSError):
        streams.flush()
    expected = isinstance(error, (ValueError, OSError))
    special = {KeyboardInterrupt: 130, BrokenPipeError: 141}.get(type(error))
    try:
        alone = jax.process_count() == 1
    except (RuntimeError, AssertionError):  # no device, which is what the error says
        alone = True
    if alone:
        if special is not None:
            print("interrupted" if special == 130 else "nobody reads on", file=sys.stderr)
            sys.exit(special)
        if expected:
            sys.exit(f"error: {error}")
        raise error
    if expected:
        print(f"error in process {jax.process_index()}: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(special or 1)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """A context in which no other run has the folder; process 0 holds it for all.

    Raises: ValueError on all of them, naming who has it.
    """
    with contextlib.ExitStack() as stack:
        problem = None
        if is_main_process():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder / LOCK))
            except (ValueError, OSError) as error:
                problem = str(error)
        if problem := all_gather(problem)[0]:
            raise ValueError(problem)
        yield


def is_main_process() -> bool:
    """Whether this is the process that writes logs and small files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def all_gather(item) -> list:
    """Every process's `item` (anything that pickles), in the order of processes, on all."""
    if jax.process_count() == 1:
        return [item]
    from jax.experimental import multihost_utils

    data = np.frombuffer(pickle.dumps(item), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(data)], np.int32)).reshape(-1)
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def assert_same(what: str, value) -> None:
    """Raise ValueError on all processes unless all have the same value."""
    for process, other in enumerate(all_gather(value)):
        if other != value:
            raise ValueError(
                f"processes differ in {what}: {jax.process_index()} has {value}, "
                f"{process} has {other}"
            )


class Stopped(Exception):
    """What was under way is not finished, because the run was asked to end."""


class Stop:
    """Notices SIGTERM, as a machine that is about to be taken away sends it, or SIGINT (Ctrl-C).

    A second one acts as if nothing noticed the first, as soon as Python runs (not while a program
    compiles). With several processes it is SIGTERM alone, of which all learn at the same step,
    through JAX's coordination service.
    """

    def __init__(self):
        self.signal: int | None = None
        self._before = {}

    def __enter__(self):
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number, _):
        self.signal = number
        signal.signal(number, self._before[number])
        print(f"{signal.Signals(number).name}: saving, then ending", flush=True)

    def asked(self, step: int) -> bool:
        """Whether to end after this step."""
        if jax.process_count() == 1:
            return self.signal is not None
        from jax.experimental import multihost_utils

        if multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def check(self, *_) -> None:
        """Raise `Stopped` if a single process was asked to end; several learn of it at a step."""
        if self.signal is not None:
            raise Stopped
