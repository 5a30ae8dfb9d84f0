"""tdt-jax benchmark: what is measured, and with which options."""

import argparse
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

from tdt_jax.cli.benchmark_options import (
    add_aot,
    add_dtype,
    add_json,
    add_models,
    add_overrides,
    add_peers,
    add_repeats,
    complain_of,
    is_aot,
    numbers,
    print_reports,
)
from tdt_jax.cli.benchmark_recordings import add_boost, add_live, add_long, add_serve
from tdt_jax.cli.options import AddCommand, complain, context, positive


def add_benchmark(add: AddCommand) -> None:
    command = add(
        "benchmark",
        None,
        "speed and memory on this machine",
        "Measure on this machine. Compare the figures of one call with each other, and with\n"
        "nothing else.",
    )
    kinds = command.add_subparsers(required=True, metavar="WHAT")

    def add_kind(
        name: str, run: Callable[..., int], help: str, *, needs_devices: bool = True
    ) -> argparse.ArgumentParser:
        parser = kinds.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        parser.set_defaults(run=functools.partial(_with_devices, run) if needs_devices else run)
        return parser

    _add_device(add_kind)
    _add_loss(add_kind)
    _add_decode(add_kind)
    add_long(add_kind)
    add_live(add_kind)
    add_boost(add_kind)
    add_serve(add_kind)
    _add_encoder(add_kind)
    _add_chunk(add_kind)
    _add_parity(add_kind)
    _add_data(add_kind)
    _add_train(add_kind)


def _with_devices(run: Callable[..., int], options) -> int:
    from tdt_jax.runtime import process

    process.require_devices()
    return run(options)


# device


def _add_device(add_kind) -> None:
    parser = add_kind(
        "device",
        _device,
        "the first ten minutes on an accelerator: whether its results are those of the CPU, and "
        "the speed of decoder, loss, encoder, whole path and training step, as a table to send",
        needs_devices=False,  # each stage is a process that has them for itself
    )
    parser.add_argument(
        "--out",
        default="device_figures",
        metavar="FOLDER",
        help="where rows.jsonl and table.md go; an earlier run there is continued [device_figures]",
    )
    parser.add_argument(
        "--stage", action="append", metavar="NAME", help="measure this stage; may repeat [all]"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="stop after so many; the same command continues [10]",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="small shapes, to try the command on a CPU"
    )


def _device(options) -> int:
    from tdt_jax.benchmarks import device

    report = device.run_stages(
        options.out, stages=options.stage or (), seconds=60 * options.minutes, tiny=options.tiny
    )
    print_reports([report])
    ends = [row for row in report.rows if row["case"] == device.END]
    incomplete = {row["stage"]: row["how"] for row in ends if row["how"] != device.COMPLETED}
    for stage, how in incomplete.items():
        complain(f"{stage}: {how}")
    return 1 if incomplete else 0


# loss


def _add_loss(add_kind) -> None:
    parser = add_kind(
        "loss",
        _loss,
        "speed and memory of the transducer loss and its gradients in joint network, frames and "
        "states, beside the time that its matrix products take alone",
    )
    parser.add_argument(
        "--case", action="append", metavar="NAME", help="small, v2, v3 or long; may repeat [all]"
    )
    parser.add_argument(
        "--batch", type=positive, help="number of utterances [as many as the case has]"
    )
    add_aot(parser)
    add_json(parser, "one JSON object for each case")
    add_dtype(parser)
    add_repeats(parser, 5)
    add_peers(parser)


def _loss(options) -> int:
    from tdt_jax.benchmarks import cases, loss

    chosen = cases.choose(options.case or list(cases.CASES), cases.CASES).values()
    if options.batch:
        chosen = [case._replace(batch=options.batch) for case in chosen]
    if is_aot(options):
        from tdt_jax.benchmarks import loss_aot

        reports = (
            loss_aot.loss_aot_report(case, dtype=options.dtype, target=options.aot)
            for case in chosen
        )
    else:
        reports = loss.loss_reports(
            list(chosen), dtype=options.dtype, repeats=options.repeats, peers=options.peers
        )
    return print_reports(reports, as_json=options.json)


# decode


def _add_decode(add_kind) -> None:
    parser = add_kind(
        "decode",
        _decode,
        "decoder steps, speed and WER of a TDT beside an RNN-T on the same audio, as it is and "
        "with silence inserted, and a plot of them; without arguments, speed of a Parakeet's "
        "decoder with random weights, beside the time that reading its weights takes",
    )
    parser.add_argument("tdt", nargs="?", metavar="TDT", help="a checkpoint, as transcribe takes")
    parser.add_argument("rnnt", nargs="?", metavar="RNNT", help="another, of an RNN-T")
    parser.add_argument(
        "manifest", nargs="?", metavar="MANIFEST", help="a JSONL file, or FOLDER:SPLIT"
    )
    parser.add_argument(
        "--silence",
        type=numbers,
        default=(0.0, 0.25, 0.5, 0.75),
        metavar="SHARES",
        help="shares of the audio that are inserted silence [0,0.25,0.5,0.75]",
    )
    parser.add_argument(
        "--plot", default="decode.png", metavar="FILE", help="where the plot goes [decode.png]"
    )
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="size of the random weights: 0.6b, 0.6b-v2 or rnnt-0.6b; may repeat [all]",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="with random weights, length of an utterance in seconds [60]",
    )
    parser.add_argument(
        "--batch",
        type=positive,
        action="append",
        help="number of utterances; may repeat with random weights [1, or 1, 4 and 32]",
    )
    add_aot(parser)
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="with --aot, of parameters and computation [bfloat16]",
    )
    add_json(parser, "one JSON object for each batch, or each share of silence")
    add_repeats(parser, 5)
    add_peers(parser)


def _decode(options) -> int:
    from tdt_jax.benchmarks import decoder, decoder_aot

    if options.tdt is not None:
        if options.manifest is None:
            raise ValueError("benchmark decode takes TDT RNNT MANIFEST, or none of them")
        if options.case or options.peers or options.aot or len(options.batch or []) > 1:
            raise ValueError(
                "two checkpoints go with neither --case nor --peers nor --aot, and with one --batch"
            )
        return _compare(options)
    names = options.case or ["0.6b", "0.6b-v2", "rnnt-0.6b"]
    batches = options.batch or (1, 4, 32)
    if is_aot(options):
        reports = decoder_aot.decoder_aot_reports(
            names,
            batches=batches,
            seconds=options.seconds,
            dtype=options.dtype or "bfloat16",
            target=options.aot,
        )
    elif options.dtype:
        raise ValueError("--dtype is an option of --aot: the decoder is measured in float32")
    else:
        reports = decoder.decoder_reports(
            names,
            batches=batches,
            seconds=options.seconds,
            repeats=options.repeats,
            peers=options.peers,
        )
    return print_reports(reports, as_json=options.json)


def _compare(options) -> int:
    from tdt_jax.benchmarks import silence
    from tdt_jax.checkpoints import loading
    from tdt_jax.data.sources import read_source
    from tdt_jax.runtime import process

    items = read_source(options.manifest)
    process.set_up()
    failed: dict[str, str] = {}
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the plot needs matplotlib: pip install 'tdt-jax[notebook]'")
    if not Path(options.plot).absolute().parent.is_dir():
        raise ValueError(f"there is no folder for --plot {options.plot}")
    report = silence.compare(
        loading.load(options.tdt),
        loading.load(options.rnnt),
        items,
        shares=options.silence,
        batch_size=(options.batch or [1])[0],
        repeats=options.repeats,
        failed=failed,
    )
    print_reports([report], as_json=options.json)
    figure = silence.plot(report.rows)[0].figure
    figure.savefig(options.plot, dpi=150)
    return complain_of(failed)


# encoder


def _add_encoder(add_kind) -> None:
    parser = add_kind(
        "encoder",
        _encoder,
        "speed and memory of a Parakeet's encoder with random weights, beside the rate of its "
        "largest matrix product",
    )
    add_models(parser)
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="length of the audio in seconds [30]"
    )
    parser.add_argument("--batch", type=positive, default=1, help="number of utterances [1]")
    parser.add_argument(
        "--local-attention",
        type=context,
        metavar="LEFT,RIGHT",
        help="frames (80 ms) that attention sees on either side [all]",
    )
    add_aot(parser)
    add_json(parser, "one JSON object for each size and method")
    add_dtype(parser)
    add_repeats(parser, 5)
    add_peers(parser)


def _encoder(options) -> int:
    from tdt_jax.benchmarks import encoder, encoder_aot

    names = options.case or ["0.6b"]
    sizes = dict(
        seconds=options.seconds,
        batch=options.batch,
        dtype=options.dtype,
        attention_context=options.local_attention,
    )
    if is_aot(options):
        reports = encoder_aot.encoder_aot_reports(names, **sizes, target=options.aot)
    else:
        reports = encoder.encoder_reports(
            names, **sizes, repeats=options.repeats, peers=options.peers
        )
    return print_reports(reports, as_json=options.json)


# chunk


def _add_chunk(add_kind) -> None:
    parser = add_kind(
        "chunk",
        _chunk,
        "time of a streaming step, which is features, encoder and decoder of the next chunk of "
        "each stream, of a cache-aware RNN-T with random weights",
    )
    parser.add_argument(
        "--case", action="append", metavar="NAME", help="120m or 0.6b; may repeat [120m]"
    )
    parser.add_argument(
        "--batch", type=positive, action="append", help="number of streams; may repeat [1]"
    )
    parser.add_argument(
        "--right",
        type=int,
        action="append",
        metavar="FRAMES",
        help="frames (80 ms) of look-ahead: 0, 1, 6 or 13, in chunks of one more; may repeat [0]",
    )
    add_aot(parser)
    add_json(parser, "one JSON object for each line")
    add_dtype(parser)
    add_repeats(parser, 50)
    add_peers(parser)


def _chunk(options) -> int:
    from tdt_jax.benchmarks import chunk, chunk_aot

    names, batches, rights = options.case or ["120m"], options.batch or [1], options.right or [0]
    if is_aot(options):
        reports = chunk_aot.chunk_aot_reports(
            names, batches=batches, rights=rights, dtype=options.dtype, target=options.aot
        )
    else:
        reports = chunk.chunk_reports(
            names,
            batches=batches,
            rights=rights,
            dtype=options.dtype,
            repeats=options.repeats,
            peers=options.peers,
        )
    return print_reports(reports, as_json=options.json)


# parity


def _add_parity(add_kind) -> None:
    parser = add_kind(
        "parity",
        _parity,
        "differences between a Parakeet of transformers' with random weights and the same one "
        "loaded here, stage by stage and label by label (needs torch and transformers)",
    )
    add_models(parser)
    parser.add_argument(
        "--utterances", type=positive, default=200, help="number of utterances to decode [200]"
    )


def _parity(options) -> int:
    from tdt_jax.benchmarks import cases, parity, peers

    peers.require_peers()
    chosen = cases.choose(options.case or ["0.6b"], cases.MODELS)
    return print_reports(
        parity.parity_report(name, config, num_utterances=options.utterances)
        for name, config in chosen.items()
    )


# data


def _add_data(add_kind) -> None:
    parser = add_kind(
        "data",
        _data,
        "speed at which the training batches of a configuration are read, decoded and augmented, "
        "by the number of threads",
    )
    parser.add_argument("--config", required=True, help="a file with get_config()")
    add_overrides(parser)
    parser.add_argument(
        "--threads",
        type=positive,
        action="append",
        metavar="N",
        help="number of threads; may repeat [1, 2 and 4]",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="how long each number of threads is measured [10]",
    )
    add_json(parser, "one JSON object for each number of threads")


def _data(options) -> int:
    from tdt_jax import config
    from tdt_jax.benchmarks import data

    chosen = config.override(config.load(options.config), *options.overrides)
    threads = options.threads or (1, 2, 4)
    reports = data.data_reports(chosen, threads=threads, seconds=options.seconds)
    return print_reports(reports, as_json=options.json)


# train


def _add_train(add_kind) -> None:
    parser = add_kind(
        "train",
        _train,
        "speed of a training step on noise, beside the rate of matrix products alone, and the "
        "parts of the step that take the time",
    )
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="micro, tiny, small, medium, large or xlarge; may repeat [small and medium]",
    )
    parser.add_argument(
        "--config", help="a file with get_config(), with batches of its last bucket's shape"
    )
    add_overrides(parser)
    parser.add_argument(
        "--batch",
        metavar="SECONDS,TOKENS,ROWS",
        help="shape of the batch on each device [15,60,4 for a --case]",
    )
    add_repeats(parser, 3)


def _train(options) -> int:
    from tdt_jax import config
    from tdt_jax.benchmarks import cases, train_step

    shape = cases.parse_shape(options.batch)
    names = options.case or ([] if options.config else ["small", "medium"])
    chosen: dict[str, tuple[config.Config, cases.Shape | None]] = {
        name: (config.Config(model=model), shape or train_step.SHAPE)
        for name, model in cases.choose(names, cases.PRESETS).items()
    }
    if options.config:
        chosen[options.config] = config.load(options.config), shape
    return print_reports(
        train_step.train_report(
            name, config.override(one, *options.overrides), shape, repeats=options.repeats
        )
        for name, (one, shape) in chosen.items()
    )
