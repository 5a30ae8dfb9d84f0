"""/v1/audio/transcriptions and /v1/models, as OpenAI's REST API has them."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tdt_jax.inference.shared_batches import Job
from tdt_jax.serving import errors, openai_formats
from tdt_jax.serving.engine import DeviceError
from tdt_jax.serving.errors import BadRequest, Busy
from tdt_jax.serving.openai_formats import FORMATS, GRANULARITIES, PLAIN
from tdt_jax.serving.service import Service
from tdt_jax.serving.uploads import UploadError

SSE = "text/event-stream"
GONE = 499  # status for a client that has gone; nobody reads it

Texts = Annotated[list[str] | None, Form()]


def router(service: Service) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(tags=["OpenAI"])
    created = int(time.time())
    engine = service.engine
    labels = {piece: number for number, piece in enumerate(engine.recogniser.tokenizer.pieces)}
    about = {
        "id": service.settings.name,
        "object": "model",
        "created": created,
        "owned_by": "tdt_jax",
    }

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """Lists the model."""
        return {"object": "list", "data": [about]}

    @routes.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        """Describes the model."""
        if name != about["id"]:
            raise BadRequest("there is no such model", "model", code="model_not_found", status=404)
        return about

    @routes.post(
        "/v1/audio/transcriptions",
        responses={400: {}, 401: {}, 408: {}, 413: {}, 503: {}, 200: {"content": {SSE: {}}}},
        response_model=None,
    )
    async def transcriptions(
        request: Request,
        file: Annotated[UploadFile, File(description="A recording in any format.")],
        model: Annotated[str, Form(description="Any name: the server has one model.")] = "",
        language: Annotated[str, Form()] = "",
        languages: Texts = None,
        languages_: Annotated[list[str] | None, Form(alias="languages[]")] = None,
        keywords: Texts = None,
        keywords_: Annotated[list[str] | None, Form(alias="keywords[]")] = None,
        prompt: Annotated[str, Form()] = "",
        response_format: Annotated[str, Form()] = "json",
        temperature: Annotated[
            float, Form(ge=0, le=1, description="Has no effect: decoding is greedy.")
        ] = 0.0,
        granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities")] = None,
        granularities_: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
        include: Texts = None,
        include_: Annotated[list[str] | None, Form(alias="include[]")] = None,
        chunking_strategy: Annotated[
            str, Form(description="Has no effect: long audio is cut at its pauses.")
        ] = "",
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        """Transcribes a recording."""
        service.check_advice(prompt=prompt, keywords=[*(keywords or []), *(keywords_ or [])])
        service.check_languages([language] if language else [], "language")
        service.check_languages([*(languages or []), *(languages_ or [])], "languages")
        chosen = [*(granularities or []), *(granularities_ or [])]
        included = [*(include or []), *(include_ or [])]
        _check(response_format, chosen, included, stream)
        if not engine.is_ready:
            raise Busy("the model is being loaded")
        if file.size == 0:
            raise BadRequest("the file is empty", "file")
        try:
            samples = await service.uploads.decode(file.file, file.size or 0)
        except UploadError as error:
            raise BadRequest(f"the file cannot be read: {error}", "file") from None
        finally:
            await file.close()
        jobs = engine.decode(samples, request.is_disconnected)
        del samples
        logprobs = "logprobs" in included
        if stream:
            return StreamingResponse(_events(service, jobs, logprobs), media_type=SSE)
        job = None
        try:
            async for each in jobs:
                job = each
        except DeviceError:
            return errors.response("the device has failed", 500)
        if job is None or not job.is_done:
            return Response(status_code=GONE)
        transcript = engine.batches.transcript(job)
        if response_format in PLAIN:
            return PlainTextResponse(openai_formats.plain(transcript, response_format))
        if response_format == "json":
            return JSONResponse(openai_formats.short(transcript, logprobs=logprobs))
        known = service.settings.languages
        named = language or (known[0] if len(known) == 1 else "")
        return JSONResponse(
            openai_formats.verbose(transcript, chosen or ["segment"], labels, named)
        )

    return routes


def _check(format: str, granularities: list[str], include: list[str], stream: bool) -> None:
    """Raises BadRequest for fields that this server does not have, or that do not go together."""
    if format not in FORMATS:
        raise BadRequest(
            f"response_format is {', '.join(FORMATS)}; got {format[:100]!r}", "response_format"
        )
    if wrong := [each for each in granularities if each not in GRANULARITIES]:
        raise BadRequest(
            f"timestamp_granularities are {', '.join(GRANULARITIES)}; got {wrong[0][:100]!r}",
            "timestamp_granularities",
        )
    if granularities and format != "verbose_json":
        raise BadRequest(
            "timestamp_granularities need response_format=verbose_json", "timestamp_granularities"
        )
    if wrong := [each for each in include if each != "logprobs"]:
        raise BadRequest(f"include is logprobs; got {wrong[0][:100]!r}", "include")
    if include and format != "json":
        raise BadRequest("include=logprobs needs response_format=json", "include")
    if stream and format not in ("json", "text"):
        raise BadRequest("stream needs response_format=json or text", "stream")


async def _events(service: Service, jobs: AsyncIterator[Job], logprobs: bool) -> AsyncIterator[str]:
    """Yields server-sent events: text as soon as it is certain, and the whole at the end."""
    batches, sent, job = service.engine.batches, "", None
    try:
        async for job in jobs:
            certain = batches.certain(job)
            text = "".join(" " * word.space_before + word.text for word in certain).lstrip()
            if not job.is_done and len(text) > len(sent) and text.startswith(sent):
                yield openai_formats.server_sent(openai_formats.delta(text[len(sent) :]))
                sent = text
    except (DeviceError, Busy) as error:
        message = str(error) or "the device has failed"
        yield openai_formats.server_sent({"type": "error", **errors.body(message, 503)})
        return
    if job and job.is_done:
        transcript = batches.transcript(job)
        if rest := transcript.text.removeprefix(sent):
            yield openai_formats.server_sent(openai_formats.delta(rest))
        yield openai_formats.server_sent(openai_formats.done(transcript, logprobs=logprobs))
        yield openai_formats.server_sent("[DONE]")
