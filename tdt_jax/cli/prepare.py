"""tdt-jax prepare: check | librispeech | manifest | must_c | telephone."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tdt_jax.cli.check import add_check
from tdt_jax.cli.options import (
    SOURCE_HELP,
    AddCommand,
    add_keys,
    add_no_progress,
    complain,
    hides_progress,
)


def add_prepare(add: AddCommand) -> None:
    command = add(
        "prepare",
        None,
        "speech corpora and manifests into datasets to train on",
        "Write recordings and their texts into a dataset of few large files (ArrayRecord, in the\n"
        "layout of tensorflow-datasets, without TensorFlow) below DATA_DIR. Training and\n"
        "evaluation take a split of it as DATA_DIR:SPLIT.\n\n"
        "Every recording is decoded; one that is damaged, or has no text, is reported and left\n"
        "out, and the exit code is then 1. To continue after an interruption, give the same\n"
        "command again. Needs pip install 'tdt-jax[data]' (telephone does not).\n\n"
        "check writes nothing: it says what may spoil a training.",
        "  tdt-jax prepare check train.jsonl --dev dev.jsonl --model MODEL --html worst.html\n"
        "  tdt-jax prepare librispeech LibriSpeech data --subsets dev-clean,train-clean-100\n"
        "  tdt-jax prepare manifest train.jsonl data --split train\n"
        "  tdt-jax prepare manifest cv-corpus/de/train.tsv data --split train\n"
        "  tdt-jax prepare must_c en-de data\n"
        "  tdt-jax prepare telephone configs/quickstart.py data",
    )
    kinds = command.add_subparsers(required=True, metavar="WHAT")

    def add_kind(name: str, run: Callable[..., int], help: str, source: str):
        parser = kinds.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        parser.set_defaults(run=run, writes_files=lambda options: True)
        parser.add_argument("source", metavar="SOURCE", help=source)
        parser.add_argument("data_dir", metavar="DATA_DIR", help="folder of the datasets")
        add_no_progress(parser)
        return parser

    add_check(kinds)
    _add_librispeech(add_kind)
    _add_manifest(add_kind)
    _add_must_c(add_kind)
    _add_telephone(add_kind)


def _add_librispeech(add_kind) -> None:
    add_kind(
        "librispeech",
        _librispeech,
        "LibriSpeech as OpenSLR gives it, folders or .tar.gz archives (which are not unpacked)",
        "the folder that holds LibriSpeech/, or its subsets, or the archives",
    ).add_argument(
        "--subsets",
        type=_names,
        metavar="A,B",
        help="subsets to prepare, such as dev-clean,train-clean-100 [all]",
    )


def _librispeech(options: argparse.Namespace) -> int:
    from tdt_jax.data.prepared import librispeech

    paths = librispeech.find(options.source, options.subsets)
    scans = {split: lambda s=split, p=path: librispeech.scan(s, p) for split, path in paths.items()}
    return _prepare(librispeech.LibriSpeech, scans, options, sample_rate=librispeech.SAMPLE_RATE)


def _add_manifest(add_kind) -> None:
    parser = add_kind(
        "manifest",
        _manifest,
        "recordings with their texts, listed in a JSONL manifest or a table, or in a folder; FLAC, "
        "WAV and Ogg files are copied, parts of files and other formats become FLAC",
        SOURCE_HELP,
    )
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="name of the split to write, such as train"
    )
    add_keys(parser)


def _manifest(options: argparse.Namespace) -> int:
    from tdt_jax.data.prepared import recordings
    from tdt_jax.data.sources import read_source

    if not options.split.isidentifier():
        raise ValueError(f"the split {options.split!r} must be of letters, digits and _")
    items: Any = read_source(options.source, keys=options.keys)
    if any(not hasattr(item, "encoded") for item in items):
        raise ValueError(f"{options.source} is a prepared dataset already")
    scans = {options.split: lambda: recordings.scan(options.split, items)}
    return _prepare(recordings.Speech, scans, options)


def _add_must_c(add_kind) -> None:
    add_kind(
        "must_c",
        _must_c,
        "MuST-C, speech translation: the segments of its talks, with their translations as text",
        "the folder of a language pair, such as en-de",
    )


def _must_c(options: argparse.Namespace) -> int:
    from tdt_jax.data.prepared import must_c

    paths = must_c.find(options.source)
    scans = {split: lambda s=split, p=path: must_c.scan(s, p) for split, path in paths.items()}
    return _prepare(must_c.MustC, scans, options)


def _add_telephone(add_kind) -> None:
    add_kind(
        "telephone",
        _telephone,
        "the test sets of a configuration of composed telephone speech: FLAC files, with the "
        "manifests composed.jsonl and phrases.jsonl",
        "a file with get_config(), such as configs/quickstart.py",
    )


def _telephone(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from tdt_jax import config
    from tdt_jax.data.manifest import write_manifest
    from tdt_jax.data.telephone.compose import Telephone

    chosen = config.load(options.source)
    if chosen.data.telephone is None:
        raise ValueError(f"{options.source} trains on no telephone speech")
    rate = chosen.model.features.sample_rate
    telephone = Telephone(chosen.data.telephone, sample_rate=rate)
    hidden = hides_progress(options)
    for name, items in telephone.test_sets().items():
        path = Path(options.data_dir) / f"{name}.jsonl"
        write_manifest(path, tqdm(items, desc=name, disable=hidden), rate)
        seconds = sum(len(item.samples) for item in items) / rate
        print(f"{path}: {len(items)} utterances, {seconds / 60:.1f} min", flush=True)
    return 0


def _prepare(builder, scans: Mapping[str, Callable], options: argparse.Namespace, **rest) -> int:
    """Prepares one split after the other, and returns the exit code.

    Args:
      builder: of the dataset.
      scans: for each split, a function that returns its recordings.
      options: of the command.
      rest: of `data.prepared.prepare.prepare`.
    """
    from tqdm import tqdm

    from tdt_jax.data.prepared.prepare import is_prepared, prepare

    hidden = hides_progress(options)
    failed = 0
    for split, scan in scans.items():
        was_there = is_prepared(builder, split, options.data_dir)
        source = scan()
        total = sum(recording.size for recording in source.recordings)
        bar = tqdm(total=total, desc=split, unit="B", unit_scale=True, disable=hidden or was_there)
        with bar:
            done = prepare(builder, source, options.data_dir, progress=bar.update, **rest)
        for problem in done.problems:
            complain(f"left out: {problem}")
        failed += len(done.problems)
        left_out = f"; {len(done.problems)} left out" if done.problems else ""
        print(
            f"{split}: {done.num_records} utterances, {done.seconds / 3600:.2f} h, "
            f"{done.num_shards} shards{left_out}{' (was there already)' if was_there else ''}",
            flush=True,
        )
    return 1 if failed else 0


def _names(text: str) -> list[str]:
    """Returns A,B,... as names."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("names no subset")
    return names
