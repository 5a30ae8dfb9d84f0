"""What several benchmarks share: options, and how reports are printed."""

import argparse
from collections.abc import Iterable
from typing import Any

from tdt_jax.cli.options import complain, positive


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="110m, 0.6b, 0.6b-v2, 1.1b or rnnt-0.6b; may repeat [0.6b]",
    )


def add_aot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--aot",
        metavar="TARGET",
        help="run nothing, but compile for h100, or for a TPU's topology such as v5e:2x2, and "
        "print what the compiler estimates",
    )


def is_aot(options: argparse.Namespace) -> bool:
    if options.aot and options.peers:
        raise ValueError("--aot runs nothing: it does not go with --peers")
    return bool(options.aot)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of parameters and computation [float32]",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        dest="overrides",
        help="change a field of the configuration; may repeat",
    )


def add_repeats(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--repeats",
        type=positive,
        default=default,
        help=f"number of runs, of which the median counts [{default}]",
    )


def add_peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peers", action="store_true", help="measure transformers too (needs it and torch)"
    )


def add_normalizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--normalizer",
        "--normaliser",
        choices=["none", "whisper"],
        default="none",
        help="what makes words alike before they are compared; whisper is for English [none]",
    )


def add_json(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--json", action="store_true", help=help)


def numbers(text: str) -> tuple[float, ...]:
    """Returns A,B,... as numbers."""
    try:
        return tuple(float(number) for number in text.split(",")) if text else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None


def counts(text: str) -> tuple[int, ...]:
    """Returns A,B,... as whole numbers above 0."""
    return tuple(positive(number) for number in text.split(",")) if text else ()


def print_reports(reports: Iterable[Any], *, as_json: bool = False) -> int:
    """Prints each report as soon as there is one; returns the exit code."""
    for report in reports:
        print(report.as_json() if as_json else report, flush=True)
    return 0


def complain_of(failed: dict[str, str]) -> int:
    """Reports what could not be read; returns the exit code."""
    for why in failed.values():
        complain(f"not counted: {why}")
    return 1 if failed else 0
