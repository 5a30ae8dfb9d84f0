"""Which words are wrong: the worst utterances, and the commonest confusions."""

import json

from evaluations import CLEAN, NOISY, evaluated

from tdt_jax.inference.error_analysis import Comparison, confusions, errors


def test_confusions_are_counted_and_sorted():
    pairs = [("a", "b"), ("c", "c"), ("", "x"), ("a", "b"), ("d", ""), ("a", "c")]
    assert confusions(pairs) == (
        [("a", "b", 2), ("a", "c", 1)],
        [("d", 1)],
        [("x", 1)],
    )


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
