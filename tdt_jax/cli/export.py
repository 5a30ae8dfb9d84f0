"""tdt-jax export: a recogniser for programs that are not this package."""

import argparse
from pathlib import Path

from tdt_jax.cli.options import AddCommand, add_model, load, positive

STABLEHLO = {"platforms": ("cpu",), "seconds": (), "rows": ()}  # options of that format, defaults
ONNX = {"consumer": "onnx-asr", "whole": False, "weights": "float32"}
FLAGS = {"consumer": "for", "weights": "int8 or --fp16"}


def add_export(add: AddCommand) -> None:
    command = add(
        "export",
        _export,
        "a recogniser for other programs to run",
        "Write a recogniser as a program from samples to labels, times and durations, with its\n"
        "vocabulary and parameters in one folder. JAX alone runs StableHLO; see\n"
        "examples/run_stablehlo.py. Needs pip install 'tdt-jax[export]'. ONNX, by\n"
        "tdt-jax[onnx], is for onnx-asr or sherpa-onnx, or one graph with --whole.",
        "  tdt-jax export MODEL out --to stablehlo\n"
        "  tdt-jax export MODEL out --to stablehlo --platforms cuda,tpu --seconds 10,30 --rows 16\n"
        "  tdt-jax export MODEL out --to onnx --for sherpa-onnx --int8\n"
        "  tdt-jax export MODEL out --to onnx --whole",
    )
    command.set_defaults(writes_files=lambda options: True)
    add_model(command)
    command.add_argument("target", metavar="OUT", help="a folder that does not exist, or is empty")
    command.add_argument(
        "--to", choices=["stablehlo", "onnx"], required=True, help="format to write"
    )
    command.add_argument(
        "--platforms",
        type=_names,
        default=STABLEHLO["platforms"],
        metavar="A,B",
        help="platforms to export for, of cpu, cuda and tpu [cpu]",
    )
    command.add_argument(
        "--seconds",
        type=_lengths,
        default=(),
        metavar="S,S",
        help="lengths of the audio, a program each [any length on a CPU with attention over all "
        "frames, without --rows; 5,10,20,30 otherwise]",
    )
    command.add_argument(
        "--rows",
        type=_numbers,
        default=(),
        metavar="N,N",
        help="numbers of utterances in a batch of fixed length, a program each; streams have the "
        "first [1,8]",
    )
    command.add_argument(
        "--for",
        dest="consumer",
        choices=["onnx-asr", "sherpa-onnx"],
        default="onnx-asr",
        help="program that loads the ONNX graphs [onnx-asr]",
    )
    command.add_argument(
        "--whole",
        action="store_true",
        help="one ONNX graph from samples to labels instead, for ONNX Runtime and browsers",
    )
    weights = command.add_mutually_exclusive_group()
    weights.add_argument(
        "--int8",
        dest="weights",
        action="store_const",
        const="int8",
        default="float32",
        help="ONNX weights of the encoder's blocks in 8 bits",
    )
    weights.add_argument(
        "--fp16",
        dest="weights",
        action="store_const",
        const="float16",
        help="ONNX weights in 16 bits",
    )


def _export(options: argparse.Namespace) -> int:
    from tdt_jax.exports.exporting import export
    from tdt_jax.exports.folder import check_is_free

    target = Path(options.target)
    check_is_free(target)  # before the model is loaded
    others = ONNX if options.to == "stablehlo" else STABLEHLO
    for name, default in others.items():
        if getattr(options, name) != default:
            raise ValueError(f"--{FLAGS.get(name, name)} is not for --to {options.to}")
    if options.to == "stablehlo":
        format, arguments = "stablehlo", {name: getattr(options, name) for name in STABLEHLO}
    elif not options.whole:
        format, arguments = "onnx", dict(weights=options.weights, consumer=options.consumer)
    elif options.consumer == ONNX["consumer"]:
        format, arguments = "onnx-whole", dict(weights=options.weights)
    else:
        raise ValueError("--whole is for ONNX Runtime itself, not --for another program")
    try:
        files = export(load(options), target, format=format, decoder=options.decoder, **arguments)
    except ImportError as error:
        raise ValueError(str(error)) from None
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {', '.join(files)}; {size / 1e6:.1f} MB")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in _names(text))


def _lengths(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers of seconds") from None
