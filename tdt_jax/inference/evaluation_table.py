"""Writes evaluations as a table in Markdown."""

import math
from collections.abc import Sequence

from tdt_jax.inference.evaluation import Evaluation, average
from tdt_jax.inference.metrics import ErrorRate


def markdown(evaluations: Sequence[tuple[str, Evaluation]]) -> str:
    """Returns a table with a row for each named evaluation.

    Two rows more of several: the mean of the sets, and all words together.
    """
    with_bleu = any(each.bleu is not None for _, each in evaluations)
    names = ["WER %", "95 % interval", "sub", "del", "ins", "words", "CER %"]
    names += ["BLEU"] if with_bleu else []
    names += ["utterances", "hours", "steps/s", "RTFx"]
    rows = []
    for source, each in evaluations:
        bleu = [f"{each.bleu.score:.2f}" if each.bleu and each.results else ""]
        rows.append(
            [
                source.replace("|", "\\|"),
                *(_words(each.words, each.interval) if each.results else [""] * 6),
                _percent(each.characters.rate) if each.results else "",
                *(bleu if with_bleu else []),
                _utterances(each),
                f"{each.audio_seconds / 3600:.2f}",
                f"{each.steps_per_second:.2f}",
                f"{each.rtfx:.1f}",
            ]
        )
    if len(evaluations) > 1:
        both = average([each for _, each in evaluations])
        hours, rtfx = f"{both.audio_seconds / 3600:.2f}", f"{both.rtfx:.1f}"
        blanks = [""] * (len(names) - 9)
        rows.append(["mean of the sets", _percent(both.wer), *[""] * 5, *blanks, hours, "", rtfx])
        rows.append(
            ["all words", *_words(both.words, both.interval), *blanks, hours, "", rtfx],
        )
    lines = [["set", *names], ["---", *["---:"] * len(names)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _words(words: ErrorRate, interval: tuple[float, float]) -> list[str]:
    """Returns the six columns of word errors."""
    low, high = interval
    counts = words.substitutions, words.deletions, words.insertions, words.reference_length
    return [_percent(words.rate), f"{_percent(low)} to {_percent(high)}", *map(str, counts)]


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f}" if math.isfinite(rate) else "-"


def _utterances(evaluation: Evaluation) -> str:
    left_out = [(evaluation.not_scored, "not scored"), (len(evaluation.failed), "not read")]
    notes = ", ".join(f"{count} {what}" for count, what in left_out if count)
    return f"{len(evaluation.results)} ({notes})" if notes else str(len(evaluation.results))
