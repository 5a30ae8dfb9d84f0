"""Streams of a model that is not causal: slots, ends, and audio that comes at any moment."""

from types import SimpleNamespace

import numpy as np
import pytest
from models import make_recogniser

from tdt_jax.serving.windowed_streams import WindowedStreams


@pytest.fixture
def streams():
    return WindowedStreams(make_recogniser(piece_seconds=2.56), slots=2)


def recorded(stream, also=lambda: None):
    """Replaces the Stream within a stream by one that notes what is done."""
    calls = []

    def push(samples):
        calls.append(len(samples))
        also()
        return []

    ends = {name: lambda name=name: calls.append(name) or [] for name in ("flush", "finish")}
    stream._stream = SimpleNamespace(push=push, **ends, end_of_turn=None)
    return calls


def test_slots(streams):
    one, _ = streams.open(), streams.open()
    with pytest.raises(ValueError, match="all 2 slots"):
        streams.open()
    one.close()
    assert streams.open().is_open and not one.is_open


def test_a_step_goes_up_to_the_next_end(streams):
    stream = streams.open()
    calls = recorded(stream)
    for size in (3, 4):
        stream.push(np.zeros(size, np.float32))
    stream.flush()
    stream.push(np.zeros(5, np.float32))
    stream.finish()
    streams.step()
    assert calls == [7, "flush"] and stream.num_ended == 1 and stream.is_open
    streams.step()
    assert calls == [7, "flush", 5, "finish"] and stream.num_ended == 2 and not stream.is_open
    assert streams.step() == []


def test_audio_may_come_during_a_step(streams):
    stream = streams.open()
    calls = recorded(stream, lambda: len(calls) > 1 or stream.push(np.zeros(9, np.float32)))
    stream.push(np.zeros(3, np.float32))
    streams.step()
    streams.step()
    assert calls == [3, 9]


def test_a_stream_that_fails_ends_alone(streams):
    bad, good = streams.open(), streams.open()
    recorded(bad), recorded(good)

    def fail(samples):
        raise RuntimeError("out of memory")

    bad._stream.push = fail
    for stream in (bad, good):
        stream.push(np.zeros(3, np.float32))
    assert streams.step() == [(bad, []), (good, [])]
    assert bad.has_failed and not bad.is_open and good.is_open and not good.has_failed
    assert streams.open().is_open  # in the place of the one that failed
