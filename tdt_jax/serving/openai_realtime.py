"""/v1/realtime: OpenAI's Realtime API, transcription sessions.

Audio is 16-bit PCM at 24 or 16 kHz in base64. With turn detection a turn ends by the rule of
`tdt_jax.EndOfTurn`; without, when the client commits. Deltas are words that are certain; all of an
item's are its transcript. `session.updated` shows what applies, whatever was asked for.
"""

import base64
import binascii
import json
import math
import time
import uuid
from collections import deque
from typing import Any

from fastapi import APIRouter, WebSocket

from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.stream_words import StreamedWord
from tdt_jax.serving import errors, sockets
from tdt_jax.serving.errors import BadRequest
from tdt_jax.serving.live import Live, Update
from tdt_jax.serving.pcm import Pcm
from tdt_jax.serving.service import Service
from tdt_jax.serving.sockets import Event

RATES = (24000, 16000)  # Hz
LOGPROBS = "item.input_audio_transcription.logprobs"
TRANSCRIPTION = "conversation.item.input_audio_transcription."
DEFAULT_VAD = {"type": "server_vad", "silence_duration_ms": None}


class RealtimeTalk:
    """A transcription session."""

    def __init__(self, service: Service, live: Live):
        self._service, self._live = service, live
        self._id = _new_id("sess")
        self._rate, self._vad = RATES[0], dict(DEFAULT_VAD)
        self._model, self._language = service.settings.name, None
        self._include: list[str] = []
        self._pcm: Pcm | None = None
        self._uncommitted = False  # audio has come since the last commit
        self._item: _Item | None = None  # that words are for now
        self._previous: str | None = None  # the item committed last
        self._ends: deque[_Item | None] = deque()  # of flushes; None: what comes before is dropped
        self._item_from = 0.0  # seconds, where the audio of the item begins
        live.set_rule(_rule(self._vad))

    is_finished = False

    def start(self) -> list[Event]:
        return [self._event("session.created", session=self._session())]

    async def take(self, message: str | bytes) -> list[Event]:
        event = _parsed(message)
        kind = event["type"]
        if kind == "session.update":
            self._configure(_mapping(event, "session"))
            return [self._event("session.updated", session=self._session())]
        if kind == "input_audio_buffer.append":
            await self._append(event.get("audio"))
            return []
        if kind == "input_audio_buffer.commit":
            return self._commit()
        if kind == "input_audio_buffer.clear":
            self._uncommitted = False
            self._ends.append(None)
            self._live.flush()
            return [self._event("input_audio_buffer.cleared")]
        raise BadRequest(f"a transcription session has no event {kind[:100]!r}", "type")

    def update(self, update: Update) -> list[Event]:
        events: list[Event] = []
        for each in update.events:
            if isinstance(each, StreamedWord):
                events += self._word(each)
            elif isinstance(each, EndOfUtterance) and each.reason != "finish_turn":
                events += self._turn_over(each, update.seconds)
        if update.pending.strip() and self._vad and not self._ends and self._item is None:
            events += self._begin(update.seconds)
        if update.ended and self._ends:
            item = self._ends.popleft()
            if item:
                events.append(self._completed(item, update.seconds))
            else:
                self._item, self._item_from = None, update.seconds
        if update.closed and self._item and self._item.words:
            item, self._item = self._item, None
            events += [self._committed(item), self._completed(item, update.seconds)]
        return events

    def last(self) -> list[Event]:
        return []

    def error(self, error: BadRequest) -> Event:
        about = errors.body(str(error), error.status, error.param, error.code)["error"]
        return self._event("error", error={**about, "event_id": None})

    def _configure(self, session: dict[str, Any]) -> None:
        """Takes the fields of a `session.update`: all, or none if one is wrong."""
        if session.get("type", "transcription") != "transcription":
            raise BadRequest("this server has transcription sessions only", "session.type")
        given = _mapping(_mapping(session, "audio"), "input")
        rate = self._rate
        if form := _mapping(given, "format"):
            if form.get("type") != "audio/pcm" or form.get("rate", RATES[0]) not in RATES:
                raise BadRequest(
                    "audio is audio/pcm at 24000 or 16000 Hz", "session.audio.input.format"
                )
            rate = form.get("rate", RATES[0])
        wanted = _mapping(given, "transcription")
        self._service.check_advice(prompt=wanted.get("prompt"), keywords=wanted.get("keywords"))
        language = _text(wanted, "language")
        named = [language] if language else wanted.get("languages") or []
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            raise BadRequest("languages is a list of names", "languages")
        self._service.check_languages(named, "language", must_know=False)
        vad = self._vad
        if "turn_detection" in given:
            vad = _mapping(given, "turn_detection")
        rule = _rule(vad)
        include = session.get("include") or []
        if not isinstance(include, list) or any(each != LOGPROBS for each in include):
            raise BadRequest(f"include takes {LOGPROBS} only", "session.include")
        model = _text(wanted, "model") or self._model
        self._live.set_rule(rule)
        if rate != self._rate:
            self._pcm = None
        self._rate, self._vad, self._include = rate, vad, include
        self._model = model
        if self._service.settings.languages and language:
            self._language = language

    async def _append(self, audio: object) -> None:
        try:
            data = base64.b64decode(audio if isinstance(audio, str) else "-", validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest("audio is not base64", "audio") from None
        if self._pcm is None:
            model_rate = self._service.engine.recogniser.config.features.sample_rate
            self._pcm = Pcm(self._rate, model_rate)
        self._uncommitted = self._uncommitted or bool(data)
        await self._live.push(self._pcm.samples(data))

    def _commit(self) -> list[Event]:
        if not self._uncommitted:
            raise BadRequest("there is no audio to commit", code="input_audio_buffer_commit_empty")
        self._uncommitted = False
        if self._ends:  # words up to here belong to the items before
            item = _Item()
        else:
            item, self._item = self._item or _Item(), None
        self._ends.append(item)
        self._live.flush()
        return [self._committed(item)]

    def _word(self, word: StreamedWord) -> list[Event]:
        events = []
        if self._ends:
            item = self._ends[0]
            if item is None:  # of audio that was cleared
                return []
        elif self._item is None:
            events = self._begin(word.start)
            item = self._item
        else:
            item = self._item
        assert item
        delta = " " * (word.space_before and bool(item.words)) + word.text
        item.words.append(word)
        item.text += delta
        extra = {"logprobs": [_logprob(delta, word)]} if self._include else {}
        return [
            *events,
            self._event(
                TRANSCRIPTION + "delta", item_id=item.id, content_index=0, delta=delta, **extra
            ),
        ]

    def _begin(self, seconds: float) -> list[Event]:
        self._item = _Item()
        if not self._vad:
            return []
        ms = round(1000 * seconds)
        return [
            self._event(
                "input_audio_buffer.speech_started", audio_start_ms=ms, item_id=self._item.id
            )
        ]

    def _turn_over(self, turn: EndOfUtterance, seconds: float) -> list[Event]:
        item, self._item = self._item, None
        if item is None or self._ends:
            return []
        self._uncommitted = False
        ms = round(1000 * turn.end)
        return [
            self._event("input_audio_buffer.speech_stopped", audio_end_ms=ms, item_id=item.id),
            self._committed(item),
            self._completed(item, seconds),
        ]

    def _committed(self, item: "_Item") -> Event:
        previous, self._previous = self._previous, item.id
        return self._event(
            "input_audio_buffer.committed", item_id=item.id, previous_item_id=previous
        )

    def _completed(self, item: "_Item", seconds: float) -> Event:
        usage = {"type": "duration", "seconds": round(max(0.0, seconds - self._item_from), 3)}
        self._item_from = seconds
        extra: dict[str, Any] = {}
        if self._include:
            extra["logprobs"] = [
                _logprob(" " * (word.space_before and i > 0) + word.text, word)
                for i, word in enumerate(item.words)
            ]
        if self._live.language:
            extra["languages"] = [{"code": self._live.language}]
        return self._event(
            TRANSCRIPTION + "completed",
            item_id=item.id,
            content_index=0,
            transcript=item.text.strip(),
            usage=usage,
            **extra,
        )

    def _session(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": round(time.time() + self._service.settings.max_seconds),
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": self._rate},
                    "transcription": {"model": self._model, "language": self._language},
                    "turn_detection": self._vad or None,
                    "noise_reduction": None,
                }
            },
            "include": self._include or None,
        }

    def _event(self, kind: str, **fields: object) -> Event:
        return {"type": kind, "event_id": _new_id("event"), **fields}


class _Item:
    """A turn of the speaker's."""

    def __init__(self):
        self.id, self.words, self.text = _new_id("item"), list[StreamedWord](), ""


def router(service: Service) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter()

    @routes.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        def begin(live: Live) -> RealtimeTalk:
            if socket.query_params.get("intent", "transcription") != "transcription":
                raise BadRequest("this server has intent=transcription only", "intent")
            return RealtimeTalk(service, live)

        await sockets.converse(socket, service, begin, "realtime")

    return routes


def _rule(vad: dict[str, Any]) -> EndOfTurn | None:
    """Returns the rule of a `turn_detection`; none if that is null."""
    if not vad:
        return None
    if vad.get("type") not in ("server_vad", "semantic_vad"):
        raise BadRequest("turn_detection is server_vad, semantic_vad or null", "turn_detection")
    silence = vad.get("silence_duration_ms")
    if silence is None:
        return EndOfTurn()
    if not isinstance(silence, int | float) or not 0 < silence <= 60_000:
        raise BadRequest("silence_duration_ms is from 1 to 60000", "silence_duration_ms")
    return EndOfTurn(silence / 1000, silence / 1000)


def _parsed(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise BadRequest("events are text messages; audio is in input_audio_buffer.append")
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        raise BadRequest("the message is not JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise BadRequest("an event is an object with a type", "type")
    return event


def _mapping(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns an object within another; an empty one if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{name} is an object", name)
    return value


def _text(parent: dict[str, Any], name: str) -> str | None:
    value = parent.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} is a text", name)
    return value


def _logprob(text: str, word: StreamedWord) -> dict[str, Any]:
    value = math.log(max(word.probability, 1e-30))
    return {"token": text, "logprob": value, "bytes": list(text.encode())}


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:24]}"
