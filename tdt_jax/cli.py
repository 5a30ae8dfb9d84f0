"""The command line: tdt-jax transcribe, listen, evaluate, warmup, convert, prepare, benchmark."""

import argparse
import contextlib
import sys

from tdt_jax import __version__
from tdt_jax.cli_benchmark import add_benchmark
from tdt_jax.cli_options import MODEL_HELP, complain
from tdt_jax.cli_prepare import add_prepare
from tdt_jax.cli_speech import add_speech
from tdt_jax.runtime import streams


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

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
    except OSError as error:  # which says more than what was raised in the middle
        failure = error
    return code if failure is None else _exit_code(failure)


def _exit_code(error: BaseException) -> int:
    """Say what has ended a command; its exit code."""
    if isinstance(error, BrokenPipeError):  # whoever read the output has enough
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
    """All commands and their options."""
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

    add_speech(add)
    _add_convert(add)
    add_prepare(add)
    add_benchmark(add)
    return parser


def _add_convert(add) -> None:
    command = add(
        "convert",
        _convert,
        "a checkpoint into another format",
        "Read a checkpoint of any kind and write it as one of tdt_jax (jax), of transformers (hf)\n"
        "or of NeMo (nemo). Nothing that exists is overwritten.",
        "  tdt-jax convert parakeet.nemo folder --to hf",
    )
    command.set_defaults(writes_files=lambda options: True)
    command.add_argument("source", metavar="IN", help=MODEL_HELP)
    command.add_argument("target", metavar="OUT", help="a folder, or for nemo a file")
    command.add_argument("--to", choices=["jax", "hf", "nemo"], required=True)
    command.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="of the parameters written [float32]"
    )
    command.add_argument(
        "--drop-ctc", action="store_true", help="leave the CTC head of a hybrid out (for hf)"
    )


def _convert(options) -> int:
    from pathlib import Path

    from tdt_jax.checkpoints import loading
    from tdt_jax.recogniser import without_ctc
    from tdt_jax.runtime import process

    target = Path(options.target)
    is_free = target.is_dir() and not any(target.iterdir()) and options.to != "nemo"
    if target.exists() and not is_free:
        raise ValueError(f"{target} exists already")
    process.require_devices()
    recogniser = loading.load(options.source, dtype=options.dtype)
    if options.drop_ctc:
        recogniser = without_ctc(recogniser)
    target.parent.mkdir(parents=True, exist_ok=True)
    loading.save(recogniser, target, format=options.to)
    config = recogniser.config
    if options.to == "nemo" and config.features.silence is not None:
        complain(
            "NeMo's features count silence in their mean and deviation, which this model's leave "
            "out: NeMo transcribes silence beside speech less well with it"
        )
    print(f"{target}: {config.kind}, {config.vocab_size} tokens")
    return 0
