"""A server of live and batch transcription, to clients that exist already.

app.py              create_app: the FastAPI application; health, readiness, metrics, the page
settings.py         Settings: address, keys, limits
server.py           serve: uvicorn, and how it ends
service.py          Service: what the routes share
engine.py           Engine: the one thread that owns the device
live.py             a client's live stream, between the engine's thread and asyncio
windowed_streams.py live streams of models that are not causal
guard.py            keys, origins, bytes, slow bodies, the number of requests
errors.py           errors in OpenAI's form
uploads.py          uploaded files to samples, in processes of their own
upload_worker.py    such a process; it never imports JAX
openai_rest.py      /v1/audio/transcriptions, /v1/models
openai_formats.py   a transcript in OpenAI's formats
openai_realtime.py  /v1/realtime
deepgram.py         /v1/listen
sockets.py          a WebSocket that speaks one of these protocols
pcm.py              PCM bytes to samples at the model's rate
metrics.py          what /metrics shows
page.html           the page at /

    HTTP, WebSockets  --  asyncio  --  bounded queues  --  engine's thread  --  device
                            |
                     processes that decode files
"""
