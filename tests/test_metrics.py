"""Error rates counted by hand."""

import math

import pytest

from tdt_jax.metrics import ErrorRate, character_error_rate, real_time_factor, word_error_rate


def test_word_errors_are_pooled():
    references = ["the cat sat on mats", "yes"]
    hypotheses = ["now so the bat sat mats", "yes"]
    # now, so inserted; cat -> bat; on deleted: over 5 + 1 words, not the mean of two rates
    assert word_error_rate(references, hypotheses) == ErrorRate(4 / 6, 4, 1, 1, 2, 6)


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
    with pytest.raises(ValueError, match="positive"):
        real_time_factor(10.0, 0.0)


def test_real_time_factor():
    assert real_time_factor(3600.0, 1.5) == 2400.0
