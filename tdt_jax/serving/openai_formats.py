"""A transcript in the formats of OpenAI's transcription API."""

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

from tdt_jax.inference.formats import render
from tdt_jax.inference.transcript import Segment, Token, Transcript, Word

PLAIN = {"text": "txt", "srt": "srt", "vtt": "vtt"}  # formats that are no JSON
FORMATS = ("json", "verbose_json", *PLAIN)
GRANULARITIES = ("segment", "word", "token")  # the last one is ours


def plain(transcript: Transcript, format: str) -> str:
    """Returns the transcript in one of PLAIN."""
    return render(transcript, PLAIN[format])


def short(transcript: Transcript, *, logprobs: bool) -> dict[str, Any]:
    """Returns what `json` has."""
    value: dict[str, Any] = {"text": transcript.text, "usage": usage(transcript.duration)}
    if logprobs:
        value["logprobs"] = token_logprobs(transcript.tokens)
    if transcript.language:
        value["languages"] = [{"code": transcript.language}]
    return value


def verbose(
    transcript: Transcript, granularities: Sequence[str], labels: dict[str, int], language: str
) -> dict[str, Any]:
    """Returns what `verbose_json` has.

    Args:
      transcript: of a recording.
      granularities: some of GRANULARITIES.
      labels: by the text of a token.
      language: if the transcript knows none.
    """
    value: dict[str, Any] = {
        "task": "transcribe",
        "language": transcript.language or language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "usage": usage(transcript.duration),
    }
    if "segment" in granularities:
        value["segments"] = [
            _segment(number, segment, transcript.tokens, labels)
            for number, segment in enumerate(transcript.segments)
        ]
    if "word" in granularities:
        value["words"] = [_word(word) for word in transcript.words]
    if "token" in granularities:
        value["tokens"] = [{"token": each.text, **_times(each)} for each in transcript.tokens]
    return value


def delta(text: str) -> dict[str, Any]:
    """Returns the event of more text."""
    return {"type": "transcript.text.delta", "delta": text}


def done(transcript: Transcript, *, logprobs: bool) -> dict[str, Any]:
    """Returns the event of the whole text. Its usage is in tokens: of audio, frames of 80 ms."""
    audio, text = math.ceil(transcript.duration / 0.08), len(transcript.tokens)
    value: dict[str, Any] = {
        "type": "transcript.text.done",
        "text": transcript.text,
        "usage": {
            "type": "tokens",
            "input_tokens": audio,
            "input_token_details": {"audio_tokens": audio, "text_tokens": 0},
            "output_tokens": text,
            "total_tokens": audio + text,
        },
    }
    if logprobs:
        value["logprobs"] = token_logprobs(transcript.tokens)
    return value


def server_sent(event: dict[str, Any] | str) -> str:
    """Returns a server-sent event."""
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return f"data: {text}\n\n"


def usage(seconds: float) -> dict[str, Any]:
    """Returns what a request is charged for."""
    return {"type": "duration", "seconds": round(seconds, 3)}


def token_logprobs(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Returns the log-probability of each token."""
    return [
        {
            "token": _spoken(token.text),
            "logprob": _log(token.probability),
            "bytes": list(_spoken(token.text).encode()),
        }
        for token in tokens
    ]


def _segment(
    number: int, segment: Segment, tokens: Sequence[Token], labels: dict[str, int]
) -> dict[str, Any]:
    inside = [each for each in tokens if segment.start <= each.start <= segment.end]
    logs = [_log(each.probability) for each in inside]
    text = segment.text.encode()
    return {
        "id": number,
        "seek": round(100 * segment.start),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": " " + segment.text,
        "tokens": [labels[each.text] for each in inside if each.text in labels],
        "temperature": 0.0,
        "avg_logprob": sum(logs) / len(logs) if logs else 0.0,
        "compression_ratio": len(text) / len(zlib.compress(text)),
        "no_speech_prob": 0.0,
    }


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text, **_times(word)}


def _times(part: Word | Token) -> dict[str, float]:
    confidence = part.confidence if math.isfinite(part.confidence) else 0.0
    return {
        "start": round(part.start, 3),
        "end": round(part.end, 3),
        "confidence": round(confidence, 4),
    }


def _spoken(piece: str) -> str:
    return piece.replace("▁", " ")


def _log(probability: float) -> float:
    return math.log(probability) if probability > 1e-30 else -69.0
