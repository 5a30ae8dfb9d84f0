"""The lattice's recursions: exact on long utterances, and for durations that lead out of it."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lattice_oracle import log_softmax

import tdt_jax as tdt
from tdt_jax.losses import lattice
from tdt_jax.runtime import backend

arc_posteriors = jax.jit(lattice.arc_posteriors, static_argnums=(4, 5))
KERNELS = [pytest.param(platform, marks=pytest.mark.slow) for platform in ("tpu", "gpu")]


def test_an_rnnt_is_a_tdt_with_certain_durations():
    """The same lattice: a TDT whose labels stay and whose blanks move by 1 is an RNN-T."""
    rng = np.random.default_rng(3)
    tokens = rng.normal(size=(4, 9, 4, 5)).astype(np.float32)
    labels = rng.integers(0, 4, (4, 3)).astype(np.int32)
    num_frames, num_labels = np.array([[9, 5, 8, 1], [3, 2, 0, 1]], np.int32)

    @jax.jit
    def certain(tokens, num_frames, num_labels):
        label = jnp.take_along_axis(tokens[:, :, :-1], labels[:, None, :, None], axis=-1)
        label = jnp.concatenate([label, jnp.full_like(label, lattice.NEG_INF)], axis=-1)
        total = jax.vmap(lambda *arcs: lattice.log_likelihood(*arcs, (1,), (0, 2)))
        return -total(tokens[..., -1:], label, num_frames, num_labels)

    expected = tdt.rnnt_loss(tokens, labels, num_frames, num_labels)
    loss = certain(log_softmax(tokens), num_frames, num_labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def forward_backward(blank, label, durations):
    """Log-likelihood and posteriors of one utterance's arcs in float64, by rows of the lattice."""
    first = 1 if durations[0] == 0 else 0
    num_frames, columns = blank.shape[:2]
    alpha = np.full((num_frames + 1, columns), -np.inf)
    beta = alpha.copy()
    alpha[0, 0] = beta[-1, -1] = 0.0

    def arcs(t):
        """(duration, index, is label) of the arcs into row t, or out of row num_frames - t."""
        return [
            *((d, i, False) for i, d in enumerate(durations[first:]) if d <= t),
            *((d, i, True) for i, d in enumerate(durations) if 0 < d <= t),
        ]

    def along_row(row, steps):
        """Adds the arcs of duration 0, `steps` from each node to the next, of a row."""
        before = np.concatenate([[0.0], np.cumsum(steps)])
        return np.logaddexp.accumulate(row - before) + before

    for t in range(num_frames + 1):
        for d, i, is_label in arcs(t):
            if not is_label:
                alpha[t] = np.logaddexp(alpha[t], alpha[t - d] + blank[t - d, :, i])
            elif t < num_frames:  # a label cannot land on the end
                arriving = alpha[t - d, :-1] + label[t - d, :, i]
                alpha[t, 1:] = np.logaddexp(alpha[t, 1:], arriving)
        if durations[0] == 0 and t < num_frames:
            alpha[t] = along_row(alpha[t], label[t, :, 0])
    for t in range(num_frames - 1, -1, -1):
        for d, i, is_label in arcs(num_frames - t):
            if not is_label:
                beta[t] = np.logaddexp(beta[t], blank[t, :, i] + beta[t + d])
            elif t + d < num_frames:
                beta[t, :-1] = np.logaddexp(beta[t, :-1], label[t, :, i] + beta[t + d, 1:])
        if durations[0] == 0:
            beta[t] = along_row(beta[t, ::-1], label[t, ::-1, 0])[::-1]

    total, rows = alpha[-1, -1], slice(0, num_frames)
    beta = np.pad(beta, ((0, max(durations)), (0, 0)), constant_values=-np.inf)
    blanks = [
        np.exp(alpha[rows] + blank[..., i] + beta[d : d + num_frames] - total)
        for i, d in enumerate(durations[first:])
    ]
    beta[num_frames] = -np.inf
    labels = [
        np.exp(alpha[rows, :-1] + label[..., i] + beta[d : d + num_frames, 1:] - total)
        for i, d in enumerate(durations)
    ]
    return total, np.stack(blanks, -1), np.stack(labels, -1)


@pytest.mark.parametrize(
    "durations",
    [(0, 1, 2, 3, 4), *(pytest.param(x, marks=pytest.mark.slow) for x in [(1, 2, 3), (0, 1)])],
)
@pytest.mark.parametrize(("scale", "error"), [(1.0, 4e-6), (16.0, 4e-5)])
@pytest.mark.parametrize("platform", [None, *KERNELS])
def test_float32_is_as_good_as_float64_on_a_long_utterance(platform, durations, scale, error):
    """400 frames, 300 labels, up to thousands of nats: the value to the last digit or two, and
    posteriors to what rounding leaves of the arcs themselves (2e-6 and 2e-5)."""
    rng = np.random.default_rng(0)
    frames, labels = 400, 300
    first = 1 if durations[0] == 0 else 0
    tokens = log_softmax(scale * rng.normal(size=(frames, labels + 1, 8)))
    lasting = log_softmax(scale * rng.normal(size=(frames, labels + 1, len(durations))))
    blank = (tokens[..., :1] + lasting[..., first:]).astype(np.float32)
    label = (tokens[:, :-1, 1:2] + lasting[:, :-1]).astype(np.float32)
    expected, *expected_posteriors = forward_backward(
        blank.astype(np.float64), label.astype(np.float64), durations
    )
    arguments = blank, label, frames, labels, durations[first:], durations
    kernel = contextlib.nullcontext()
    if platform is not None:
        kernel = backend.assume(platform, kernels=True, interpret=True)
    with kernel:
        total, *posteriors = arc_posteriors(*arguments)
    np.testing.assert_allclose(total, expected, rtol=2e-7)
    for posterior, expected in zip(posteriors, expected_posteriors, strict=True):
        np.testing.assert_allclose(posterior, expected, atol=error)


def test_an_arc_beyond_the_lattice_changes_nothing():
    """Durations up to 8, of which a lattice of two frames has room for two."""
    rng = np.random.default_rng(3)
    blank, label = (rng.normal(size=(2, u, n)).astype(np.float32) for u, n in ((2, 8), (1, 9)))
    every = tuple(range(9))
    whole = jax.device_get(arc_posteriors(blank, label, 2, 1, every[1:], every))
    few = arc_posteriors(blank[..., :2], label[..., :3], 2, 1, (1, 2), (0, 1, 2))
    np.testing.assert_allclose(whole[0], few[0], rtol=1e-6)
    np.testing.assert_allclose(whole[1][..., :2], few[1], rtol=1e-6)
    np.testing.assert_allclose(whole[2][..., :3], few[2], rtol=1e-6)
    assert not np.any(whole[1][..., 2:]) and not np.any(whole[2][..., 3:])
