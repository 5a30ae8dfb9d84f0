"""tdt-jax benchmark: what is measured, and with which options."""

import argparse
import functools
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    _add_long(add_kind)
    _add_live(add_kind)
    _add_boost(add_kind)
    _add_serve(add_kind)
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
    _print([report])
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
    _add_aot(parser)
    _add_json(parser, "one JSON object for each case")
    _add_dtype(parser)
    _add_repeats(parser, 5)
    _add_peers(parser)


def _loss(options) -> int:
    from tdt_jax.benchmarks import cases, loss

    chosen = cases.choose(options.case or list(cases.CASES), cases.CASES).values()
    if options.batch:
        chosen = [case._replace(batch=options.batch) for case in chosen]
    if _is_aot(options):
        from tdt_jax.benchmarks import loss_aot

        reports = (
            loss_aot.loss_aot_report(case, dtype=options.dtype, target=options.aot)
            for case in chosen
        )
    else:
        reports = loss.loss_reports(
            list(chosen), dtype=options.dtype, repeats=options.repeats, peers=options.peers
        )
    return _print(reports, as_json=options.json)


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
        type=_numbers,
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
    _add_aot(parser)
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="with --aot, of parameters and computation [bfloat16]",
    )
    _add_json(parser, "one JSON object for each batch, or each share of silence")
    _add_repeats(parser, 5)
    _add_peers(parser)


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
    if _is_aot(options):
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
    return _print(reports, as_json=options.json)


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
    _print([report], as_json=options.json)
    figure = silence.plot(report.rows)[0].figure
    figure.savefig(options.plot, dpi=150)
    return _complain_of(failed)


# long


def _add_long(add_kind) -> None:
    parser = add_kind(
        "long",
        _long,
        "WER of recordings joined into many minutes, after silence or noise, and live, and how "
        "many words change from those of each recording by itself",
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, as transcribe takes")
    parser.add_argument("manifest", metavar="MANIFEST", help="a JSONL file, or FOLDER:SPLIT")
    for name, default, help in (
        ("--minutes", (1.0, 10.0, 60.0), "lengths of joined audio in minutes [1,10,60]"),
        ("--gap", (0.0, 0.5), "seconds of silence between joined recordings [0,0.5]"),
        (
            "--lead",
            (0.5, 1.0, 2.0),
            "seconds of silence or background noise before each recording [0.5,1,2]",
        ),
        ("--near-silence", (2.0,), "seconds of dither, noise and other near silence [2]"),
        (
            "--right",
            (0.8, 1.6),
            "seconds after a chunk that a live stream's encoder sees [0.8,1.6]",
        ),
    ):
        parser.add_argument(name, type=_numbers, default=default, metavar="A,B", help=help)
    parser.add_argument(
        "--piece-seconds",
        type=float,
        help="length of the longest piece of audio in seconds [as transcribe has it]",
    )
    _add_normalizer(parser)
    _add_json(parser, "one JSON object for each line")


def _long(options) -> int:
    from tdt_jax.benchmarks import long_form
    from tdt_jax.checkpoints import loading
    from tdt_jax.data.sources import read_source
    from tdt_jax.runtime import process

    items = read_source(options.manifest)
    process.set_up()
    failed: dict[str, str] = {}
    reports = long_form.long_form_reports(
        loading.load(options.model),
        items,
        minutes=options.minutes,
        gaps=options.gap,
        leads=options.lead,
        near_silence=options.near_silence,
        rights=options.right,
        piece_seconds=options.piece_seconds,
        normalizer=options.normalizer,
        failed=failed,
    )
    _print(reports, as_json=options.json)
    return _complain_of(failed)


# boost


def _add_boost(add_kind) -> None:
    parser = add_kind(
        "boost",
        _boost,
        "precision, recall and F1 of boosted phrases in noise, WER of utterances without them, and "
        "what is emitted where nobody speaks, for some weights",
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, as transcribe takes")
    parser.add_argument("manifest", metavar="MANIFEST", help="a JSONL file, or FOLDER:SPLIT")
    parser.add_argument("phrases", metavar="PHRASES", help="a text file with a phrase on each line")
    for name, default, help in (
        ("--weights", (0.0, 0.5, 1.0, 2.0, 4.0), "weights of all phrases [0,0.5,1,2,4]"),
        ("--snr", (0.0, 10.0), "noise in the utterances, dB below the speech [0,10]"),
    ):
        parser.add_argument(name, type=_numbers, default=default, metavar="A,B", help=help)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of audio in which nobody speaks [10]"
    )
    _add_normalizer(parser)
    _add_json(parser, "one JSON object for each line")


def _boost(options) -> int:
    from tdt_jax.benchmarks.boost import boost_report
    from tdt_jax.checkpoints import loading
    from tdt_jax.data.sources import read_source
    from tdt_jax.runtime import process

    phrases = Path(options.phrases).read_text(encoding="utf-8").splitlines()
    process.set_up()
    report = boost_report(
        loading.load(options.model),
        read_source(options.manifest),
        [phrase for phrase in phrases if phrase.strip()],
        weights=options.weights,
        snrs=options.snr,
        minutes=options.minutes,
        normalizer=options.normalizer,
    )
    _print([report], as_json=options.json)
    return 0


# live


def _add_live(add_kind) -> None:
    parser = add_kind(
        "live",
        _live,
        "WER and delays of live streams: from the end of speech to the final transcript, to the "
        "first text, of words and of labels; or how soon a stream detects the ends of turns, and "
        "how often it is wrong; or which words and times a stream in windows changes",
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, as transcribe takes")
    parser.add_argument("manifest", metavar="MANIFEST", help="a JSONL file, or FOLDER:SPLIT")
    parser.add_argument(
        "--lookahead",
        type=_numbers,
        default=(),
        metavar="A,B",
        help="look-aheads of a causal model in seconds [all that it has]",
    )
    parser.add_argument(
        "--stop-secs",
        type=float,
        default=0.2,
        metavar="S",
        help="seconds from the end of speech to the call of finish_turn(), which a detector of "
        "voice activity waits for; without effect beside --end-of-turn [0.2]",
    )
    parser.add_argument(
        "--streams", type=positive, default=1, help="number of streams at the same time [1]"
    )
    parser.add_argument(
        "--end-of-turn",
        type=_rules,
        metavar="S,S",
        help="join the recordings with pauses, and detect the ends of turns after S seconds of "
        "silence, or S:SHORTEST [SHORTEST: half of S]",
    )
    parser.add_argument(
        "--windows",
        type=_windows,
        metavar="L:C:R,L:C:R",
        help="stream in windows of LEFT:CHUNK:RIGHT seconds, and compare words and times with "
        "those of the whole recordings",
    )
    parser.add_argument(
        "--cuts",
        type=positive,
        default=1000,
        metavar="N",
        help="with --windows, the number of positions at which recordings are cut into chunks "
        "[1000]",
    )
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="take as long as the audio does [the clock is simulated]",
    )
    _add_normalizer(parser)
    _add_json(parser, "one JSON object for each row")


def _live(options) -> int:
    from tdt_jax.benchmarks import live, turns, windows
    from tdt_jax.checkpoints import loading
    from tdt_jax.data.sources import read_source
    from tdt_jax.inference.end_of_turn import EndOfTurn
    from tdt_jax.runtime import process

    items = read_source(options.manifest)
    process.set_up()
    failed: dict[str, str] = {}
    recogniser = loading.load(options.model)
    common: dict[str, Any] = dict(
        lookaheads=options.lookahead, real_time=options.real_time, failed=failed
    )
    if options.windows:
        if options.end_of_turn or options.lookahead or options.streams > 1 or options.real_time:
            raise ValueError(
                "--windows measures one stream of a model that is not causal: it does not go with "
                "--lookahead, --streams, --end-of-turn or --real-time"
            )
        sizes = [windows.Sizes(*each) for each in options.windows]
        reports = windows.window_reports(
            recogniser, items, windows=sizes, cuts=options.cuts, failed=failed
        )
    elif options.end_of_turn:
        if options.streams > 1:
            raise ValueError("--end-of-turn measures one stream: it does not go with --streams")
        rules = [EndOfTurn(*pair) for pair in options.end_of_turn]
        reports = turns.turn_reports(recogniser, items, rules=rules, **common)
    else:
        reports = live.live_reports(
            recogniser,
            items,
            stop_secs=options.stop_secs,
            num_streams=options.streams,
            normalizer=options.normalizer,
            **common,
        )
    _print(reports, as_json=options.json)
    return _complain_of(failed)


def _rules(text: str) -> list[tuple[float, float]]:
    """Returns S,S:SHORTEST,... as pairs of numbers."""
    try:
        pairs = [part.partition(":")[::2] for part in text.split(",")]
        return [(float(s), float(shortest) if shortest else float(s) / 2) for s, shortest in pairs]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of S or S:SHORTEST") from None


def _windows(text: str) -> list[tuple[float, float, float]]:
    """Returns L:C:R,... as triples of numbers."""
    try:
        triples = [tuple(map(float, part.split(":"))) for part in text.split(",")]
        return [(left, chunk, right) for left, chunk, right in triples]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of LEFT:CHUNK:RIGHT") from None


# serve


def _add_serve(add_kind) -> None:
    parser = add_kind(
        "serve",
        _serve,
        "delays of live streams of `tdt-jax serve`, played in real time, and its speed with "
        "recordings beside transcribe, on loopback (needs the extra serve)",
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, as serve takes")
    parser.add_argument("manifest", metavar="MANIFEST", help="a JSONL file, or FOLDER:SPLIT")
    parser.add_argument(
        "--case",
        metavar="NAME",
        help="serve a causal model of this size instead, 120m or 0.6b, with random weights and "
        "MODEL's tokenizer",
    )
    parser.add_argument(
        "--streams",
        type=_counts,
        default=(1, 8, 32),
        metavar="A,B",
        help="numbers of live streams; an empty text for none [1,8,32]",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="how long each number of streams is measured [60]",
    )
    parser.add_argument(
        "--lookahead", type=float, metavar="S", help="of a causal model in seconds [its first]"
    )
    parser.add_argument(
        "--stop-secs",
        type=float,
        default=0.2,
        metavar="S",
        help="seconds from the end of speech to the request for the final transcript, which a "
        "detector of voice activity waits for [0.2]",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=0.5,
        metavar="S",
        help="seconds from that request within which 95 %% of the final transcripts come if a "
        "server keeps up [0.5]",
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=200,
        metavar="N",
        help="number of recordings that are posted; 0 for none [200]",
    )
    parser.add_argument(
        "--clients", type=positive, default=32, help="how many recordings at a time [32]"
    )
    _add_repeats(parser, 3)
    _add_normalizer(parser)
    _add_json(parser, "one JSON object for each row")


def _serve(options) -> int:
    from tdt_jax.benchmarks import serve
    from tdt_jax.checkpoints import loading
    from tdt_jax.data.sources import read_source
    from tdt_jax.runtime import process

    items = read_source(options.manifest)
    process.set_up()
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        model, recogniser = options.model, loading.load(options.model)
        if options.case:
            recogniser = serve.random_recogniser(options.case, recogniser, items)
            model = f"{folder}/{options.case}"
            loading.save(recogniser, model)
        if options.streams:
            reports = serve.live_reports(
                model,
                items,
                streams=options.streams,
                sample_rate=recogniser.config.features.sample_rate,
                seconds=options.seconds,
                stop_secs=options.stop_secs,
                limit=options.limit,
                lookahead=options.lookahead,
                normalizer=options.normalizer,
                failed=failed,
            )
            _print(reports, as_json=options.json)
        if options.requests > 0:
            report = serve.batch_report(
                model,
                recogniser,
                items[: options.requests],
                requests=options.requests,
                clients=options.clients,
                repeats=options.repeats,
                failed=failed,
            )
            _print([report], as_json=options.json)
    return _complain_of(failed)


# encoder


def _add_encoder(add_kind) -> None:
    parser = add_kind(
        "encoder",
        _encoder,
        "speed and memory of a Parakeet's encoder with random weights, beside the rate of its "
        "largest matrix product",
    )
    _add_models(parser)
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
    _add_aot(parser)
    _add_json(parser, "one JSON object for each size and method")
    _add_dtype(parser)
    _add_repeats(parser, 5)
    _add_peers(parser)


def _encoder(options) -> int:
    from tdt_jax.benchmarks import encoder, encoder_aot

    names = options.case or ["0.6b"]
    sizes = dict(
        seconds=options.seconds,
        batch=options.batch,
        dtype=options.dtype,
        attention_context=options.local_attention,
    )
    if _is_aot(options):
        reports = encoder_aot.encoder_aot_reports(names, **sizes, target=options.aot)
    else:
        reports = encoder.encoder_reports(
            names, **sizes, repeats=options.repeats, peers=options.peers
        )
    return _print(reports, as_json=options.json)


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
    _add_aot(parser)
    _add_json(parser, "one JSON object for each line")
    _add_dtype(parser)
    _add_repeats(parser, 50)
    _add_peers(parser)


def _chunk(options) -> int:
    from tdt_jax.benchmarks import chunk, chunk_aot

    names, batches, rights = options.case or ["120m"], options.batch or [1], options.right or [0]
    if _is_aot(options):
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
    return _print(reports, as_json=options.json)


# parity


def _add_parity(add_kind) -> None:
    parser = add_kind(
        "parity",
        _parity,
        "differences between a Parakeet of transformers' with random weights and the same one "
        "loaded here, stage by stage and label by label (needs torch and transformers)",
    )
    _add_models(parser)
    parser.add_argument(
        "--utterances", type=positive, default=200, help="number of utterances to decode [200]"
    )


def _parity(options) -> int:
    from tdt_jax.benchmarks import cases, parity, peers

    peers.require_peers()
    chosen = cases.choose(options.case or ["0.6b"], cases.MODELS)
    return _print(
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
    _add_overrides(parser)
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
    _add_json(parser, "one JSON object for each number of threads")


def _data(options) -> int:
    from tdt_jax import config
    from tdt_jax.benchmarks import data

    chosen = config.override(config.load(options.config), *options.overrides)
    threads = options.threads or (1, 2, 4)
    reports = data.data_reports(chosen, threads=threads, seconds=options.seconds)
    return _print(reports, as_json=options.json)


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
    _add_overrides(parser)
    parser.add_argument(
        "--batch",
        metavar="SECONDS,TOKENS,ROWS",
        help="shape of the batch on each device [15,60,4 for a --case]",
    )
    _add_repeats(parser, 3)


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
    return _print(
        train_step.train_report(
            name, config.override(one, *options.overrides), shape, repeats=options.repeats
        )
        for name, (one, shape) in chosen.items()
    )


# Options and output of several


def _add_models(parser) -> None:
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="110m, 0.6b, 0.6b-v2, 1.1b or rnnt-0.6b; may repeat [0.6b]",
    )


def _add_aot(parser) -> None:
    parser.add_argument(
        "--aot",
        metavar="TARGET",
        help="run nothing, but compile for h100, or for a TPU's topology such as v5e:2x2, and "
        "print what the compiler estimates",
    )


def _is_aot(options) -> bool:
    if options.aot and options.peers:
        raise ValueError("--aot runs nothing: it does not go with --peers")
    return bool(options.aot)


def _add_dtype(parser) -> None:
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of parameters and computation [float32]",
    )


def _add_overrides(parser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        dest="overrides",
        help="change a field of the configuration; may repeat",
    )


def _add_repeats(parser, default: int) -> None:
    parser.add_argument(
        "--repeats",
        type=positive,
        default=default,
        help=f"number of runs, of which the median counts [{default}]",
    )


def _add_peers(parser) -> None:
    parser.add_argument(
        "--peers", action="store_true", help="measure transformers too (needs it and torch)"
    )


def _add_normalizer(parser) -> None:
    parser.add_argument(
        "--normalizer",
        "--normaliser",
        choices=["none", "whisper"],
        default="none",
        help="what makes words alike before they are compared; whisper is for English [none]",
    )


def _add_json(parser, help: str) -> None:
    parser.add_argument("--json", action="store_true", help=help)


def _numbers(text: str) -> tuple[float, ...]:
    """Returns A,B,... as numbers."""
    try:
        return tuple(float(number) for number in text.split(",")) if text else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None


def _counts(text: str) -> tuple[int, ...]:
    """Returns A,B,... as whole numbers above 0."""
    return tuple(positive(number) for number in text.split(",")) if text else ()


def _print(reports, *, as_json: bool = False) -> int:
    """Prints each report as soon as there is one; returns the exit code."""
    for report in reports:
        print(report.as_json() if as_json else report, flush=True)
    return 0


def _complain_of(failed: dict[str, str]) -> int:
    """Reports what could not be read; returns the exit code."""
    for why in failed.values():
        complain(f"not counted: {why}")
    return 1 if failed else 0
