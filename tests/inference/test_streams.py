"""Many live streams at once: each as if alone, whoever comes and goes."""

import dataclasses
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from models import causal_recogniser, make_recogniser, speech

import tdt_jax as tdt
from tdt_jax.audio.errors import AudioError
from tdt_jax.inference import cached
from tdt_jax.inference.stream_words import StreamedWord
from tdt_jax.inference.streams import Streams

SLOTS = 3
AUDIO = [speech(seconds, seed) for seed, seconds in enumerate((1.0, 2.3, 0.15, 3.1, 1.7))]


@pytest.fixture(scope="module")
def recogniser():
    return causal_recogniser()


@pytest.fixture(scope="module")
def streams(recogniser):
    """All of whose slots are free."""
    return Streams(recogniser, slots=SLOTS, end_of_turn=tdt.EndOfTurn())


def run(streams, numbers, seed=0):
    """The events of recordings, each a stream, which come and are pushed at random times."""
    rng, waiting = np.random.default_rng(seed), list(numbers)
    events, live = {number: [] for number in numbers}, {}
    while waiting or live:
        while waiting and len(live) < SLOTS and rng.random() < 0.5:
            number = waiting.pop(0)
            live[streams.open()] = number, AUDIO[number]
        for stream, (number, rest) in live.items():
            if len(rest):
                part, rest = np.split(rest, [rng.integers(1, 9000)])
                stream.push(part)
                live[stream] = number, rest
                if not len(rest):
                    stream.finish()
        for stream, found in streams.step():
            events[live[stream][0]] += found
            if not stream.is_open:
                del live[stream]
    return events


def drained(streams):
    """What streams emit until none is ready, by stream."""
    events = {}
    while stepped := streams.step():
        for stream, found in stepped:
            events.setdefault(stream, []).extend(found)
    return events


def test_company_makes_no_difference(streams):
    """Bit for bit, times and confidence included; nor does the slot."""
    together = run(streams, range(len(AUDIO)), 1)
    for number in (1, 3):
        for row in range(SLOTS):
            others = [streams.open() for _ in range(row)]
            assert run(streams, [number])[number] == together[number]
            for other in others:
                other.close()
    assert together == run(streams, [4, 2, 0, 3, 1], 2)
    assert sum(map(len, together.values())) > 20


def test_words_are_those_of_one_stream(streams, recogniser):
    """But for rounding in confidence, where products of other sizes are computed."""
    for number, events in run(streams, range(len(AUDIO))).items():
        stream = tdt.Stream(recogniser, end_of_turn=tdt.EndOfTurn())
        expected = stream.push(AUDIO[number]) + stream.finish()
        assert [event.text for event in events] == [event.text for event in expected]
        for event, other in zip(events, expected, strict=True):
            values = [list(dataclasses.astuple(each)[1:4]) for each in (event, other)]
            np.testing.assert_allclose(*values, rtol=1e-4)


def test_one_program(recogniser):
    """Whoever joins, leaves, ends a turn or starts again."""
    cached._donating_step.clear_cache()
    streams = Streams(recogniser, slots=SLOTS)
    streams.warm_up()
    assert cached._donating_step._cache_size() == 1
    run(streams, [0, 1, 2])
    stream = streams.open()
    stream.push(AUDIO[1])
    stream.finish_turn()
    streams.step()
    stream.reset()
    stream.push(AUDIO[0])
    drained(streams)
    assert cached._donating_step._cache_size() == 1


def test_pushing_waits_for_steps(streams):
    """A step decodes one chunk of each stream that has its samples; the others wait."""
    first, second = streams.open(), streams.open()
    assert streams.step() == []
    first.push(AUDIO[1][: 2 * 1280 + 199])
    second.push(AUDIO[1][: 2 * 1280 + 200 + 3 * 1280])
    assert [stream for stream, _ in streams.step()] == [second]
    assert (first.seconds, second.seconds) == (0.0, pytest.approx(0.24))
    first.push(AUDIO[1][:1])
    assert {stream for stream, _ in streams.step()} == {first, second}
    assert (first.seconds, second.seconds) == (pytest.approx(0.24), pytest.approx(0.48))
    assert streams.step() == [] and second.latency == pytest.approx(0.1725)
    first.close()
    second.close()


def test_turns_end_and_streams_start_again(streams, recogniser):
    stream, alone = streams.open(), tdt.Stream(recogniser, end_of_turn=tdt.EndOfTurn())
    expected = []
    for part in (AUDIO[0], AUDIO[3]):
        expected += alone.push(part) + alone.finish_turn()
        stream.push(part)
        stream.finish_turn()
    found = drained(streams)[stream]
    assert [event.text for event in found] == [event.text for event in expected]
    assert stream.text == alone.text and stream.pending == "" and stream.is_open
    assert stream.seconds == alone.seconds == pytest.approx(4.1)
    assert any(isinstance(event, tdt.EndOfUtterance) for event in found)
    stream.push(AUDIO[1])
    streams.step()
    stream.reset()
    assert (stream.text, stream.pending, stream.seconds) == ("", "", 0.0)
    stream.push(AUDIO[3])
    stream.finish()
    assert drained(streams)[stream] == run(streams, [3])[3]
    assert not stream.is_open and stream.text


def test_a_flush_keeps_the_past_as_that_of_one_stream(streams, recogniser):
    """Whatever others do, in the first chunk as later, with nothing received as well."""
    samples, places = speech(3.0, 7), (900, 900, 17_000, 30_011)
    alone, live, other = tdt.Stream(recogniser), streams.open(), streams.open()
    expected, events = [], []
    parts = (np.split(x, places) for x in (samples, speech(3.0, 8)))
    for part, noise in zip(*parts, strict=True):
        expected += alone.push(part) + alone.flush()
        live.push(part)
        live.flush()
        other.push(noise)
        found = drained(streams)
        events += found.get(live, [])
        assert live.pending == ""
    expected += alone.finish()
    live.finish()
    events += drained(streams)[live]
    other.close()
    words = [event for event in events if isinstance(event, StreamedWord)]
    assert [(x.text, x.start) for x in words] == [(x.text, x.start) for x in expected]
    assert len(words) > 4
    for end in live.finish, live.flush:
        with pytest.raises(ValueError, match="after finish"):
            end()


def test_slots_are_given_again(streams):
    opened = [streams.open() for _ in range(SLOTS)]
    with pytest.raises(ValueError, match=f"all {SLOTS} slots are taken"):
        streams.open()
    opened[1].close()
    opened[1].close()
    opened[2].push(AUDIO[0])
    opened[2].finish()
    with pytest.raises(ValueError, match="slots are taken"):
        [streams.open(), streams.open()]
    drained(streams)
    assert [stream.is_open for stream in opened] == [True, False, False]
    streams.open()
    with pytest.raises(ValueError, match="slots are taken"):
        streams.open()
    for stream in streams._streams:
        stream.close()


def test_what_is_not_a_number_stays_in_its_row(streams):
    """Until a new stream has it. None can be pushed."""
    expected = run(streams, [3])[3]
    bad, good = streams.open(), streams.open()
    with pytest.raises(AudioError, match="not finite"):
        bad.push(np.full(9, np.nan, np.float32))
    bad.push(AUDIO[1])
    good.push(AUDIO[3])
    good.finish()
    events = dict(streams.step())[good]
    state = streams._slots.state
    row = jnp.arange(SLOTS) == 0
    samples = jnp.where(row[:, None], jnp.nan, state.features.samples)
    streams._slots.state = state._replace(features=state.features._replace(samples=samples))
    events += dict(streams.step())[good]
    values = streams._slots.state.encoder.layers.attention.values  # [layers, B, ...]
    assert np.isnan(values[:, 0]).any() and not np.isnan(values[:, 1:]).any()
    assert events + drained(streams)[good] == expected
    bad.close()
    assert run(streams, [3])[3] == expected


def test_other_threads_may_push_open_and_close(streams):
    expected = run(streams, [1])[1]
    stream, done = streams.open(), threading.Event()

    def feed():
        for part in np.array_split(AUDIO[1], 200):
            stream.push(part)
            streams.open().close()
        stream.finish()
        done.set()

    thread = threading.Thread(target=feed)
    thread.start()
    events = []
    while stream.is_open:
        for each, found in streams.step():
            events += found if each is stream else []
    thread.join()
    assert done.is_set() and events == expected


def test_samples_that_come_while_another_thread_finishes_are_refused(streams, monkeypatch):
    """Or they would wait for ever in a slot that is never free."""
    stream = streams.open()

    def read_slowly(samples, sample_rate):
        stream.finish()
        return samples

    monkeypatch.setattr("tdt_jax.inference.streams.as_samples", read_slowly)
    with pytest.raises(ValueError, match=r"samples were pushed after finish\(\)"):
        stream.push(AUDIO[2])
    drained(streams)
    assert not stream.is_open


def test_what_cannot_be_streamed_is_named(recogniser, streams):
    with pytest.raises(ValueError, match="at least one slot, got 0"):
        Streams(recogniser, slots=0)
    with pytest.raises(ValueError, match=r"no look-ahead of 1 s in this model; it has 0.16"):
        Streams(recogniser, slots=2, lookahead=1.0)
    with pytest.raises(ValueError, match=r"many streams at once need a causal model"):
        Streams(make_recogniser(), slots=2)
    stream = streams.open()
    stream.finish()
    for act in (stream.finish, stream.finish_turn, stream.reset, lambda: stream.push([0.0])):
        with pytest.raises(ValueError, match=r"after finish\(\)"):
            act()
    drained(streams)
    stream = streams.open()
    stream.close()
    with pytest.raises(ValueError, match=r"samples were pushed after close\(\)"):
        stream.push([0.0])
