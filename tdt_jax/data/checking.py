"""Looks at texts and audio files before a night is spent on training with them.

What a check finds is a list of `Finding`s, the faults first. Nothing here decodes audio or needs a
model; `tdt_jax.training.pair_losses` compares every text with its audio.
"""

import concurrent.futures
import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.data.manifest import Entry
from tdt_jax.data.parquet import Row
from tdt_jax.data.sources import NUM_THREADS
from tdt_jax.data.utterance import StoredUtterance
from tdt_jax.tokenizer import Tokenizer, UnknownTextError

EDGE = 1 << 16  # bytes at either end of a file that are compared
MIN_WORDS = 4  # of a text that should not be in training and development
FASTEST = 3.0  # times the median of characters a second
SLOWEST = 0.2
SHORTEST = 1.0  # seconds of an utterance whose characters a second mean something
PARTLY = (0.05, 0.95)  # a style that this share of the texts has is mixed


class Finding(NamedTuple):
    """Something that a check found."""

    is_fault: bool  # training would suffer; otherwise to be looked at
    text: str
    examples: tuple[str, ...] = ()  # ids of utterances, with what was found in each


class Totals(NamedTuple):
    """How much there is."""

    num_utterances: int
    hours: float
    quantiles: tuple[float, float, float]  # seconds: the shortest, the median, the longest
    num_words: int
    num_characters: int

    def __str__(self) -> str:
        shortest, median, longest = self.quantiles
        return (
            f"{self.num_utterances} utterances, {self.hours:.2f} h, {shortest:.1f} to "
            f"{longest:.1f} s (median {median:.1f}), {self.num_words} words, "
            f"{self.num_characters} characters"
        )


def totals(items: Sequence[StoredUtterance]) -> Totals:
    """Returns the sums over utterances whose lengths are known."""
    seconds = np.array([item.seconds for item in items if item.seconds > 0] or [0.0])
    return Totals(
        len(items),
        float(seconds.sum() / 3600),
        (float(seconds.min()), float(np.median(seconds)), float(seconds.max())),
        sum(len(item.text.split()) for item in items),
        sum(len(item.text) for item in items),
    )


def check(
    train: Sequence[StoredUtterance],
    dev: Sequence[StoredUtterance] = (),
    *,
    tokenizer: Tokenizer | None = None,
    most_labels: Callable[[float], float] = lambda seconds: math.inf,
) -> list[Finding]:
    """Returns what may spoil a training on `train` that is evaluated on `dev`, faults first.

    Args:
      train, dev: with lengths (`tdt_jax.data.sources.measured`); audio files are read at their
        ends, rows of Parquet files whole. Audio in prepared datasets is not compared.
      tokenizer: of the model that is trained further; None: its characters and style are not
        compared.
      most_labels: returns how many labels can be aligned to so many seconds.
    """
    items = [*train, *dev]
    findings = [
        *_missing(items),
        *_characters(items, tokenizer),
        *_too_many_labels(items, tokenizer, most_labels),
        *_shared(train, dev),
        *_rates(items),
        *_style(items, tokenizer),
    ]
    return sorted(findings, key=lambda finding: not finding.is_fault)


def _missing(items: Sequence[StoredUtterance]) -> Iterable[Finding]:
    gone = [item.id for item in items if not item.exists()]
    unread = [item.id for item in items if item.exists() and item.seconds <= 0]
    empty = [item.id for item in items if not item.text.strip()]
    for ids, what in (
        (gone, "have no file"),
        (unread, "cannot be read as audio, or are empty"),
        (empty, "have no text"),
    ):
        if ids:
            yield Finding(True, f"{_share(ids, items)} {what}", tuple(ids))


def _characters(items: Sequence[StoredUtterance], tokenizer: Tokenizer | None) -> Iterable[Finding]:
    """Names the characters that the tokenizer cannot encode, the most frequent first."""
    if tokenizer is None:
        return
    counts, ids = Counter(), []
    for item in items:
        if _labels(tokenizer, item.text) is None:
            ids.append(item.id)
            alone = [c for c in sorted(set(item.text)) if _labels(tokenizer, c) is None]
            counts.update(alone)
    if ids:
        named = ", ".join(
            f"{character!r} ({unicodedata.name(character, 'no name').lower()}) in {count}"
            for character, count in counts.most_common(10)
        )
        more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
        text = f"{_share(ids, items)} have characters outside the tokenizer: {named}{more}"
        yield Finding(True, text, tuple(ids))


def _too_many_labels(items, tokenizer: Tokenizer | None, most_labels) -> Iterable[Finding]:
    if tokenizer is None:
        return
    ids = []
    for item in items:
        labels = _labels(tokenizer, item.text) or ()
        if item.seconds > 0 and len(labels) > most_labels(item.seconds):
            ids.append(f"{item.id}: {len(labels)} labels in {item.seconds:.2f} s")
    if ids:
        text = f"{_share(ids, items)} have more labels than the model has frames for"
        yield Finding(True, text, tuple(ids))


def _shared(train: Sequence[StoredUtterance], dev: Sequence[StoredUtterance]) -> Iterable[Finding]:
    """Finds audio and long texts of `dev` in `train`, and audio that has two texts."""
    with concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        marks = list(pool.map(_fingerprint, [*train, *dev]))
    texts: dict[object, set[str]] = {}
    for mark, item in zip(marks, [*train, *dev], strict=True):
        if mark is not None:
            texts.setdefault(mark, set()).add(item.text)
    twice = [
        f"{item.id}: {item.text!r}"
        for mark, item in zip(marks, train, strict=False)
        if mark is not None and len(texts[mark]) > 1
    ]
    if twice:
        yield Finding(
            True, f"{_share(twice, train)} have audio that has another text too", tuple(twice)
        )
    in_train = set(marks[: len(train)]) - {None}
    heard = [
        item.id for mark, item in zip(marks[len(train) :], dev, strict=True) if mark in in_train
    ]
    if heard:
        yield Finding(
            True, f"{_share(heard, dev)} of the development set are audio of training", tuple(heard)
        )
    said = {_plain(item.text) for item in train}
    seen = [
        item.id for item in dev if len(item.text.split()) >= MIN_WORDS and _plain(item.text) in said
    ]
    if seen:
        text = (
            f"{_share(seen, dev)} of the development set have a text of {MIN_WORDS} words or more "
            "that is in training"
        )
        yield Finding(False, text, tuple(seen))


def _rates(items: Sequence[StoredUtterance]) -> Iterable[Finding]:
    timed = [item for item in items if item.seconds >= SHORTEST and item.text.strip()]
    if not timed:
        return
    rates = np.array([len(item.text) / item.seconds for item in timed])
    median = float(np.median(rates))
    order = np.argsort(-np.abs(np.log(rates / median)))
    ids = [
        f"{timed[n].id}: {rates[n]:.1f} a second, {timed[n].seconds:.1f} s: {timed[n].text!r:.60}"
        for n in order
        if not SLOWEST <= rates[n] / median <= FASTEST
    ]
    if ids:
        text = f"{_share(ids, items)} have improbable characters a second (median {median:.1f})"
        yield Finding(False, text, tuple(ids))


STYLES: dict[str, Callable[[str], bool]] = {
    "capitals": lambda text: any(c.isupper() for c in text),
    "punctuation": lambda text: any(c in ".,?!;:。、？！،؟।" for c in text),
    "digits": lambda text: any(c.isdigit() for c in text),
}


def styles(texts: Sequence[str]) -> dict[str, float]:
    """Returns the share of texts with capitals, with punctuation and with digits."""
    size = max(1, len(texts))
    return {name: sum(map(has, texts)) / size for name, has in STYLES.items()}


def _style(items: Sequence[StoredUtterance], tokenizer: Tokenizer | None) -> Iterable[Finding]:
    texts = [item.text for item in items if item.text.strip()]
    shares = styles(texts)
    shouted = sum(t.isupper() for t in texts if len(t.split()) > 1) / max(1, len(texts))
    if PARTLY[0] < shouted < PARTLY[1]:
        yield Finding(False, f"{shouted:.0%} of the texts are all in capitals, the others are not")
    if PARTLY[0] < shares["punctuation"] < PARTLY[1]:
        yield Finding(
            False,
            f"{shares['punctuation']:.0%} of the texts have punctuation, the others have none",
        )
    if tokenizer is None:
        return
    tagless = [p for i, p in enumerate(tokenizer.pieces) if i not in tokenizer.tags]
    for name, has in STYLES.items():
        if any(map(has, tagless)) and not shares[name] and texts:
            yield Finding(
                False, f"the model can write {name}, and no text has any: it will unlearn them"
            )


def _labels(tokenizer: Tokenizer, text: str) -> list[int] | None:
    try:
        return tokenizer.encode(text)
    except UnknownTextError:
        return None


def _fingerprint(item: StoredUtterance) -> object:
    """Returns what only the same audio has, or None if that is not known."""
    try:
        if isinstance(item, Entry):
            part = None if item.audio.is_whole() else (item.offset or 0.0, round(item.seconds, 2))
            return _ends(item.path), part
        return hashlib.blake2b(item.encoded()).digest() if isinstance(item, Row) else None
    except (OSError, AudioError):
        return None


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        digest = hashlib.blake2b(file.read(EDGE))
        size = file.seek(0, 2)
        file.seek(max(0, size - EDGE))
        digest.update(file.read() + str(size).encode())
    return digest.digest()


def _plain(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c == " ").split())


def _share(some: Sequence, of: Sequence) -> str:
    return f"{len(some)} of {len(of)} utterances"
