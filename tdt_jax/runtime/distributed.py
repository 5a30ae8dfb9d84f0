"""Several processes that train as one: start, barrier, gather, stop.

All processes must call every function here, in the same order; `start` comes first. With a single
process none of them communicates.
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
from typing import Any

import jax
import numpy as np

from tdt_jax.runtime import streams
from tdt_jax.runtime.lock import locked

LOCK = ".lock"  # in a run's folder


def start(
    coordinator: str = "", process: int | None = None, num_processes: int | None = None
) -> None:
    """Connects this process to the others; call it before anything touches a device.

    Args:
      coordinator: "HOST:PORT" of process 0; "auto" on clusters that JAX can ask (TPU pods, Slurm,
        Open MPI); or "" for a single process.
      process: index of this process; None if the cluster knows it.
      num_processes: how many there are; None if the cluster knows it.

    Raises:
      ValueError: if only some of the three are given, or one is impossible.
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


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Locks a folder against other runs within the context; process 0 holds the lock for all.

    Raises: ValueError in every process, naming the holder.
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
    """Returns whether this process is the one that writes logs and small files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has called this."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def all_gather(item: Any) -> list:
    """Returns every process's `item` (anything that pickles), ordered by process."""
    if jax.process_count() == 1:
        return [item]
    from jax.experimental import multihost_utils

    data = np.frombuffer(pickle.dumps(item), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(data)], np.int32)).reshape(-1)
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def assert_same(what: str, value: Any) -> None:
    """Raises ValueError in every process unless all have the same value."""
    for process, other in enumerate(all_gather(value)):
        if other != value:
            raise ValueError(
                f"processes differ in {what}: {jax.process_index()} has {value}, "
                f"{process} has {other}"
            )


class Stopped(Exception):
    """Work is abandoned because the run was asked to stop."""


class Stop:
    """A request to stop: SIGTERM, which precedes the loss of a machine, or SIGINT (Ctrl-C).

    Within this context the first signal only sets `signal`; a second one has its usual effect, as
    soon as Python runs (not while a program compiles). Among several processes only SIGTERM counts;
    JAX's coordination service makes all of them stop after the same step.
    """

    def __init__(self):
        self.signal: int | None = None  # that was received
        self._handlers: dict[int, Any] = {}  # from before the context

    def __enter__(self) -> "Stop":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _) -> None:
        self.signal = number
        signal.signal(number, self._handlers[number])
        print(f"{signal.Signals(number).name}: saving, then ending", flush=True)

    def requested(self, step: int) -> bool:
        """Returns whether to stop after this step; the answer is the same in every process."""
        if jax.process_count() == 1:
            return self.signal is not None
        from jax.experimental import multihost_utils

        if multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def check(self, *_) -> None:
        """Raises `Stopped` if a single process was asked to stop; several learn of it at a step."""
        if self.signal is not None:
            raise Stopped


def exit_with(error: BaseException) -> None:
    """Ends the program with the message of `error` if a user can mend it, else with a traceback.

    The exit code is 1, or 130 for Ctrl-C and 141 for a closed output pipe. One of several processes
    exits at once, as no other could reach it at a barrier; the coordination service then ends the
    others.
    """
    with contextlib.suppress(OSError):
        streams.flush()
    is_expected = isinstance(error, (ValueError, OSError))
    special = {KeyboardInterrupt: 130, BrokenPipeError: 141}.get(type(error))
    try:
        is_single = jax.process_count() == 1
    except (RuntimeError, AssertionError):  # no device, which is what the error says
        is_single = True
    if is_single:
        if special is not None:
            print("interrupted" if special == 130 else "standard output is closed", file=sys.stderr)
            sys.exit(special)
        if is_expected:
            sys.exit(f"error: {error}")
        raise error
    if is_expected:
        print(f"error in process {jax.process_index()}: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(special or 1)
