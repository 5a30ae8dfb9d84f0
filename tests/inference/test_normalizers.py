"""Text normalizers: "none", Whisper's, and what is missing for them."""

import sys

import pytest

from tdt_jax.inference.normalizers import MERGING, NORMALIZERS, make_normalizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 20 dollars, okay?", "it is $20 okay"),
        ("Mr. Brown won't pay twenty-five percent", "mister brown will not pay 25%"),
        ("The colour of  Café Noir\n", "the color of cafe noir"),
        ("I'm, um, [cough] gonna (laughs) go", "i am going to go"),
        ("one thousand and one, or the twenty first", "1001 or the 21st"),
        ("so ... I'm... ", "so i am"),
        ("Um, uh. <unk>", ""),
    ],
)
def test_whispers_normalizer(text, expected):
    assert make_normalizer("whisper")(text) == expected
    assert make_normalizer("none")(text) == " ".join(text.split())


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="one of none, whisper, leaderboard, got 'Whisper'"):
        make_normalizer("Whisper")
    monkeypatch.setitem(sys.modules, "kaldialign", None)
    with pytest.raises(ValueError, match="pip install whisper-normalizer kaldialign"):
        make_normalizer("leaderboard")
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(ValueError, match=r"pip install whisper-normalizer$"):
        make_normalizer("whisper")


def test_every_name_has_a_normalizer():
    for name in NORMALIZERS:
        assert make_normalizer(name)(" a  42\n") == "a 42"
    assert set(NORMALIZERS) > MERGING
