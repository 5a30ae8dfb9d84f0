"""Kneser-Ney: by hand, and as probabilities; through a file to the decoder's automaton."""

import io
import itertools
import math

import numpy as np
import pytest

from tdt_jax.advice.arpa import arpa_graph
from tdt_jax.advice.ngrams import kneser_ney, write_arpa
from tdt_jax.tokenizer import Characters

SENTENCES = ["aba", "abc", "ab", "cab", "a"]
WORDS = "abcd"


def probability(model, context, word):
    probabilities, backoffs = model
    gram = (*context, word)
    if gram in probabilities or not context:
        return probabilities[gram]
    return backoffs.get(context, 1.0) * probability(model, context[1:], word)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one(order):
    model = kneser_ney(SENTENCES, WORDS, order)
    contexts = [
        context
        for n in range(order)
        for context in itertools.product([*WORDS, "<s>"], repeat=n)
        if "<s>" not in context[1:]
    ]
    for context in contexts:
        each = [probability(model, context, word) for word in [*WORDS, "</s>", "<unk>"]]
        assert min(each) > 0 and sum(each) == pytest.approx(1), context


def test_bigrams_by_hand():
    """Absolute discounting of bigrams; unigrams by how many words come before them."""
    sentences = ["ab", "ab", "ca", "ba"]
    probabilities, backoffs = kneser_ney(sentences, "abc", 2)
    bigrams = {"<s>a": 2, "ab": 2, "b</s>": 2, "<s>c": 1, "ca": 1, "a</s>": 2, "<s>b": 1, "ba": 1}
    ones, twos = (sum(n == k for n in bigrams.values()) for k in (1, 2))
    discount = ones / (ones + 2 * twos)
    before = {"a": 3, "b": 2, "</s>": 2, "c": 1}  # different words before each
    of_unigrams = 1 / (1 + 2 * 2)
    rest = of_unigrams * len(before) / 8
    p_b = (before["b"] - of_unigrams) / 8 + rest / 5
    assert probabilities["b",] == pytest.approx(p_b)
    assert backoffs["a",] == pytest.approx(discount * 2 / 4)
    assert probabilities["a", "b"] == pytest.approx((2 - discount) / 4 + discount * 2 / 4 * p_b)


def test_a_file_is_read_as_it_was_trained(tmp_path):
    tokenizer = Characters("abcd ")
    with open(tmp_path / "model.arpa", "w", encoding="utf-8") as file:
        assert write_arpa([*SENTENCES, "a b", "x"], tokenizer, 3, file) == 1
    graph = arpa_graph(tmp_path / "model.arpa", 1.0, tokenizer)
    model = kneser_ney([*SENTENCES, "a▁b"], "abcd▁", 3)
    rng = np.random.default_rng(0)
    for _ in range(10):
        text, state = rng.choice(list("abcd▁"), 6), graph.start
        for i, word in enumerate(text):
            context = ("<s>", *text[:i])[-2:]
            label, sum_ = "abcd▁".index(word), 0.0
            while state not in graph.rows:
                own = slice(graph.first[state], graph.first[state + 1])
                if label in graph.labels[own]:
                    break
                sum_, state = sum_ + graph.backoff_weights[state, 0], graph.backoff[state]
            if state in graph.rows:
                sum_, state = sum_ + graph.rows[state][0][label], graph.rows[state][1][label]
            else:
                at = list(graph.labels[own]).index(label)
                sum_, state = sum_ + graph.weights[own][at], graph.targets[own][at]
            expected = math.log(probability(model, tuple(context), word))
            assert sum_ == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("texts", "order", "message"),
    [(["ab"], 0, "at least 1"), (["x"], 2, "no text"), ([], 2, "no text")],
)
def test_nothing_to_train_on(texts, order, message):
    with pytest.raises(ValueError, match=message):
        write_arpa(texts, Characters("ab "), order, io.StringIO())
