"""What is traced for a TPU, run here, computes what is traced for this backend.

Tests that call `backend.assume` are in this file where they can be, since it clears jax's caches.
"""

import types

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from flax import nnx

import tdt_jax as tdt
from tdt_jax.config import JointConfig
from tdt_jax.decoding import greedy
from tdt_jax.models import attention, depthwise, layers
from tdt_jax.models.joint import Joint
from tdt_jax.runtime import backend


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def assert_same(*cases, platform="tpu", kernels=False):
    """Values and gradients of (function, *arguments), traced in one program for each platform."""

    def weighted(function, *arguments):
        y = function(*arguments)
        return jnp.sum(y * random(*y.shape)), y

    def run():
        def all_cases(arguments):
            results = []
            for (function, *_), each in zip(cases, arguments, strict=True):
                argnums = tuple(range(1, len(each) + 1))
                gradient = jax.value_and_grad(weighted, argnums, has_aux=True)
                results.append(gradient(function, *each))
            return results

        return jax.device_get(jax.jit(all_cases)([case[1:] for case in cases]))

    here = run()
    with backend.assume(platform, kernels=kernels, interpret=kernels):
        there = run()

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)

    jax.tree.map(compare, here, there)


def test_assumed_ends():
    assert backend.current() == jax.default_backend()
    with pytest.raises(RuntimeError), backend.assume("tpu"):
        assert backend.current() == "tpu"
        raise RuntimeError
    assert backend.current() == jax.default_backend()


def test_convolutions():
    sizes = 1, 2, 9
    assert_same(
        *((depthwise.depthwise, random(2, size + 8, 3), random(9, 3)) for size in sizes),
        *(
            (depthwise.depthwise_stride2, random(2, size + 2, 9, 3), random(3, 3, 3))
            for size in sizes
        ),
    )


@pytest.mark.slow
def test_relative_positions():
    config = models.encoder_config(num_heads=4)

    def make():
        return attention.RelativeAttention(config, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))

    def case(num_frames):
        def attend(layer, x):
            positions = attention.position_encoding(num_frames - 1, 1 - num_frames, config.width)
            padding = layers.padding_mask(np.array([num_frames, 1]), num_frames)
            return layer(x, positions, padding)

        return attend, models.build(make), random(2, num_frames, config.width)

    assert_same(*map(case, (1, 2, 7)))


@pytest.mark.parametrize(
    ("platform", "durations", "kernels"),
    [
        ("tpu", (0, 1, 2), False),
        ("gpu", (0, 1, 2), False),
        *(
            pytest.param("tpu", *pair, marks=pytest.mark.slow)
            for pair in [(None, False), ((0, 1, 2), True), (None, True)]
        ),
    ],
)
def test_the_loss(platform, durations, kernels):
    def make():
        return Joint(
            JointConfig(width=12),
            frame_width=6,
            state_width=5,
            vocab_size=4,
            num_durations=len(durations or ()),
            dtype=jnp.dtype("float32"),
            rngs=nnx.Rngs(0),
        )

    labels = np.array([[1, 3, 2], [0, 1, 0]], np.int32)

    def losses(joint, frames, states):
        lengths = np.array([21, 7], np.int32), np.array([3, 1], np.int32)
        return tdt.transducer_loss(joint, frames, states, labels, *lengths, durations=durations)

    case = losses, models.build(make), random(2, 21, 6), random(2, 4, 5)
    assert_same(case, platform=platform, kernels=kernels)


def test_dropout_hashes_places():
    shape = (40, 50, 64)
    hashed = [layers.hashed_bytes(jax.random.key(seed), shape) for seed in range(2)]
    first, second = (np.asarray(x, np.float64) - 127.5 for x in hashed)
    counts = np.bincount(np.ravel(hashed[0]), minlength=256)
    np.testing.assert_allclose(counts, counts.mean(), rtol=0.25)
    shifted = [np.roll(first, 1, axis) for axis in range(3)]
    for other in (second, *shifted):
        assert abs(np.mean(first * other)) < 0.02 * np.mean(first**2)
    for platform in "tpu", "gpu":
        with backend.assume(platform):
            x = layers.dropout(np.ones(shape, np.float32), 0.25, jax.random.key(0))
        np.testing.assert_allclose(np.mean(x == 0), 0.25, atol=0.01)
        np.testing.assert_array_equal(x == 0, hashed[0] < 64)


def test_kernels_are_chosen_by_backend_and_variable(monkeypatch):
    monkeypatch.delenv("TDT_JAX_KERNELS", raising=False)
    found = {}
    for platform in "cpu", "gpu", "tpu":
        with backend.assume(platform):
            found[platform] = backend.uses_kernels()
    assert found == {"cpu": False, "gpu": True, "tpu": True}
    with backend.assume("gpu"):
        assert not backend.uses_kernels(is_proven=False)
    for name, expected in ("on", True), ("off", False):
        monkeypatch.setenv("TDT_JAX_KERNELS", name)
        with backend.assume("gpu"):
            assert backend.uses_kernels() is expected
        with backend.assume("tpu", kernels=not expected):
            assert backend.uses_kernels() is not expected
    monkeypatch.setenv("TDT_JAX_KERNELS", "yes")
    with backend.assume("gpu"), pytest.raises(ValueError, match="'yes'"):
        backend.uses_kernels()


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("9.0", True), ("8.0", True), ("12.1", True), ("7.5", False), ("gfx942", False),
        (None, False),
    ],
)  # fmt: skip
def test_kernels_are_for_recent_gpus_of_nvidia(capability, expected, monkeypatch):
    monkeypatch.delenv("TDT_JAX_KERNELS", raising=False)
    known = {} if capability is None else {"compute_capability": capability}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(**known)])
    assert backend.uses_kernels() is expected
    monkeypatch.setenv("TDT_JAX_KERNELS", "on")
    assert backend.uses_kernels()


# The decoder


def decode(model, frames, num_frames, cuts=(), **options):
    """The hypotheses of chunks that end at the cuts, as one, and the state after the last."""
    state = jax.jit(tdt.start_decoding, static_argnums=1)(model, len(frames))
    parts, ends = [], [*cuts, frames.shape[1]]
    for start, end in zip([0, *cuts], ends, strict=True):
        here = np.clip(num_frames - start, 0, end - start)
        part, state = tdt.decode_chunk(model, frames[:, start:end], here, state, **options)
        part = jax.device_get(part)
        parts.append(part._replace(times=part.times + start))
    return parts, jax.device_get(state)


def rows_of(parts):
    """Of each utterance: its columns of labels, times, durations, scores and entropies; steps."""
    rows = []
    for row in range(len(parts[0].num_labels)):
        fields = "labels times durations scores entropies".split()
        columns = [
            np.concatenate([getattr(part, name)[row, : part.num_labels[row]] for part in parts])
            for name in fields
        ]
        rows.append((*columns, sum(int(part.num_steps[row]) for part in parts)))
    return rows


@jax.jit
def certainty(model, frames, labels, times):
    """Scores and entropies [B, L] of labels and times [B, L], from the joint at all nodes."""
    logits, _ = model.joint(frames, model.predictor(labels))
    rows, counts = np.arange(len(labels))[:, None], np.arange(labels.shape[1])[None]
    log_probs = jax.nn.log_softmax(logits[rows, times, counts])
    scores = jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    return scores, -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("durations", "num_rows", "cuts", "max_symbols", "window"),
    [
        ((0, 1, 2), 4, (), 2, None),
        (None, 4, (), 2, None),
        slow((0, 1, 2), 1, (24, 50, 51), 2, 3),
        slow((1, 2, 4), 3, (), 5, None),
        slow(None, 1, (16, 17, 60), 10, 4),
        slow(None, 5, (30,), 1, 1),
        slow((0, 1), 2, tuple(range(1, 70)), 3, 2),
    ],
)
def test_the_decoder(durations, num_rows, cuts, max_symbols, window, monkeypatch):
    """In blocks of two turns there, turn by turn here, and from the joint at the labels' nodes."""
    monkeypatch.setattr(greedy, "BLOCK_TURNS", 2)
    model = models.emitting(models.config(durations))
    frames = random(num_rows, 70, model.config.encoder.width)
    num_frames = np.array([70, 1, 33, 0, 52], np.int32)[:num_rows]
    frames[np.arange(70) >= num_frames[:, None]] = 50.0
    options = dict(max_symbols=max_symbols, window=window)

    def run():
        parts, state = decode(model, frames, num_frames, cuts, **options)
        return rows_of(parts), state

    here, state = run()
    with backend.assume("gpu", kernels=False):
        assert greedy.turns_in_block(backend.current(), num_rows, 70) == 2
        there, other_state = run()
    assert sum(len(labels) for labels, *_ in here) > 10
    size = max(len(labels) for labels, *_ in here)
    padded = [np.stack([np.pad(row[i], (0, size - len(row[i]))) for row in here]) for i in (0, 1)]
    expected = jax.device_get(certainty(model, frames, *padded))
    for row, (mine, theirs) in enumerate(zip(here, there, strict=True)):
        for a, b in zip([*mine[:3], mine[-1]], [*theirs[:3], theirs[-1]], strict=True):
            np.testing.assert_array_equal(a, b)
        for found in (mine, theirs):
            for a, b in zip(found[3:5], expected, strict=True):
                np.testing.assert_allclose(a, b[row, : len(a)], atol=1e-5)
    np.testing.assert_array_equal(state.skip, other_state.skip)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, other_state)
