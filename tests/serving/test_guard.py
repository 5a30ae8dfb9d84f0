"""What a server refuses: keys, origins, sizes, slow bodies, too many requests."""

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import WebSocketDenialResponse

from tdt_jax.serving.guard import Guard, keys_of
from tdt_jax.serving.service import Service
from tdt_jax.serving.settings import Settings

PATH = "/v1/audio/transcriptions"
SOCKETS = ("/v1/realtime?intent=transcription", "/v1/listen?encoding=linear16&sample_rate=16000")


def test_a_key_is_needed(serving, wav):
    with serving(keys=("one", "two")) as client:
        for path in ("/health", "/ready", "/", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer three"}):
            for path in ("/v1/models", "/metrics"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/models", headers={"authorization": "Bearer two"}).is_success
        assert client.get("/v1/models", headers={"authorization": "token one"}).is_success


@pytest.mark.parametrize("path", SOCKETS)
def test_a_live_stream_needs_a_key(serving, path):
    with serving(keys=("one",)) as client:
        for options in ({}, {"subprotocols": ["token", "two"]}):
            with (
                pytest.raises(WebSocketDenialResponse) as refusal,
                client.websocket_connect(path, **options),
            ):
                pass
            assert refusal.value.status_code == 401
        for options in (
            {"headers": {"authorization": "Bearer one"}},
            {"headers": {"authorization": "Token one"}},
            {"subprotocols": ["realtime", "openai-insecure-api-key.one"]},
            {"subprotocols": ["token", "one"]},
        ):
            with client.websocket_connect(path, **options) as socket:
                assert socket.accepted_subprotocol != "one"


def test_keys_among_subprotocols():
    assert keys_of(["realtime", "openai-insecure-api-key.abc", "openai-beta.x"]) == ["abc"]
    assert keys_of(["token", "abc"]) == ["abc"]
    assert keys_of(["realtime"]) == keys_of([]) == []


def test_pages_of_others_may_not_use_the_server(serving, wav):
    with serving() as client:
        answer = client.post(PATH, files={"file": wav}, headers={"origin": "https://evil.org"})
        assert answer.status_code == 403
        own = client.post(PATH, files={"file": wav}, headers={"origin": "http://localhost:8000"})
        assert own.status_code == 200 and "access-control-allow-origin" not in own.headers
        with (
            pytest.raises(WebSocketDenialResponse),
            client.websocket_connect(SOCKETS[0], headers={"origin": "https://evil.org"}),
        ):
            pass
    with serving(origins=("https://good.org",), keys=("one",)) as client:
        headers = {"origin": "https://good.org", "authorization": "Bearer one"}
        answer = client.post(PATH, files={"file": wav}, headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://good.org"
        asking = {"origin": "https://good.org", "access-control-request-method": "POST"}
        assert client.options(PATH, headers=asking).status_code == 200


def test_a_body_that_is_too_large(serving, wav):
    with serving(max_bytes=1000) as client:
        assert client.post(PATH, files={"file": wav}).status_code == 413

        def chunks():
            yield b"--x\r\n"
            yield from [b"a" * 600] * 3

        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = client.post(PATH, content=chunks(), headers=headers)
        assert answer.status_code == 413 and answer.json()["error"]["message"]


def test_too_many_requests(serving, wav):
    with serving(max_requests=1) as client:
        client.app.state.service.num_requests = 1
        answer = client.post(PATH, files={"file": wav})
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert client.get("/v1/models").status_code == 200


def test_a_body_that_does_not_come():
    service = Service(Settings(idle=0.05), None, None, None)

    async def receive():
        await asyncio.sleep(60)

    with pytest.raises(HTTPException) as error:
        asyncio.run(Guard(None, service)._limited(receive)())
    assert error.value.status_code == 408


def test_a_server_that_ends_takes_nothing_new(serving, wav):
    with serving() as client:
        client.app.state.service.is_draining = True
        assert client.post(PATH, files={"file": wav}).status_code == 503
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
