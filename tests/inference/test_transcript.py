"""Transcripts of many scripts: times of what is said and of what is not, tags, segments."""

import itertools

import mixed
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import JAPANESE, RECOGNISER, any_hypothesis, emitted

from tdt_jax.inference import evaluation
from tdt_jax.inference.transcript import Transcript, to_transcript

FRAME = 0.08
QUICK = settings(deadline=None, derandomize=True)


def transcript(*spoken, **options):
    """Of (piece, frame, duration)."""
    pieces, times, durations = zip(*spoken, strict=True)
    found = emitted(mixed.spell(*pieces), times, durations)
    return to_transcript(found, RECOGNISER, 60.0, **options)


def frames(parts):
    return [(part.text, round(part.start / FRAME, 3), round(part.end / FRAME, 3)) for part in parts]


def test_a_closing_mark_and_its_space_have_no_length():
    found = transcript(("▁vra", 10, 2), ("i", 12, 1), ("▁", 14, 1), ("?", 20, 2), ("▁the", 40, 2))
    assert found.text == "vrai? the"
    assert frames(found.words) == [("vrai?", 10, 13), ("the", 40, 42)]
    assert frames(found.tokens) == [
        ("▁vra", 10, 12), ("i", 12, 13), ("▁", 13, 13), ("?", 13, 13), ("▁the", 40, 42),
    ]  # fmt: skip


@pytest.mark.parametrize(("duration", "start"), [(1, 31), (21, 10)])
def test_a_word_begins_with_its_space_only_if_it_follows_at_once(duration, start):
    found = transcript(("▁it", 2, 3), ("▁", 10, duration), ("1", 31, 1), ("2", 32, 2))
    assert frames(found.words) == [("it", 2, 5), ("12", start, 34)]


def test_an_opening_mark_stands_where_its_word_is_said():
    found = transcript(("▁it", 2, 3), ("▁¿", 6, 1), ("Qué", 30, 4), ("?", 35, 1), ("▁-", 50, 1))
    assert frames(found.words) == [("it", 2, 5), ("¿Qué?", 30, 34), ("-", 34, 34)]
    assert frames(found.tokens)[1:3] == [("▁¿", 30, 30), ("Qué", 30, 34)]
    found = transcript(("▁it", 2, 3), ("▁'", 6, 1), ("i", 7, 2))  # this is said with its word
    assert frames(found.words) == [("it", 2, 5), ("'i", 6, 9)]


def test_marks_of_letters_are_said():
    found = transcript(("▁คน", 2, 3), ("ํ", 6, 1), ("▁", 9, 1), ("$", 10, 2), ("1", 12, 1))
    assert frames(found.words) == [("คนํ", 2, 7), ("$1", 9, 13)]


def test_words_and_segments_of_japanese():
    found = transcript(*JAPANESE)
    assert found.text == "東京でParakeetを使う。今日です？コー本"
    words = ["東京", "で", "Parakeet", "を", "使", "う。", "今日", "です？", "コー", "本"]
    assert [word.text for word in found.words] == words
    assert [word.space_before for word in found.words] == [True] + [False] * 9
    texts = ["東京でParakeetを使う。", "今日です？", "コー", "本"]
    assert [segment.text for segment in found.segments] == texts
    assert frames(found.words)[5:7] == [("う。", 19, 21), ("今日", 24, 28)]


def test_tags_are_neither_text_nor_time():
    said = [("<|ja|>", 0, 3), ("▁vra", 4, 1), ("i", 6, 0), ("<|en|>", 6, 4), (".", 10, 1)]
    found = transcript(*said, ("<|en|>", 12, 1), ("<|endoftext|>", 13, 1))
    assert found.text == "vrai." and found.language == "en"
    assert frames(found.tokens) == [("▁vra", 4, 5), ("i", 6, 7), (".", 7, 7)]
    assert frames(found.words) == [("vrai.", 4, 7)]
    found = transcript(*said, keep_tags=True)
    assert found.text == "<|ja|> vrai <|en|>." and found.language == "ja"
    assert frames(found.words)[:3] == [("<|ja|>", 0, 3), ("vrai", 4, 6), ("<|en|>", 6, 6)]
    silent = transcript(("<|nospeech|>", 2, 1))
    assert (silent.text, silent.words, silent.segments, silent.language) == ("", [], [], None)


@QUICK
@given(any_hypothesis(), st.booleans())
def test_any_labels(found, keep_tags):
    tokenizer = RECOGNISER.tokenizer
    made = to_transcript(found, RECOGNISER, 9.0, keep_tags=keep_tags)
    assert made.text == tokenizer.decode(found.labels, keep_tags=keep_tags)
    assert [w for segment in made.segments for w in segment.words] == made.words
    shown = [x for x in found.labels.tolist() if keep_tags or x not in tokenizer.tags]
    pieces = [tokenizer.pieces[label] for label in shown]
    assert [token.text for token in made.tokens] == (pieces if made.words else [])
    text = "".join(" " * word.space_before + word.text for word in made.words)
    assert text.lstrip() == made.text
    for parts in (made.tokens, made.words):
        assert all(0 <= part.start <= part.end <= 9.0 for part in parts)
        for one, other in itertools.pairwise(parts):
            assert one.start <= other.start and one.end <= other.end
            assert one.end <= other.start + 1e-9


def test_references_are_scored_as_transcripts_are_written():
    """Without tags and spaces before closing marks, which no transcript can have."""
    texts = [("<|fr|> vrai ? oui", "vrai? oui"), ("¿ qué <|es|>", "¿qué"), ("a - b", "a- b")]
    results = [
        evaluation.Result(
            str(i), reference, Transcript(text, [], [], [], 1.0), num_steps=0, num_frames=1,
            num_labels=0,
        )
        for i, (reference, text) in enumerate(texts)
    ]  # fmt: skip
    found = evaluation.score(results, "none")
    assert [each.errors for each in found["results"]] == [0, 0, 2]
    assert [each.reference for each in found["results"]] == [reference for reference, _ in texts]
