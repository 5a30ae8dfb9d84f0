"""Transcribes speech while it arrives, from the microphone or from a file that plays as if live.

    python examples/stream.py runs/quickstart              # microphone: pip install -e '.[listen]'
    python examples/stream.py runs/quickstart talk.wav     # a file, at the speed it plays
    python examples/stream.py runs/quickstart talk.wav --right 0.4 --fast

Each word is printed with the time at which it starts and the delay after which it was certain.
--right is the look-ahead in seconds: less of it means less delay and more errors.
"""

import argparse
import queue
import sys
import time
from collections.abc import Iterator

import numpy as np

import tdt_jax as tdt
from tdt_jax.audio.reading import read_audio

BLOCK_SECONDS = 0.1


def file_blocks(path: str, rate: int, *, fast: bool) -> Iterator[np.ndarray]:
    """Yields the samples of a file block by block, each when it would have been spoken."""
    samples, size = read_audio(path, rate), round(BLOCK_SECONDS * rate)
    start = time.monotonic()
    for first in range(0, len(samples), size):
        block = samples[first : first + size]
        if not fast:
            time.sleep(max(0.0, start + (first + len(block)) / rate - time.monotonic()))
        yield block


def microphone_blocks(rate: int) -> Iterator[np.ndarray]:
    """Yields what the default input device records, until Ctrl-C."""
    import sounddevice

    recorded = queue.SimpleQueue()
    with sounddevice.InputStream(
        samplerate=rate,
        channels=1,
        blocksize=round(BLOCK_SECONDS * rate),
        callback=lambda samples, *_: recorded.put(samples[:, 0].copy()),
    ):
        while True:
            yield recorded.get()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run, a .nemo archive, a Hugging Face folder or repository")
    parser.add_argument("recording", nargs="?", help="a file [the microphone]")
    parser.add_argument("--right", type=float, default=1.6, help="look-ahead in seconds [1.6]")
    parser.add_argument("--fast", action="store_true", help="read a file as fast as it goes")
    options = parser.parse_args(arguments)

    recogniser = tdt.load(options.model)
    rate = recogniser.config.features.sample_rate
    stream = tdt.Stream(recogniser, right=options.right)
    stream.warm_up()  # compiles before the first word is spoken
    if options.recording:
        blocks = file_blocks(options.recording, rate, fast=options.fast)
    else:
        print("listening; Ctrl-C ends", file=sys.stderr)
        blocks = microphone_blocks(rate)

    seconds = 0.0
    try:
        for block in blocks:
            seconds += len(block) / rate
            for word in stream.push(block):
                print(f"{word.start:7.2f} s  +{seconds - word.end:.2f} s  {word.text}", flush=True)
    except KeyboardInterrupt:
        pass
    for word in stream.finish():
        print(f"{word.start:7.2f} s  +{seconds - word.end:.2f} s  {word.text}")
    print(stream.text)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:  # a bad argument or file, which it names
        sys.exit(f"error: {error}")
