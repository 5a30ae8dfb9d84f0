"""What a check of a corpus finds, and that it finds nothing in a good one."""

import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tdt_jax.data.checking import check, styles, totals
from tdt_jax.data.manifest import Entry
from tdt_jax.data.parquet import Row
from tdt_jax.tokenizer import Characters

TEXTS = ("one two three four", "five six seven", "eight nine ten", "two hundred and six")
TOKENIZER = Characters("abcdefghijklmnopqrstuvwxyz ")


@pytest.fixture
def good(tmp_path):
    """Four recordings of 2 s."""
    entries = []
    for number, text in enumerate(TEXTS):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.sin(np.arange(32000) / (5 + number)), 16000)
        entries.append(Entry(path.name, path, 2.0, text))
    return entries


def found(*arguments, **options):
    return [(finding.is_fault, finding.text) for finding in check(*arguments, **options)]


def test_a_good_corpus(good):
    assert found(good[:3], good[3:], tokenizer=TOKENIZER, most_labels=lambda seconds: 20) == []
    assert str(totals(good)) == (
        "4 utterances, 0.00 h, 2.0 to 2.0 s (median 2.0), 14 words, 65 characters"
    )


def test_files_and_texts(good):
    items = [
        good[0],
        good[1]._replace(path=Path("gone.wav")),
        good[2]._replace(seconds=0.0),
        good[3]._replace(text=""),
    ]
    assert found(items) == [
        (True, "1 of 4 utterances have no file"),
        (True, "1 of 4 utterances cannot be read as audio, or are empty"),
        (True, "1 of 4 utterances have no text"),
    ]


def test_characters_and_labels(good):
    items = [good[0]._replace(text="one 2 grün"), good[1]._replace(text="grün grün"), *good[2:]]
    (finding,) = check(items, tokenizer=TOKENIZER)
    assert finding.is_fault and finding.examples == ("0.wav", "1.wav")
    assert finding.text == (
        "2 of 4 utterances have characters outside the tokenizer: "
        "'ü' (latin small letter u with diaeresis) in 2, '2' (digit two) in 1"
    )
    (finding,) = check(good, tokenizer=TOKENIZER, most_labels=lambda seconds: 9 * seconds)
    assert finding.text == "1 of 4 utterances have more labels than the model has frames for"
    assert finding.examples == ("3.wav: 19 labels in 2.00 s",)


def test_leakage(good, tmp_path):
    """The same file elsewhere is the same audio; a text of few words may be said twice."""
    copy = tmp_path / "copy.wav"
    copy.write_bytes(good[0].path.read_bytes())
    dev = [good[0]._replace(id="copy.wav", path=copy), good[1]._replace(path=good[3].path)]
    findings = check(good[:3], dev)
    assert [(each.text, each.examples) for each in findings] == [
        ("1 of 2 utterances of the development set are audio of training", ("copy.wav",)),
        (
            "1 of 2 utterances of the development set have a text of 4 words or more that is in "
            "training",
            ("copy.wav",),
        ),
    ]
    assert [each.is_fault for each in findings] == [True, False]
    # Parts of one file are other audio, unless they begin at the same second.
    parts = [good[0]._replace(offset=float(n), text=TEXTS[n]) for n in range(3)]
    assert check(parts, [parts[0]._replace(offset=0.5, text="a long text")]) == []
    # A whole file is the same audio, however exactly its manifest has the length.
    for same in ({}, {"seconds": 2.04}, {"offset": 0.0}):
        (finding,) = check([good[0], good[0]._replace(id="again", text="another text", **same)])
        assert finding.is_fault and finding.text.startswith("2 of 2 utterances have audio that has")


def test_the_same_audio_in_parquet_files():
    def row(id, data, text):
        file = types.SimpleNamespace(encoded=lambda group, number: data)
        return Row(id, file, 0, 0, None, 2.0, text)

    train = [row("a", b"1", TEXTS[0]), row("b", b"2", TEXTS[1])]
    (finding,) = check(train, [row("c", b"2", TEXTS[1]), row("d", b"3", TEXTS[2])])
    assert finding.is_fault and finding.examples == ("c",)
    assert finding.text == "1 of 2 utterances of the development set are audio of training"


def test_rates(good):
    items = [
        *good,
        good[0]._replace(id="fast", offset=1.0, text="x" * 200),
        good[0]._replace(id="slow", offset=2.0, seconds=60.0),
        good[0]._replace(id="short", offset=3.0, seconds=0.1),
    ]
    (finding,) = check(items)
    assert not finding.is_fault
    assert finding.text == ("2 of 7 utterances have improbable characters a second (median 8.0)")
    assert [example.partition(":")[0] for example in finding.examples] == ["slow", "fast"]


def test_style(good):
    vocabulary = dataclasses.replace(TOKENIZER, alphabet=TOKENIZER.alphabet + "ABCDEFG.7")
    assert [text for _, text in found(good, tokenizer=vocabulary)] == [
        f"the model can write {what}, and no text has any: it will unlearn them"
        for what in ("capitals", "punctuation", "digits")
    ]
    mixed = [good[0]._replace(text="One, two."), good[1]._replace(text="FIVE SIX"), *good[2:]]
    assert [text for _, text in found(mixed)] == [
        "25% of the texts are all in capitals, the others are not",
        "25% of the texts have punctuation, the others have none",
    ]
    assert styles(["One, two.", "3"]) == {"capitals": 0.5, "punctuation": 0.5, "digits": 0.5}
