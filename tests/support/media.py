"""Files of any container and codec, made by PyAV."""

from fractions import Fraction

import av
import numpy as np


def sine(seconds=1.0, rate=16000, hertz=440.0, level=0.5):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def encode(
    path, tracks, rate, codec, *, layout="mono", format=None, picture=0.0, options=None,
    bit_rate=96_000,
):  # fmt: skip
    """Write audio tracks, each a list of (seconds, samples [S] or [S, channels]) in order.

    Samples are at their times on the container's clock; `picture` is the length of a video track.
    """
    with av.open(path, "w", format=format, options=options or {}) as file:
        video = None
        if picture:
            video = file.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
        streams = [file.add_stream(codec, rate=rate, layout=layout) for _ in tracks]
        for stream in streams:
            stream.bit_rate = bit_rate
        for i in range(round(picture * 10)):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            file.mux(video.encode(frame))
        if video:
            file.mux(video.encode(None))
        for stream, track in zip(streams, tracks, strict=True):
            _encode(file, stream, track, rate, layout)


def _encode(file, stream, track, rate, layout):
    if not stream.codec_context.is_open:
        stream.codec_context.open()
    size = stream.codec_context.frame_size or 8192
    converter = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
    for start, samples in track:
        samples = np.asarray(samples, np.float32).reshape(len(samples), -1)
        for first in range(0, len(samples), size):
            part = samples[first : first + size].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
            frame.sample_rate = rate
            for converted in converter.resample(frame):
                converted.pts = round(start * rate) + first
                converted.time_base = Fraction(1, rate)
                file.mux(stream.encode(converted))
    file.mux(stream.encode(None))


def bursts(samples, rate=16000, level=0.05):
    """Starts and ends, in seconds, of what sounds, silences of less than 0.2 s not counted."""
    loud = np.flatnonzero(np.abs(samples) > level)
    breaks = np.flatnonzero(np.diff(loud) > 0.2 * rate)
    starts, ends = loud[np.append(0, breaks + 1)], loud[np.append(breaks, len(loud) - 1)]
    return [(a / rate, b / rate) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
