"""What the tests of the server send, and how they wait for it."""

import io
import time

import numpy as np
import soundfile
from models import speech

from tdt_jax.inference.streams import Streams

AUDIO = [speech(seconds, seed) for seed, seconds in enumerate((1.0, 3.2, 0.7))]


def wav_of(samples, rate=16000):
    """A recording as a file, 16-bit."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def pcm(samples):
    """Samples as 16-bit PCM."""
    return (32767 * samples).astype("<i2").tobytes()


def streamed(recogniser, parts):
    """The text of each part of a stream, made certain at its end, by a server's programs."""
    streams, texts = Streams(recogniser, slots=2), []
    stream = streams.open()
    for samples in parts:
        before = stream.text
        stream.push(np.frombuffer(pcm(samples), "<i2"))
        stream.flush()
        while streams.step():
            pass
        texts.append(stream.text[len(before) :].strip())
    return texts


def wait_for(condition, seconds=20.0):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)
