"""Phrases: what a text is given, however it is cut into labels."""

import warnings

import mixed
import numpy as np
import pytest
from graphs import cuts, weights

from tdt_jax import tokenizer as tokenizers
from tdt_jax.advice.guide import make_guide
from tdt_jax.advice.phrases import INSERTION, STRENGTH, AdviceWarning, phrases_graph
from tdt_jax.advice.pieces import pieces_of
from tdt_jax.tokenizer import Characters

TEXTS = ["the New York Times and new yorkers", "Kubernetes clusters, kubernetes!", "x-ray 42 a b c"]
TOKENIZER = tokenizers.train_sentencepiece(TEXTS, 60)
FOLDED = [piece.replace("▁", " ").casefold() for piece in TOKENIZER.pieces]


def total(graph, labels):
    """Returns what labels are given in all, when an x has followed them."""
    return sum(weights(graph, [*labels, *map(FOLDED.index, " x")]))


def graph_of(*phrases, tokenizer=TOKENIZER):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AdviceWarning)
        return phrases_graph(phrases, tokenizer)


def credit(phrase, weight=1.0):
    """What a phrase is given by itself."""
    graph = graph_of((phrase, weight))
    return total(graph, cuts(phrase.casefold(), FOLDED, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kubernetes", ["Kubernetes"]),
        ("a kubernetes, kubernetes!", ["Kubernetes", "Kubernetes"]),
        ("kubernetesa", []),  # not at a word's end
        ("akubernetes", []),  # nor at its beginning
        ("x-kubernetes-b", ["Kubernetes"]),  # but beside a hyphen
        ("kube", []),  # unfinished
        ("the new york times", ["New York"]),
        ("new new york", ["New York"]),
        ("new yorkers", []),
        ("new york a", ["New York"]),
        ("new a b", ["a b"]),
        ("new a c", []),
        ("new york b c", ["New York", "b c"]),
    ],
)
def test_a_text_is_given_what_its_phrases_are(text, found):
    """The same for any of its spellings by labels; the rest is paid back."""
    graph = graph_of("Kubernetes", ("New York", 3.0), ("a b", 0.5), "b c")
    credits = {
        "Kubernetes": credit("Kubernetes"),
        "New York": credit("New York", 3.0),
        "a b": credit("a b", 0.5),
        "b c": credit("b c"),
    }
    expected, rng = sum(map(credits.__getitem__, found)), np.random.default_rng(0)
    spellings = {tuple(cuts(text, FOLDED, rng)) for _ in range(20)}
    assert len(spellings) > 3
    for labels in spellings:
        assert total(graph, labels) == pytest.approx(expected), labels


def test_a_phrase_is_worth_its_weight():
    assert credit("Kubernetes") > 0
    assert credit("Kubernetes", 2.5) == pytest.approx(2.5 * credit("Kubernetes"))
    assert credit("Kubernetes", -2.0) == pytest.approx(-2.0 * credit("Kubernetes"))
    assert graph_of("Kubernetes").lift == (0.0, INSERTION)


def test_a_phrase_begins_another():
    """A shorter phrase is kept when the longer one is not finished."""
    graph, rng = graph_of("New", "New York Times"), np.random.default_rng(1)
    for text, found in (
        ("new", "New"),
        ("new york a", "New"),
        ("new york times", "New York Times"),
    ):
        for _ in range(5):
            assert total(graph, cuts(text, FOLDED, rng)) == pytest.approx(credit(found)), text


def test_an_unlikely_phrase_may_begin_a_likely_one():
    graph, rng = graph_of(("new", -1.0), "new york"), np.random.default_rng(1)
    for text, expected in (("new", credit("new", -1.0)), ("new york", credit("new york"))):
        assert total(graph, cuts(text, FOLDED, rng)) == pytest.approx(expected)
    assert total(graph, cuts("new yorkers", FOLDED, rng)) == pytest.approx(credit("new", -1.0))


def test_characters_and_languages_without_spaces():
    tokenizer = Characters("東京大阪に行くa ")
    graph = graph_of("東京", tokenizer=tokenizer)
    expected = [0, STRENGTH, STRENGTH, 0, STRENGTH, -STRENGTH]
    assert weights(graph, tokenizer.encode("大東京に東a")) == pytest.approx(expected)


def test_tags_and_bytes_spell_no_text():
    tokenizer = mixed.tokenizer()
    texts = dict(zip(tokenizer.pieces, pieces_of(tokenizer).texts, strict=True))
    assert {piece for piece, text in texts.items() if text is None} == {
        "<unk>", *mixed.TAGS, *(f"<0x{value:02X}>" for value in range(256)),
    }  # fmt: skip
    assert texts["▁Para"] == " para"


def test_phrases_without_labels_are_named():
    with pytest.warns(AdviceWarning, match="cannot spell 1 of 2 phrases.*'Zürich'"):
        phrases_graph(["Zürich", "Kubernetes"], TOKENIZER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        phrases_graph(["Kubernetes"], TOKENIZER)
    with pytest.raises(ValueError, match="cannot spell 1 of 1 phrases: 'Zürich'"):
        phrases_graph(["Zürich"], TOKENIZER)


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        ([], "there are no phrases"),
        (["  "], "a phrase needs a text"),
        ([("York", float("nan"))], "finite weight"),
        ([("York", None)], "finite weight"),
        ([("York", "2")], "finite weight"),
        ([("York", 1.0, 2.0)], "a text, or a text and a weight"),
        ([3], "a text, or a text and a weight"),
    ],
)
def test_what_is_no_phrase_is_refused(phrases, message):
    with pytest.raises(ValueError, match=message):
        make_guide(TOKENIZER, boost=phrases)


def test_too_many_phrases_are_warned_of():
    words = [piece[1:] for piece in TOKENIZER.pieces if piece.startswith("▁") and len(piece) > 1]
    with pytest.warns(AdviceWarning, match=r"begin with \d+ % of the labels"):
        phrases_graph(words, TOKENIZER)
