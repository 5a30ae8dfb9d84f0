"""tdt-jax benchmark long | boost | live | serve: what a model makes of recordings."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdt_jax.cli.benchmark_options import (
    add_json,
    add_normalizer,
    add_repeats,
    complain_of,
    counts,
    numbers,
    print_reports,
)
from tdt_jax.cli.options import SOURCE_HELP, positive

if TYPE_CHECKING:
    from tdt_jax.data.utterance import StoredUtterance
    from tdt_jax.recogniser import Recogniser

AddKind = Callable[..., argparse.ArgumentParser]  # of a name, its function and help


def _add_model_and_recordings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, as transcribe takes")
    parser.add_argument("manifest", metavar="MANIFEST", help=SOURCE_HELP)


def _load(options: argparse.Namespace) -> "tuple[Recogniser, list[StoredUtterance]]":
    """Returns MODEL and the utterances of MANIFEST, which are read first: they fail early."""
    from tdt_jax.checkpoints import loading
    from tdt_jax.data.sources import read_source
    from tdt_jax.runtime import process

    items = read_source(options.manifest)
    process.set_up()
    return loading.load(options.model), items


# long


def add_long(add_kind: AddKind) -> None:
    parser = add_kind(
        "long",
        _long,
        "WER of recordings joined into many minutes, after silence or noise, and live, and how "
        "many words change from those of each recording by itself",
    )
    _add_model_and_recordings(parser)
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
        parser.add_argument(name, type=numbers, default=default, metavar="A,B", help=help)
    parser.add_argument(
        "--piece-seconds",
        type=float,
        help="length of the longest piece of audio in seconds [as transcribe has it]",
    )
    add_normalizer(parser)
    add_json(parser, "one JSON object for each line")


def _long(options) -> int:
    from tdt_jax.benchmarks import long_form

    failed: dict[str, str] = {}
    reports = long_form.long_form_reports(
        *_load(options),
        minutes=options.minutes,
        gaps=options.gap,
        leads=options.lead,
        near_silence=options.near_silence,
        rights=options.right,
        piece_seconds=options.piece_seconds,
        normalizer=options.normalizer,
        failed=failed,
    )
    print_reports(reports, as_json=options.json)
    return complain_of(failed)


# boost


def add_boost(add_kind: AddKind) -> None:
    parser = add_kind(
        "boost",
        _boost,
        "precision, recall and F1 of boosted phrases in noise, WER of utterances without them, and "
        "what is emitted where nobody speaks, for some weights",
    )
    _add_model_and_recordings(parser)
    parser.add_argument("phrases", metavar="PHRASES", help="a text file with a phrase on each line")
    for name, default, help in (
        ("--weights", (0.0, 0.5, 1.0, 2.0, 4.0), "weights of all phrases [0,0.5,1,2,4]"),
        ("--snr", (0.0, 10.0), "noise in the utterances, dB below the speech [0,10]"),
    ):
        parser.add_argument(name, type=numbers, default=default, metavar="A,B", help=help)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of audio in which nobody speaks [10]"
    )
    add_normalizer(parser)
    add_json(parser, "one JSON object for each line")


def _boost(options) -> int:
    from tdt_jax.benchmarks.boost import boost_report

    phrases = Path(options.phrases).read_text(encoding="utf-8").splitlines()
    report = boost_report(
        *_load(options),
        [phrase for phrase in phrases if phrase.strip()],
        weights=options.weights,
        snrs=options.snr,
        minutes=options.minutes,
        normalizer=options.normalizer,
    )
    return print_reports([report], as_json=options.json)


# live


def add_live(add_kind: AddKind) -> None:
    parser = add_kind(
        "live",
        _live,
        "WER and delays of live streams: from the end of speech to the final transcript, to the "
        "first text, of words and of labels; or how soon a stream detects the ends of turns, and "
        "how often it is wrong; or which words and times a stream in windows changes",
    )
    _add_model_and_recordings(parser)
    parser.add_argument(
        "--lookahead",
        type=numbers,
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
    add_normalizer(parser)
    add_json(parser, "one JSON object for each row")


def _live(options) -> int:
    from tdt_jax.benchmarks import live, turns, windows
    from tdt_jax.inference.end_of_turn import EndOfTurn

    recogniser, items = _load(options)
    failed: dict[str, str] = {}
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
    print_reports(reports, as_json=options.json)
    return complain_of(failed)


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


def add_serve(add_kind: AddKind) -> None:
    parser = add_kind(
        "serve",
        _serve,
        "delays of live streams of `tdt-jax serve`, played in real time, and its speed with "
        "recordings beside transcribe, on loopback (needs the extra serve)",
    )
    _add_model_and_recordings(parser)
    parser.add_argument(
        "--case",
        metavar="NAME",
        help="serve a causal model of this size instead, 120m or 0.6b, with random weights and "
        "MODEL's tokenizer",
    )
    parser.add_argument(
        "--streams",
        type=counts,
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
    add_repeats(parser, 3)
    add_normalizer(parser)
    add_json(parser, "one JSON object for each row")


def _serve(options) -> int:
    from tdt_jax.benchmarks import serve
    from tdt_jax.checkpoints import loading

    model, (recogniser, items) = options.model, _load(options)
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
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
            print_reports(reports, as_json=options.json)
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
            print_reports([report], as_json=options.json)
    return complain_of(failed)
