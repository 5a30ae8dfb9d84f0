"""tdt-jax benchmark: loss | decode | long | encoder | parity | data | train."""

import argparse
import functools

from tdt_jax.cli import benchmark_runs as run
from tdt_jax.cli.options import context, positive


def add_benchmark(add) -> None:
    """Add the command and what it measures."""
    command = add(
        "benchmark",
        None,
        "speed and memory, measured here",
        "Measure on this machine. Figures of one call compare with each other, with nothing else.",
    )
    kinds = command.add_subparsers(required=True, metavar="WHAT")

    def kind(name: str, function, help: str):
        parser = kinds.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        parser.set_defaults(run=functools.partial(_on_devices, function))
        return parser

    loss = kind(
        "loss",
        run.loss,
        "the transducer loss, forward and backward, from frames and states to the gradients of "
        "joint, frames and states, against the time that its matrix products take alone",
    )
    loss.add_argument(
        "--case", action="append", metavar="NAME", help="small, v2, v3 or long; may repeat [all]"
    )
    loss.add_argument("--batch", type=positive, help="another B than the case's")
    loss.add_argument(
        "--aot", metavar="TOPOLOGY", help="no run: what a TPU's compiler estimates, for v5e:2x2"
    )
    loss.add_argument("--json", action="store_true", help="one JSON object a case")

    decode = kind(
        "decode",
        run.decode,
        "a TDT beside an RNN-T on the same audio, as it is and with silence inserted: WER, decoder "
        "steps, seconds, ratios and a plot; without arguments a Parakeet's decoder with random "
        "weights, against the time that reading its weights takes",
    )
    decode.add_argument("tdt", nargs="?", metavar="TDT", help="a checkpoint, as transcribe takes")
    decode.add_argument("rnnt", nargs="?", metavar="RNNT", help="another")
    decode.add_argument("manifest", nargs="?", metavar="MANIFEST", help="JSONL, of the audio")
    decode.add_argument(
        "--silence",
        type=_numbers,
        default=(0.0, 0.25, 0.5, 0.75),
        metavar="SHARES",
        help="of the audio that are inserted silence [0,0.25,0.5,0.75]",
    )
    decode.add_argument("--plot", default="decode.png", metavar="FILE", help="[decode.png]")
    decode.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="0.6b, 0.6b-v2 or rnnt-0.6b; may repeat [all]",
    )
    decode.add_argument("--seconds", type=float, default=60.0, help="of audio, random weights [60]")
    decode.add_argument(
        "--batch", type=positive, action="append", help="utterances; may repeat [1, or 1, 4, 32]"
    )
    decode.add_argument("--json", action="store_true", help="of two checkpoints: an object a row")

    long = kind(
        "long",
        run.long,
        "whether a model hears the same in long audio: recordings one by one, joined into many "
        "minutes, after silence or noise, and live: WER, and what has changed",
    )
    long.add_argument("model", metavar="MODEL", help="a checkpoint, as transcribe takes")
    long.add_argument("manifest", metavar="MANIFEST", help="JSONL, or FOLDER:SPLIT")
    for name, default, help in (
        ("--minutes", (1.0, 10.0, 60.0), "of joined audio [1,10,60]"),
        ("--gap", (0.0, 0.5), "seconds of silence between joined recordings [0,0.5]"),
        ("--lead", (0.5, 1.0, 2.0), "seconds before each recording [0.5,1,2]"),
        ("--near-silence", (2.0,), "seconds of dither, noise and other near silence [2]"),
        ("--right", (0.8, 1.6), "seconds that a live stream hears ahead [0.8,1.6]"),
    ):
        long.add_argument(name, type=_numbers, default=default, metavar="A,B", help=help)
    long.add_argument("--piece-seconds", type=float, help="the longest piece that is cut")
    long.add_argument("--normaliser", choices=["none", "whisper"], default="none")
    long.add_argument("--json", action="store_true", help="one JSON object a row")

    encoder = kind(
        "encoder", run.encoder, "the encoder of a Parakeet's size, of random weights, likewise"
    )
    _add_cases(encoder)
    encoder.add_argument("--seconds", type=float, default=30.0, help="of audio [30]")
    encoder.add_argument("--batch", type=positive, default=1, help="utterances [1]")
    encoder.add_argument(
        "--local-attention", type=context, metavar="LEFT,RIGHT", help="frames seen"
    )
    for parser in (loss, encoder):
        parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")

    parity = kind(
        "parity",
        run.parity,
        "a Parakeet of transformers' with random weights, saved, loaded here and compared stage by "
        "stage and label by label (needs torch and transformers)",
    )
    _add_cases(parity)
    parity.add_argument("--utterances", type=positive, default=200, help="that are decoded [200]")

    data = kind(
        "data",
        run.data,
        "the reading, decoding and augmenting of a configuration's training batches alone, by the "
        "number of threads: seconds of audio per second",
    )
    data.add_argument("--config", required=True, help="a file with get_config()")
    data.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", dest="overrides", help="a field"
    )
    data.add_argument(
        "--threads", type=positive, action="append", metavar="N", help="may repeat [1, 2, 4]"
    )
    data.add_argument("--seconds", type=float, default=10.0, help="that each is measured [10]")
    data.add_argument("--json", action="store_true", help="one JSON object a row")

    train = kind(
        "train",
        run.train,
        "a training step on noise, its arrays already on the devices: seconds of audio per second, "
        "the share of the products' own rate, and what its time goes into",
    )
    train.add_argument(
        "--case", action="append", metavar="NAME", help="a preset: small, medium, ...; may repeat"
    )
    train.add_argument("--config", help="a file with get_config() instead, with its last bucket")
    train.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", dest="overrides", help="a field"
    )
    train.add_argument(
        "--batch", metavar="SECONDS,TOKENS,ROWS", help="on each device; of a preset [15,60,4]"
    )
    train.add_argument("--repeats", type=positive, default=3, help="of which the median [3]")
    for parser in (loss, decode, encoder):
        parser.add_argument("--repeats", type=positive, default=5, help="of which the median [5]")
        parser.add_argument(
            "--peers", action="store_true", help="beside transformers, if it is installed"
        )


def _on_devices(function, options) -> int:
    from tdt_jax.runtime import process

    process.require_devices()
    return function(options)


def _add_cases(parser) -> None:
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="110m, 0.6b, 0.6b-v2, 1.1b or rnnt-0.6b; may repeat [0.6b]",
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(",")) if text else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None
