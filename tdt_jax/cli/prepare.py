"""tdt-jax prepare: librispeech | manifest | must_c | telephone."""

import argparse
import sys
from pathlib import Path

from tdt_jax.cli.options import complain, is_terminal


def add_prepare(add) -> None:
    """Add the command and what it prepares."""
    command = add(
        "prepare",
        None,
        "speech corpora and manifests into datasets to train on",
        "Write recordings and their texts into a dataset of few large files (ArrayRecord, in the\n"
        "layout of tensorflow-datasets, without TensorFlow) below DATA_DIR. Training and\n"
        "evaluation take a split of it as DATA_DIR:SPLIT.\n\n"
        "Every recording is decoded; one that is damaged, or lacks its text, is named and left\n"
        "out, and the exit code is then 1. What was interrupted goes on when the same command is\n"
        "given again. Needs pip install 'tdt-jax[data]' (telephone does not).",
        "  tdt-jax prepare librispeech LibriSpeech data --subsets dev-clean,train-clean-100\n"
        "  tdt-jax prepare manifest train.jsonl data --split train\n"
        "  tdt-jax prepare must_c en-de data\n"
        "  tdt-jax prepare telephone configs/quickstart.py data",
    )
    kinds = command.add_subparsers(required=True, metavar="WHAT")

    def kind(name: str, run, help: str, source: str):
        parser = kinds.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        parser.set_defaults(run=run, writes_files=lambda options: True)
        parser.add_argument("source", metavar="SOURCE", help=source)
        parser.add_argument("data_dir", metavar="DATA_DIR", help="where the dataset is made")
        parser.add_argument("--no-progress", action="store_true", help="no progress bar")
        return parser

    kind(
        "librispeech",
        _librispeech,
        "LibriSpeech as OpenSLR gives it, folders or .tar.gz archives (which are not unpacked)",
        "the folder that holds LibriSpeech/, or its subsets, or the archives",
    ).add_argument(
        "--subsets", type=_names, metavar="A,B", help="such as dev-clean,train-clean-100 [all]"
    )
    kind(
        "manifest",
        _manifest,
        "a JSONL manifest; FLAC, WAV and Ogg files stay as they are, parts and others as FLAC",
        "lines of audio_filepath, duration, text, and of parts of files offset",
    ).add_argument("--split", required=True, metavar="NAME", help="of the dataset, such as train")
    kind(
        "must_c",
        _must_c,
        "MuST-C, speech translation: the segments of its talks, with their translations as text",
        "the folder of a language pair, such as en-de",
    )
    kind(
        "telephone",
        _telephone,
        "what a configuration of composed telephone speech is tested on: FLAC files, with the "
        "manifests composed.jsonl and phrases.jsonl",
        "a file with get_config(), such as configs/quickstart.py",
    )


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("names no subset")
    return names


def _librispeech(options) -> int:
    from tdt_jax.data.prepared import librispeech

    found = librispeech.find(options.source, options.subsets)
    scans = {split: lambda s=split, p=path: librispeech.scan(s, p) for split, path in found.items()}
    return _prepare(librispeech.LibriSpeech, scans, options, sample_rate=librispeech.SAMPLE_RATE)


def _manifest(options) -> int:
    from tdt_jax.data import manifest
    from tdt_jax.data.prepared import recordings

    if not options.split.isidentifier():
        raise ValueError(f"the split {options.split!r} must be of letters, digits and _")
    entries = manifest.read_manifest(options.source)
    return _prepare(
        recordings.Speech, {options.split: lambda: recordings.scan(options.split, entries)}, options
    )


def _must_c(options) -> int:
    from tdt_jax.data.prepared import must_c

    found = must_c.find(options.source)
    scans = {split: lambda s=split, p=path: must_c.scan(s, p) for split, path in found.items()}
    return _prepare(must_c.MustC, scans, options)


def _telephone(options) -> int:
    from tqdm import tqdm

    from tdt_jax import config
    from tdt_jax.data.manifest import write_manifest
    from tdt_jax.data.telephone.compose import Telephone

    chosen = config.load(options.source)
    if chosen.data.telephone is None:
        raise ValueError(f"{options.source} trains on no telephone speech")
    rate = chosen.model.features.sample_rate
    telephone = Telephone(chosen.data.telephone, sample_rate=rate)
    hidden = options.no_progress or not is_terminal(sys.stderr)
    for name, items in telephone.test_sets().items():
        path = Path(options.data_dir) / f"{name}.jsonl"
        write_manifest(path, tqdm(items, desc=name, disable=hidden), rate)
        seconds = sum(len(item.samples) for item in items) / rate
        print(f"{path}: {len(items)} utterances, {seconds / 60:.1f} min", flush=True)
    return 0


def _prepare(builder, scans, options, **rest) -> int:
    """Prepare one split after the other; `scans` find out what is in each."""
    from tqdm import tqdm

    from tdt_jax.data.prepared.prepare import is_prepared, prepare

    hidden = options.no_progress or not is_terminal(sys.stderr)
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
