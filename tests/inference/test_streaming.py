"""Streams: chunk by chunk gives what the whole gives, however the samples come."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import mixed
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from mixed import JAPANESE, RECOGNISER, any_hypothesis, emitted
from models import hypothesis, make_recogniser, noise, spell, with_tags

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.audio.reading import AudioError
from tdt_jax.decoding.hypothesis import take
from tdt_jax.inference import streaming
from tdt_jax.inference.streaming import Stream, _Tail
from tdt_jax.inference.transcript import to_transcript

FRAME = 1280  # samples
SMALL = dict(chunk=0.4, left=0.8, right=0.16)


@pytest.fixture(scope="module")
def recogniser():
    return make_recogniser()


def heard(stream, *blocks):
    """All words of a stream, which spell its text."""
    words = [word for block in blocks for word in stream.push(block)] + stream.finish()
    assert stream.text == "".join(" " * word.begins + word.text for word in words).strip()
    assert stream.pending == "" and stream.finish() == []
    return words


def plain(words):
    """Words of a stream as a transcript has them."""
    fields = [field.name for field in dataclasses.fields(tdt.Word)]
    return [tdt.Word(*(getattr(word, name) for name in fields)) for word in words]


# The whole


@pytest.mark.parametrize(("durations", "chunk"), [((0, 1, 2), 4.0), ((0, 1, 2), 0.24), (None, 0.4)])
def test_windows_that_hear_everything_give_what_the_whole_gives(durations, chunk):
    """Whether the chunk is as long as the audio, or its labels jump over the borders of many."""
    recogniser = make_recogniser(durations, blank_bias=4.0)
    samples = noise(3.9)
    stream = Stream(recogniser, chunk=chunk, left=4.0, right=4.0)
    words = heard(stream, samples)
    model = recogniser.model
    size = round((chunk + 8.0) * 16000)
    padded = np.pad(samples, (0, size - len(samples)))[None]
    frames = tdt.encode(model, *tdt.log_mel(padded, np.array([len(samples)])))
    whole = take(jax.device_get(tdt.greedy_decode(model, *frames)), 0)
    expected = to_transcript(whole, recogniser, 3.9)
    assert stream.text == expected.text and len(expected.words) > 5
    assert all(word.begins for word in words)
    for word, other in zip(plain(words), expected.words, strict=True):
        assert word.text == other.text
        np.testing.assert_allclose(
            dataclasses.astuple(word)[1:], dataclasses.astuple(other)[1:], atol=1e-5
        )


@pytest.fixture
def encoder_without_context(monkeypatch):
    """Hears each frame alone, so that any window makes of a frame what the whole makes of it."""

    def encode(model, samples, num_samples):
        frames = samples.reshape(1, -1, FRAME)[:, :, : model.config.encoder.width]
        return frames, -(-(num_samples // 160) // 8)

    monkeypatch.setattr(
        streaming, "log_mel", lambda samples, num_samples, config: (samples, num_samples)
    )
    monkeypatch.setattr(streaming, "encode", encode)
    streaming._hear.clear_cache()
    yield encode
    streaming._hear.clear_cache()


def labels_in(samples, recogniser, monkeypatch, **seconds):
    """Labels, times and durations of all that a stream has decoded."""
    found = []
    monkeypatch.setattr(_Tail, "add", lambda self, hypothesis: found.append(hypothesis))
    stream = Stream(recogniser, **seconds)
    stream.push(samples)
    stream.finish()
    fields = ("labels", "times", "durations")
    return [np.concatenate([getattr(each, field) for each in found]) for field in fields]


CHUNKS = ((3, 5, 1), (1, 0, 0), (4, 0, 9), (7, 2, 4), (40, 3, 2))  # and frames left and right


@pytest.mark.parametrize(("durations", "number"), [((0, 1, 2, 4), 4), ((1, 3, 8), 1), (None, 1)])
def test_frames_and_state_go_on_from_chunk_to_chunk(
    durations, number, encoder_without_context, monkeypatch
):
    recogniser = make_recogniser(durations)
    samples = noise(6.03) * 10
    padded = np.pad(samples, (0, 76 * FRAME - len(samples)))[None]
    frames = encoder_without_context(recogniser.model, padded, np.array([len(samples)]))
    whole = take(jax.device_get(tdt.greedy_decode(recogniser.model, *frames)), 0)
    for chunk, left, right in CHUNKS[:number]:
        seconds = dict(chunk=0.08 * chunk, left=0.08 * left, right=0.08 * right)
        found = labels_in(samples, recogniser, monkeypatch, **seconds)
        for values, expected in zip(found, whole[:1] + whole[2:4], strict=True):
            np.testing.assert_array_equal(values, expected)
        if durations and chunk == 3:
            assert np.any(whole.times % chunk + whole.durations > chunk)


@pytest.mark.parametrize("gap", [30, 44])
def test_digital_silence_is_not_heard(gap, encoder_without_context, monkeypatch):
    """Before, after, and for more than two seconds inside: its frames are jumped over."""
    recogniser = make_recogniser((1, 3, 8))
    start, stop = 7 * FRAME + 300, 28 * FRAME + 900
    samples = noise(80 * 0.08)[: 70 * FRAME] * 10
    samples = np.insert(samples, np.full(gap * FRAME, stop), 0.0)
    samples[:start] = 0.0
    samples = np.append(samples, np.zeros(12 * FRAME, np.float32))
    frames, _ = encoder_without_context(recogniser.model, samples[None], np.array([len(samples)]))
    expected, state = [], tdt.start_decoding(recogniser.model, 1)
    for first, last in ((7, 29), (28 + gap, 70 + gap)):
        skip = np.maximum(state.skip - (first - expected[-1][0] if expected else 0), 0)
        found, state = tdt.decode_chunk(
            recogniser.model, frames[:, first:last], jnp.array([last - first]),
            state._replace(skip=jnp.asarray(skip)),
        )  # fmt: skip
        expected.append((last, take(found._replace(times=found.times + first), 0)))
    assert min(len(each.labels) for _, each in expected) > 5
    for chunk, left, right in CHUNKS[:4]:
        seconds = dict(chunk=0.08 * chunk, left=0.08 * left, right=0.08 * right)
        found = labels_in(samples, recogniser, monkeypatch, **seconds)
        for i, values in zip((0, 2, 3), found, strict=True):
            wanted = np.concatenate([each[i] for _, each in expected])
            np.testing.assert_array_equal(values, wanted)


def test_silence_costs_nothing(recogniser, monkeypatch):
    """While all is silent nothing is computed, and the words before it are given."""
    calls, hear = [], streaming._hear
    monkeypatch.setattr(streaming, "_hear", lambda *x, **y: calls.append(x) or hear(*x, **y))
    stream = Stream(recogniser, **SMALL)
    assert stream.push(np.zeros(80 * FRAME, np.float32)) == [] and not calls
    words = stream.push(noise(3.0))
    assert len(calls) > 5
    calls.clear()
    words += stream.push(np.zeros(80 * FRAME, np.float32))
    assert len(calls) <= 3 and stream.pending == "" and stream.finish() == []
    alone = heard(Stream(recogniser, **SMALL), noise(3.0))
    assert [word.text for word in words] == [word.text for word in alone]
    starts, expected = ([word.start for word in each] for each in (words, alone))
    np.testing.assert_allclose(starts, np.array(expected) + 80 * 0.08, atol=1e-6)


def test_frames_of_a_window_are_frames_of_the_whole(recogniser):
    """A window that starts at frame 7: all but the features and frames at its edge are the same."""
    samples, start = noise(3.0), 7
    model = recogniser.model

    def features(samples):
        return tdt.log_mel(samples[None], np.array([len(samples)]))[0]

    whole, window = features(samples), features(samples[start * FRAME :])
    assert window.shape[1] == whole.shape[1] - 8 * start
    # Each is normalised over its own length: compare after normalising over what they share.
    whole, window = (
        (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
        for x in (whole[:, 8 * start + 2 :], window[:, 2:])
    )
    np.testing.assert_allclose(window, whole, atol=1e-3)

    features = np.random.default_rng(0).normal(size=(1, 300, 80)).astype(np.float32)
    whole, window = (
        jax.jit(model.encoder.subsampling)(x, jnp.array([x.shape[1]]))[0]
        for x in (features, features[:, 8 * start :])
    )
    np.testing.assert_allclose(window[:, 1:], whole[:, start + 1 :], atol=1e-5)
    assert np.abs(window[:, 0] - whole[:, start]).max() > 1e-3


# The stream


def test_how_samples_are_cut_makes_no_difference(recogniser):
    samples = noise(5.03)
    expected = heard(Stream(recogniser, **SMALL), samples)
    assert len(expected) > 5
    cuts = np.sort(np.random.default_rng(1).integers(0, len(samples), 40))
    assert heard(Stream(recogniser, **SMALL), *np.split(samples, cuts)) == expected
    short = samples[: 13 * FRAME + 7]
    each = heard(Stream(recogniser, **SMALL), *short[:, None])
    assert each == heard(Stream(recogniser, **SMALL), short) and each


def test_words_are_in_order_and_memory_is_bounded(recogniser):
    stream, words, held = Stream(recogniser, **SMALL), [], []
    for second in range(60):
        words += stream.push(noise(1.0, second))
        held.append(len(stream._tail._hypothesis.labels))
        assert second - 1 <= stream.seconds <= second + 1
    words += stream.finish()
    assert len(words) > 100 and max(held) < 60 < sum(len(word.text) for word in words)
    starts = [word.start for word in words]
    assert starts == sorted(starts) and starts[-1] > 50
    assert all(word.start <= word.end <= 60.0 for word in words)
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(words))


def test_one_program(recogniser):
    """However long, for streams that follow, and no other at the start or at the end."""
    options = dict(chunk=0.56, left=0.32, right=0.16)
    before = streaming._hear._cache_size()
    Stream(recogniser, **options).warm_up()
    assert streaming._hear._cache_size() == before + 1
    for seconds in (20.0, 0.1, 3.3):
        heard(Stream(recogniser, **options), noise(seconds))
    assert streaming._hear._cache_size() == before + 1


def test_latency_and_whole_frames(recogniser):
    stream = Stream(recogniser, chunk=0.3, left=0.0, right=0.1)
    assert stream.latency == pytest.approx(0.4)  # 4 + 1 frames
    stream.push(np.zeros(5 * FRAME - 1, np.float32))
    assert stream.seconds == 0
    stream.push(np.zeros(1, np.float32))
    assert stream.seconds == pytest.approx(0.32)


def test_nothing_to_hear(recogniser):
    for seconds in (0, 0.005, 0.011):
        assert len(heard(Stream(recogniser, **SMALL), noise(seconds))) <= 3
    assert heard(Stream(recogniser, **SMALL)) == []


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


# Words that are certain


@pytest.fixture(scope="module")
def characters():
    return make_recogniser(tokenizer=tokenizers.train_characters(["abcd ."]))


def settled(tail, recogniser, text, times, at):
    labels = np.array(spell(recogniser, *text), np.int32)
    tail.add(hypothesis(labels, np.array(times, np.int32), np.ones_like(labels)))
    return [
        " ".join("+" * (not word.space_before) + word.text for word in words)
        for words in tail.settle(at, 100.0)
    ]


def test_a_word_is_certain_when_the_next_begins_or_after_a_pause(characters):
    tail = _Tail(characters)
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
    tail, parts = _Tail(characters), []
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
    tail = _Tail(recogniser)
    assert settled(tail, recogniser, [first, "▁"], [0, 1], 1.2) == [first[1:], ""]
    assert settled(tail, recogniser, [following], [20], 1.8) == ["", following]
    tail = _Tail(recogniser)
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
        words = given_by(_Tail(RECOGNISER), whole, size)
        assert [streaming.to_word(word) for word in words] == expected.words


def test_a_mark_joins_the_word_that_was_given_before_a_pause():
    labels = mixed.spell("▁vra", "i", "▁", "?", "▁it", "▁", "2", "<|en|>", ".")
    tail = _Tail(RECOGNISER)
    words = given_by(tail, emitted(labels, [0, 2, 3, 40, 44, 46, 90, 91, 95], [1] * 9), 1)
    assert [(word.text, word.space_before) for word in words] == [
        ("vrai", True), ("?", False), ("it", True), ("2.", True),
    ]  # fmt: skip


@settings(deadline=None, derandomize=True)
@given(any_hypothesis())
def test_any_labels_are_given_whole_and_in_order(found):
    """But for spaces that depend on what is given already, as beside a quote."""
    for keep_tags in (False, True):
        words = given_by(_Tail(RECOGNISER, keep_tags), found, 2)
        text = "".join(" " * word.space_before + word.text for word in words)
        whole = RECOGNISER.tokenizer.decode(found.labels, keep_tags=keep_tags)
        assert text.replace(" ", "") == whole.replace(" ", "")
        if not set(whole) & set("\"'“”„«».,:…"):
            assert text.lstrip() == whole


def test_a_stream_knows_its_language():
    """Tags are shown on demand, and named by `language` anyway."""
    recogniser, samples = with_tags(), noise(4.0)
    hidden, shown = Stream(recogniser, **SMALL), Stream(recogniser, **SMALL, keep_tags=True)
    assert hidden.language is None
    for stream in (hidden, shown):
        heard(stream, samples)
    tags = [word for word in shown.text.split() if word[0] == "<"]
    assert len(tags) > 3 and len(shown.text.split()) > len(tags)
    assert hidden.text == " ".join(word for word in shown.text.split() if word[0] != "<")
    assert hidden.language == shown.language == "ja"
