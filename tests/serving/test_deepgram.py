"""Deepgram's live protocol: what a stream answers, and what is decoded."""

from types import SimpleNamespace

import numpy as np
import pytest
from clients import AUDIO, pcm, streamed
from models import make_recogniser
from starlette.datastructures import QueryParams
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

import tdt_jax as tdt
from tdt_jax.inference.end_of_turn import EndOfUtterance
from tdt_jax.inference.stream_words import StreamedWord
from tdt_jax.serving.deepgram import DeepgramTalk
from tdt_jax.serving.live import Update
from tdt_jax.serving.service import Service
from tdt_jax.serving.settings import Settings

PATH = "/v1/listen?encoding=linear16&sample_rate=16000"


def send(socket, samples):
    data = pcm(samples)
    for start in range(0, len(data), 3001):  # odd: samples may be cut in two
        socket.send_bytes(data[start : start + 3001])


def until(socket, kind):
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(socket.receive_json())
    return events


def text(events):
    finals = [each for each in events if each["type"] == "Results" and each["is_final"]]
    texts = [each["channel"]["alternatives"][0]["transcript"] for each in finals]
    return " ".join(each for each in texts if each)


def test_a_mistake_is_an_error_and_the_stream_goes_on(client):
    with client.websocket_connect(PATH) as socket:
        for message in ("{", "[]", '{"type": 3}', '{"type": "Sing"}'):
            socket.send_text(message)
            assert socket.receive_json()["type"] == "Error"
        socket.send_json({"type": "CloseStream"})
        assert until(socket, "Metadata")


def test_a_stream_is_transcribed(client, recogniser):
    with client.websocket_connect(PATH + "&endpointing=false&interim_results=true") as socket:
        send(socket, AUDIO[1])
        socket.send_json({"type": "KeepAlive"})
        socket.send_json({"type": "CloseStream"})
        events = until(socket, "Metadata")
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_json()
    assert end.value.code == 1000
    assert [text(events)] == streamed(recogniser, [AUDIO[1]]) and text(events)
    assert any(each["type"] == "Results" and not each["is_final"] for each in events)
    assert events[-1]["duration"] == len(AUDIO[1]) / 16000 and events[-1]["channels"] == 1
    final = next(each for each in events if each.get("is_final"))
    word = final["channel"]["alternatives"][0]["words"][0]
    assert word.keys() == {"word", "punctuated_word", "start", "end", "confidence"}


def test_finalize(client, recogniser):
    """What has come is final at once, and is said to be so even if it is nothing."""
    with client.websocket_connect(PATH + "&endpointing=false") as socket:
        send(socket, AUDIO[0])
        socket.send_json({"type": "Finalize"})
        socket.send_json({"type": "Finalize"})
        socket.send_json({"type": "CloseStream"})
        events = until(socket, "Metadata")
    asked = [each for each in events if each.get("from_finalize")]
    assert [bool(text([each])) for each in asked] == [True, False]
    assert [text(events)] == streamed(recogniser, [AUDIO[0]])


def test_a_model_that_is_not_causal_streams_in_windows(serving):
    recogniser = make_recogniser(piece_seconds=2.56)
    with serving(recogniser) as client, client.websocket_connect(PATH) as socket:
        send(socket, AUDIO[2])
        socket.send_json({"type": "CloseStream"})
        words = text(until(socket, "Metadata"))
    stream = tdt.Stream(recogniser)
    stream.push(np.frombuffer(pcm(AUDIO[2]), "<i2"))
    stream.finish()
    assert words == stream.text != ""


@pytest.mark.parametrize(
    "query",
    "encoding=opus sample_rate=1 sample_rate=x channels=2 multichannel=true keyterm=a "
    "keywords=a:2 endpointing=soon interim_results=maybe utterance_end_ms=-1".split(),
)
def test_what_cannot_be_done_is_refused(client, query):
    with (
        pytest.raises(WebSocketDenialResponse) as refusal,
        client.websocket_connect("/v1/listen?" + query),
    ):
        pass
    assert refusal.value.status_code == 400
    assert refusal.value.json()["error"]["param"] == query.partition("=")[0]
    assert "tdt_live_streams 0.0" in client.get("/metrics").text  # its slot is free


class Talk:
    """A conversation without audio: events for words that are given."""

    def __init__(self, query=""):
        features = SimpleNamespace(sample_rate=16000)
        recogniser = SimpleNamespace(config=SimpleNamespace(features=features))
        engine = SimpleNamespace(recogniser=recogniser)
        service = Service(Settings(), engine, None, None)
        live = SimpleNamespace(set_rule=lambda rule: None, language=None)
        self.talk = DeepgramTalk(service, live, QueryParams(query))

    def __call__(self, seconds, *events, pending="", **flags):
        return self.talk.update(Update(list(events), pending, seconds, **flags))


def word(text, start, end):
    return StreamedWord(text, start, end, 0.9, 0.8)


def test_turns():
    talk = Talk("interim_results=true&vad_events=true&utterance_end_ms=1000")
    started, interim = talk(0.8, pending=" one")
    assert started == {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.8}
    assert interim["channel"]["alternatives"][0]["transcript"] == "one"
    assert talk(1.0, pending=" one") == []
    turn = EndOfUtterance("one", 0.6, 0.9, 1.8, "silence")
    (final,) = talk(1.8, word("one", 0.6, 0.9), turn)
    assert final["is_final"] and final["speech_final"] and not final["from_finalize"]
    assert (final["start"], final["duration"]) == (0.0, 1.8)
    (end,) = talk(2.0)
    assert end == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 0.9}
    assert talk(9.0) == []
    started, final = talk(11.0, word("two", 10.0, 10.4), ended=True)
    assert started["timestamp"] == 10.0 and final["start"] == 1.8 and final["is_final"]


def test_a_long_turn_comes_in_parts():
    talk = Talk()
    events = [each for n in range(20) for each in talk(n + 1.0, word(f"w{n}", n, n + 0.5))]
    assert len(events) == 2 and not any(each["speech_final"] for each in events)
    assert text(events) == " ".join(f"w{n}" for n in range(18))
