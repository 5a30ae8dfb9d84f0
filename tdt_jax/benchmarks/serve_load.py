"""A process that loads a server on loopback: python serve_load.py < plan > results, both JSON.

It imports neither JAX nor this package, so that it takes as little as it can of the cores that it
shares with the server.
"""

import asyncio
import contextlib
import http.client
import json
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import websockets

HOST = "127.0.0.1"
BLOCK = 0.02  # seconds of audio in a message
LATEST = 30.0  # seconds after which a final transcript is taken for lost
AUDIO_PATH = "/v1/listen?encoding=linear16&interim_results=true&endpointing=false&sample_rate="
FILE_PATH = "/v1/audio/transcriptions"
FORM = (
    b'--tdt\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
    b"\r\n--tdt--\r\n",
)
FORM_TYPE = "multipart/form-data; boundary=tdt"


async def play_live(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Plays recordings into live streams, in real time, until `plan["seconds"]` are over.

    Stream i of N plays the recordings i, i + N, ..., again and again, and asks for the final
    transcript `stop_secs` after the end of speech. Streams begin within a second.

    Returns of each recording played its index, its `changes` [seconds, certain text, shown text],
    seconds since its beginning, and whether it is `complete`.
    """
    pcm = [Path(each["path"]).read_bytes() for each in plan["recordings"]]
    results: list[dict[str, Any]] = []
    begin = time.monotonic() + 0.5

    async def caller(number: int) -> None:
        size = plan["streams"]
        due, index = begin + number / size * min(1.0, plan["seconds"]), number
        while due < begin + plan["seconds"]:
            index %= len(pcm)
            end = plan["recordings"][index]["end"] + plan["stop_secs"]
            await asyncio.sleep(due - time.monotonic())
            played = {"index": index, "changes": [], "complete": False}
            with contextlib.suppress(OSError, TimeoutError, websockets.WebSocketException):
                await _play_one(plan, pcm[index], end, played)
            results.append(played)
            due, index = max(due + end + 0.2, time.monotonic()), index + size

    await asyncio.gather(*map(caller, range(plan["streams"])))
    return results


async def _play_one(
    plan: dict[str, Any], pcm: bytes, seconds: float, played: dict[str, Any]
) -> None:
    rate = plan["rate"]
    size = 2 * round(BLOCK * rate)
    path = f"ws://{HOST}:{plan['port']}{AUDIO_PATH}{rate}"
    async with await _connect(path) as socket:
        start = time.monotonic()

        async def listen() -> None:
            certain = ""
            async for message in socket:
                event = json.loads(message)
                if event["type"] != "Results":
                    continue
                text = event["channel"]["alternatives"][0]["transcript"]
                shown = f"{certain} {text}".strip()
                certain = shown if event["is_final"] else certain
                played["changes"].append([time.monotonic() - start, certain, shown])
                if event["from_finalize"]:
                    played["complete"] = True
                    return

        listening = asyncio.create_task(listen())
        for position in range(0, 2 * round(seconds * rate), size):
            await asyncio.sleep(start + (position + size) / 2 / rate - time.monotonic())
            await socket.send(pcm[position : position + size].ljust(size, b"\0"))
        await socket.send('{"type": "Finalize"}')
        await asyncio.wait_for(listening, LATEST)


async def _connect(path: str) -> websockets.ClientConnection:
    """Opens a stream; waits while the place of the stream before is not free yet."""
    end = time.monotonic() + LATEST
    while True:
        try:
            return await websockets.connect(path, ping_interval=None, compression=None)
        except websockets.InvalidStatus:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)


def post_files(plan: dict[str, Any]) -> dict[str, Any]:
    """Posts every file once, `plan["clients"]` at a time.

    Returns the seconds that all took, those of each, and the texts.
    """
    files = [Path(path).read_bytes() for path in plan["files"]]
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(files)):
        numbers.put(number)
    texts, seconds = [""] * len(files), [0.0] * len(files)

    def client() -> None:
        connection = http.client.HTTPConnection(HOST, plan["port"], timeout=600)
        with contextlib.suppress(queue.Empty):
            while True:
                number = numbers.get_nowait()
                start = time.monotonic()
                body = FORM[0] + files[number] + FORM[1]
                connection.request("POST", FILE_PATH, body, {"Content-Type": FORM_TYPE})
                answer = connection.getresponse()
                content = answer.read()
                if answer.status == 200:
                    texts[number] = json.loads(content)["text"]
                    seconds[number] = time.monotonic() - start

    threads = [threading.Thread(target=client) for _ in range(plan["clients"])]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": time.monotonic() - start, "each": seconds, "texts": texts}


def main() -> None:
    """Carries out the plan that comes from standard input."""
    plan = json.load(sys.stdin)
    results = asyncio.run(play_live(plan)) if "streams" in plan else post_files(plan)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
