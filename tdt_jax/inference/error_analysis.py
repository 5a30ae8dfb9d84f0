"""Which words a recogniser gets wrong: the worst utterances, and the commonest confusions."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from tdt_jax.inference import metrics
from tdt_jax.inference.evaluation import Evaluation, normalised

WIDTH = 100  # columns of text


class Comparison(NamedTuple):
    """One utterance after normalisation."""

    id: str
    errors: int
    reference_words: int
    words: list[tuple[str, str]]  # said and heard side by side, as of `metrics.aligned_words`


class Errors(NamedTuple):
    """What is wrong in a set of utterances."""

    worst: list[Comparison]  # those with most wrong words first
    confusions: metrics.Confusions  # of all the utterances

    def as_dict(self) -> dict:
        """Everything, as JSON takes it."""
        worst = [each._asdict() for each in self.worst]
        return {"worst": worst, **self.confusions._asdict()}

    def __str__(self) -> str:
        """The utterances with their texts aligned, then the confusions with their counts."""
        if not self.worst:
            return "no word is wrong"
        lines = []
        for each in self.worst:
            lines += [f"{each.errors} of {each.reference_words} words wrong: {each.id}"]
            lines += [*_side_by_side(each.words), ""]
        substitutions, deletions, insertions = self.confusions
        for title, rows in (
            ("substitutions", [(f"{said} -> {heard}", n) for said, heard, n in substitutions]),
            ("deletions", deletions),
            ("insertions", insertions),
        ):
            if rows:
                lines += [f"commonest {title}", *(f"{n:7d}  {words}" for words, n in rows), ""]
        return "\n".join(lines[:-1])


def errors(evaluation: Evaluation, count: int = 10) -> Errors:
    """The `count` worst utterances of an evaluation, and as many of each kind of confusion."""
    merge_compounds = evaluation.normaliser in metrics.MERGING
    wrong = [each for each in evaluation.results if each.errors]
    compared = [
        Comparison(
            each.id,
            each.errors,
            each.reference_words,
            metrics.aligned_words(reference, hypothesis, merge_compounds=merge_compounds),
        )
        for each, reference, hypothesis in zip(
            wrong, *normalised(wrong, evaluation.normaliser), strict=True
        )
    ]
    found = metrics.confusions(pair for each in compared for pair in each.words)
    compared.sort(key=lambda each: (-each.errors, each.reference_words))
    return Errors(compared[:count], metrics.Confusions(*(rows[:count] for rows in found)))


def _side_by_side(words: Sequence[tuple[str, str]]) -> list[str]:
    """Rows of reference and transcript, with S, D or I below what is wrong."""
    blocks = []
    width = WIDTH
    for said, heard in words:
        size = max(_columns(said), _columns(heard), 1)
        if width + 1 + size > WIDTH:
            blocks.append(("  reference ", "  transcript", "            "))
            width = len(blocks[-1][0])
        if metrics.is_right(said, heard):
            kind = ""
        else:
            kind = "S" if said and heard else "D" if said else "I"
        cells = said or "*" * size, heard or "*" * size, kind
        blocks[-1] = tuple(
            f"{row} {cell}{' ' * (size - _columns(cell))}"
            for row, cell in zip(blocks[-1], cells, strict=True)
        )
        width += 1 + size
    return [row.rstrip() for block in blocks for row in block]


def _columns(text: str) -> int:
    """How many columns a terminal takes for it."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return wide + sum(not unicodedata.combining(character) for character in text)
