"""The benchmark of the server: what the load sends and when, and what is counted."""

import asyncio
import contextlib
import http.server
import json
import threading

import numpy as np
import pytest
import websockets
from models import make_recogniser, speech

from tdt_jax.audio.encoded import flac
from tdt_jax.benchmarks import serve, serve_load
from tdt_jax.benchmarks.live import Recording
from tdt_jax.checkpoints import loading
from tdt_jax.cli import main
from tdt_jax.data.utterance import SpokenWord, Utterance

RATE = 16000


def results(text, *, final):
    alternative = {"transcript": text, "confidence": 1.0, "words": []}
    return json.dumps(
        {
            "type": "Results",
            "is_final": final,
            "from_finalize": final,
            "channel": {"alternatives": [alternative]},
        }
    )


async def talk(socket):
    """Shows a word after 0.1 s of audio, and is certain when it is asked."""
    size = 0
    async for message in socket:
        if isinstance(message, bytes):
            size += len(message)
            if size == 2 * RATE // 10:
                await socket.send(results("one", final=False))
        else:
            assert json.loads(message)["type"] == "Finalize"
            await socket.send(results(f"one {size // 2}", final=True))


def test_live_streams_play_in_real_time(tmp_path):
    (tmp_path / "a.pcm").write_bytes(bytes(2 * RATE // 10))
    plan = {"rate": RATE, "streams": 2, "seconds": 0.1, "stop_secs": 0.06}
    plan["recordings"] = [{"path": str(tmp_path / "a.pcm"), "end": 0.1}]

    async def play():
        async with websockets.serve(talk, "127.0.0.1", 0) as server:
            plan["port"] = next(iter(server.sockets)).getsockname()[1]
            return await serve_load.play_live(plan)

    played = asyncio.run(play())
    assert len(played) == 2 and all(each["complete"] for each in played)
    for each in played:
        (shown, *first), (final, *last) = each["changes"]
        assert first == ["", "one"] and last == ["one 2560"] * 2  # silence after the recording
        assert 0.1 <= shown < final and final >= 0.16


def test_a_server_that_is_gone_loses_recordings(tmp_path):
    (tmp_path / "a.pcm").write_bytes(b"")
    recordings = [{"path": str(tmp_path / "a.pcm"), "end": 0.02}]
    plan = {"port": 9, "rate": RATE, "streams": 1, "seconds": 0.01, "stop_secs": 0.0}
    played = asyncio.run(serve_load.play_live({**plan, "recordings": recordings}))
    assert played == [{"index": 0, "changes": [], "complete": False}]


class Upload(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        content = body.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n--tdt--\r\n")
        answer = json.dumps({"text": content.decode()}).encode()
        self.send_response(200 if content != b"bad" else 503)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


def test_every_file_is_posted_once(tmp_path):
    paths = []
    for text in ("a", "bad", "c", "d"):
        paths.append(tmp_path / text)
        paths[-1].write_text(text)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upload) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        plan = {"port": server.server_port, "files": [*map(str, paths)], "clients": 3}
        load = serve_load.post_files(plan)
        server.shutdown()
    assert load["texts"] == ["a", "", "c", "d"]
    assert [bool(each) for each in load["each"]] == [True, False, True, True]
    assert max(load["each"]) <= load["seconds"]


def test_delays_are_counted_from_speech():
    words = (SpokenWord("one", 0.5, 0.8), SpokenWord("two", 1.0, 1.4))
    recording = Recording("a", np.zeros(2 * RATE, np.float32), "one two", words, 0.5, 1.4)
    changes = [[0.7, "", ""], [1.0, "", "one"], [1.5, "", "one too"], [1.65, "one two", "one two"]]
    played = [
        {"index": 0, "changes": changes, "complete": True},
        {"index": 0, "changes": changes[:2], "complete": False},
    ]
    row = serve._delays([recording], played, str)
    assert (row["recordings"], row["lost"], row["word_error_rate"]) == (2, 1, 0.0)
    assert row["ttfs"]["median"] == pytest.approx(0.25)
    assert row["first_partial"]["median"] == pytest.approx(0.5)
    assert row["decoded"]["median"] == pytest.approx((0.2 + 0.25) / 2)
    nothing = serve._delays([recording], played[1:], str)
    assert nothing["lost"] == 1 and nothing["ttfs"] is None and nothing["word_error_rate"] is None


def test_costs_are_those_between_two_readings():
    def reading(audio, cpu, rows, steps):
        return {
            'tdt_audio_seconds_total{kind="live"}': audio,
            "process_cpu_seconds_total": cpu,
            "tdt_step_streams_sum": rows,
            "tdt_step_streams_count": steps,
        }

    before = reading(1.0, 0.5, 10.0, 10.0)
    assert serve._costs(before, reading(5.0, 2.5, 40.0, 20.0)) == {"rows": 3.0, "cpu_seconds": 0.5}
    nothing = serve._costs(before, before)  # all recordings were lost
    assert nothing["rows"] == 0.0 and np.isnan(nothing["cpu_seconds"])


@pytest.mark.parametrize(
    ("delay", "complete", "holds"), [(0.6, True, True), (0.8, True, False), (0.6, False, False)]
)
def test_a_server_holds_what_it_answers_in_time(monkeypatch, delay, complete, holds):
    """Within 0.5 s of the client's Finalize, which comes 0.2 s after the end of speech."""
    item = Utterance("a", speech(1.0, 0), "one", words=(SpokenWord("one", 0.1, 0.9),))
    good = {"index": 0, "changes": [[0.9 + 0.6, "one", "one"]], "complete": True}
    last = {"index": 0, "changes": [[0.9 + delay, "one", "one"]], "complete": complete}
    commands = []

    def serving(model, options):
        commands.append((model, *options))
        return contextlib.nullcontext(1)

    monkeypatch.setattr(serve, "serving", serving)
    monkeypatch.setattr(serve, "run_load", lambda plan: [good, last])
    monkeypatch.setattr(serve, "_counts", lambda port: {})
    (report,) = serve.live_reports("M", [item], streams=[4], sample_rate=RATE, lookahead=0.16)
    (row,) = report.rows
    assert row["holds"] is holds and row["streams"] == 4 and row["lost"] == (not complete)
    assert commands == [("M", "--streams", "4", "--lookahead", "0.16")]
    assert ("does not keep up" in report.table) is not holds


def test_a_server_that_ends_at_once_is_an_error():
    with (
        pytest.raises(ValueError, match=r"the server has ended: .*--nonsense"),
        serve.serving("MODEL", ["--nonsense"]),
    ):
        pass


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    """Texts of the server are those of transcribe; live streams of random weights are heard."""
    loading.save(make_recogniser(piece_seconds=2.56), tmp_path / "model")
    with open(tmp_path / "manifest.jsonl", "w") as manifest:
        for i in range(3):
            samples = speech(1.0 + 0.5 * i, i)
            (tmp_path / f"{i}.flac").write_bytes(flac(samples, RATE))
            line = {"audio_filepath": f"{i}.flac", "duration": len(samples) / RATE, "text": "a"}
            print(json.dumps(line), file=manifest)
    options = "--streams 1,2 --seconds 1 --requests 5 --clients 2 --repeats 1 --json"
    arguments = [str(tmp_path / "model"), str(tmp_path / "manifest.jsonl"), *options.split()]
    assert main.main(["benchmark", "serve", *arguments]) == 0
    one, two, batch = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["streams"], two["streams"]) == (1, 2) and not one["lost"] and not two["lost"]
    assert batch["requests"] == 5 and batch["different"] == 0 and batch["ratio"] > 0
