"""Standard input, output and error of a command, be they a terminal, a pipe, a file or closed."""

import contextlib
import io
import os
import sys


def set_up() -> None:
    """Makes it safe to write to standard output and error; call it before anything else.

    Files and pipes get UTF-8, and names of files byte for byte even where they are not valid UTF-8.
    A terminal gets its own encoding, with "?" for characters that it lacks. A closed stream is
    opened on the null device, so that no file that is opened later takes its descriptor.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
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
    """Writes what standard output still buffers.

    Raises: OSError if that fails. Standard output then goes to the null device, so that Python does
    not report the same error again at exit.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno, f"standard output: {error.strerror}") from None


def printable(text: str) -> str:
    """Returns the text with U+FFFD for surrogates, which stand for stray bytes in file names."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
