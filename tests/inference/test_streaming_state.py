"""Streams: frames and the decoder's state go on from chunk to chunk.

The encoder here has no context, so that any window makes the frames of the whole; with the real
one see test_streaming.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import make_recogniser, noise

import tdt_jax as tdt
from tdt_jax.decoding.hypothesis import take
from tdt_jax.inference import windowed
from tdt_jax.inference.stream_words import Tail
from tdt_jax.inference.streaming import Stream

FRAME = 1280  # samples
LARGE, SMALL = (3, 5, 1), (1, 0, 0)  # frames of a chunk, left and right of it
OTHERS = ((4, 0, 9), (7, 2, 4), (40, 3, 2))
slow = pytest.mark.slow


def encode(model, samples, num_samples, *, context=None):
    frames = samples.reshape(1, -1, FRAME)[:, :, : model.config.encoder.width]
    return frames, -(-(num_samples // 160) // 8)


@pytest.fixture(scope="module", autouse=True)
def encoder_without_context():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windowed, "log_mel", lambda samples, num_samples, _: (samples, num_samples))
        patch.setattr(windowed, "encode", encode)
        windowed._decode_window.clear_cache()
        yield
        windowed._decode_window.clear_cache()


@pytest.fixture(scope="module")
def recognisers():
    return {
        durations: make_recogniser(durations, piece_seconds=2.56)
        for durations in ((0, 1, 3, 8), (1, 3, 8), None)
    }


def labels_in(samples, recogniser, frames):
    """Labels, times and durations of all that a stream decodes."""
    chunk, left, right = (0.08 * count for count in frames)
    hypotheses = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tail, "add", lambda self, hypothesis: hypotheses.append(hypothesis))
        stream = Stream(recogniser, chunk=chunk, left=left, right=right)
        stream.push(samples)
        stream.finish()
    fields = ("labels", "times", "durations")
    return [np.concatenate([getattr(each, field) for each in hypotheses]) for field in fields]


@pytest.mark.parametrize(
    ("durations", "frames"),
    [
        ((0, 1, 3, 8), LARGE),
        ((0, 1, 3, 8), SMALL),
        (None, LARGE),
        pytest.param((1, 3, 8), LARGE, marks=slow),
        *(pytest.param((0, 1, 3, 8), frames, marks=slow) for frames in OTHERS),
    ],
)
def test_frames_and_state_go_on_from_chunk_to_chunk(durations, frames, recognisers):
    recogniser = recognisers[durations]
    samples = noise(6.03) * 10
    padded = np.pad(samples, (0, 76 * FRAME - len(samples)))[None]
    encoded = encode(recogniser.model, padded, np.array([len(samples)]))
    whole = take(jax.device_get(tdt.greedy_decode(recogniser.model, *encoded)), 0)
    decoded = labels_in(samples, recogniser, frames)
    assert len(whole.labels) > 10
    for values, expected in zip(decoded, (whole.labels, whole.times, whole.durations), strict=True):
        np.testing.assert_array_equal(values, expected)
    if durations and frames == LARGE:
        assert np.any(whole.times % 3 + whole.durations > 3)


@pytest.mark.parametrize(
    ("gap", "frames"),
    [
        (30, LARGE),
        (44, SMALL),
        *(pytest.param(30, frames, marks=slow) for frames in (SMALL, *OTHERS[:2])),
        *(pytest.param(44, frames, marks=slow) for frames in (LARGE, *OTHERS[:2])),
    ],
)
def test_digital_silence_is_not_decoded(gap, frames, recognisers):
    """Before, after, and for more than two seconds inside: its frames are jumped over."""
    recogniser = recognisers[0, 1, 3, 8]
    start, stop = 7 * FRAME + 300, 28 * FRAME + 900
    samples = noise(5.6, 1) * 10
    samples = np.insert(samples, np.full(gap * FRAME, stop), 0.0)
    samples[:start] = 0.0
    samples = np.append(samples, np.zeros(12 * FRAME, np.float32))
    encoded, _ = encode(recogniser.model, samples[None], np.array([len(samples)]))
    expected, state = [], tdt.start_decoding(recogniser.model, 1)
    for first, last in ((7, 29), (28 + gap, 70 + gap)):
        silent = first - expected[-1][0] if expected else 0
        state = state._replace(skip=jnp.asarray(np.maximum(np.asarray(state.skip) - silent, 0)))
        part = np.zeros((1, 42, encoded.shape[2]), np.float32)
        part[:, : last - first] = encoded[:, first:last]
        hypothesis, state = tdt.decode_chunk(
            recogniser.model, part, np.array([last - first], np.int32), state
        )
        hypothesis = take(jax.device_get(hypothesis), 0)
        expected.append((last, hypothesis._replace(times=hypothesis.times + first)))
    assert min(len(each.labels) for _, each in expected) > 5
    decoded = labels_in(samples, recogniser, frames)
    for i, values in zip((0, 2, 3), decoded, strict=True):
        np.testing.assert_array_equal(values, np.concatenate([each[i] for _, each in expected]))
