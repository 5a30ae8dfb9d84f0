"""What may be emitted: phrases one after another, digits, a script."""

import re

import numpy as np
import pytest
from graphs import cuts, weights

from tdt_jax import tokenizer as tokenizers
from tdt_jax.advice.allowed import FORBIDDEN, allowed_graph, script_graph
from tdt_jax.advice.guide import make_guide
from tdt_jax.tokenizer import Characters

TEXTS = ["yes no new york yesterday nowhere", "yes, no! new new yes", "1 23 456, 0.5 да нет μ"]
TOKENIZER = tokenizers.train_sentencepiece(TEXTS, 60)
FOLDED = [piece.replace("▁", " ").casefold() for piece in TOKENIZER.pieces]


def is_allowed(graph, labels):
    """Whether no label is forbidden after those before it."""
    return sum(weights(graph, labels)) > FORBIDDEN / 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", True),
        ("yes no", True),
        ("no, yes!", True),
        ("new york new yes", True),
        ("new york", True),
        ("yesterday", False),
        ("no where", False),
        ("ye no", False),
        ("york", False),
        ("new new york", True),
    ],
)
def test_only_phrases_that_are_allowed(text, expected):
    """However they are cut."""
    graph, rng = (
        allowed_graph(["Yes", "no", "new", "New York"], TOKENIZER),
        np.random.default_rng(0),
    )
    spellings = {tuple(cuts(text, FOLDED, rng)) for _ in range(20)}
    assert len(spellings) > 1
    for labels in spellings:
        assert is_allowed(graph, labels) == expected, [FOLDED[label] for label in labels]


def test_a_phrase_that_begins_in_another_follows_no_part_of_it():
    graph = allowed_graph(["new yes", "york"], TOKENIZER)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert not is_allowed(graph, cuts("new york", FOLDED, rng))
        assert is_allowed(graph, cuts("york new yes", FOLDED, rng))


def test_digits():
    graph = allowed_graph("digits", TOKENIZER)
    rng = np.random.default_rng(0)
    assert is_allowed(graph, cuts("456, 0.5 23", FOLDED, rng)) and graph.lift == (FORBIDDEN, 0.0)
    assert not is_allowed(graph, cuts("1 no", FOLDED, rng))
    with pytest.raises(ValueError, match="cannot spell any text in digits"):
        allowed_graph("digits", Characters("ab "))


def test_scripts_of_languages():
    rng = np.random.default_rng(0)
    for languages, allowed, forbidden in (
        (["de"], "yes, 23!", "да"),
        (["ru-RU"], "да 23", "yes"),
        (["RU"], "да", "yes"),
        (["el", "en"], "μ yes", "нет"),
    ):
        graph = script_graph(languages, TOKENIZER)
        assert is_allowed(graph, cuts(allowed, FOLDED, rng)) and graph.lift == (0.0, 0.0)
        assert not is_allowed(graph, cuts(forbidden, FOLDED, rng))
    with pytest.raises(ValueError, match="cannot spell any text in ja"):
        script_graph(["ja"], TOKENIZER)


@pytest.mark.parametrize(
    ("language", "letters", "others"),
    [
        ("ja", "時々テレビーﾃ", "yя"),
        ("zh", "时々", "ひy"),
        ("uk", "пʼя", "y"),
        ("es", "1ªº ñ", "я"),
        ("my", "မြန်မာ", "y"),
    ],
)
def test_a_script_has_all_letters_that_its_languages_write(language, letters, others):
    letters, others = sorted(set(letters)), sorted(set(others))
    weights, _ = script_graph([language], Characters("".join(letters + others))).rows[0]
    assert weights.tolist() == [0.0] * len(letters) + [FORBIDDEN] * len(others)


@pytest.mark.parametrize("language", ["", "russian", "ru_RU", "*"])
def test_a_language_that_is_no_code_is_refused(language):
    with pytest.raises(ValueError, match=rf"a language is a code.*got \'{re.escape(language)}\'"):
        make_guide(TOKENIZER, language=language)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(allowed=[]), "allowed needs phrases"),
        (dict(allowed=["Zürich", "no"]), "cannot spell 1 of 2 allowed phrases: 'Zürich'"),
    ],
)
def test_bad_advice_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_guide(TOKENIZER, **options)
