"""tdt-jax prepare check: what may spoil a training, before it starts."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tdt_jax.cli.options import (
    MODEL_HELP,
    SOURCE_HELP,
    add_keys,
    add_no_progress,
    audio_warnings,
    hides_progress,
    positive,
    progress_bar,
)
from tdt_jax.runtime.streams import printable

if TYPE_CHECKING:
    from tdt_jax.cli.check_page import Pair
    from tdt_jax.data.utterance import StoredUtterance
    from tdt_jax.recogniser import Recogniser

MAX_EXAMPLES = 5  # of a finding that are printed
NUM_SAMPLED = 32  # utterances that are transcribed to see how the model writes
MAX_ROUNDING = 0.2  # a difference of style that is none
LONGEST_SHOWN = 30.0  # seconds of an utterance on the page


def add_check(kinds: Any) -> None:
    command = kinds.add_parser(
        "check",
        help="what may spoil a training: files, texts, leakage, improbable pairs",
        description="Report how much speech there is, files that are missing or no audio, texts "
        "with characters that the model cannot write or in another style than its own, "
        "development utterances that are in training, and improbable lengths. With a model, also "
        "the loss per label of every pair, and the worst of them to listen to. The exit code is 1 "
        "if something would spoil a training.",
    )
    command.set_defaults(run=_check, writes_files=lambda options: options.html is not None)
    command.add_argument("sources", nargs="+", metavar="SOURCE", help=SOURCE_HELP)
    command.add_argument(
        "--dev", nargs="+", default=[], metavar="SOURCE", help="sources of the development set"
    )
    command.add_argument("--model", metavar="MODEL", help=f"what is trained further: {MODEL_HELP}")
    command.add_argument(
        "--worst",
        type=positive,
        default=50,
        metavar="N",
        help="with --model: how many pairs of the largest loss per label to show [50]",
    )
    command.add_argument(
        "--html", metavar="FILE", help="with --model: a page to listen to the worst pairs"
    )
    command.add_argument("--lowercase", action="store_true", help="convert texts to lower case")
    add_keys(command)
    add_no_progress(command)


def _check(options: argparse.Namespace) -> int:
    from tdt_jax.data.buckets import num_frames
    from tdt_jax.data.checking import check, totals
    from tdt_jax.data.selection import label_limit
    from tdt_jax.data.sources import measured, read_source

    if options.html and not options.model:
        raise ValueError("--html needs --model, whose losses it shows")
    recogniser = _load(options.model) if options.model else None

    def read(names):
        each = [read_source(n, keys=options.keys, lowercase=options.lowercase) for n in names]
        return measured([item for items in each for item in items])

    train, dev = read(options.sources), read(options.dev)
    print(f"training: {totals(train)}")
    if dev:
        print(f"development: {totals(dev)}")

    def most_labels(seconds: float) -> float:
        if recogniser is None:
            return math.inf
        config = recogniser.config
        num_samples = round(seconds * config.features.sample_rate)
        return label_limit(config)(num_frames(num_samples, config.samples_per_frame))

    tokenizer = recogniser and recogniser.tokenizer
    findings = check(train, dev, tokenizer=tokenizer, most_labels=most_labels)
    for finding in findings:
        print(printable(f"{'FAULT' if finding.is_fault else 'look'}: {finding.text}"))
        for example in finding.examples[:MAX_EXAMPLES]:
            print(printable(f"    {example}"))
        if len(finding.examples) > MAX_EXAMPLES:
            print(f"    and {len(finding.examples) - MAX_EXAMPLES} more")
    if recogniser is not None:
        _check_pairs(recogniser, [*train, *dev], options)
    if not findings:
        print("nothing found that may spoil a training")
    return 1 if any(finding.is_fault for finding in findings) else 0


def _load(name: str) -> "Recogniser":
    from tdt_jax.checkpoints import loading
    from tdt_jax.runtime import process

    process.set_up()
    process.require_devices()
    return loading.load(name)


def _check_pairs(recogniser: "Recogniser", items: "list[StoredUtterance]", options) -> None:
    """Prints and writes the pairs of text and audio that fit worst."""
    from tdt_jax.cli.check_page import Pair, page
    from tdt_jax.inference.transcription import transcribe
    from tdt_jax.runtime.files import write_atomically
    from tdt_jax.training.pair_losses import pair_losses

    total = sum(item.seconds for item in items)
    with audio_warnings(), progress_bar(total, hidden=hides_progress(options)) as advance:
        losses = pair_losses(recogniser, items, progress=advance)
        known = np.flatnonzero(~np.isnan(losses))
        if not len(known):
            print("no pair has a loss")
            return
        order = known[np.argsort(-losses[known], kind="stable")][: options.worst].tolist()
        sample = known[:: max(1, len(known) // NUM_SAMPLED)][:NUM_SAMPLED].tolist()
        shown = [*order, *(n for n in sample if n not in set(order))]
        failed: dict[int, str] = {}
        heard = transcribe(recogniser, [items[n].audio for n in shown], failed=failed)
    assert isinstance(heard, list)
    texts = {n: "" if t is None else t.text for n, t in zip(shown, heard, strict=True)}
    median, ninety = np.percentile(losses[known], [50, 90])
    print(f"loss per label: median {median:.2f}, 90 % below {ninety:.2f}; the worst:")
    pairs = [Pair(items[n], float(losses[n]), texts[n]) for n in order]
    for pair in pairs:
        print(printable(_line(pair)))
    _print_style([items[n].text for n in sample], [texts[n] for n in sample])
    if options.html:
        rate = recogniser.config.features.sample_rate
        write_atomically(Path(options.html), page(pairs, median, rate, LONGEST_SHOWN))
        print(f"to listen to: {options.html}")


def _line(pair: "Pair") -> str:
    item = pair.item
    return (
        f"{pair.loss:8.2f}  {item.seconds:6.2f} s  {item.id}\n"
        f"          text:  {item.text}\n          heard: {pair.heard}"
    )


def _print_style(texts: list[str], heard: list[str]) -> None:
    """Says where the texts are written in another way than the model writes."""
    from tdt_jax.data.checking import styles

    ours, theirs = styles(texts), styles(heard)
    for name, share in ours.items():
        if abs(share - theirs[name]) > MAX_ROUNDING:
            print(
                f"look: {share:.0%} of {len(texts)} texts have {name}, {theirs[name]:.0%} of what "
                "the model writes for them"
            )
