"""What becomes of the labels of a stream: words that are certain, and ends of turns."""

import dataclasses

import mixed
import numpy as np
import pytest
from models import hypothesis, spell, without_model
from sentencepiece import sentencepiece_model_pb2

from tdt_jax import tokenizer as tokenizers
from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.stream_words import Decoded, StreamWords

RULE = EndOfTurn(silence=0.8, shortest=0.4)
FRAME = 1280


@pytest.fixture(scope="module")
def characters():
    return without_model(tokenizers.train_characters(["abcd ."]))


class Steps:
    """A stream whose steps decode given labels, each 2 frames long, one frame at a time."""

    def __init__(self, recogniser, rule=RULE, certainty=0.0, blanks=1):
        self.words = StreamWords(recogniser, keep_tags=False, end_of_turn=rule)
        self.recogniser, self.frames = recogniser, 0
        self.uniform = np.log(recogniser.config.vocab_size + 1)  # entropy of no certainty
        self.certainty, self.blanks = certainty, blanks

    def step(self, pieces=(), count=1):
        """Decodes `count` frames, with labels in the first; returns what has become certain."""
        labels = np.array(spell(self.recogniser, *pieces), np.int32)
        size = len(labels)
        found = hypothesis(labels, np.full(size, self.frames), np.full(size, 2))
        entropies = np.full(size, 0.0 if self.certainty else self.uniform, np.float32)
        found = found._replace(entropies=entropies, num_steps=np.int32(size + self.blanks))
        self.frames += count
        self.words.add(Decoded(found, self.frames, self.frames * FRAME + 200))
        return self.words.take()

    def until_the_end(self, most=30):
        """Steps without labels until an event comes: their number, and what was emitted."""
        events, count = [], 0
        while not any(isinstance(event, EndOfUtterance) for event in events) and count < most:
            events += self.step()
            count += 1
        return count, events


def test_silence_ends_a_turn(characters):
    """Of the length of the rule, from the end of the last label on."""
    steps = Steps(characters)
    assert steps.step("ab") == [] and steps.words.pending == "ab"
    count, events = steps.until_the_end()
    assert count == 2 + 10 - 1  # frames: of the label, of 0.8 s, of the first step
    word, end = events
    assert (word.text, word.begins) == ("ab", True)
    assert dataclasses.astuple(end) == ("ab", 0.0, 0.16, pytest.approx(0.96 + 0.0125), "silence")
    assert steps.words.pending == "" and steps.words.text == "ab"
    assert steps.until_the_end() == (30, [])


def test_certainty_and_reach_shorten_the_silence(characters):
    for certainty, blanks, frames in ((1.0, 0, 5), (1.0, 1, 9), (0.0, 0, 10)):
        steps = Steps(characters, certainty=certainty, blanks=blanks)
        steps.step("ab")
        count, _ = steps.until_the_end()
        assert count == 1 + frames, (certainty, blanks)


def test_words_that_are_certain_do_not_wait_for_the_end(characters):
    steps = Steps(characters, EndOfTurn(silence=5.0, shortest=4.0))
    steps.step("ab")
    assert [event.text for event in steps.step(" c")] == ["ab"]
    count, events = steps.until_the_end(80)
    assert [event.text for event in events] == ["c", "ab c"]
    assert count > 45 and events[0].end < events[1].time - 4.0


def test_a_label_starts_the_silence_anew(characters):
    steps = Steps(characters)
    steps.step("a")
    for _ in range(9):
        assert not steps.step()
    steps.step(".")
    count, events = steps.until_the_end()
    assert count == 11 and [event.text for event in events] == ["a.", "a."]


def test_punctuation_alone_is_no_utterance(characters):
    steps = Steps(characters)
    steps.step("ab")
    steps.until_the_end()
    steps.step(".")
    count, events = steps.until_the_end()
    assert count == 30 and [event.text for event in events] == ["."] and not events[0].begins
    steps.step(" cd")
    _, events = steps.until_the_end()
    assert [event.text for event in events] == ["cd", "cd"]
    assert steps.words.text == "ab. cd"


def test_without_a_word_nothing_ends(characters):
    steps = Steps(characters)
    assert steps.until_the_end() == (30, [])
    steps.words.end()
    assert steps.words.take() == []


def test_without_the_rule_there_are_no_events(characters):
    steps = Steps(characters, None)
    steps.step("ab")
    assert [event.text for event in steps.until_the_end()[1]] == ["ab"]
    steps.step("cd")
    steps.words.end()
    assert [event.text for event in steps.words.take()] == ["cd"]


def test_the_end_of_an_utterance_ends_the_turn_and_times_go_on(characters):
    steps = Steps(characters)
    steps.step("ab", count=3)
    steps.words.end()
    word, end = steps.words.take()
    assert word.text == end.text == "ab" and end.reason == "finish_turn"
    before = 3 * 0.08 + 0.0125
    assert end.time == steps.words.seconds == pytest.approx(before)
    steps.frames = 0
    steps.step("cd")
    _, (word, end) = steps.until_the_end()
    assert word.start == end.start == pytest.approx(before) and word.begins
    assert end.text == "cd" and end.time == pytest.approx(before + 0.9725)
    assert steps.words.text == "ab cd"


# <EOU>


@pytest.fixture(scope="module")
def with_token():
    model = sentencepiece_model_pb2.ModelProto.FromString(mixed.tokenizer().model)
    model.pieces.add(piece="<EOU>", score=0.0, type=mixed.NORMAL)
    return without_model(tokenizers.SentencePiece(model.SerializeToString()))


def test_a_token_ends_a_turn(with_token):
    """At once, also within a step; it is no text, and no turn of its own."""
    steps = Steps(with_token)
    assert steps.step(["<EOU>"]) == []
    events = steps.step(["▁the", "<EOU>", "▁it"], count=6)
    assert [event.text for event in events] == ["the", "the"]
    assert events[1].reason == "token" and steps.words.pending == " it"
    assert events[1].time == pytest.approx(7 * 0.08 + 0.0125)
    events = steps.step(["<EOU>", "<EOU>"])
    assert [event.text for event in events] == ["it", "it"]
    assert steps.words.text == "the it"


def test_without_the_rule_a_token_is_no_text(with_token):
    steps = Steps(with_token, None)
    events = steps.step(["▁the", "<EOU>", "▁it"])
    steps.words.end()
    assert [event.text for event in events + steps.words.take()] == ["the", "it"]
