"""Streams: chunk by chunk gives what the whole gives, however the samples come."""

import dataclasses
import itertools

import jax
import mixed
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from mixed import JAPANESE, any_hypothesis, emitted
from models import (
    encoder_config,
    hypothesis,
    make_recogniser,
    noise,
    speech,
    spell,
    with_tags,
    without_model,
)

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.audio.errors import AudioError
from tdt_jax.decoding.hypothesis import take
from tdt_jax.inference import windowed
from tdt_jax.inference.stream_words import Tail
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcript import to_transcript, to_word

FRAME = 1280  # samples
SMALL = dict(chunk=0.4, left=0.8, right=0.16)
RECOGNISER = without_model(mixed.tokenizer())


def words_of(stream, *blocks):
    """All words of a stream, which spell its text."""
    words = [word for block in blocks for word in stream.push(block)] + stream.finish()
    assert stream.text == "".join(" " * word.begins + word.text for word in words).strip()
    assert stream.pending == "" and stream.finish() == []
    return words


def plain(words):
    """Words of a stream as a transcript has them."""
    fields = [field.name for field in dataclasses.fields(tdt.Word)]
    return [tdt.Word(*(getattr(word, name) for name in fields)) for word in words]


def test_one_program():
    """However long, for streams that follow, and no other at the start or at the end."""
    windowed._decode_window.clear_cache()
    recogniser = make_recogniser(piece_seconds=2.56)
    Stream(recogniser, **SMALL).warm_up()
    assert windowed._decode_window._cache_size() == 1
    for seconds in (6.0, 0.1, 3.3):
        words_of(Stream(recogniser, **SMALL), noise(seconds))
    assert windowed._decode_window._cache_size() == 1


# The whole


@pytest.mark.parametrize(
    ("durations", "chunk"),
    [((0, 1, 2), 0.24), (None, 0.24), pytest.param((0, 1, 2), 2.56, marks=pytest.mark.slow)],
)
def test_windows_that_hold_everything_give_what_the_whole_gives(durations, chunk):
    """Whether the chunk is as long as the audio, or its labels jump over the borders of many."""
    recogniser = make_recogniser(durations, blank_bias=4.0, piece_seconds=2.56)
    samples = noise(2.5)
    stream = Stream(recogniser, chunk=chunk, left=2.56, right=2.56)
    words = words_of(stream, samples)
    model = recogniser.model
    padded = np.pad(samples, (0, round(2.56 * 16000) - len(samples)))[None]
    frames = tdt.encode(model, *tdt.log_mel(padded, np.array([len(samples)], np.int32)))
    whole = take(jax.device_get(tdt.greedy_decode(model, *frames)), 0)
    expected = to_transcript(whole, recogniser, 2.5)
    assert stream.text == expected.text and len(expected.words) > 5
    assert all(word.begins for word in words)
    for word, other in zip(plain(words), expected.words, strict=True):
        assert word.text == other.text
        np.testing.assert_allclose(
            dataclasses.astuple(word)[1:], dataclasses.astuple(other)[1:], atol=1e-5
        )


def test_silence_costs_nothing(recogniser, monkeypatch):
    """While all is silent nothing is computed, and the words before it are given."""
    calls, decode = [], windowed._decode_window
    monkeypatch.setattr(
        windowed, "_decode_window", lambda *x, **y: calls.append(x) or decode(*x, **y)
    )
    stream = Stream(recogniser, **SMALL)
    assert stream.push(np.zeros(80 * FRAME, np.float32)) == [] and not calls
    words = stream.push(noise(3.0))
    assert len(calls) > 5
    calls.clear()
    words += stream.push(np.zeros(80 * FRAME, np.float32))
    assert len(calls) <= 3 and stream.pending == "" and stream.finish() == []
    alone = words_of(Stream(recogniser, **SMALL), noise(3.0))
    assert [word.text for word in words] == [word.text for word in alone]
    starts, expected = ([word.start for word in each] for each in (words, alone))
    np.testing.assert_allclose(starts, np.array(expected) + 80 * 0.08, atol=1e-6)


def test_frames_of_a_window_are_frames_of_the_whole(recogniser):
    """A window that starts at frame 7: all but the features and frames at its edge are the same."""
    samples, start = noise(2.56), 7
    model, size = recogniser.model, len(samples)

    def features(samples):
        padded = np.pad(samples, (0, size - len(samples)))[None]
        features, number = tdt.log_mel(padded, np.array([len(samples)], np.int32))
        return np.asarray(features)[:, : int(number[0])]

    whole, window = features(samples), features(samples[start * FRAME :])
    assert window.shape[1] == whole.shape[1] - 8 * start
    # Each is normalised over its own length: compare after normalising over what they share.
    whole, window = (
        (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
        for x in (whole[:, 8 * start + 2 :], window[:, 2:])
    )
    np.testing.assert_allclose(window, whole, atol=1e-3)

    features = np.random.default_rng(0).normal(size=(2, 256, 80)).astype(np.float32)
    features[1] = np.pad(features[0, 8 * start :], ((0, 8 * start), (0, 0)))
    lengths = np.array([256, 256 - 8 * start], np.int32)
    frames = jax.device_get(jax.jit(model.encoder.subsampling)(features, lengths)[0])
    whole, window = frames[:1], frames[1:, : 32 - start]
    np.testing.assert_allclose(window[:, 1:], whole[:, start + 1 :], atol=1e-5)
    assert np.abs(window[:, 0] - whole[:, start]).max() > 1e-3


# The stream


def test_how_samples_are_cut_makes_no_difference(recogniser):
    samples = noise(5.03)
    expected = words_of(Stream(recogniser, **SMALL), samples)
    assert len(expected) > 5
    cuts = np.sort(np.random.default_rng(1).integers(0, len(samples), 40))
    assert words_of(Stream(recogniser, **SMALL), *np.split(samples, cuts)) == expected
    short = samples[: 13 * FRAME + 7]
    each = words_of(Stream(recogniser, **SMALL), *short[:, None])
    assert each == words_of(Stream(recogniser, **SMALL), short) and each


def test_words_are_in_order_and_memory_is_bounded(recogniser):
    stream, words, held = Stream(recogniser, **SMALL), [], []
    for second in range(30):
        words += stream.push(noise(1.0, second))
        held.append(len(stream._words._tail._hypothesis.labels))
        assert second - 1 <= stream.seconds <= second + 1
    words += stream.finish()
    assert len(words) > 50 and max(held) < 60 < sum(len(word.text) for word in words)
    starts = [word.start for word in words]
    assert starts == sorted(starts) and starts[-1] > 25
    assert all(word.start <= word.end <= 30.0 for word in words)
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(words))


def test_latency_and_whole_frames(recogniser):
    stream = Stream(recogniser, chunk=0.3, left=0.0, right=0.1)
    assert stream.latency == pytest.approx(0.4)  # 4 + 1 frames
    stream.push(np.zeros(5 * FRAME - 1, np.float32))
    assert stream.seconds == 0
    stream.push(np.zeros(1, np.float32))
    assert stream.seconds == pytest.approx(0.32)


def test_audio_without_a_frame(recogniser):
    for seconds in (0, 0.005, 0.011):
        assert len(words_of(Stream(recogniser, **SMALL), noise(seconds))) <= 3
    assert words_of(Stream(recogniser, **SMALL)) == []


def test_what_cannot_be_streamed_is_named(recogniser):
    config = dataclasses.replace(recogniser.config, predictor=None, joint=None, durations=None)
    ctc = tdt.Recogniser(
        jax.eval_shape(lambda: tdt.Transducer(config, rngs=nnx.Rngs(0))), recogniser.tokenizer
    )
    with pytest.raises(ValueError, match="needs a transducer, and this is a CTC model"):
        Stream(ctc)
    for bad in (dict(chunk=0.0), dict(left=-1.0), dict(right=float("nan")), dict(chunk=np.inf)):
        with pytest.raises(ValueError, match=r"chunk must be at least a frame .* got chunk"):
            Stream(recogniser, **bad)
    stream = Stream(recogniser, **SMALL)
    with pytest.raises(AudioError, match="not finite"):
        stream.push(np.full(900, np.nan))
    stream.finish()
    with pytest.raises(ValueError, match=r"after finish\(\)"):
        stream.push(np.zeros(9))


# Turns


def test_finish_turn_gives_all_words_and_times_go_on(recogniser):
    samples, size = noise(5.0), 33333
    first, second = Stream(recogniser, **SMALL), Stream(recogniser, **SMALL)
    expected = words_of(first, samples[:size]), words_of(second, samples[size:])
    stream, offset = Stream(recogniser, **SMALL), size / 16000
    assert stream.push(samples[:size]) + stream.finish_turn() == expected[0]
    assert stream.pending == "" and stream.seconds == pytest.approx(offset)
    assert stream.finish_turn() == []
    assert stream.push(samples[size:]) + stream.finish() == [
        dataclasses.replace(word, start=offset + word.start, end=offset + word.end)
        for word in expected[1]
    ]
    assert stream.text == f"{first.text} {second.text}" and len(expected[1]) > 3
    with pytest.raises(ValueError, match=r"finish_turn\(\) was called after finish\(\)"):
        stream.finish_turn()
    stream.reset()
    assert (stream.text, stream.seconds) == ("", 0.0)
    assert words_of(stream, samples[size:]) == expected[1]


def test_silence_that_is_not_decoded_ends_a_turn(recogniser):
    """The words are those of a stream without the rule."""
    samples = np.concatenate([noise(2.0), np.zeros(3 * 16000, np.float32), noise(2.0, 1)])
    expected = words_of(Stream(recogniser, **SMALL), samples)
    stream, events = Stream(recogniser, **SMALL, end_of_turn=tdt.EndOfTurn()), []
    for block in np.array_split(samples, 70):
        events += stream.push(block)
    events += stream.finish()
    ends = [event for event in events if isinstance(event, tdt.EndOfUtterance)]
    words = [event for event in events if event not in ends]
    assert "".join(word.text for word in words) == "".join(word.text for word in expected)
    assert [end.reason for end in ends] == ["silence", "finish_turn"]
    assert 2.4 < ends[0].time < 3.6 and ends[0].end < 2.2 and ends[1].start > 4.9
    assert "".join(end.text for end in ends).replace(" ", "") == stream.text.replace(" ", "")


# Unified models


@pytest.fixture(scope="module")
def unified():
    encoder = encoder_config(unified_contexts=((7,), (1, 2), (0, 1, 2)))
    features = tdt.FeatureConfig(num_mels=16)
    return make_recogniser(blank_bias=4.0, encoder=encoder, features=features)


def test_windows_of_a_unified_model_have_its_context(unified):
    """The largest unless told otherwise."""
    assert Stream(unified).latency == pytest.approx(0.32)
    assert Stream(unified, chunk=0.08, right=0.0).latency == pytest.approx(0.08)
    for bad in (dict(chunk=0.24), dict(right=0.24), dict(left=0.48)):
        with pytest.raises(ValueError, match=r"no attention context .*\(left, chunk, right\) from"):
            Stream(unified, **bad)


def test_windows_of_a_unified_model_start_with_a_chunk(unified, monkeypatch):
    """As its mask counts them: with 6 frames to the left of 7, and also after silence."""
    calls, decode = [], windowed._decode_window

    def spy(model, samples, num_samples, first, *rest, **options):
        calls.append((int(first), int(num_samples[0]), options))
        return decode(model, samples, num_samples, first, *rest, **options)

    monkeypatch.setattr(windowed, "_decode_window", spy)
    samples = np.pad(speech(3.0), (13 * FRAME + 500, 0))
    assert words_of(Stream(unified), *np.array_split(samples, 20))
    assert {first for first, *_ in calls} == {0, 2, 4, 6} and len(calls) == 20
    assert calls[8][1] == (6 + 2 + 2) * FRAME
    assert all(options == dict(size=2, context=(7, 2, 2)) for *_, options in calls)


# Words that are certain


@pytest.fixture(scope="module")
def characters():
    return without_model(tokenizers.train_characters(["abcd ."]))


def settled(tail, recogniser, text, times, at):
    labels = np.array(spell(recogniser, *text), np.int32)
    tail.add(hypothesis(labels, np.array(times, np.int32), np.ones_like(labels)))
    return [
        " ".join("+" * (not word.space_before) + word.text for word in words)
        for words in tail.settle(at, 100.0)
    ]


def test_a_word_is_certain_when_the_next_begins_or_after_a_pause(characters):
    tail = Tail(characters)
    assert settled(tail, characters, "ab", [1, 2], 0.4) == ["", "ab"]
    assert settled(tail, characters, "c d", [6, 8, 9], 0.8) == ["abc", "d"]
    assert settled(tail, characters, "", [], 1.79) == ["", "d"]  # it ends at 0.8
    assert settled(tail, characters, " ", [22], 1.8) == ["d", ""]
    assert settled(tail, characters, "", [], 3.0) == ["", ""]
    assert settled(tail, characters, "a", [38], 3.1) == ["", "a"]
    assert settled(tail, characters, "", [], np.inf) == ["a", ""]
    assert settled(tail, characters, ".", [60], 4.9) == ["", "+."]  # of the word before the pause
    assert settled(tail, characters, "   ", [61, 62, 63], 4.9) == ["", "+."]
    assert settled(tail, characters, "b", [64], 5.2) == ["+.", "b"]


def test_long_words_are_given_in_parts(characters):
    """As of a language without spaces."""
    tail, parts = Tail(characters), []
    for i in range(20):
        certain, rest = settled(tail, characters, "abcd", np.arange(4) * 3 + 12 * i, 0.96 * (i + 1))
        parts += certain.split()
        assert len(rest) <= 13
    assert "".join(parts).replace("+", "") + rest.strip("+") == "abcd" * 20
    assert len(parts) > 5 and all(part[0] == "+" for part in parts[1:])


def test_a_piece_without_its_space_goes_on_with_the_word_before(recogniser):
    pieces = recogniser.tokenizer.pieces
    first = next(piece for piece in pieces if piece[0] == "▁" and len(piece) > 1)
    following = next(piece for piece in pieces if piece[0].isalpha())
    tail = Tail(recogniser)
    assert settled(tail, recogniser, [first, "▁"], [0, 1], 1.2) == [first[1:], ""]
    assert settled(tail, recogniser, [following], [20], 1.8) == ["", following]
    tail = Tail(recogniser)
    assert settled(tail, recogniser, [first], [0], 1.2) == [first[1:], ""]
    assert settled(tail, recogniser, [following], [20], 1.8) == ["", f"+{following}"]


# Scripts without spaces, marks and tags


def given_by(tail, found, size, frame=0.08):
    """What a tail gives of labels, `size` at a time, and at the end."""
    words = []
    for begin in range(0, len(found.labels), size):
        part = type(found)(*(x[begin : begin + size] if np.ndim(x) else x for x in found))
        words += tail.settle(float(part.times[0]) * frame, 1e9)[0]
        tail.add(part)
        certain, rest = tail.settle(float(part.times[-1]) * frame, 1e9)
        assert len(rest) <= 1
        words += certain
    return words + tail.settle(np.inf, 1e9)[0]


def test_words_of_japanese_are_given_one_by_one():
    pieces, times, durations = zip(*JAPANESE, strict=True)
    whole = emitted(mixed.spell(*pieces), times, durations)
    expected = to_transcript(whole, RECOGNISER, 60.0)
    for size in (1, 2, 5):
        words = given_by(Tail(RECOGNISER), whole, size)
        assert [to_word(word) for word in words] == expected.words


def test_a_mark_joins_the_word_that_was_given_before_a_pause():
    labels = mixed.spell("▁vra", "i", "▁", "?", "▁it", "▁", "2", "<|en|>", ".")
    tail = Tail(RECOGNISER)
    words = given_by(tail, emitted(labels, [0, 2, 3, 40, 44, 46, 90, 91, 95], [1] * 9), 1)
    assert [(word.text, word.space_before) for word in words] == [
        ("vrai", True), ("?", False), ("it", True), ("2.", True),
    ]  # fmt: skip


@settings(deadline=None, derandomize=True, max_examples=50)
@given(any_hypothesis())
def test_any_labels_are_given_whole_and_in_order(found):
    """But for spaces that depend on what is given already, as beside a quote."""
    for keep_tags in (False, True):
        words = given_by(Tail(RECOGNISER, keep_tags), found, 2)
        text = "".join(" " * word.space_before + word.text for word in words)
        whole = RECOGNISER.tokenizer.decode(found.labels, keep_tags=keep_tags)
        assert text.replace(" ", "") == whole.replace(" ", "")
        if not set(whole) & set("\"'“”„«».,:…"):
            assert text.lstrip() == whole


def test_a_stream_knows_its_language(monkeypatch):
    """Tags are shown on demand, and named by `language` anyway."""
    each = emitted(mixed.spell("<|ja|>", "▁it", "▁the"), [0, 1, 3], [1, 1, 1])
    batch = type(each)(*(np.asarray(field)[None] for field in each))
    monkeypatch.setattr(windowed, "_decode_window", lambda *x, **y: (batch, x[-1]))
    recogniser = with_tags()
    hidden, shown = Stream(recogniser, **SMALL), Stream(recogniser, **SMALL, keep_tags=True)
    assert hidden.language is None
    for stream in (hidden, shown):
        words_of(stream, noise(4.0))  # ten chunks
    assert shown.text == " ".join(["<|ja|> it the"] * 10)
    assert hidden.text == " ".join(["it the"] * 10)
    assert hidden.language == shown.language == "ja"
