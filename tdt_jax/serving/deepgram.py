"""/v1/listen: Deepgram's live protocol, version 1.

Audio is binary: 16-bit PCM, `encoding=linear16` at any `sample_rate`. A result is final at the end
of a turn (`endpointing`), when the client asks (Finalize, CloseStream), and about every LONGEST
seconds of a long turn. What follows from one to the next has never been sent before.
"""

import hashlib
import json
import math
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.datastructures import QueryParams

from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.stream_words import StreamedWord
from tdt_jax.serving import sockets
from tdt_jax.serving.errors import BadRequest
from tdt_jax.serving.live import Live, Update
from tdt_jax.serving.pcm import RATES, Pcm
from tdt_jax.serving.service import Service
from tdt_jax.serving.sockets import Event

LONGEST = 8.0  # seconds of words that are certain, after which they are sent as final
PUNCTUATION = ".,?!;:…。、，？！"


class DeepgramTalk:
    """A stream with the options of a query."""

    def __init__(self, service: Service, live: Live, query: QueryParams):
        service.check_advice(keyterm=query.getlist("keyterm"), keywords=query.getlist("keywords"))
        service.check_languages(query.getlist("language"), "language", must_know=False)
        if query.get("encoding", "linear16") != "linear16":
            raise BadRequest("encoding is linear16", "encoding")
        for name, value in (("channels", "1"), ("multichannel", "false")):
            if query.get(name, value) != value:
                raise BadRequest("audio has one channel", name)
        rate = _number(query, "sample_rate", 16000, RATES.start, RATES.stop - 1)
        self._live = live
        self._pcm = Pcm(rate, service.engine.recogniser.config.features.sample_rate)
        self._interim = _flag(query, "interim_results")
        self._vad_events = _flag(query, "vad_events")
        self._gap = _number(query, "utterance_end_ms", 0, 0, 60_000) / 1000
        live.set_rule(_rule(query))
        self._id, self._name = str(uuid.uuid4()), service.settings.name
        self._model_id = str(uuid.UUID(hashlib.sha256(self._name.encode()).hexdigest()[:32]))
        self._sha256 = hashlib.sha256()
        self._words: list[StreamedWord] = []  # certain, since the last final result
        self._start = 0.0  # seconds, where the next result begins
        self._last_end: float | None = None  # of the last word, until an UtteranceEnd
        self._shown = ""  # the last interim transcript
        self._is_speaking = False
        self._finalizing: deque[bool] = deque()  # one for each flush
        self.is_finished = False

    def start(self) -> list[Event]:
        return []

    async def take(self, message: str | bytes) -> list[Event]:
        if isinstance(message, bytes):
            self._sha256.update(message)
            await self._live.push(self._pcm.samples(message))
            if not message:  # as older clients end a stream
                await self._close()
            return []
        kind = _parsed(message)
        if kind == "Finalize":
            self._finalizing.append(True)
            self._live.flush()
        elif kind == "CloseStream":
            await self._close()
        elif kind != "KeepAlive":
            raise BadRequest(f"there is no message {kind[:100]!r}", "type")
        return []

    def update(self, update: Update) -> list[Event]:
        events: list[Event] = []
        for each in update.events:
            if isinstance(each, StreamedWord):
                events += self._speech(each.start)
                if self._words and each.start - self._words[0].start > LONGEST and each.begins:
                    events.append(self._result(self._words[-1].end))
                self._words.append(each)
                self._last_end = each.end
            elif isinstance(each, EndOfUtterance) and each.reason != "finish_turn":
                events.append(self._result(update.seconds, speech_final=True))
                self._is_speaking = False
        if update.ended:
            asked = bool(self._finalizing) and self._finalizing.popleft()
            if asked or self._words:
                events.append(self._result(update.seconds, speech_final=True, from_finalize=asked))
            self._is_speaking = False
        elif update.pending.strip():
            events += self._speech(update.seconds)
        transcript = _text(self._words, update.pending)
        if self._interim and transcript and transcript != self._shown:
            self._shown = transcript
            events.append(self._interim_result(update.seconds, transcript))
        if update.pending.strip():
            self._last_end = None  # somebody speaks
        elif self._gap and self._last_end is not None and self._is_quiet(update):
            last = round(self._last_end, 3)
            events.append({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": last})
            self._last_end = None
        return events

    def last(self) -> list[Event]:
        return [
            {
                "type": "Metadata",
                "transaction_key": "deprecated",
                "request_id": self._id,
                "sha256": self._sha256.hexdigest(),
                "created": datetime.now(UTC).isoformat(),
                "duration": round(self._live.pushed, 3),
                "channels": 1,
                "models": [self._model_id],
                "model_info": {self._model_id: self._model_info()},
            }
        ]

    def error(self, error: BadRequest) -> Event:
        return {"type": "Error", "description": str(error), "message": str(error), "variant": ""}

    def _is_quiet(self, update: Update) -> bool:
        """Returns whether `utterance_end_ms` have passed since the last word."""
        return update.closed or update.seconds - (self._last_end or 0.0) >= self._gap

    async def _close(self) -> None:
        await self._live.push(self._pcm.rest())
        self._live.finish()
        self.is_finished = True

    def _speech(self, seconds: float) -> list[Event]:
        if self._is_speaking:
            return []
        self._is_speaking = True
        started = {"type": "SpeechStarted", "channel": [0, 1], "timestamp": round(seconds, 3)}
        return [started] if self._vad_events else []

    def _result(
        self, end: float, *, speech_final: bool = False, from_finalize: bool = False
    ) -> Event:
        """Returns the words that are certain as a final result."""
        words, self._words, self._shown = self._words, [], ""
        start, self._start = self._start, max(self._start, end)
        flags = dict(is_final=True, speech_final=speech_final, from_finalize=from_finalize)
        return self._results(start, end, _text(words, ""), words, **flags)

    def _interim_result(self, end: float, transcript: str) -> Event:
        flags = dict(is_final=False, speech_final=False, from_finalize=False)
        return self._results(self._start, end, transcript, self._words, **flags)

    def _results(
        self, start: float, end: float, transcript: str, words: list[StreamedWord], **flags: bool
    ) -> Event:
        confidence = min((word.confidence for word in words), default=0.0)
        alternative: dict[str, Any] = {
            "transcript": transcript,
            "confidence": round(confidence, 4),
            "words": [_word(word) for word in words],
        }
        if self._live.language:
            alternative["languages"] = [self._live.language]
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": round(start, 3),
            "duration": round(max(0.0, end - start), 3),
            **flags,
            "channel": {"alternatives": [alternative]},
            "metadata": {
                "request_id": self._id,
                "model_info": self._model_info(),
                "model_uuid": self._model_id,
            },
        }

    def _model_info(self) -> dict[str, str]:
        return {"name": self._name, "version": "1", "arch": "tdt"}


def router(service: Service) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter()

    @routes.websocket("/v1/listen")
    async def listen(socket: WebSocket) -> None:
        def begin(live: Live) -> DeepgramTalk:
            return DeepgramTalk(service, live, socket.query_params)

        chosen = next(iter(socket.scope.get("subprotocols", [])), "token")
        await sockets.converse(socket, service, begin, chosen.lower())

    return routes


def _rule(query: QueryParams) -> EndOfTurn | None:
    if query.get("endpointing") == "false":
        return None
    if query.get("endpointing") in (None, "true"):
        return EndOfTurn()
    silence = _number(query, "endpointing", 0, 1, 60_000) / 1000
    return EndOfTurn(silence, silence)


def _flag(query: QueryParams, name: str) -> bool:
    value = query.get(name, "false").lower()
    if value not in ("true", "false"):
        raise BadRequest(f"{name} is true or false", name)
    return value == "true"


def _number(query: QueryParams, name: str, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
        raise BadRequest(f"{name} is a whole number from {least} to {most}", name)
    return int(text)


def _parsed(message: str) -> str:
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        raise BadRequest("the message is not JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise BadRequest("a message is an object with a type", "type")
    return event["type"]


def _text(words: list[StreamedWord], pending: str) -> str:
    certain = "".join(" " * word.space_before + word.text for word in words)
    return (certain + pending).strip()


def _word(word: StreamedWord) -> dict[str, Any]:
    confidence = word.confidence if math.isfinite(word.confidence) else 0.0
    return {
        "word": word.text.strip(PUNCTUATION).lower() or word.text,
        "punctuated_word": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(confidence, 4),
    }
