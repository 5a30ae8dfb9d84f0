"""tdt-jax evaluate, and tdt-jax warmup, which compiles beforehand."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tdt_jax.cli.options import (
    SOURCE_HELP,
    AddCommand,
    add_advice,
    add_batch,
    add_keys,
    add_model,
    add_no_progress,
    advice,
    audio_warnings,
    complain,
    hides_progress,
    load,
    positive,
    progress_bar,
)
from tdt_jax.runtime.streams import printable

if TYPE_CHECKING:
    from tdt_jax.inference.evaluation import Evaluation

    Named = Sequence[tuple[str, Evaluation]]  # each with its source


def add_evaluate(add: AddCommand) -> None:
    command = add(
        "evaluate",
        _evaluate,
        "word error rate on manifests or prepared datasets",
        "Transcribe a JSONL manifest (audio_filepath, duration, text, and offset for a part of a\n"
        "file), a table, a folder of recordings with texts, or a split of a dataset, and report\n"
        "WER with its 95 % confidence interval (bootstrap over utterances), CER, decoder steps\n"
        "per second of audio, and RTFx: seconds of audio per second from files to texts, without\n"
        "compilation, as on the Open ASR Leaderboard. Several manifests are scored each by\n"
        "itself, and then together: by the mean of their rates, which that leaderboard ranks by,\n"
        "and by the rate of all their words.",
        "  tdt-jax evaluate MODEL test.jsonl --normalizer leaderboard --errors\n"
        "  tdt-jax evaluate MODEL test.jsonl --json > result.json\n"
        "  tdt-jax evaluate MODEL data:test_clean data:test_other --lowercase --format markdown",
    )
    add_model(command)
    command.add_argument("sources", nargs="+", metavar="MANIFEST", help=SOURCE_HELP)
    add_batch(command)
    add_advice(command)
    command.add_argument(
        "--normalizer",
        "--normaliser",
        choices=["none", "whisper", "leaderboard"],
        default="none",
        help="what makes words alike before they are compared: none compares texts as they are, "
        "split at spaces; whisper and leaderboard are for English: Whisper's normalizer, and the "
        "Open ASR Leaderboard's present one, with compounds merged as there (white paper is "
        "whitepaper) [none]",
    )
    command.add_argument(
        "--lowercase", action="store_true", help="convert the references to lower case"
    )
    add_keys(command)
    command.add_argument(
        "--bleu", action="store_true", help="report BLEU too, of the texts as they are"
    )
    command.add_argument(
        "--errors",
        nargs="?",
        type=positive,
        default=0,
        const=10,
        metavar="N",
        help="print the N utterances with most wrong words, both texts aligned, and the N most "
        "frequent substitutions, deletions and insertions [10]",
    )
    command.add_argument(
        "--format",
        choices=["text", "json", "markdown"],
        default="text",
        help="a line for each manifest, JSON with every transcript, or a table [text]",
    )
    command.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="format",
        help="the same as --format json",
    )
    add_no_progress(command)


def _evaluate(options: argparse.Namespace) -> int:
    from tdt_jax.data.sources import read_source
    from tdt_jax.inference.evaluation import evaluate
    from tdt_jax.inference.normalizers import make_normalizer

    make_normalizer(options.normalizer)  # an error comes early
    sources = [
        read_source(source, keys=options.keys, lowercase=options.lowercase)
        for source in options.sources
    ]
    told = advice(options)
    total = sum(entry.seconds for entries in sources for entry in entries)
    recogniser = load(options, on_all=True)
    with audio_warnings(), progress_bar(total, hidden=hides_progress(options)) as advance:
        results = [
            evaluate(
                recogniser,
                entries,
                batch_seconds=options.batch_seconds,
                piece_seconds=options.piece_seconds,
                decoder=options.decoder,
                **told,
                normalizer=options.normalizer,
                bleu=options.bleu,
                progress=advance,
            )
            for entries in sources
        ]
    for result in results:
        for why in result.failed.values():
            complain(f"not counted: {why}")
    named = list(zip(options.sources, results, strict=True))
    print(printable(_REPORTS[options.format](named, options.errors)))
    return 1 if any(result.failed for result in results) else 0


def _as_text(named: "Named", num_errors: int) -> str:
    from tdt_jax.inference.error_analysis import errors
    from tdt_jax.inference.evaluation import average

    if len(named) == 1:
        lines = [result.summary() for _, result in named]
    else:
        lines = [f"{source}: {result.summary()}" for source, result in named]
        lines.append(f"all {len(named)}: {average([result for _, result in named]).summary()}")
    for source, result in named if num_errors else ():
        lines.append(f"\n{source}\n\n{errors(result, num_errors)}")
    return "\n".join(lines)


def _as_markdown(named: "Named", num_errors: int) -> str:
    from tdt_jax.inference.error_analysis import errors
    from tdt_jax.inference.evaluation_table import markdown

    parts = [markdown(named)]
    for source, result in named if num_errors else ():
        parts.append(f"{source}\n\n```\n{errors(result, num_errors)}\n```")
    return "\n\n".join(parts)


def _as_json(named: "Named", num_errors: int) -> str:
    from tdt_jax.inference.error_analysis import errors
    from tdt_jax.inference.evaluation import average

    sets = [
        result.as_dict() | ({"errors": errors(result, num_errors).as_dict()} if num_errors else {})
        for _, result in named
    ]
    whole = sets[0]
    if len(named) > 1:
        whole = average([result for _, result in named]).as_dict()
        whole["sets"] = [
            {"source": source} | each for (source, _), each in zip(named, sets, strict=True)
        ]
    return json.dumps(whole, ensure_ascii=False)


_REPORTS = {"text": _as_text, "json": _as_json, "markdown": _as_markdown}


def add_warmup(add: AddCommand) -> None:
    command = add(
        "warmup",
        _warmup,
        "compile beforehand what transcribe needs",
        "Compile every program that transcribe may need with the same options into the cache\n"
        "that all commands share ($JAX_COMPILATION_CACHE_DIR, by default tdt_jax in the user's\n"
        "cache folder), and print the seconds that each takes.",
    )
    command.set_defaults(writes_files=lambda options: True)
    add_model(command)
    add_batch(command)


def _warmup(options: argparse.Namespace) -> int:
    import jax

    from tdt_jax.inference.transcription import warm_up
    from tdt_jax.runtime.process import compile_seconds

    recogniser = load(options, on_all=True)
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if folder is None:
        raise ValueError("there is no folder to keep compiled programs in")
    before = first = compile_seconds()
    for shape in warm_up(
        recogniser,
        batch_seconds=options.batch_seconds,
        piece_seconds=options.piece_seconds,
        decoder=options.decoder,
    ):
        now = compile_seconds()
        print(f"{shape.rows:4d} x {shape.seconds:5.2f} s  {now - before:6.1f} s", flush=True)
        before = now
    print(f"compiled in {before - first:.1f} s; kept in {folder}")
    return 0
