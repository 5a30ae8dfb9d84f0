"""The grammar of telephone speech: its texts make sense, and all their words are recorded."""

import datetime
import functools
import itertools
import json
import re

import numpy as np
import pytest

from tdt_jax.data.telephone import grammar
from tdt_jax.data.telephone.compose import prompts_folder


@functools.cache
def texts(kind: str) -> list[str]:
    rng = np.random.default_rng(7)
    return [" ".join(grammar.KINDS[kind].draw(rng)) for _ in range(3000)]


def one_of(words) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


@pytest.mark.parametrize("kind", grammar.KINDS)
def test_kinds_have_exactly_the_recorded_units_they_declare(kind):
    declared = set(grammar.KINDS[kind].units)
    rng = np.random.default_rng(0)
    drawn = {unit for _ in range(8000) for unit in grammar.KINDS[kind].draw(rng)}
    assert drawn == declared
    lines = (prompts_folder() / "manifest.jsonl").read_text().splitlines()
    assert declared <= {json.loads(line)["text"] for line in lines}


@pytest.mark.parametrize(
    ("number", "plain", "with_and"),
    [
        (0, "zero", "zero"),
        (14, "fourteen", "fourteen"),
        (40, "forty", "forty"),
        (100, "one hundred", "one hundred"),
        (425, "four hundred twenty five", "four hundred and twenty five"),
        (1005, "one thousand five", "one thousand and five"),
        (1200, "one thousand two hundred", "one thousand two hundred"),
        (
            2_425_019,
            "two million four hundred twenty five thousand nineteen",
            "two million four hundred and twenty five thousand and nineteen",
        ),
    ],
)
def test_cardinals(number, plain, with_and):
    assert " ".join(grammar.cardinal(number)) == plain
    assert " ".join(grammar.cardinal(number, use_and=True)) == with_and


def test_ordinals():
    expected = {1: "first", 12: "twelfth", 19: "nineteenth", 20: "twentieth", 31: "thirty first"}
    expected |= {40: "fourtieth", 108: "one hundred eighth", 2000: "two thousandth"}
    assert {number: " ".join(grammar.ordinal(number)) for number in expected} == expected


def test_dates_are_in_the_calendar():
    ordinals = {" ".join(grammar.ordinal(day)): day for day in range(1, 32)}
    date = re.compile(
        f"(?P<weekday>{one_of(grammar.WEEKDAYS)} )?(?P<month>{one_of(grammar.MONTHS)}) "
        f"(?P<day>{one_of(ordinals)})(?P<rest> .*)?"
    )
    rng = np.random.default_rng(0)
    years = {" ".join(grammar.year(rng, y)): y for y in range(1900, 2040) for _ in range(60)}
    found = 0
    for text in texts("date"):
        match = date.fullmatch(text)
        if match is None:
            assert text.split()[0] in ("today", "tomorrow", "yesterday", *grammar.WEEKDAYS)
            assert text.split()[1] == "at"
            continue
        month, day = grammar.MONTHS.index(match["month"]) + 1, ordinals[match["day"]]
        datetime.date(2000, month, day)  # a leap year
        rest = (match["rest"] or "").strip()
        if rest and not rest.startswith("at "):
            date_of_year = datetime.date(years[rest], month, day)
            if match["weekday"]:
                found += 1
                assert grammar.WEEKDAYS[date_of_year.weekday()] == match["weekday"].strip()
    assert found > 100


def test_years():
    rng = np.random.default_rng(0)
    years = [" ".join(grammar.year(rng, number)) for number in (1900, 1905, 1998, 2024)]
    expected = "nineteen hundred, nineteen oh five, nineteen ninety eight, twenty twenty four"
    assert years == expected.split(", ")
    both = {" ".join(grammar.year(rng, 2008)) for _ in range(50)}
    assert both == {"two thousand eight", "two thousand and eight"}


def test_times():
    hours = one_of([*grammar.ONES[1:], "ten", "eleven", "twelve"])
    minutes = one_of(" ".join(grammar.pair(minute)) for minute in range(1, 60))
    time = re.compile(f"(at )?{hours}( o'clock|( {minutes})?( [ap] m)?)")
    drawn = texts("time")
    assert all(time.fullmatch(text) for text in drawn)
    assert {"twelve thirty", "at seven o'clock", "seven p m"} <= set(drawn)
    assert any(" oh five" in text for text in drawn)


def test_amounts_are_a_number_and_dollars():
    drawn = texts("amount")
    assert all(re.search(r" dollars$", text) or text == "one dollar" for text in drawn)
    bad = re.compile(r"zero|\band dollars|\band and\b|^one dollars|hundred hundred")
    assert not any(bad.search(text) for text in drawn)
    assert sum(" and " in text for text in drawn) > 300


def test_digits_repeat_and_zero_has_two_names():
    drawn = [text.split() for text in texts("digits")]
    lengths = {len(words) for words in drawn}
    assert {1, 4, 10} <= lengths and max(lengths) == 12
    pairs = [(a, b) for words in drawn for a, b in itertools.pairwise(words)]
    assert 0.2 < np.mean([a == b for a, b in pairs]) < 0.5
    assert any(words == ["oh", "oh"] or words[:3] == ["oh"] * 3 for words in drawn)
    assert not any({"oh", "zero"} <= set(words) for words in drawn)


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        ("phone", r"(number )?(one )?(eight|nine) hundred( \w+){3,}"),
        ("phone", r"five five five( \w+){4}"),
        ("letters", r"[a-z] [a-z] [a-z]( \w{3,}){2,4}"),
        ("spelling", r"(\w+ )+dash (niner|\w+) \w+"),
        ("extension", r"your extension is( \w+){2,}"),
        ("message", r"you have no (new )?messages"),
        ("message", r"(first|last) message from extension .*received .* at .*"),
        ("duration", r".* hours .* minutes and .* seconds"),
        ("symbols", r"slash .* dot .*"),
        ("percent", r"minus .* dot \w+ percent"),
        ("rank", r".* hundred (and )?.*th"),
        ("command", r"call waiting enabled"),
    ],
)
def test_kinds_have_their_typical_texts(kind, example):
    assert any(re.fullmatch(example, text) for text in texts(kind))
