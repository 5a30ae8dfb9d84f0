"""OpenAI's Realtime API: what a session answers to what its client sends, and what is decoded."""

import asyncio
import base64
import json
import types

import numpy as np
import pytest
from clients import AUDIO, pcm, streamed, wait_for
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from tdt_jax.serving.errors import BadRequest
from tdt_jax.serving.openai_realtime import RealtimeTalk

PATH = "/v1/realtime?intent=transcription"
PREFIX = "conversation.item.input_audio_transcription."


def append(socket, samples):
    for part in np.array_split(samples, 5):
        audio = base64.b64encode(pcm(part)).decode()
        socket.send_json({"type": "input_audio_buffer.append", "audio": audio})


def configure(socket, **given):
    audio = {"input": {"format": {"type": "audio/pcm", "rate": 16000}, **given}}
    socket.send_json(
        {"type": "session.update", "session": {"type": "transcription", "audio": audio}}
    )
    assert socket.receive_json()["type"] == "session.created"
    return socket.receive_json()


def until(socket, kind):
    """The events up to one of a type."""
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(socket.receive_json())
        assert events[-1]["type"] != "error", events[-1]
    return events


def test_another_intent(client):
    with (
        pytest.raises(WebSocketDenialResponse) as refusal,
        client.websocket_connect("/v1/realtime?intent=conversation"),
    ):
        pass
    assert refusal.value.status_code == 400
    assert "tdt_live_streams 0.0" in client.get("/metrics").text  # its slot is free


def test_commits(client, recogniser):
    with client.websocket_connect(PATH) as socket:
        updated = configure(socket, turn_detection=None)
        assert updated["session"]["audio"]["input"]["turn_detection"] is None
        texts, previous = [], None
        for samples in AUDIO[:2]:
            append(socket, samples)
            socket.send_json({"type": "input_audio_buffer.commit"})
            events = until(socket, PREFIX + "completed")
            committed = next(e for e in events if e["type"] == "input_audio_buffer.committed")
            deltas = [e for e in events if e["type"] == PREFIX + "delta"]
            done = events[-1]
            assert "".join(each["delta"] for each in deltas).strip() == done["transcript"]
            assert committed["previous_item_id"] == previous
            assert {each["item_id"] for each in [committed, *deltas, done]} == {done["item_id"]}
            previous = done["item_id"]
            texts.append(done["transcript"])
            assert done["usage"]["type"] == "duration"
    assert texts == streamed(recogniser, AUDIO[:2]) and all(texts)


def test_what_is_cleared_is_not_transcribed(client):
    with client.websocket_connect(PATH) as socket:
        configure(socket, turn_detection=None)
        append(socket, AUDIO[1])
        socket.send_json({"type": "input_audio_buffer.clear"})
        events = until(socket, "input_audio_buffer.cleared")
        append(socket, AUDIO[0])
        socket.send_json({"type": "input_audio_buffer.commit"})
        events += until(socket, PREFIX + "completed")
        ids = [e["item_id"] for e in events if e["type"] == "input_audio_buffer.committed"]
        assert ids == [events[-1]["item_id"]]
        items = [e for e in events if e.get("item_id") == ids[0] and e["type"] == PREFIX + "delta"]
        assert "".join(e["delta"] for e in items).strip() == events[-1]["transcript"]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("{", None),
        ("[]", "type"),
        ({"type": "response.create"}, "type"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "audio"),
        ({"type": "input_audio_buffer.append"}, "audio"),
        ({"type": "input_audio_buffer.commit"}, None),
        ({"type": "session.update", "session": []}, "session"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"rate": 8000}}}}},
            "session.audio.input.format",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"transcription": {"prompt": "numbers"}}}},
            },
            "prompt",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"turn_detection": {"type": "none"}}}},
            },
            "turn_detection",
        ),
    ],
)
def test_a_mistake_is_an_error_and_the_session_goes_on(client, message, param):
    with client.websocket_connect(PATH) as socket:
        socket.receive_json()
        socket.send_text(message if isinstance(message, str) else json.dumps(message))
        error = socket.receive_json()
        assert error["type"] == "error" and error["error"]["param"] == param
        socket.send_json({"type": "session.update", "session": {}})
        assert socket.receive_json()["type"] == "session.updated"


@pytest.mark.parametrize("wrong", [{"include": ["x"]}, {"model": 3}])
def test_an_update_with_a_mistake_changes_nothing(client, wrong):
    rules = []
    talk = RealtimeTalk(client.app.state.service, types.SimpleNamespace(set_rule=rules.append))
    given = {"turn_detection": None, "transcription": {"model": wrong.pop("model", "a")}}
    session = {"audio": {"input": given}, **wrong}
    event = json.dumps({"type": "session.update", "session": session})
    with pytest.raises(BadRequest):
        asyncio.run(talk.take(event))
    assert len(rules) == 1 and rules[0] is not None  # that of the beginning


def test_a_client_that_makes_many_mistakes_is_sent_away(client):
    with client.websocket_connect(PATH) as socket:
        with pytest.raises(WebSocketDisconnect) as end:
            for _ in range(100):
                socket.send_bytes(b"\x00")
                socket.receive_json()
        assert end.value.code == 1008


def test_slots(client):
    """A client that goes frees its slot at once; one too many is told to come again."""
    service = client.app.state.service
    for _ in range(3):
        with client.websocket_connect(PATH) as one, client.websocket_connect(PATH) as two:
            one.receive_json()
            two.receive_json()
            with pytest.raises(WebSocketDenialResponse) as full, client.websocket_connect(PATH):
                pass
            assert full.value.status_code == 503 and full.value.headers["retry-after"]
            append(one, AUDIO[0])
        wait_for(lambda: service.num_sockets == 0)


def test_a_client_that_is_silent_is_sent_away(serving):
    with serving(idle=0.1) as client, client.websocket_connect(PATH) as socket:
        socket.receive_json()
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_json()
        assert end.value.code == 1008
