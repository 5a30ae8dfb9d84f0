"""The command line tdt-jax: parses its arguments, runs a command, and returns an exit code."""

import argparse
import contextlib
import sys

from tdt_jax import __version__
from tdt_jax.cli.benchmark import add_benchmark
from tdt_jax.cli.convert import add_convert
from tdt_jax.cli.evaluate import add_evaluate, add_warmup
from tdt_jax.cli.export import add_export
from tdt_jax.cli.listen import add_listen
from tdt_jax.cli.lm import add_lm
from tdt_jax.cli.prepare import add_prepare
from tdt_jax.cli.serve import add_serve
from tdt_jax.cli.transcribe import add_transcribe
from tdt_jax.runtime import streams


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    The exit code is 0 if all went well, 1 if some files failed, 2 for a mistake of the user's, 130
    if it was interrupted, 141 if nobody reads the output any more.
    """
    has_output = sys.stdout is not None
    streams.set_up()
    try:
        options = make_parser().parse_args(arguments)
        if not has_output and not options.writes_files(options):
            raise ValueError("standard output is closed, where the result would go")
        code, failure = options.run(options), None
    except (ValueError, OSError, MemoryError, KeyboardInterrupt) as error:
        code, failure = 2, error
    try:
        streams.flush()
    except OSError as error:  # more to the point than what was raised before
        failure = error
    return code if failure is None else _exit_code(failure)


def _exit_code(error: BaseException) -> int:
    """Prints what ended a command, and returns its exit code."""
    if isinstance(error, BrokenPipeError):
        return 141
    if isinstance(error, KeyboardInterrupt):
        code, text = 130, "interrupted"
    elif isinstance(error, MemoryError):
        code, text = 2, f"out of memory: {error}; try a smaller --batch-seconds"
    else:
        code, text = 2, str(error)
    with contextlib.suppress(OSError):
        print(f"tdt-jax: {text}", file=sys.stderr)
    return code


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands and their options."""
    parser = argparse.ArgumentParser(
        prog="tdt-jax",
        description="Token-and-Duration Transducers in JAX: speech to text, fast.",
        epilog="tdt-jax COMMAND --help shows a command's options and examples. Exit codes: 0 all "
        "went well, 1 some files failed, 2 a mistake of yours, 130 interrupted, 141 nobody reads "
        "the output any more.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run, help: str, description: str, examples: str = ""):
        command = commands.add_parser(
            name,
            help=help,
            description=description,
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run, writes_files=lambda options: False)
        return command

    add_transcribe(add)
    add_listen(add)
    add_serve(add)
    add_evaluate(add)
    add_lm(add)
    add_warmup(add)
    add_convert(add)
    add_export(add)
    add_prepare(add)
    add_benchmark(add)
    return parser
