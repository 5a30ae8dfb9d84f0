"""OpenAI's transcription API: every field and format, errors in its form."""

import asyncio
import json

import pytest
from clients import wav_of
from fastapi.testclient import TestClient
from models import speech

import tdt_jax as tdt

PATH = "/v1/audio/transcriptions"


def post(client: TestClient, wav: bytes, **fields):
    return client.post(PATH, files={"file": ("a.wav", wav)}, data=fields)


@pytest.fixture
def transcript(recogniser, wav):
    return tdt.transcribe(recogniser, wav)


def test_json(client, wav, transcript):
    answer = post(client, wav, model="whisper-1").json()
    assert answer == {"text": transcript.text, "usage": {"type": "duration", "seconds": 1.0}}
    assert transcript.text


def test_formats(client, wav, transcript):
    texts = {each: post(client, wav, response_format=each).text for each in ("text", "srt", "vtt")}
    assert texts["text"] == transcript.text + "\n"
    assert texts["srt"].startswith("1\n00:00:0") and texts["vtt"].startswith("WEBVTT\n\n00:00:0")


def test_verbose_json(client, wav, transcript):
    short = post(client, wav, response_format="verbose_json").json()
    assert "words" not in short and short["duration"] == 1.0
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    long = post(client, wav, **fields).json()
    assert long["segments"] == short["segments"]
    assert [each["word"] for each in long["words"]] == [each.text for each in transcript.words]
    assert [each["start"] for each in long["words"]] == [
        round(each.start, 3) for each in transcript.words
    ]
    segment = long["segments"][0]
    assert len(segment["tokens"]) > 0 and segment["avg_logprob"] < 0
    assert segment.keys() == set(
        "id seek start end text tokens temperature avg_logprob compression_ratio "
        "no_speech_prob".split()
    )


def test_logprobs(client, wav, transcript):
    answer = post(client, wav, **{"include[]": "logprobs"}).json()
    assert len(answer["logprobs"]) == len(transcript.tokens)
    assert all(each["logprob"] <= 0 for each in answer["logprobs"])


def events(answer):
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_server_sent_events(client, wav, transcript):
    found = events(post(client, wav, stream="true"))
    assert [each["type"] for each in found] == ["transcript.text.delta", "transcript.text.done"]
    assert found[0]["delta"] == found[1]["text"] == transcript.text
    assert found[1]["usage"]["type"] == "tokens"


def test_a_long_recording_comes_piece_by_piece(client, recogniser, monkeypatch):
    engine = client.app.state.service.engine
    step = engine._step_batches

    async def until_taken():
        while any(changed.is_set() for changed in engine._changed.values()):
            await asyncio.sleep(0)

    def step_and_wait():
        """Without this several batches may end before the event loop looks at the first."""
        step()
        asyncio.run_coroutine_threadsafe(until_taken(), engine._loop).result(10)

    monkeypatch.setattr(engine, "_step_batches", step_and_wait)
    wav = wav_of(speech(30.0))
    *deltas, done = events(post(client, wav, stream="true"))
    assert len(deltas) > 1 and "".join(each["delta"] for each in deltas) == done["text"]
    assert done["text"] == tdt.transcribe(recogniser, wav).text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        (
            {"timestamp_granularities[]": "line", "response_format": "verbose_json"},
            "timestamp_granularities",
        ),
        ({"include[]": "audio"}, "include"),
        ({"language": "en"}, "language"),
        ({"languages[]": ["en"]}, "languages"),
        ({"prompt": "numbers"}, "prompt"),
        ({"keywords[]": ["one"]}, "keywords"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "2"}, "temperature"),
        ({"stream": "true", "response_format": "srt"}, "stream"),
    ],
)
def test_what_cannot_be_done_is_a_clear_error(client, wav, fields, param):
    answer = post(client, wav, **fields)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == param and error["type"] == "invalid_request_error" and error["message"]


@pytest.mark.parametrize("content", [b"", b"not audio at all", b"RIFF\x00\x00"])
def test_a_file_that_is_no_audio(client, content):
    answer = post(client, content)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "file"


def test_a_request_without_a_file(client):
    assert client.post(PATH, data={"model": "x"}).json()["error"]["param"] == "file"
    assert client.post(PATH, content=b"{", headers={"content-type": "a/b"}).status_code == 400


def test_the_languages_of_the_model(serving, wav):
    with serving(languages=("en", "de")) as client:
        assert post(client, wav, language="de").status_code == 200
        assert "en, de" in post(client, wav, language="fr").json()["error"]["message"]
    with serving(languages=("en",)) as client:
        assert post(client, wav, response_format="verbose_json").json()["language"] == "en"


def test_models(serving):
    with serving(name="quick") as client:
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["quick"]
        assert client.get("/v1/models/quick").json()["object"] == "model"
        missing = client.get("/v1/models/other")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"


def test_a_recording_that_is_too_long(serving, wav):
    with serving(max_seconds=0.5) as client:
        assert "longer than 0.5 s" in post(client, wav).json()["error"]["message"]
