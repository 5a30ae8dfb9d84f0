"""Error rates and speed: what a recogniser is judged by. Knows strings and numbers only."""

from collections.abc import Sequence
from typing import NamedTuple


class ErrorRate(NamedTuple):
    """Edit operations summed over a set; `rate` = errors / reference_length, 0.05 meaning 5 %."""

    rate: float
    errors: int
    substitutions: int
    deletions: int
    insertions: int
    reference_length: int


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """Word error rate pooled over the utterances: all errors / all reference words.

    Words are what whitespace separates; nothing else is normalised. An empty reference counts its
    hypothesis as insertions. With no reference word at all the rate is 0 without errors and
    infinite with.

    Raises: ValueError if the two differ in length or are single strings.
    """
    import jiwer

    return _pooled(jiwer.process_words, *_checked(references, hypotheses))


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """Character error rate, pooled as in `word_error_rate`; one space between words counts."""
    import jiwer

    return _pooled(jiwer.process_characters, *_checked(references, hypotheses))


def real_time_factor(audio_seconds: float, seconds: float) -> float:
    """Seconds of audio processed in one second (RTFx: higher is faster)."""
    if seconds <= 0:
        raise ValueError(f"seconds must be positive, got {seconds} for {audio_seconds} of audio")
    return audio_seconds / seconds


def _checked(references, hypotheses) -> tuple[list[str], list[str]]:
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise ValueError("references and hypotheses must be lists of strings, got a single string")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"got {len(references)} references but {len(hypotheses)} hypotheses; they must pair up"
        )
    return [" ".join(text.split()) for text in references], [
        " ".join(text.split()) for text in hypotheses
    ]


def _pooled(process, references: list[str], hypotheses: list[str]) -> ErrorRate:
    if not references:
        return ErrorRate(0.0, 0, 0, 0, 0, 0)
    output = process(references, hypotheses)
    counts = (output.substitutions, output.deletions, output.insertions)
    errors = sum(counts)
    length = output.hits + output.substitutions + output.deletions
    rate = errors / length if length else (float("inf") if errors else 0.0)
    return ErrorRate(rate, errors, *counts, length)
