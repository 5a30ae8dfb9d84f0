"""Loaded streaming models compute, whole and chunk by chunk, what NeMo and transformers compute.

The golden files are of tests/golden/make_streaming.py.
"""

import functools

import jax
import numpy as np
import pytest
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax.models.transducer import encode, encode_chunk, start_encoding

SOURCES = {"nemo": GOLDEN / "nemotron.nemo", "transformers": GOLDEN / "nemotron"}
RIGHTS = 3, 0, 1, 7  # of the contexts, whose left is 8
GERMAN = 2


@pytest.fixture(scope="module")
def golden():
    return {name: dict(np.load(GOLDEN / f"nemotron_{name}.npz")) for name in SOURCES}


@functools.cache
def model(name):
    return tdt.load(SOURCES[name]).model


@functools.cache
def utterances(count=200, size=160):
    """The random features of the golden files' script: [200, 160, 16], and their lengths."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(1, size + 1, count).astype(np.int32)
    lengths[:8] = (size - np.arange(8))[:count]
    features = rng.normal(size=(count, size, 16)).astype(np.float32)
    features[np.arange(size)[None] >= lengths[:, None]] = 0
    return features, lengths


def streamed(model, features, lengths, right, size):
    """The frames of each row, encoded in pieces of `size` features."""
    state = start_encoding(model, len(features), (8, right))
    rows = [[] for _ in features]
    for start in range(0, features.shape[1], size):
        piece = features[:, start : start + size]
        piece = np.pad(piece, ((0, 0), (0, size - piece.shape[1]), (0, 0)))
        count = np.clip(lengths - start, 0, size)
        last = (lengths > start) & (lengths <= start + size)
        frames, num_frames, state = jax.device_get(
            encode_chunk(model, piece, count.astype(np.int32), state, last)
        )
        for row, x, n in zip(rows, frames, num_frames, strict=True):
            row.append(x[:n])
    return [np.concatenate(row) for row in rows]


def assert_close(computed, expected, tolerance=2e-6):
    """Within `tolerance` of the largest number expected."""
    np.testing.assert_allclose(
        np.asarray(computed), expected, rtol=0, atol=tolerance * np.max(np.abs(expected))
    )


def assert_decodes(model, frames, num_frames, golden, right):
    hypothesis = jax.device_get(tdt.greedy_decode(model, frames, num_frames))
    counts = golden[f"counts{right}"]
    assert len(counts) == 200 and np.sum(counts) > 800
    np.testing.assert_array_equal(hypothesis.num_labels, counts)
    is_label = np.arange(hypothesis.labels.shape[1])[None] < counts[:, None]
    for name in ("labels", "times"):
        expected = golden[f"{name}{right}"]
        np.testing.assert_array_equal(getattr(hypothesis, name)[is_label], expected)


@pytest.mark.parametrize("source", SOURCES)
def test_the_settings_of_nemotron_are_read(source):
    config = model(source).config
    assert config.kind == "RNN-T" and config.encoder.is_causal
    assert config.encoder.chunked_contexts == tuple((8, right) for right in RIGHTS)
    assert config.features.normalize == (0.0, 1.0)
    assert config.prompt.slot("de-DE") == GERMAN and config.prompt.slot("no") == 3
    assert config.prompt.num_slots == 7 and config.prompt.default == 5
    assert config.prompt.width == {"nemo": 32, "transformers": 20}[source]


@pytest.mark.parametrize("source", SOURCES)
def test_every_stage_is_theirs(source, golden):
    golden, ours = golden[source], model(source)
    features, lengths = (each[:2] for each in utterances())

    @jax.jit
    def stages(model, features, lengths, labels):
        subsampled, num_frames = model.encoder.subsampling(features, lengths)
        frames, _ = model.encoder(features, lengths)
        prompted = model.prompted(frames, num_frames)
        states = model.predictor(labels)
        projected = model.joint.project_states(states)
        logits, _ = model.joint(prompted, states)
        return subsampled, frames, num_frames, states, projected, logits

    labels = golden["labels"].astype(np.int32)
    subsampled, frames, num_frames, states, projected, logits = jax.device_get(
        stages(ours, features, lengths, labels)
    )
    valid = np.arange(subsampled.shape[1])[None] < num_frames[:, None]
    assert list(num_frames) == [21, 21]
    assert_close(subsampled[valid], golden["subsampled"][valid])
    if source == "transformers":
        assert_close(frames[valid], golden["block1"][valid])
    assert_close(projected if source == "transformers" else states, golden["states"])
    assert_close(logits[0][valid[0]], golden["logits"][valid[0]], 2e-5)


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("source", SOURCES)
def test_whole_utterances_are_theirs_in_every_context(source, right, golden):
    ours, expected = model(source), golden[source]
    features, lengths = utterances()
    frames, num_frames = jax.device_get(encode(ours, features, lengths, context=(8, right)))
    if source == "nemo":  # those of transformers are projected for the joint network
        for row in range(2):
            assert_close(frames[row, : num_frames[row]], expected[f"frames{right}_{row}"])
    assert_decodes(ours, frames, num_frames, expected, right)


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("source", SOURCES)
def test_streams_are_theirs_in_every_context(source, right, golden):
    """Pieces as NeMo's chunks, but for the first, and of another size."""
    ours, expected = model(source), golden[source]
    features, lengths = utterances()
    rows = streamed(ours, features, lengths, right, 8 * (right + 1))
    frames = np.zeros((len(rows), 21, rows[0].shape[-1]), np.float32)
    for target, row in zip(frames, rows, strict=True):
        target[: len(row)] = row
    num_frames = np.array([len(row) for row in rows], np.int32)
    assert_decodes(ours, frames, num_frames, expected, right)
    if source == "nemo":
        for row in range(2):
            assert_close(rows[row], expected[f"frames{right}_{row}"])
    else:
        theirs = expected[f"frames{right}"]
        projection = ours.joint.frame_projection
        projected = rows[0] @ np.asarray(projection.kernel) + np.asarray(projection.bias)
        assert_close(projected[: len(theirs)], theirs, 4e-6)
