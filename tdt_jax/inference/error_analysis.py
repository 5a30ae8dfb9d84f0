"""Reports which words a recogniser gets wrong: the worst utterances, the commonest confusions."""

import collections
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tdt_jax.inference.evaluation import Evaluation, normalized_texts
from tdt_jax.inference.metrics import aligned_words, is_right
from tdt_jax.inference.normalizers import MERGING

WIDTH = 100  # columns of text


class Comparison(NamedTuple):
    """One utterance after normalization."""

    id: str
    errors: int
    reference_words: int
    words: list[tuple[str, str]]  # of reference and transcript, as of `metrics.aligned_words`


class Confusions(NamedTuple):
    """Words that were recognised wrongly, the commonest first."""

    substitutions: list[tuple[str, str, int]]  # in the reference, in the transcript, how many times
    deletions: list[tuple[str, int]]
    insertions: list[tuple[str, int]]


class Errors(NamedTuple):
    """The errors in a set of utterances."""

    worst: list[Comparison]  # those with most wrong words first
    confusions: Confusions  # of all the utterances

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as JSON takes it."""
        worst = [each._asdict() for each in self.worst]
        return {"worst": worst, **self.confusions._asdict()}

    def __str__(self) -> str:
        """Returns the utterances with their texts aligned, then the confusions counted."""
        if not self.worst:
            return "no word is wrong"
        lines = []
        for each in self.worst:
            lines += [f"{each.errors} of {each.reference_words} words wrong: {each.id}"]
            lines += [*_side_by_side(each.words), ""]
        substitutions, deletions, insertions = self.confusions
        for title, rows in (
            ("substitutions", [(f"{one} -> {other}", n) for one, other, n in substitutions]),
            ("deletions", deletions),
            ("insertions", insertions),
        ):
            if rows:
                lines += [f"commonest {title}", *(f"{n:7d}  {words}" for words, n in rows), ""]
        return "\n".join(lines[:-1])


def errors(evaluation: Evaluation, count: int = 10) -> Errors:
    """Returns the `count` worst utterances, and as many of each kind of confusion."""
    merge_compounds = evaluation.normalizer in MERGING
    wrong = [
        (each, each.errors, each.reference_words)
        for each in evaluation.results
        if each.errors and each.reference_words is not None
    ]
    texts = normalized_texts([each for each, _, _ in wrong], evaluation.normalizer)
    compared = [
        Comparison(
            each.id,
            num_errors,
            num_words,
            aligned_words(reference, transcript, merge_compounds=merge_compounds),
        )
        for (each, num_errors, num_words), reference, transcript in zip(wrong, *texts, strict=True)
    ]
    substitutions, deletions, insertions = confusions(
        pair for each in compared for pair in each.words
    )
    compared.sort(key=lambda each: (-each.errors, each.reference_words))
    commonest = Confusions(substitutions[:count], deletions[:count], insertions[:count])
    return Errors(compared[:count], commonest)


def confusions(pairs: Iterable[tuple[str, str]]) -> Confusions:
    """Counts the errors among pairs of words, as of `metrics.aligned_words`."""
    counts = collections.Counter((a, b) for a, b in pairs if not is_right(a, b))
    counted = Confusions([], [], [])
    for (reference, transcript), count in counts.most_common():
        if reference and transcript:
            counted.substitutions.append((reference, transcript, count))
        elif reference:
            counted.deletions.append((reference, count))
        else:
            counted.insertions.append((transcript, count))
    return counted


def _side_by_side(words: Sequence[tuple[str, str]]) -> list[str]:
    """Returns rows of reference and transcript, with S, D or I below what is wrong."""
    blocks: list[list[str]] = []
    width = WIDTH
    for reference, transcript in words:
        size = max(_columns(reference), _columns(transcript), 1)
        if width + 1 + size > WIDTH:
            blocks.append(["  reference ", "  transcript", "            "])
            width = len(blocks[-1][0])
        if is_right(reference, transcript):
            kind = ""
        else:
            kind = "S" if reference and transcript else "D" if reference else "I"
        cells = reference or "*" * size, transcript or "*" * size, kind
        blocks[-1] = [
            f"{row} {cell}{' ' * (size - _columns(cell))}"
            for row, cell in zip(blocks[-1], cells, strict=True)
        ]
        width += 1 + size
    return [row.rstrip() for block in blocks for row in block]


def _columns(text: str) -> int:
    """Returns the columns that a text takes on a terminal."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return wide + sum(not unicodedata.combining(character) for character in text)
