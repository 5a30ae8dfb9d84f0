"""The boost benchmark: rows of figures for each weight and kind of audio."""

import dataclasses
import math

import pytest
from models import make_recogniser, noise

from tdt_jax.benchmarks.boost import LEVELS, _figures, _table, boost_report

PHRASES = ["seven eight"]


def test_figures_of_phrases_and_of_utterances_without_them():
    references = ["one seven eight", "two", "nine ten"]
    figures = _figures(references, ["one seven eight", "seven eight", "nine"], PHRASES)
    assert figures == {
        "precision": 1 / 2,
        "recall": 1.0,
        "f1": 2 / 3,
        "wer": 3 / 6,  # two words for one, and one that is missing
        "wer_without": 3 / 3,
        "false": 1,
        "insertions": 1,
    }
    assert math.isnan(_figures(["two"], ["two"], PHRASES)["recall"])
    (_, line) = _table([{"weight": 1.0, "audio": "noise", **figures}]).splitlines()
    assert line.split() == ["1.00", "noise", "50.0", "100.0", "66.7", "50.0", "100.0", "1", "1"]


@pytest.mark.slow
def test_a_weight_makes_phrases_likelier():
    @dataclasses.dataclass
    class Item:
        audio: object
        text: str
        seconds: float

    items = [Item(noise(seconds), "one", seconds) for seconds in (2.0, 1.0)]
    options = dict(weights=[0.0, 9.0], snrs=[0.0], minutes=0.1)
    rows = boost_report(make_recogniser(), items, PHRASES, **options).rows
    kinds = ["0 dB", *LEVELS]
    assert [(row["weight"], row["audio"]) for row in rows] == [
        (weight, kind) for weight in (0.0, 9.0) for kind in kinds
    ]
    plain, boosted = (sum(row["false"] for row in half) for half in (rows[:4], rows[4:]))
    assert boosted > plain
