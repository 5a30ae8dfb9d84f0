"""Standard output and error, whatever is behind them: a terminal, a pipe, a file, nothing."""

import contextlib
import io
import os
import sys


def set_up() -> None:
    """Make it safe to write to standard output and error; a program's first act.

    Files and pipes get UTF-8, and file names of any bytes as they are. A terminal gets the encoding
    that it asks for, with a "?" for what that lacks. A stream that is closed goes nowhere, so that
    no file that is opened later takes its place.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif not isinstance(stream, io.TextIOWrapper):  # a notebook's
            continue
        elif stream.isatty():
            stream.reconfigure(errors="replace")
        else:
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def flush() -> None:
    """Write out what standard output holds back.

    Raises: OSError if it cannot be; it is then given up, and nothing is said again at exit.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno, f"standard output: {error.strerror}") from None


def printable(text: str) -> str:
    """The text without halves of characters, which stand for odd bytes in names of files."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
