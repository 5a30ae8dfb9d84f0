"""The entry point of the command tdt-jax: Ctrl-C ends it cleanly even while jax is imported.

It lies outside the package tdt_jax, whose `__init__` imports jax, which takes seconds.
"""

import os
import signal


def main() -> int:
    """Runs the command tdt-jax; returns its exit code."""
    catch_interrupt()
    from tdt_jax.cli.main import main

    release_interrupt()
    return main()


def catch_interrupt() -> None:
    """Makes Ctrl-C end the program without a traceback, until `release_interrupt`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def release_interrupt() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(*_) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)  # an exception would end somewhere in jax
