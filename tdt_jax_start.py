"""What comes before jax is imported, which takes seconds: Ctrl-C ends those with a line.

This is no part of the package tdt_jax, as that imports jax.
"""

import os
import signal


def _end(*_) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)  # an exception would end somewhere in jax


def catch_interrupt() -> None:
    """Have Ctrl-C end the program without a traceback, until `release_interrupt`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def release_interrupt() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> int:
    """The command tdt-jax."""
    catch_interrupt()
    from tdt_jax.cli.main import main

    release_interrupt()
    return main()
