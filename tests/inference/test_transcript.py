"""Transcripts of many scripts: times of spoken labels and of others, tags, segments."""

import itertools

import mixed
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import JAPANESE, any_hypothesis, emitted
from models import hypothesis, spell, without_model

from tdt_jax import tokenizer as tokenizers
from tdt_jax.inference.transcript import to_transcript

FRAME = 0.08
RECOGNISER = without_model(mixed.tokenizer())
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
    found = transcript(("▁it", 2, 3), ("▁'", 6, 1), ("i", 7, 2))  # this is spoken with its word
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


def test_words_carry_times_and_their_least_confidence():
    characters = without_model(tokenizers.train_characters(["ab c."]))
    labels = spell(characters, "a", "b", ".", " ", "c")
    found = to_transcript(hypothesis(labels, [2, 2, 5, 20, 21], [0, 3, 2, 1, 4]), characters, 2.0)
    assert found.text == "ab. c" and found.duration == 2.0
    assert [(t.text, round(t.start, 3), round(t.end, 3)) for t in found.tokens] == [
        ("a", 0.16, 0.16),  # duration 0, and "b" starts at the same frame
        ("b", 0.16, 0.4),
        (".", 0.4, 0.4),  # punctuation has no length
        ("c", 1.68, 2.0),
    ]
    words = [(w.text, round(w.start, 3), round(w.end, 3)) for w in found.words]
    assert words == [("ab.", 0.16, 0.4), ("c", 1.68, 2.0)]
    np.testing.assert_allclose([w.probability for w in found.words], [0.5, 1.0], rtol=1e-6)
    vocab = characters.config.vocab_size  # entropy -log(p): exp(-H) = p
    np.testing.assert_allclose(found.words[0].confidence, ((vocab + 1) * 0.5 - 1) / vocab)
    assert found.words[1].confidence == 1.0
    assert [(s.text, round(s.start, 3)) for s in found.segments] == [("ab.", 0.16), ("c", 1.68)]


def test_segments_end_with_sentences_and_pauses():
    characters = without_model(tokenizers.train_characters(["Mr. Ox? it's\" no"]))
    text = "Mr. Ox?\" it's no"
    labels = characters.tokenizer.encode(text)
    times = np.arange(len(labels)) + 20 * (np.arange(len(labels)) >= text.index("no"))
    found = to_transcript(hypothesis(labels, times, np.ones_like(times)), characters, 9.0)
    assert [segment.text for segment in found.segments] == ['Mr. Ox?"', "it's", "no"]
    assert [len(segment.words) for segment in found.segments] == [2, 1, 1]
    for segment in found.segments:
        assert segment.confidence == min(word.confidence for word in segment.words)
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)


def test_times_do_not_leave_the_audio():
    characters = without_model(tokenizers.train_characters(["ab"]))
    found = to_transcript(hypothesis(spell(characters, "a", "b"), [0, 6], [1, 4]), characters, 0.5)
    assert found.tokens[1].end == 0.5 and found.words[-1].end == 0.5
