"""Error rates counted by hand, their intervals against simulation."""

import math
import sys

import numpy as np
import pytest

from tdt_jax.inference.error_analysis import confusions
from tdt_jax.inference.metrics import (
    ErrorRate,
    aligned_words,
    bleu,
    character_error_rate,
    confidence_interval,
    word_counts,
    word_error_rate,
    word_errors,
)
from tdt_jax.inference.normalizers import plain


def test_word_errors_are_pooled():
    references = ["the cat sat on mats", "yes"]
    hypotheses = ["now so the bat sat mats", "yes"]
    # now, so inserted; cat -> bat; on deleted: over 5 + 1 words, not the mean of two rates
    assert word_error_rate(references, hypotheses) == ErrorRate(4 / 6, 4, 1, 1, 2, 6)


def test_forms_of_unicode_are_no_errors():
    composed, apart = ["grün café"], ["gru\u0308n cafe\u0301"]
    for pair in ((composed, apart), (apart, composed)):
        assert word_error_rate(*pair).errors == 0
        assert character_error_rate(*pair) == ErrorRate(0, 0, 0, 0, 0, 9)
        assert word_errors(*pair)[0].tolist() == [0]
    assert plain(apart[0]) == composed[0]
    text = "grün ist das café am see"
    assert bleu([text], [text.replace("é", "e\u0301")]).score == pytest.approx(100)


def test_errors_of_each_utterance():
    references = ["the cat sat on mats", "", "yes  no", "a b c d"]
    hypotheses = ["now so the bat sat mats", "uh oh", "yes no", ""]
    errors, lengths = word_errors(references, hypotheses)
    assert errors.tolist() == [4, 2, 0, 4] and lengths.tolist() == [5, 0, 2, 4]
    assert word_error_rate(references, hypotheses) == ErrorRate(10 / 11, 10, 1, 5, 4, 11)
    assert [counts.tolist() for counts in word_errors([], [])] == [[], []]


def test_character_errors_count_spaces():
    assert character_error_rate(["ab cd"], ["abcd"]) == ErrorRate(1 / 5, 1, 0, 1, 0, 5)
    assert character_error_rate(["ab"], ["xb"]) == ErrorRate(1 / 2, 1, 1, 0, 0, 2)


@pytest.mark.parametrize("rate", [word_error_rate, character_error_rate])
def test_whitespace_does_not_count(rate):
    assert rate(["a  b\tc "], [" a b c"]).rate == 0


def test_empty_texts():
    assert word_error_rate(["", "a b"], ["x y z", "a b"]) == ErrorRate(3 / 2, 3, 0, 0, 3, 2)
    assert word_error_rate(["a b"], [""]) == ErrorRate(1.0, 2, 0, 2, 0, 2)
    assert word_error_rate([""], ["x"]) == ErrorRate(math.inf, 1, 0, 0, 1, 0)
    for function in (word_error_rate, character_error_rate):
        assert function([""], [""]) == function([], []) == ErrorRate(0.0, 0, 0, 0, 0, 0)


def test_metrics_errors():
    with pytest.raises(ValueError, match="2 references but 1 hypotheses"):
        word_error_rate(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="single string"):
        word_error_rate("abc", "abd")


def test_interval_of_identical_utterances_is_a_point():
    assert confidence_interval([1] * 50, [8] * 50) == (0.125, 0.125)
    assert confidence_interval([3], [4]) == (0.75, 0.75)
    assert confidence_interval([], []) == (0.0, 0.0)
    assert confidence_interval([0, 0], [0, 0]) == (0.0, 0.0)
    assert confidence_interval([1, 2], [0, 0]) == (math.inf, math.inf)


def test_interval_of_two_utterances():
    """Draws of 1/4 and 0/1: both the first 1/4, one of each 1/5, both the second 0."""
    assert confidence_interval([1, 0], [4, 1], level=0.95) == (0.0, 0.25)
    assert confidence_interval([1, 0], [4, 1], level=0.4) == (0.2, 0.2)
    assert confidence_interval([1, 0], [4, 1], level=0.6) == (0.0, 0.25)
    assert confidence_interval([1, 0], [0, 4], level=0.4) == (0.25, 0.25)
    assert confidence_interval([1, 0], [0, 4], level=0.6) == (0.0, math.inf)


def test_interval_is_the_same_again_and_in_pieces(monkeypatch):
    random = np.random.default_rng(0)
    lengths = random.integers(1, 30, 300)
    errors = random.binomial(lengths, 0.1)
    whole = confidence_interval(errors, lengths)
    assert whole == confidence_interval(errors, lengths)
    assert whole != confidence_interval(errors, lengths, seed=1)
    monkeypatch.setattr("tdt_jax.inference.metrics.DRAWN_AT_ONCE", 1000)
    assert confidence_interval(errors, lengths) == whole


def test_interval_holds_the_true_rate_as_often_as_it_says():
    """Utterances of unlike lengths and difficulties, 10 % of the words wrong on average."""
    random = np.random.default_rng(0)
    held = []
    for seed in range(300):
        lengths = random.integers(1, 30, 100)
        errors = random.binomial(lengths, random.beta(1, 9, 100))
        low, high = confidence_interval(errors, lengths, level=0.8, resamples=200, seed=seed)
        held.append(low <= 0.1 <= high)
    assert 0.74 < np.mean(held) < 0.86  # 0.8 and 2.6 standard deviations of 300 trials


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(errors=[1, 2], lengths=[3]), r"errors \(2,\) and lengths \(1,\)"),
        (dict(errors=1, lengths=2), r"errors \(\) and lengths \(\)"),
        (dict(errors=[1], lengths=[2], level=95), "between 0 and 1, got 95"),
        (dict(errors=[1], lengths=[2], resamples=0), ">= 1, got 0"),
    ],
)
def test_interval_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        confidence_interval(**arguments)


def test_compounds_merge_either_way():
    """kaldialign's own examples: words side by side that are right as one cost nothing."""
    texts = [
        ("white paper", "whitepaper", 0),
        ("whitepaper", "white paper", 0),
        ("a b c", "abc", 0),
        ("the white paper is here", "the whitepaper was here", 1),
        ("hello world", "hello there", 1),
        ("", "x", 1),
        ("x y", "", 2),
    ]
    references, hypotheses, expected = zip(*texts, strict=True)
    errors, lengths = word_errors(references, hypotheses, merge_compounds=True)
    assert errors.tolist() == list(expected)
    assert lengths.tolist() == [len(reference.split()) for reference in references]
    assert word_error_rate(references, hypotheses, merge_compounds=True) == ErrorRate(
        5 / 15, 5, 2, 2, 1, 15
    )
    assert word_errors(["white paper"], ["whitepaper"])[0] == [2]
    with pytest.raises(ValueError, match="1 references but 0 hypotheses"):
        word_error_rate(["a"], [], merge_compounds=True)


@pytest.mark.parametrize("merge_compounds", [False, True])
def test_aligned_words_are_those_that_are_counted(merge_compounds):
    reference, hypothesis = "the cat sat on a white  paper", "now the bat sat on a whitepaper"
    pairs = aligned_words(reference, hypothesis, merge_compounds=merge_compounds)
    assert pairs[:6] == [
        ("", "now"), ("the", "the"), ("cat", "bat"), ("sat", "sat"), ("on", "on"), ("a", "a"),
    ]  # fmt: skip
    if merge_compounds:
        assert pairs[6:] == [("white paper", "whitepaper")]
    counts = word_counts([reference], [hypothesis], merge_compounds=merge_compounds)[0]
    found = confusions(pairs)
    totals = [sum(row[-1] for row in rows) for rows in found]
    assert totals == counts[:3].tolist() == ([1, 0, 1] if merge_compounds else [2, 1, 1])
    assert aligned_words("", "", merge_compounds=merge_compounds) == []


def test_bleu_is_sacrebleus():
    """Corpus BLEU: n-grams are pooled before they are compared; case and punctuation count."""
    references = ["Das ist ein kleiner Test.", "Und das, noch einer!"]
    assert bleu(references, references).score == pytest.approx(100)
    found = bleu(references, ["Das ist ein großer Test.", "Und das, noch einer!"])
    # 13a: 6 and 6 tokens; 11/12, 8/10, 5/8 and 3/6 n-grams are right
    expected = 100 * (11 / 12 * 8 / 10 * 5 / 8 * 3 / 6) ** 0.25
    assert found.score == pytest.approx(expected, abs=1e-6)
    assert "tok:13a" in found.signature and "case:mixed" in found.signature
    lower = bleu(references, [text.lower() for text in references])
    assert lower.score < 80
    assert bleu([], []).score == 0
    with pytest.raises(ValueError, match="2 references but 1 hypotheses"):
        bleu(references, ["x"])
    with pytest.raises(ValueError, match="single string"):
        bleu("x", ["x"])


def test_bleu_names_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(ValueError, match="pip install sacrebleu"):
        bleu([], [])
