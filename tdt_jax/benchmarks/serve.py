"""How `tdt-jax serve` does under load: live streams, and recordings beside `transcribe`.

Server, load and this program are three processes on one machine, and share its cores; everything
goes through loopback.
"""

import contextlib
import dataclasses
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdt_jax.audio.encoded import flac
from tdt_jax.benchmarks import serve_load
from tdt_jax.benchmarks.cases import CAUSAL_MODELS, choose, random_model
from tdt_jax.benchmarks.live import (
    Recording,
    first_time,
    milliseconds,
    read_recordings,
    spread,
    timed,
)
from tdt_jax.benchmarks.random_decoder import balance_blanks
from tdt_jax.benchmarks.report import Report
from tdt_jax.inference import metrics
from tdt_jax.inference.normalizers import make_normalizer
from tdt_jax.inference.transcription import transcribe_each, warm_up
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import encode
from tdt_jax.recogniser import Recogniser

START_SECONDS = 900.0  # in which a server must be ready
LIVE_COLUMNS = {"ttfs": "TTFS", "first_partial": "first partial", "decoded": "word decoded"}


@contextlib.contextmanager
def serving(model: str, options: Sequence[str]) -> Iterator[int]:
    """Runs `tdt-jax serve` on a free port of loopback, which it yields when the server is ready.

    Raises: ValueError if it ends before, or takes longer than START_SECONDS.
    """
    with socket.create_server((serve_load.HOST, 0)) as free:
        port = free.getsockname()[1]
    program = "import sys, tdt_jax_start; sys.exit(tdt_jax_start.main())"
    command = [sys.executable, "-c", program, "serve", model, "--port", str(port), *options]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stderr=log)
        try:
            _wait_until_ready(server, port, log)
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_ready(server: subprocess.Popen, port: int, log) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            log.seek(0)
            last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ValueError(f"the server has ended: {last}")
        with contextlib.suppress(OSError):
            if _get(port, "/ready"):
                return
        time.sleep(0.2)
    raise ValueError(f"the server was not ready within {START_SECONDS:g} s")


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://{serve_load.HOST}:{port}{path}", timeout=30) as answer:
        return answer.read().decode()


def run_load(plan: dict[str, Any]) -> Any:
    """Runs `serve_load` in a process of its own, and returns its results."""
    command = [sys.executable, "-P", serve_load.__file__]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"the load has ended: {done.stderr.strip().rpartition(chr(10))[2]}")
    return json.loads(done.stdout)


# Live streams


def live_reports(
    model: str,
    items: Sequence,
    *,
    streams: Sequence[int],
    sample_rate: int,
    seconds: float = 60.0,
    stop_secs: float = 0.2,
    limit: float = 0.5,
    lookahead: float | None = None,
    normalizer: str = "none",
    failed: dict[str, str] | None = None,
) -> Iterator[Report]:
    """Plays recordings into a server in real time, and yields a report for each number of streams.

    A row holds the number of streams; the recordings played and those whose final transcript did
    not come (lost); word_error_rate; rows, the mean number of streams in a step; cpu_seconds, those
    of the server's process for each second of audio (Linux); holds, whether nothing was lost and
    95 % of the final transcripts came within `limit`; and in seconds the median, p95 and p99 of

      ttfs: from the end of speech to the final transcript; `stop_secs` of it is the client's
      first_partial: from the start of speech to the first text
      decoded: from the end of a word to its being in the text, final or interim

    as in `tdt_jax.benchmarks.live`, at the client. Each number of streams has a server of its own,
    with no more places.

    Args:
      model: a checkpoint.
      items: utterances, or what has `id`, `audio` and `text`, as a manifest's entries.
      streams: numbers of clients at the same time.
      sample_rate: of the model, in Hz.
      seconds: how long clients begin to play another recording.
      stop_secs: seconds from the end of speech to the client's Finalize.
      limit: seconds after the client's Finalize.
      lookahead: of a causal model in seconds; by default its first.
      normalizer: one of `normalizers.NORMALIZERS`, over references and transcripts.
      failed: takes the id and the reason of what cannot be read.

    Raises: ValueError if a server cannot be started, or there is nothing to play.
    """
    recordings = read_recordings(items, sample_rate, failed)
    normalize = make_normalizer(normalizer)
    heading = (
        f"live; final transcripts are asked for {stop_secs:g} s after the end of speech\n"
        f"median/p95/p99 in ms\nstreams recordings   lost{'WER':>9s}"
        + "".join(f"{name:>20s}" for name in LIVE_COLUMNS.values())
        + "   streams a step   CPU s a second of audio\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        plan: dict[str, Any] = {"rate": sample_rate, "stop_secs": stop_secs}
        plan["recordings"] = [
            {"path": str(_write_pcm(Path(folder, f"{i}.pcm"), each)), "end": each.end}
            for i, each in enumerate(recordings)
        ]
        for number in streams:
            options = ["--streams", str(number)]
            options += [] if lookahead is None else ["--lookahead", str(lookahead)]
            with serving(model, options) as port:
                plan["port"] = port
                run_load({**plan, "streams": 1, "seconds": 0.1})  # not counted
                before = _counts(port)
                played = run_load({**plan, "streams": number, "seconds": seconds})
                after = _counts(port)
            row = {"streams": number, **_delays(recordings, played, normalize)}
            row |= _costs(before, after)
            ttfs = row["ttfs"]
            row["holds"] = not row["lost"] and ttfs["p95"] <= stop_secs + limit
            yield Report([row], heading + _live_line(row))
            heading = ""


def _costs(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Returns what streams have cost the server between two readings of its metrics."""

    def count(name: str) -> float:
        return after.get(name, np.nan) - before.get(name, np.nan)

    audio = count('tdt_audio_seconds_total{kind="live"}')
    return {
        "rows": count("tdt_step_streams_sum") / max(count("tdt_step_streams_count"), 1.0),
        "cpu_seconds": count("process_cpu_seconds_total") / (audio or np.nan),
    }


def _write_pcm(path: Path, recording: Recording) -> Path:
    path.write_bytes((32767 * recording.samples.clip(-1, 1)).round().astype("<i2").tobytes())
    return path


def _counts(port: int) -> dict[str, float]:
    """Returns the server's metrics by name."""
    lines = (line.split() for line in _get(port, "/metrics").splitlines())
    return {words[0]: float(words[1]) for words in lines if len(words) == 2}


def _delays(
    recordings: Sequence[Recording], played: Sequence[dict[str, Any]], normalize
) -> dict[str, Any]:
    delays: dict[str, list[float]] = {name: [] for name in LIVE_COLUMNS}
    references, transcripts = [], []
    for each in played:
        recording, changes = recordings[each["index"]], each["changes"]
        if not each["complete"]:
            continue
        references.append(normalize(recording.text))
        transcripts.append(normalize(changes[-1][1]))
        delays["ttfs"].append(changes[-1][0] - recording.end)
        if seconds := [time for time, _, shown in changes if shown]:
            delays["first_partial"].append(seconds[0] - recording.start)
        words = changes[-1][1].split()
        states = [(time, shown.split()) for time, _, shown in changes]
        for end, j in timed(recording.words, words, normalize):
            delays["decoded"].append(first_time(states, j, words[j]) - end)
    rate = metrics.word_error_rate(references, transcripts).rate if references else None
    return {
        "recordings": len(played),
        "lost": len(played) - len(references),
        "word_error_rate": rate,
        **{name: spread(seconds) for name, seconds in delays.items()},
    }


def _live_line(row: dict[str, Any]) -> str:
    wer = row["word_error_rate"]
    return (
        f"{row['streams']:7d}{row['recordings']:11d}{row['lost']:7d}"
        + (f"{'-':>9s}" if wer is None else f"{100 * wer:7.2f} %")
        + "".join(f"{milliseconds(row[name], count=3):>20s}" for name in LIVE_COLUMNS)
        + f"{row['rows']:17.1f}{row['cpu_seconds']:26.4f}"
        + ("" if row["holds"] else "   does not keep up")
    )


# Recordings


def batch_report(
    model: str,
    recogniser: Recogniser,
    items: Sequence,
    *,
    requests: int = 200,
    clients: int = 32,
    repeats: int = 3,
    failed: dict[str, str] | None = None,
) -> Report:
    """Posts recordings to a server, in turns with `transcribe` of the same files.

    The row holds the number of requests, clients and audio_seconds; medians of `repeats` turns of
    requests_per_second, real_time_factor (seconds of audio in a second) and that of `transcribe`;
    the median of their ratios; the median, p95 and p99 of a request's seconds; the CPU seconds of
    the server's process (without those that decode files) and of `transcribe` in all turns; and
    different, how many texts are not those of `transcribe`.

    Args:
      model: a checkpoint.
      recogniser: the same, loaded.
      items: as of `live_reports`; the first `requests` are taken, from the beginning again if there
        are fewer.
      requests, clients: recordings in a turn, and how many of them at a time.
      repeats: turns.
      failed: takes the id and the reason of what cannot be read.

    Raises: ValueError if a server cannot be started, or there is nothing to post.
    """
    rate = recogniser.config.features.sample_rate
    recordings = read_recordings(items, rate, failed)
    for _ in warm_up(recogniser):
        pass
    turns: list[tuple[float, dict[str, Any], list[str]]] = []
    with tempfile.TemporaryDirectory() as folder, serving(model, ()) as port:
        files = [Path(folder, f"{i}.flac") for i in range(len(recordings))]
        for path, each in zip(files, recordings, strict=True):
            path.write_bytes(flac(each.samples, rate))
        files = [files[i % len(files)] for i in range(requests)]
        plan = {"port": port, "files": [str(path) for path in files], "clients": clients}
        run_load({**plan, "files": plan["files"][:clients]})  # not counted
        ours = server = 0.0
        for _ in range(repeats):
            start, cpu = time.monotonic(), time.process_time()
            texts = _transcribe(recogniser, files)
            seconds = time.monotonic() - start
            ours += time.process_time() - cpu
            cpu = _counts(port).get("process_cpu_seconds_total", np.nan)
            turns.append((seconds, run_load(plan), texts))
            server += _counts(port).get("process_cpu_seconds_total", np.nan) - cpu
    audio = sum(len(recordings[i % len(recordings)].samples) / rate for i in range(requests))
    theirs = [load["seconds"] for _, load, _ in turns]
    each = [seconds for _, load, _ in turns for seconds in load["each"] if seconds]
    row = {
        "requests": requests,
        "clients": clients,
        "audio_seconds": audio,
        "requests_per_second": requests / statistics.median(theirs),
        "real_time_factor": audio / statistics.median(theirs),
        "transcribe_real_time_factor": audio / statistics.median(turn[0] for turn in turns),
        "ratio": statistics.median(turn[0] / turn[1]["seconds"] for turn in turns),
        "request_seconds": spread(each),
        "cpu_seconds": server,
        "transcribe_cpu_seconds": ours,
        "different": sum(
            a != b for _, load, texts in turns for a, b in zip(load["texts"], texts, strict=True)
        ),
    }
    return Report([row], _batch_table(row, repeats))


def _transcribe(recogniser: Recogniser, files: Sequence[Path]) -> list[str]:
    texts = [""] * len(files)
    for position, result in transcribe_each(recogniser, files):
        if isinstance(result, Exception):
            raise result
        texts[position] = result.transcript.text
    return texts


def _batch_table(row: dict[str, Any], repeats: int) -> str:
    return (
        f"{row['requests']} recordings ({row['audio_seconds']:.0f} s), {row['clients']} at a time; "
        f"medians of {repeats} turns of server and transcribe\n"
        f"requests a second   x real time   transcribe   of it   request, ms (median/p95/p99)"
        f"   CPU s of the server's process, of transcribe   other texts\n"
        f"{row['requests_per_second']:17.1f}{row['real_time_factor']:14.0f}"
        f"{row['transcribe_real_time_factor']:13.0f}{100 * row['ratio']:6.0f} %"
        f"{milliseconds(row['request_seconds'], count=3):>31s}"
        f"{row['cpu_seconds']:32.1f}{row['transcribe_cpu_seconds']:16.1f}{row['different']:14d}"
    )


# Random weights


def random_recogniser(name: str, like: Recogniser, items: Sequence) -> Recogniser:
    """Returns a recogniser of `cases.CAUSAL_MODELS` with random weights and another's tokenizer.

    Its words mean nothing, but there are as many tokens of the items' audio as speech has.
    """
    (config,) = choose([name], CAUSAL_MODELS).values()
    config = dataclasses.replace(config, vocab_size=like.config.vocab_size)
    model = random_model(config, "float32")
    rate = config.features.sample_rate
    samples = [each.samples[: 5 * rate] for each in read_recordings(items[:4], rate, {})]
    num_samples = np.array([len(each) for each in samples], np.int32)
    padded = np.zeros((len(samples), num_samples.max()), np.float32)
    for row, each in zip(padded, samples, strict=True):
        row[: len(each)] = each
    features = log_mel(padded, num_samples, config.features)
    balance_blanks(model, *encode(model, *features))
    return Recogniser(model, like.tokenizer)
