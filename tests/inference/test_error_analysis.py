"""What is said of several evaluations, and of the words that are wrong."""

import json
import math

import pytest

from tdt_jax.inference import evaluation
from tdt_jax.inference.error_analysis import Comparison, errors
from tdt_jax.inference.evaluation import Evaluation, average, merged
from tdt_jax.inference.evaluation_table import markdown
from tdt_jax.inference.metrics import ErrorRate, confidence_interval
from tdt_jax.inference.transcript import Transcript


def evaluated(texts, normaliser="none", seconds=2.0, failed=()) -> Evaluation:
    """Of (reference, transcript), a second of audio each."""
    results = [
        evaluation.Result(f"{i}.wav", reference, Transcript(text, [], [], [], 1.0), 3, 12, 2)
        for i, (reference, text) in enumerate(texts)
    ]
    return Evaluation(
        **evaluation.score(results, normaliser),
        audio_seconds=float(len(results)),
        seconds=seconds,
        compile_seconds=0.0,
        failed={name: "bad" for name in failed},
        normaliser=normaliser,
    )


CLEAN = [("one two", "one two"), ("three four five", "three four fine"), ("six", "six")]
NOISY = [("one two", "many one too"), ("Um.", "no"), ("a white paper", "a whitepaper")]


def test_leaderboard_merges_compounds_and_leaves_out_what_has_no_words():
    found = evaluated(NOISY, "leaderboard")
    assert found.words == ErrorRate(3 / 4, 3, 1, 0, 2, 4)  # "one two" is 12: one word
    assert found.not_scored == 1 and found.results[1].errors is None
    assert found.results[2].errors == 0 and found.results[2].reference_words == 3
    assert evaluated(NOISY, "whisper").words.errors == 5


def test_average_is_the_mean_of_sets_and_of_all_words():
    both = average([evaluated(CLEAN, seconds=1.0), evaluated(NOISY, seconds=3.0)])
    assert both.wer == pytest.approx((1 / 6 + 5 / 6) / 2)
    assert both.words == ErrorRate(6 / 12, 6, 4, 1, 1, 12)
    assert both.interval == confidence_interval([0, 1, 0, 2, 1, 2], [2, 3, 1, 2, 1, 3])
    assert both.rtfx == 6 / 4
    assert "WER 50.00 % as the mean of the sets, 50.00 % (" in both.summary()
    assert both.as_dict()["wer_mean"] == both.wer and both.as_dict()["wer_pooled"] == 0.5
    nothing = average([evaluated(CLEAN), evaluated([], failed=["a"])])
    assert math.isnan(nothing.wer) and nothing.words.rate == 1 / 6
    assert nothing.as_dict()["wer_mean"] is None
    with pytest.raises(ValueError, match="no evaluation"):
        average([])


def test_merged_counts_by_the_rules_of_its_parts():
    whole = evaluated(NOISY, "leaderboard")
    parts = [
        whole._replace(results=whole.results[i::2], audio_seconds=1.0, seconds=s)
        for i, s in ((0, 1.0), (1, 4.0))
    ]
    found = merged(parts[::-1], ["0.wav", "1.wav", "2.wav"])
    assert found.words == whole.words and found.results == whole.results
    assert found.normaliser == "leaderboard" and found.seconds == 4.0
    assert found.interval == whole.interval and found.not_scored == 1


def test_errors_are_the_worst_utterances_and_the_commonest_confusions():
    texts = [*NOISY, ("no", "no"), ("a two", "a too"), ("two", "too")]
    found = errors(evaluated(texts), 2)
    assert found.worst == [
        Comparison("0.wav", 2, 2, [("", "many"), ("one", "one"), ("two", "too")]),
        Comparison("2.wav", 2, 3, [("a", "a"), ("white", "whitepaper"), ("paper", "")]),
    ]
    assert found.confusions == (
        [("two", "too", 3), ("Um.", "no", 1)],
        [("paper", 1)],
        [("many", 1)],
    )
    assert json.loads(json.dumps(found.as_dict()))["substitutions"][0] == ["two", "too", 3]
    expected = """\
2 of 2 words wrong: 0.wav
  reference  **** one two
  transcript many one too
             I        S

2 of 3 words wrong: 2.wav
  reference  a white      paper
  transcript a whitepaper *****
               S          D

commonest substitutions
      3  two -> too
      1  Um. -> no

commonest deletions
      1  paper

commonest insertions
      1  many"""
    assert str(found) == expected
    assert str(errors(evaluated(CLEAN[:1]))) == "no word is wrong"
    assert len(errors(evaluated(texts)).worst) == 5


def test_errors_by_the_leaderboards_rules():
    found = errors(evaluated([("a White Paper, Kathryn", "a whitepaper no")], "leaderboard"))
    assert found.worst[0].words == [
        ("a", "a"),
        ("white paper", "whitepaper"),
        ("catherine", "no"),
    ]
    assert found.confusions.substitutions == [("catherine", "no", 1)]


def test_long_and_wide_texts_are_wrapped():
    said = " ".join(f"word{i}" for i in range(40))
    lines = str(errors(evaluated([(said, said + " x"), ("日本 語", "日本 後 か")]))).splitlines()
    rows = [line for line in lines if line.startswith("  reference ")]
    assert len(rows) > 4 and all(len(line) <= 100 for line in lines)
    assert lines[1:4] == [
        "  reference  日本 ** 語", "  transcript 日本 後 か", "                  I  S"
    ]  # fmt: skip
    assert " ".join(row.removeprefix("  reference  ") for row in rows[1:]) == said + " *"


def test_markdown():
    named = [("clean|set", evaluated(CLEAN)), ("noisy", evaluated(NOISY, failed=["x", "y"]))]
    lines = markdown(named).splitlines()
    assert lines[0] == (
        "| set | WER % | 95 % interval | sub | del | ins | words | CER % "
        "| utterances | hours | steps/s | RTFx |"
    )
    assert lines[2].startswith("| clean\\|set | 16.67 | 0.00 to 33.33 | 1 | 0 | 0 | 6 |")
    assert "| 3 (2 not read) |" in lines[3] and lines[3].endswith(" | 0.00 | 3.00 | 1.5 |")
    assert lines[4].startswith("| mean of the sets | 50.00 |  |")
    assert lines[5].startswith("| all words | 50.00 | ")
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert len(markdown(named[:1]).splitlines()) == 3
    nothing = markdown([("gone", evaluated([], failed=["a"]))]).splitlines()[2]
    assert nothing.startswith("| gone |  |  |  |") and "| 0 (1 not read) |" in nothing
