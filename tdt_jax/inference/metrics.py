"""Error rates of words and characters with their confidence, and BLEU; of texts, whoever made them.

Texts are compared in Unicode's form NFC, with single spaces between words; nothing else is
normalized (`tdt_jax.inference.normalizers` does).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.inference.normalizers import plain
from tdt_jax.orthography import fold, is_boundary

DRAWN_AT_ONCE = 1 << 20  # utterances of the bootstrap: 16 MB of indices and counts
KINDS = ("substitute", "delete", "insert")  # jiwer's names


class ErrorRate(NamedTuple):
    """Edit operations summed over a set; `rate` = errors / reference_length, 0.05 meaning 5 %."""

    rate: float
    errors: int
    substitutions: int
    deletions: int
    insertions: int
    reference_length: int


class Bleu(NamedTuple):
    """Corpus BLEU."""

    score: float  # 0 to 100
    signature: str  # of sacrebleu: how it was computed


class PhraseRates(NamedTuple):
    """How phrases were recognized, each occurrence counted."""

    precision: float  # of those in transcripts, how many are in the references; NaN of none
    recall: float  # of those in references, how many are in the transcripts; NaN of none
    f1: float
    correct: int
    in_transcripts: int
    in_references: int


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, merge_compounds: bool = False
) -> ErrorRate:
    """Returns the word error rate, pooled over utterances: all errors / all reference words.

    Words are what whitespace separates. An empty reference counts its hypothesis as insertions.
    With no reference word at all the rate is 0 without errors and infinite with.

    With `merge_compounds` words side by side may also count as one, in either text, if that makes
    it right: "white paper" is "whitepaper" (by the package kaldialign).

    Raises: ValueError if the two differ in length or are single strings.
    """
    return pooled(word_counts(references, hypotheses, merge_compounds=merge_compounds))


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """Returns the character error rate, pooled likewise; one space between words counts."""
    import jiwer

    return pooled(_counts(jiwer.process_characters, references, hypotheses))


def word_counts(
    references: Sequence[str], hypotheses: Sequence[str], *, merge_compounds: bool = False
) -> np.ndarray:
    """Returns substitutions, deletions, insertions and reference words, [n, 4] int64.

    One row for each utterance; by the rules of `word_error_rate`, which also raises alike.
    """
    if not merge_compounds:
        import jiwer

        return _counts(jiwer.process_words, references, hypotheses)
    import kaldialign

    _check_pairs(references, hypotheses)
    counts = np.zeros((len(references), 4), np.int64)
    for row, reference, hypothesis in zip(counts, references, hypotheses, strict=True):
        distance = kaldialign.edit_distance(
            plain(reference).split(), plain(hypothesis).split(), merge_compounds=True
        )
        row[:] = [distance[key] for key in ("sub", "del", "ins", "ref_len")]
    return counts


def word_errors(
    references: Sequence[str], hypotheses: Sequence[str], *, merge_compounds: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the errors [n] and the reference words [n] of each utterance, int64.

    Their sums are the `errors` and the `reference_length` of `word_error_rate`.
    """
    counts = word_counts(references, hypotheses, merge_compounds=merge_compounds)
    return counts[:, :3].sum(1), counts[:, 3]


def phrase_rates(
    references: Sequence[str], hypotheses: Sequence[str], phrases: Sequence[str]
) -> PhraseRates:
    """Returns how often phrases are in both texts of an utterance, without case.

    A phrase begins and ends where a word does. Of its occurrences in the two texts of an utterance
    as many are correct as the text with fewer has.

    Raises: ValueError if the two differ in length or are single strings.
    """
    _check_pairs(references, hypotheses)
    folded = sorted({fold(" ".join(phrase.split())) for phrase in phrases})
    correct = in_hypotheses = in_references = 0
    for pair in zip(references, hypotheses, strict=True):
        texts = [fold(" ".join(text.split())) for text in pair]
        for phrase in folded:
            expected, found = (count_phrase(phrase, text) for text in texts)
            correct += min(expected, found)
            in_references, in_hypotheses = in_references + expected, in_hypotheses + found
    precision, recall = (
        correct / total if total else math.nan for total in (in_hypotheses, in_references)
    )
    total = in_hypotheses + in_references
    f1 = 2 * correct / total if total else math.nan
    return PhraseRates(precision, recall, f1, correct, in_hypotheses, in_references)


def count_phrase(phrase: str, text: str) -> int:
    """Returns how often a phrase is in a text, from a word's beginning to a word's end."""
    count, at = 0, text.find(phrase)
    while at >= 0:
        end = at + len(phrase)
        begins = at == 0 or is_boundary(text[at - 1]) or is_boundary(phrase[0])
        ends = end == len(text) or is_boundary(text[end]) or is_boundary(phrase[-1])
        count += begins and ends
        at = text.find(phrase, end if begins and ends else at + 1)
    return count


def pooled(counts: np.ndarray) -> ErrorRate:
    """Returns the rate of counts [n, 4] as of `word_counts`: all errors / all reference words."""
    substitutions, deletions, insertions, length = counts.sum(0).tolist()
    errors = substitutions + deletions + insertions
    rate = float(_rates(errors, length))
    return ErrorRate(rate, errors, substitutions, deletions, insertions, length)


def aligned_words(
    reference: str, hypothesis: str, *, merge_compounds: bool = False
) -> list[tuple[str, str]]:
    """Returns the words of both texts in pairs, as few of them unlike as `word_errors` counts.

    ("cat", "bat") is a substitution, ("on", "") a deletion and ("", "now") an insertion. With
    `merge_compounds` there are also ("white paper", "whitepaper"), which is no error.
    """
    if merge_compounds:
        import kaldialign

        words = plain(reference).split(), plain(hypothesis).split()
        return kaldialign.align(*words, "", merge_compounds=True)
    import jiwer

    output = jiwer.process_words(plain(reference), plain(hypothesis))
    pairs = []
    for chunk in output.alignments[0]:
        in_reference = output.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
        in_hypothesis = output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
        pairs += itertools.zip_longest(in_reference, in_hypothesis, fillvalue="")
    return pairs


def is_right(reference: str, hypothesis: str) -> bool:
    """Returns whether a pair of `aligned_words` is no error."""
    return reference.replace(" ", "") == hypothesis.replace(" ", "")


def bleu(references: Sequence[str], hypotheses: Sequence[str]) -> Bleu:
    """Returns corpus BLEU (Papineni et al., 2002) by sacrebleu (Post, 2018, arXiv 1804.08771).

    One reference each, tokenised by sacrebleu's 13a: text as it is written, with case and
    punctuation. Without any utterance the score is 0.

    Raises: ValueError if the two differ in length or are single strings, and without the package.
    """
    _check_pairs(references, hypotheses)
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise ValueError("BLEU needs a package: pip install sacrebleu") from error
    metric = BLEU(tokenize="13a")
    texts = [plain(text) for text in hypotheses], [plain(text) for text in references]
    score = metric.corpus_score(texts[0], [texts[1]]).score if references else 0.0
    return Bleu(score, str(metric.get_signature()) if references else "")


def confidence_interval(
    errors: Sequence[int] | np.ndarray,
    lengths: Sequence[int] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the interval that holds the pooled rate with probability `level`.

    The percentile bootstrap over utterances (Bisani & Ney, 2004, "Bootstrap estimates for
    confidence intervals in ASR performance evaluation"): draw as many utterances as there are,
    with replacement, `resamples` times, and take the quantiles of the rates
    sum(errors) / sum(lengths). It supposes that the utterances are independent: if many are of one
    speaker the interval is too narrow, and so it is with fewer than some dozens. Of one utterance
    both ends are its rate; without any they are 0. A draw without reference words has the rate 0
    or infinity, as in `word_error_rate`.

    Args:
      errors: [n] of each utterance, as of `word_errors`.
      lengths: [n] reference words (or characters) of each.
      level: above 0 and below 1.
      resamples: draws; 2000 settle the ends to about a fiftieth of the interval's width.
      seed: the same one gives the same interval.

    Returns:
      (low, high), rates as in `ErrorRate`.

    Raises:
      ValueError: if the two aren't [n] alike or `level` or `resamples` is out of range.
    """
    wrong, total = np.asarray(errors), np.asarray(lengths)
    if wrong.ndim != 1 or wrong.shape != total.shape:
        raise ValueError(f"errors {wrong.shape} and lengths {total.shape} must be [n] alike")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be >= 1, got {resamples}")
    if not len(wrong):
        return 0.0, 0.0
    random = np.random.default_rng(seed)
    rows = max(1, DRAWN_AT_ONCE // len(wrong))
    rates = []
    for start in range(0, resamples, rows):
        drawn = random.integers(len(wrong), size=(min(rows, resamples - start), len(wrong)))
        rates.append(_rates(wrong[drawn].sum(1), total[drawn].sum(1)))
    ends = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(np.concatenate(rates), ends, method="inverted_cdf")  # infinity is safe
    return float(low), float(high)


def _counts(process: Callable, references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Returns jiwer's counts [n, 4]: of each of KINDS in an utterance, and of its reference."""
    _check_pairs(references, hypotheses)
    counts = np.zeros((len(references), 4), np.int64)
    if not len(references):
        return counts
    output = process([plain(text) for text in references], [plain(text) for text in hypotheses])
    for row, chunks, reference in zip(counts, output.alignments, output.references, strict=True):
        row[3] = len(reference)
        for chunk in chunks:
            if chunk.type != "equal":
                row[KINDS.index(chunk.type)] += max(
                    chunk.ref_end_idx - chunk.ref_start_idx,
                    chunk.hyp_end_idx - chunk.hyp_start_idx,
                )
    return counts


def _check_pairs(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise ValueError("references and hypotheses must be lists of strings, got a single string")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"got {len(references)} references but {len(hypotheses)} hypotheses; they must pair up"
        )


def _rates(errors, lengths) -> np.ndarray:
    empty = np.where(np.greater(errors, 0), np.inf, 0.0)
    return np.where(np.equal(lengths, 0), empty, errors / np.maximum(lengths, 1))
