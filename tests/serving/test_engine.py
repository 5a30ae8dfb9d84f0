"""The engine: many clients at once, failures of the device, counters."""

import concurrent.futures
import sys

import pytest
from clients import AUDIO, pcm, wait_for, wav_of
from models import make_recogniser, speech
from starlette.websockets import WebSocketDisconnect

import tdt_jax as tdt
from tdt_jax.inference import transcription
from tdt_jax.inference.shared_batches import SharedBatches
from tdt_jax.inference.streams import Streams
from tdt_jax.serving.windowed_streams import WindowedStream, WindowedStreams

PATH = "/v1/audio/transcriptions"
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000"


def test_many_clients_at_once(client, recogniser):
    """Each has its own words."""
    files = [wav_of(speech(0.4 + 0.1 * seed, seed)) for seed in range(12)]
    expected = [each.text for each in tdt.transcribe(recogniser, files)]

    def post(content):
        return client.post(PATH, files={"file": content}).json()["text"]

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(post, files)) == expected
    metrics = client.get("/metrics").text
    assert 'tdt_audio_seconds_total{kind="batch"}' in metrics
    assert "\nprocess_cpu_seconds_total " in metrics or sys.platform != "linux"


def test_what_recordings_of_the_longest_length_need_is_compiled(serving, monkeypatch):
    lengths = []
    monkeypatch.setattr(SharedBatches, "warm_up", lambda self, longest: lengths.append(longest))
    with serving(max_seconds=123.0):
        assert lengths == [123.0]


def test_a_batch_that_fails_is_an_error_of_its_requests(client, wav, monkeypatch):
    decode = transcription.decode_samples_on_mesh

    def fail(*arguments, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(transcription, "decode_samples_on_mesh", fail)
    answer = client.post(PATH, files={"file": wav})
    assert answer.status_code == 500 and answer.json()["error"]["type"] == "server_error"
    monkeypatch.setattr(transcription, "decode_samples_on_mesh", decode)
    assert client.post(PATH, files={"file": wav}).status_code == 200
    assert client.get("/health").status_code == 200


def test_a_step_that_fails_ends_the_live_streams(client, monkeypatch):
    step = Streams.step

    def fail_once(self):
        monkeypatch.setattr(Streams, "step", step)
        raise RuntimeError("out of memory")

    with client.websocket_connect(LISTEN) as socket:
        monkeypatch.setattr(Streams, "step", fail_once)
        socket.send_bytes(pcm(AUDIO[0]))
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_json()
        assert end.value.code == 1011
    assert "tdt_live_streams 0.0" in client.get("/metrics").text
    assert client.get("/health").status_code == 200
    with client.websocket_connect(LISTEN) as one, client.websocket_connect(LISTEN):
        one.send_json({"type": "CloseStream"})
        assert one.receive_json()["type"] == "Metadata"


def test_a_windowed_stream_that_fails_ends_alone(serving, monkeypatch):
    """Its client is told; the other's stream goes on."""
    step, failing = WindowedStream.step, []

    def fail_first(self, recogniser):
        failing.append(self)
        if self is failing[0]:
            raise RuntimeError("out of memory")
        return []

    monkeypatch.setattr(WindowedStreams, "warm_up", lambda self: None)
    with serving(make_recogniser(piece_seconds=2.56)) as client:
        monkeypatch.setattr(WindowedStream, "step", fail_first)
        with client.websocket_connect(LISTEN) as bad, client.websocket_connect(LISTEN) as good:
            bad.send_bytes(pcm(AUDIO[0]))
            with pytest.raises(WebSocketDisconnect) as end:
                bad.receive_json()
            assert end.value.code == 1011
            monkeypatch.setattr(WindowedStream, "step", step)
            good.send_json({"type": "CloseStream"})
            assert good.receive_json()["type"] == "Metadata"
        assert "tdt_device_failures_total 1.0" in client.get("/metrics").text


def test_a_thread_that_ends_is_seen(serving, recogniser, monkeypatch):
    with serving() as client:
        engine = client.app.state.service.engine

        def fail():
            raise RuntimeError("gone")

        monkeypatch.setattr(engine, "_step_streams", fail)
        engine._wake.set()
        wait_for(lambda: client.get("/health").status_code == 503)
        assert client.get("/ready").status_code == 503


def test_too_much_audio(serving, wav):
    with serving(max_waiting=1.5) as client:
        engine = client.app.state.service.engine
        engine._count_waiting(16000)
        assert client.post(PATH, files={"file": wav}).status_code == 503
        engine._count_waiting(-16000)
        assert client.post(PATH, files={"file": wav}).status_code == 200
        assert engine._waiting == 0


def test_a_server_that_is_not_ready(serving, wav):
    with serving() as client:
        client.app.state.service.engine.is_ready = False
        assert client.get("/ready").status_code == 503
        assert client.post(PATH, files={"file": wav}).status_code == 503
