"""Streams of causal models: the words of the whole, however the samples come, at once."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from models import causal_recogniser, cut, make_recogniser, noise, speech

import tdt_jax as tdt
from tdt_jax.audio.errors import AudioError
from tdt_jax.decoding.hypothesis import take
from tdt_jax.inference import cached
from tdt_jax.inference.end_of_turn import EndOfTurn
from tdt_jax.inference.stream_words import Tail
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcript import to_transcript

FRAME = 1280  # samples
LOOKAHEAD = 2  # frames, of the first context
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def recogniser():
    return causal_recogniser()


def decoded(stream, *blocks):
    """Labels, times and durations that a stream decodes; blocks may be functions of the stream."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tail, "add", lambda self, hypothesis: found.append(hypothesis))
        for block in blocks:
            block(stream) if callable(block) else stream.push(block)
        stream.finish()
    return joined(found)


def joined(hypotheses):
    fields = ("labels", "times", "durations")
    none = np.zeros(0, np.int32)
    return [np.concatenate([none, *(getattr(x, field) for x in hypotheses)]) for field in fields]


def encoded(recogniser, samples):
    """The frames of the whole, [1, 64, D], and their number."""
    padded = np.zeros((1, 64 * FRAME), np.float32)
    padded[0, : len(samples)] = samples
    num_samples = np.array([len(samples)], np.int32)
    features = tdt.log_mel(padded, num_samples, recogniser.config.features)
    return tdt.encode(recogniser.model, *features)


def whole(recogniser, samples, context=None):
    """The hypothesis of the whole; programs are compiled for one length."""
    padded = np.zeros((1, 64 * FRAME), np.float32)
    padded[0, : len(samples)] = samples
    num_samples = np.array([len(samples)], np.int32)
    model = recogniser.model
    features = tdt.log_mel(padded, num_samples, recogniser.config.features)
    frames = tdt.encode(model, *features, context=context)
    return take(jax.device_get(tdt.greedy_decode(model, *frames)), 0)


def words_of(stream, *blocks):
    words = [word for block in blocks for word in stream.push(block)] + stream.finish()
    assert stream.text == "".join(" " * word.begins + word.text for word in words).strip()
    assert stream.pending == "" and stream.finish() == []
    return words


def assert_same(found, expected):
    for values, others in zip(found, expected, strict=True):
        np.testing.assert_array_equal(values, others)


# Comes first: it compiles what the others run.
def test_one_program():
    """However long, for streams that follow, at the start, at the end, and for a new turn."""
    recogniser = causal_recogniser()
    cached._step.clear_cache()
    words_of(Stream(recogniser), noise(0.5))
    assert cached._step._cache_size() == 1
    for seconds in (3.0, 0.1):
        stream = Stream(recogniser)
        stream.push(noise(seconds))
        stream.finish_turn()
        stream.push(noise(seconds))
        stream.reset()
        words_of(stream, noise(seconds))
    assert cached._step._cache_size() == 1


@slow
def test_warming_up_compiles_both_programs():
    recogniser = causal_recogniser()
    cached._step.clear_cache()
    cached._flush.clear_cache()
    stream = Stream(recogniser)
    stream.warm_up()
    for _ in range(2):
        assert cached._step._cache_size() == cached._flush._cache_size() == 1
        stream.push(noise(1.0))
        stream.flush()


# The whole


@pytest.mark.parametrize(
    ("durations", "frames"),
    [((0, 1, 2), 2), pytest.param(None, 2, marks=slow)]
    + [pytest.param((0, 1, 2, 4), frames, marks=slow) for frames in (0, 1)],
)
def test_labels_are_those_of_the_whole(durations, frames):
    """Bit for bit, in every context, for any cut and length."""
    recogniser = causal_recogniser(durations)
    for size in (64 * FRAME, 63 * FRAME + 77, 40 * FRAME - 1, 2 * FRAME + 199, 2 * FRAME + 200, 9):
        samples = speech(size / 16000)
        found = decoded(Stream(recogniser, lookahead=0.08 * frames), *cut(samples, 20, size))
        assert_same(found, joined([whole(recogniser, samples, (6, frames))]))
        assert len(found[0]) > 15 or size < 3 * FRAME


def test_every_turn_is_a_whole_of_its_own(recogniser):
    parts = [speech(seconds, seed) for seed, seconds in enumerate((2.01, 0.9, 0.16, 0.004, 1.3))]
    blocks = [block for part in parts for block in (*cut(part, 5), Stream.finish_turn)]
    found = decoded(Stream(recogniser), *blocks)
    assert_same(found, joined([whole(recogniser, part) for part in parts]))
    assert len(found[0]) > 20


def test_words_and_times_are_those_of_the_whole(recogniser):
    samples = speech(4.7)
    expected = to_transcript(whole(recogniser, samples), recogniser, 4.7).words
    words = words_of(Stream(recogniser), *cut(samples, 30))
    assert "".join(" " * word.space_before + word.text for word in words).split() == [
        word.text for word in expected
    ]
    starts = {word.start for word in words}
    assert all(min(abs(start - word.start) for start in starts) < 1e-6 for word in expected)


def test_how_samples_are_cut_makes_no_difference(recogniser):
    """Also one sample at a time, and as integers."""
    samples = speech(2.0)
    expected = words_of(Stream(recogniser), samples)
    assert len(expected) > 3 and words_of(Stream(recogniser), *cut(samples, 30)) == expected
    short = (samples[: 8 * FRAME + 7] * 32768).astype(np.int16)
    assert words_of(Stream(recogniser), *short[:, None]) == words_of(Stream(recogniser), short)


# The stream


def test_a_chunk_is_decoded_when_its_last_sample_has_come(recogniser):
    for frames in (0, LOOKAHEAD):
        stream = Stream(recogniser, lookahead=0.08 * frames)
        assert stream.latency == pytest.approx(0.08 * frames + 0.0125)
        missing, samples = frames * FRAME + 200, noise(3.0)
        for count in range(1, 4):
            stream.push(samples[: missing - 1])
            assert stream.seconds == pytest.approx(0.08 * (count - 1) * (frames + 1))
            stream.push(samples[:1])
            assert stream.seconds == pytest.approx(0.08 * count * (frames + 1))
            missing = (frames + 1) * FRAME


@slow
@pytest.mark.parametrize("durations", [(0, 1, 2, 4), None])
def test_flush_decodes_every_frame_once_and_keeps_the_past(durations):
    """The last frames before a flush are of the audio up to it, all others of the whole."""
    recogniser = causal_recogniser(durations)
    samples = speech(4.0)
    for places in ([FRAME * 20], [9 * FRAME + 33, 9 * FRAME + 34, 31 * FRAME - 1]):
        frames, num_frames = encoded(recogniser, samples)
        done, blocks = 0, []
        for first, last in itertools.pairwise([0, *places, len(samples)]):
            blocks += [*cut(samples[first:last], 7), *([Stream.flush] if last in places else [])]
            up_to, num = encoded(recogniser, samples[:last])
            frames = frames.at[:, done : num[0]].set(up_to[:, done : num[0]])
            done = int(num[0])
        expected = tdt.greedy_decode(recogniser.model, frames, num_frames)
        expected = joined([take(jax.device_get(expected), 0)])
        assert_same(decoded(Stream(recogniser), *blocks), expected)


def test_flush_ends_a_turn(recogniser):
    samples = speech(3.0)
    stream = Stream(recogniser, end_of_turn=EndOfTurn(silence=60))
    *words, end = stream.push(samples[:25000]) + stream.flush()
    assert stream.pending == "" and stream.text == end.text and end.reason == "finish_turn"
    assert [word.text for word in words] == end.text.split()
    assert stream.flush() == []
    num_programs = cached._step._cache_size()
    stream.push(samples[25000:])
    stream.finish()
    assert cached._step._cache_size() == num_programs
    assert stream.text.startswith(end.text) and len(stream.text) > len(end.text)
    with pytest.raises(ValueError, match=r"flush\(\) was called after finish\(\)"):
        stream.flush()


def test_flush_before_the_first_chunk_decodes_every_frame_once_and_times_go_on(recogniser):
    """Also with nothing received, and after a turn: the state of that is forgotten."""
    samples, size = speech(2.0), 1600
    flushed = decoded(Stream(recogniser), samples[:size], Stream.flush)
    for places in ([size], [0, size, size], [size, size + 320]):
        blocks = [speech(1.0, 1), Stream.finish_turn]
        for part in np.split(samples, places):
            blocks += [part, Stream.flush]
        before = decoded(Stream(recogniser), *blocks[:2])
        found = decoded(Stream(recogniser), *blocks)
        labels, times, _ = (x[len(y) :] for x, y in zip(found, before, strict=True))
        np.testing.assert_array_equal(labels[: len(flushed[0])], flushed[0])
        assert (np.diff(times) >= 0).all() and times[-1] > 20 and len(times) > 10
    stream, starts = Stream(recogniser), []
    for block in np.split(samples, range(320, len(samples), 320)):
        starts += [word.start for word in stream.push(block) + stream.flush()]
    assert stream.seconds == pytest.approx(2.0, abs=0.1)
    assert starts == sorted(starts) and starts[-1] > 1.5


@slow
def test_flush_of_another_model_begins_anew():
    samples, texts = speech(1.0), []
    for end in (Stream.flush, Stream.finish_turn):
        stream = Stream(make_recogniser())
        stream.push(samples[:8000])
        end(stream)
        stream.push(samples[8000:])
        stream.finish()
        texts.append(stream.text)
    assert texts[0] == texts[1] != ""


def test_after_an_interrupt_no_chunk_is_decoded_twice(recogniser, monkeypatch):
    samples = speech(3.0)
    expected, stream = words_of(Stream(recogniser), samples), Stream(recogniser)
    calls = itertools.count()

    def device_get(x):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return jax.tree.map(np.asarray, x)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(jax, "device_get", device_get)
        stream.push(samples[:40000])
    assert stream.push(samples[40000:]) + stream.finish() == expected


def test_an_interrupted_flush_leaves_the_stream_as_it_was(recogniser, monkeypatch):
    samples = speech(3.0)
    expected, stream = words_of(Stream(recogniser), samples), Stream(recogniser)
    words = stream.push(samples[:24000])

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(jax, "device_get", interrupt)
        stream.flush()
    assert words + stream.push(samples[24000:]) + stream.finish() == expected


def test_finish_turn_gives_all_words_and_times_go_on(recogniser):
    samples, size = speech(3.0), 21347
    first, second = Stream(recogniser), Stream(recogniser)
    expected = words_of(first, samples[:size]), words_of(second, samples[size:])
    stream = Stream(recogniser)
    words = stream.push(samples[:size]) + stream.finish_turn()
    assert words == expected[0] and stream.pending == ""
    assert stream.seconds == pytest.approx(size / 16000)
    assert stream.finish_turn() == []
    words = stream.push(samples[size:]) + stream.finish()
    offset = size / 16000
    assert words == [
        dataclasses.replace(word, start=offset + word.start, end=offset + word.end)
        for word in expected[1]
    ]
    assert words and stream.text == f"{first.text} {second.text}"
    with pytest.raises(ValueError, match=r"finish_turn\(\) was called after finish\(\)"):
        stream.finish_turn()


def test_reset_starts_a_new_stream(recogniser):
    samples = speech(2.3)
    stream = Stream(recogniser)
    expected = words_of(Stream(recogniser), samples)
    for before in (samples[:30000], samples[:100], samples):
        stream.push(before)
        if before is samples:
            stream.finish()
        stream.reset()
        assert (stream.text, stream.pending, stream.seconds) == ("", "", 0.0)
        assert words_of(stream, samples) == expected
        stream.reset()


def test_what_is_pending_is_what_is_not_certain(recogniser):
    """It follows the text with every step; what is certain is never taken back."""
    stream, samples, texts = Stream(recogniser), speech(4.0), []
    for block in cut(samples, 60):
        words = stream.push(block)
        texts.append(stream.text + stream.pending)
        assert all(word.end <= stream.seconds + 0.16 for word in words)
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    stream.finish()
    assert stream.text.startswith(texts[-1]) and len(set(texts)) > 10


# Bad input, and long


def test_what_cannot_be_streamed_is_named(recogniser):
    with pytest.raises(ValueError, match=r"no look-ahead of 0.3 s in this model; it has 0.16, 0.0"):
        Stream(recogniser, lookahead=0.3)
    for bad in (dict(chunk=1.6), dict(left=8.0), dict(right=0.0)):
        with pytest.raises(ValueError, match=r"one of 0.16, 0.08, 0 s, and not with chunk, left"):
            Stream(recogniser, **bad)
    with pytest.raises(ValueError, match=r"causal model .* windows of chunk, left and right; got"):
        Stream(make_recogniser(), lookahead=0.08)
    features = dataclasses.replace(recogniser.config.features, window_length=256)
    with pytest.raises(ValueError, match="got hop_length 160 and window_length 256"):
        Stream(make_recogniser(encoder=recogniser.config.encoder, features=features))
    stream = Stream(recogniser)
    stream.finish()
    with pytest.raises(ValueError, match=r"after finish\(\)"):
        stream.push(np.zeros(9))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_and_the_stream_goes_on(recogniser, bad):
    samples = speech(2.0)
    stream = Stream(recogniser)
    words = stream.push(samples[:15000])
    with pytest.raises(AudioError, match="not finite"):
        stream.push(np.append(samples, bad))
    words += stream.push(samples[15000:]) + stream.finish()
    assert words == words_of(Stream(recogniser), samples)


def later(stream, frames):
    """Lets a stream be `frames` frames further in its utterance."""
    feed, slots = stream._engine._feed, stream._engine._slots
    feed.num_frames += frames
    feed.num_samples += frames * FRAME
    features, encoder, decoder = slots.state
    features = features._replace(
        num_samples=features.num_samples + frames * FRAME,
        num_features=features.num_features + 8 * frames,
    )
    encoder = encoder._replace(
        num_features=encoder.num_features + 8 * frames, num_frames=encoder.num_frames + frames
    )
    slots.state = cached.StepState(features, encoder, decoder)


@pytest.mark.parametrize("hours", [10, 40])
def test_an_utterance_of_hours_is_decoded_like_a_short_one(recogniser, hours):
    """Counts stay within int32, and times are exact."""
    blocks = np.array_split(speech(6.0), 6)
    expected = decoded(Stream(recogniser), *blocks)
    stream = Stream(recogniser)
    for i in range(1, 1 + hours // 10):
        blocks.insert(2 * i - 1, lambda stream: later(stream, 450000))
    found = decoded(stream, *blocks)
    assert_same(found[::2], expected[::2])
    frames = found[1] - expected[1]
    assert frames[0] == 0 and frames[-1] == hours * 45000
    assert max(map(int, stream._engine._slots.state.features.num_samples)) < 2**31


def test_after_a_turn_of_hours_times_are_exact(recogniser):
    samples = speech(2.0)
    expected, stream = words_of(Stream(recogniser), samples), Stream(recogniser)
    stream.push(samples)
    later(stream, 450000)
    stream.finish_turn()
    words, offset = stream.push(samples) + stream.finish(), 36002.0
    assert words == [
        dataclasses.replace(word, start=offset + word.start, end=offset + word.end)
        for word in expected
    ]


@slow
def test_memory_is_bounded(recogniser):
    stream = Stream(recogniser)
    for second in range(300):
        stream.push(noise(1.0, second))
        assert len(stream._words._tail._hypothesis.labels) < 60
        assert sum(map(len, stream._engine._feed._parts)) < 3 * FRAME
    assert stream.seconds == pytest.approx(300.0, abs=0.3)
