"""Error rates and speed: what a recogniser is judged by. Knows strings and numbers only."""

import collections
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.orthography import nfc

# normalised references that the Open ASR Leaderboard leaves out of its sets (its data_utils.py)
NOT_SCORED = frozenset({"", "ignore time segment in scoring"})
DRAWN_AT_ONCE = 1 << 20  # utterances of the bootstrap: 16 MB of indices and counts
KINDS = ("substitute", "delete", "insert")  # jiwer's names
NORMALISERS = ("none", "whisper", "leaderboard")
MERGING = frozenset({"leaderboard"})  # normalisers of rules by which compounds merge


class ErrorRate(NamedTuple):
    """Edit operations summed over a set; `rate` = errors / reference_length, 0.05 meaning 5 %."""

    rate: float
    errors: int
    substitutions: int
    deletions: int
    insertions: int
    reference_length: int


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, merge_compounds: bool = False
) -> ErrorRate:
    """Word error rate pooled over the utterances: all errors / all reference words.

    Words are what whitespace separates, compared in Unicode's form NFC; nothing else is normalised.
    An empty reference counts its hypothesis as insertions. With no reference word at all the rate
    is 0 without errors and infinite with.

    With `merge_compounds` words side by side may also count as one, in either text, if that makes
    it right: "white paper" is "whitepaper" (by the package kaldialign).

    Raises: ValueError if the two differ in length or are single strings.
    """
    return pooled(word_counts(references, hypotheses, merge_compounds=merge_compounds))


def word_counts(
    references: Sequence[str], hypotheses: Sequence[str], *, merge_compounds: bool = False
) -> np.ndarray:
    """Substitutions, deletions, insertions and reference words of each utterance, [n, 4] int64.

    The rules and errors of `word_error_rate` hold here.
    """
    if not merge_compounds:
        import jiwer

        return _counts(jiwer.process_words, references, hypotheses)
    import kaldialign

    _check_pairs(references, hypotheses)
    counts = np.zeros((len(references), 4), np.int64)
    for row, reference, hypothesis in zip(counts, references, hypotheses, strict=True):
        said, heard = _collapse(reference).split(), _collapse(hypothesis).split()
        found = kaldialign.edit_distance(said, heard, merge_compounds=True)
        row[:] = [found[key] for key in ("sub", "del", "ins", "ref_len")]
    return counts


def word_errors(
    references: Sequence[str], hypotheses: Sequence[str], *, merge_compounds: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Errors [n] and reference words [n] of each utterance, int64.

    Their sums are the `errors` and the `reference_length` of `word_error_rate`, whose rules and
    errors hold here.
    """
    counts = word_counts(references, hypotheses, merge_compounds=merge_compounds)
    return counts[:, :3].sum(1), counts[:, 3]


def aligned_words(
    reference: str, hypothesis: str, *, merge_compounds: bool = False
) -> list[tuple[str, str]]:
    """The words of both texts in pairs, as few of them unlike as `word_errors` counts.

    ("cat", "bat") is a substitution, ("on", "") a deletion and ("", "now") an insertion. With
    `merge_compounds` there are also ("white paper", "whitepaper"), which is no error.
    """
    if merge_compounds:
        import kaldialign

        said, heard = _collapse(reference).split(), _collapse(hypothesis).split()
        return kaldialign.align(said, heard, "", merge_compounds=True)
    import jiwer

    output = jiwer.process_words(_collapse(reference), _collapse(hypothesis))
    pairs = []
    for chunk in output.alignments[0]:
        said = output.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
        heard = output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
        pairs += itertools.zip_longest(said, heard, fillvalue="")
    return pairs


def is_right(said: str, heard: str) -> bool:
    """Whether a pair of `aligned_words` is no error."""
    return said.replace(" ", "") == heard.replace(" ", "")


class Confusions(NamedTuple):
    """Words that were not heard right, the commonest first."""

    substitutions: list[tuple[str, str, int]]  # said, heard, how many times
    deletions: list[tuple[str, int]]
    insertions: list[tuple[str, int]]


def confusions(pairs: Iterable[tuple[str, str]]) -> Confusions:
    """Which errors there are among pairs of words, as `aligned_words` gives them."""
    counts = collections.Counter(
        (said, heard) for said, heard in pairs if not is_right(said, heard)
    )
    found = Confusions([], [], [])
    for (said, heard), count in counts.most_common():
        if said and heard:
            found.substitutions.append((said, heard, count))
        elif said:
            found.deletions.append((said, count))
        else:
            found.insertions.append((heard, count))
    return found


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """Character error rate, pooled as in `word_error_rate`; one space between words counts."""
    import jiwer

    return pooled(_counts(jiwer.process_characters, references, hypotheses))


class Bleu(NamedTuple):
    """Corpus BLEU."""

    score: float  # 0 to 100
    signature: str  # of sacrebleu: how it was computed


def bleu(references: Sequence[str], hypotheses: Sequence[str]) -> Bleu:
    """Corpus BLEU (Papineni et al., 2002) by sacrebleu (Post, 2018, arXiv 1804.08771).

    One reference each, tokenised by sacrebleu's 13a: text as it is written, with case and
    punctuation. Without any utterance the score is 0.

    Raises: ValueError if the two differ in length or are single strings, and without the package.
    """
    _check_pairs(references, hypotheses)
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise ValueError("BLEU needs a package: pip install sacrebleu") from error
    metric = BLEU(tokenize="13a")
    texts = [_collapse(text) for text in hypotheses], [_collapse(text) for text in references]
    score = metric.corpus_score(texts[0], [texts[1]]).score if references else 0.0
    return Bleu(score, str(metric.get_signature()) if references else "")


def confidence_interval(
    errors: Sequence[int],
    lengths: Sequence[int],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Where the pooled rate, sum(errors) / sum(lengths), lies with probability `level`.

    The percentile bootstrap over utterances (Bisani & Ney, 2004, "Bootstrap estimates for
    confidence intervals in ASR performance evaluation"): draw as many utterances as there are,
    with replacement, `resamples` times, and take the quantiles of the rates. It supposes that the
    utterances are independent: if many are of one speaker the interval is too narrow, and so it is
    with fewer than some dozens. One utterance has only itself to draw, both ends are its rate;
    without any they are 0. A draw without reference words has the rate 0 or infinity, as in
    `word_error_rate`.

    Args:
      errors: [n] of each utterance, as `word_errors` gives them.
      lengths: [n] reference words (or characters) of each.
      level: above 0 and below 1.
      resamples: draws; 2000 settle the ends to about a fiftieth of the interval's width.
      seed: the same one gives the same interval.

    Returns:
      (low, high), rates as in `ErrorRate`.

    Raises:
      ValueError: if the two aren't [n] alike or `level` or `resamples` is out of range.
    """
    errors, lengths = np.asarray(errors), np.asarray(lengths)
    if errors.ndim != 1 or errors.shape != lengths.shape:
        raise ValueError(f"errors {errors.shape} and lengths {lengths.shape} must be [n] alike")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be >= 1, got {resamples}")
    if not len(errors):
        return 0.0, 0.0
    random = np.random.default_rng(seed)
    rows = max(1, DRAWN_AT_ONCE // len(errors))
    rates = []
    for start in range(0, resamples, rows):
        drawn = random.integers(len(errors), size=(min(rows, resamples - start), len(errors)))
        rates.append(_rates(errors[drawn].sum(1), lengths[drawn].sum(1)))
    ends = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(np.concatenate(rates), ends, method="inverted_cdf")  # infinity is safe
    return float(low), float(high)


def normaliser(name: str) -> Callable[[str], str]:
    """What makes references and hypotheses alike before their words are compared.

    "none" only turns runs of whitespace into one space, and Unicode into its form NFC, as all do.
    "whisper" is for English: the
    EnglishTextNormalizer of the Whisper paper (Radford et al., 2022, arXiv 2212.04356, appendix
    C), from the package whisper-normalizer: lower case, no punctuation, no "um", contractions
    written out, numbers in digits, American spelling.

    Ellipses go first, lest one at the end become a word.

    "leaderboard" is for English too: what the Open ASR Leaderboard has made of it by now
    (`tdt_jax.inference.leaderboard`). By its rules compounds merge as well, as `word_errors` takes
    them with `merge_compounds`; MERGING names the normalisers of which that is so.

    Raises: ValueError for another name or if a package isn't installed.
    """
    if name == "none":
        return _collapse
    if name not in NORMALISERS:
        raise ValueError(f"normaliser must be one of {', '.join(NORMALISERS)}, got {name!r}")
    try:
        if name == "leaderboard":
            import kaldialign  # noqa: F401

            from tdt_jax.inference.leaderboard import Normalizer

            normalise = Normalizer()
            return lambda text: _collapse(normalise(text))
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        packages = "whisper-normalizer" + (" kaldialign" if name in MERGING else "")
        raise ValueError(f"normaliser {name!r} needs packages: pip install {packages}") from error
    normalise = EnglishTextNormalizer()
    return lambda text: _collapse(normalise(re.sub(r"\.{3,}", " ", text)))


def _collapse(text: str) -> str:
    return " ".join(nfc(text).split())


def _counts(process, references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """[n, 4]: what jiwer's `process` counts of each of KINDS in an utterance, and its length."""
    _check_pairs(references, hypotheses)
    counts = np.zeros((len(references), 4), np.int64)
    if not len(references):
        return counts
    output = process([_collapse(text) for text in references], [_collapse(t) for t in hypotheses])
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


def pooled(counts: np.ndarray) -> ErrorRate:
    """The rate of counts [n, 4], as `word_counts` gives them: all errors / all reference words."""
    *kinds, length = counts.sum(0).tolist()
    return ErrorRate(float(_rates(sum(kinds), length)), sum(kinds), *kinds, length)


def _rates(errors, lengths) -> np.ndarray:
    empty = np.where(np.greater(errors, 0), np.inf, 0.0)
    return np.where(np.equal(lengths, 0), empty, errors / np.maximum(lengths, 1))
