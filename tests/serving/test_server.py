"""The whole server as a process: SIGTERM lets it finish, and it ends with 0."""

import http.client
import signal
import socket
import subprocess
import sys

import pytest
from clients import AUDIO, pcm, wait_for, wav_of
from paths import ROOT
from websockets.sync.client import connect

PROGRAM = """
import sys; sys.path[:0] = [{root!r}, {root!r} + "/tests/support"]
import stub, models
from tdt_jax.inference import transcription
transcription.decode_samples_on_mesh = stub.decode
from tdt_jax.serving.engine import Engine
from tdt_jax.serving.metrics import Metrics
from tdt_jax.serving.server import serve
from tdt_jax.serving.settings import Settings
settings = Settings(port={port}, streams=2, decoders=1, grace=60.0)
recogniser = models.make_recogniser(piece_seconds=2.56)
from tdt_jax.serving.windowed_streams import WindowedStreams
WindowedStreams.warm_up = lambda self: None
sys.exit(serve(Engine(recogniser, settings, Metrics()), settings))
"""


def status(port, path):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.mark.slow
def test_sigterm(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = PROGRAM.format(root=str(ROOT), port=port)
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    try:
        wait_for(lambda: status(port, "/ready") == 200, 60)
        uri = f"ws://127.0.0.1:{port}/v1/listen?sample_rate=16000"
        with connect(uri) as live, socket.create_connection(("127.0.0.1", port)) as slow:
            live.send(pcm(AUDIO[2]))
            body = (
                b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
                + wav_of(AUDIO[0]) + b"\r\n--x--\r\n"
            )  # fmt: skip
            head = (
                f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}"
                "\r\n\r\n"
            )
            slow.sendall(head.encode() + body[:1000])
            wait_for(lambda: status(port, "/ready") == 200)
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: status(port, "/ready") == 503)
            assert status(port, "/v1/models") == 503  # nothing new
            slow.sendall(body[1000:])
            assert b"200 OK" in slow.recv(1000)  # what has begun is finished
            live.send('{"type": "CloseStream"}')
            assert "Metadata" in list(live)[-1]
        assert process.wait(20) == 0
    finally:
        process.kill()
        assert b"Traceback" not in process.communicate()[1]
