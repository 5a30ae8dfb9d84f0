"""The losses against every alignment written out, closed forms, and other implementations.

All of one set of durations, but for what is about shapes, comes from one program.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import num_compilations
from lattice_oracle import brute_force, log_softmax
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax.losses import lattice

TDT, RNNT = (0, 1, 2), None
SLOW = [(0, 1, 2, 3, 4), (0, 2, 3), (2, 5)]
DURATIONS = [TDT, (1, 2), RNNT, *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW)]


def example(seed, durations=TDT, batch=8, frames=9, labels=3, vocab=4, scale=1.0):
    """Token logits, duration logits, labels, num_frames and num_labels, ragged."""
    rng = np.random.default_rng(seed)
    shape = batch, frames, labels + 1
    return (
        (scale * rng.normal(size=(*shape, vocab + 1))).astype(np.float32),
        (scale * rng.normal(size=(*shape, len(durations or (1,))))).astype(np.float32),
        rng.integers(0, vocab, size=(batch, labels)).astype(np.int32),
        rng.integers(1, frames + 1, size=batch).astype(np.int32),
        rng.integers(0, labels + 1, size=batch).astype(np.int32),
    )


def loss(durations, token_logits, duration_logits, *lengths, sigma=0.0, fastemit=0.0):
    if durations is None:
        return tdt.rnnt_loss(token_logits, *lengths, fastemit=fastemit)
    options = dict(durations=durations, sigma=sigma, fastemit=fastemit)
    return tdt.tdt_loss(token_logits, duration_logits, *lengths, **options)


@functools.cache
def program(durations):
    """The jitted loss and its gradients in both logits, in numpy."""

    def both(tokens, lasting, *lengths, **options):
        losses, pull = jax.vjp(
            lambda *logits: loss(durations, *logits, *lengths, **options), tokens, lasting
        )
        return losses, pull(jnp.ones_like(losses))

    jitted = jax.jit(both)
    return lambda *arrays, sigma=0.0, fastemit=0.0: jax.device_get(
        jitted(*arrays, sigma=sigma, fastemit=fastemit)
    )


def expected_loss(tokens, lasting, labels, num_frames, num_labels, durations, sigma):
    rows = zip(tokens, lasting, labels, num_frames, num_labels, strict=True)
    return np.array([-brute_force(*row, durations, sigma) for row in rows])


@pytest.mark.parametrize("durations", DURATIONS)
def test_the_loss_sums_every_alignment(durations):
    for seed, sigma in [(0, 0.0), (1, 0.05), (2, 0.05)]:
        arrays = example(seed, durations)
        losses, _ = program(durations)(*arrays, sigma=sigma)
        expected = expected_loss(*arrays, durations, sigma if durations else 0.0)
        possible = np.isfinite(expected)
        assert np.any(possible) and np.all(losses[~possible] > 1e29)
        np.testing.assert_allclose(losses[possible], expected[possible], rtol=1e-5, atol=1e-5)


def test_check_value():
    loss = tdt.tdt_loss(
        np.zeros((1, 3, 2, 4), np.float32),
        np.zeros((1, 3, 2, 3), np.float32),
        np.zeros((1, 1), np.int32),
        np.array([3]),
        np.array([1]),
        durations=(0, 1, 2),
        sigma=0.05,
    )
    np.testing.assert_allclose(loss, [4.155739], atol=1e-6)


def test_rnnt_closed_form_of_uniform_logits():
    """C(T + U - 1, U) paths end in a blank, each of T + U arcs of probability 1 / (V + 1)."""
    frames, labels, vocab = np.array([1, 5, 40]), np.array([0, 3, 12]), 30
    losses = tdt.rnnt_loss(
        np.zeros((3, 40, 13, vocab + 1), np.float32), np.zeros((3, 12), np.int32), frames, labels
    )
    paths = [math.comb(t + u - 1, u) for t, u in zip(frames, labels, strict=True)]
    expected = (frames + labels) * math.log(vocab + 1) - np.log(paths)
    np.testing.assert_allclose(losses, expected, rtol=2e-6)


@pytest.mark.parametrize("durations", DURATIONS)
def test_gradients_match_finite_differences(durations):
    tokens, lasting, labels, num_frames, num_labels = example(11, durations)
    num_frames = np.maximum(num_frames, 6)
    lengths, sigma = (labels, num_frames, num_labels), 0.05 if durations else 0.0
    possible = np.isfinite(expected_loss(tokens, lasting, *lengths, durations, sigma))
    assert np.count_nonzero(possible) >= 4
    _, gradients = program(durations)(tokens, lasting, *lengths, sigma=sigma)
    rng = np.random.default_rng(0)
    for _ in range(4):
        direction = [rng.normal(size=x.shape) for x in (tokens, lasting)]

        def total(step, direction=direction):
            pairs = zip((tokens, lasting), direction, strict=True)
            shifted = [x.astype(np.float64) + step * y for x, y in pairs]
            return expected_loss(*shifted, *lengths, durations, sigma)[possible].sum()

        numeric = (total(1e-4) - total(-1e-4)) / 2e-4
        analytic = sum(np.vdot(g, y) for g, y in zip(gradients, direction, strict=True))
        np.testing.assert_allclose(analytic, numeric, rtol=1e-4, atol=1e-4)


def test_gradients_match_the_closed_form():
    """token: softmax * gamma - posterior; duration alike; fastemit scales label tokens only."""
    tokens, lasting, labels, num_frames, num_labels = example(5)
    num_frames = np.maximum(num_frames, 4)
    token, length = log_softmax(tokens), log_softmax(lasting)
    label = np.take_along_axis(token[:, :, :-1], labels[:, None, :, None], axis=-1)
    posteriors = jax.jit(jax.vmap(lambda *arcs: lattice.arc_posteriors(*arcs, (1, 2), TDT)))
    _, blank_posterior, label_posterior = posteriors(
        token[..., -1:] + length[..., 1:], label + length[:, :, :-1], num_frames, num_labels
    )
    blank_posterior = np.pad(blank_posterior, ((0, 0), (0, 0), (0, 0), (1, 0)))
    label_posterior = np.pad(label_posterior, ((0, 0), (0, 0), (0, 1), (0, 0)))
    arcs = blank_posterior + label_posterior
    for fastemit in (0.0, 0.5):
        _, (token_gradient, duration_gradient) = program(TDT)(
            tokens, lasting, labels, num_frames, num_labels, fastemit=fastemit
        )
        expected = np.exp(length) * arcs.sum(-1, keepdims=True) - arcs
        np.testing.assert_allclose(duration_gradient, expected, atol=2e-6)
        blank_arc, label_arc = blank_posterior.sum(-1), (1 + fastemit) * label_posterior.sum(-1)
        expected = np.exp(token) * (blank_arc + label_arc)[..., None]
        expected[..., -1] -= blank_arc
        for b, t, u in np.ndindex(*label_arc.shape):
            if u < labels.shape[1]:
                expected[b, t, u, labels[b, u]] -= label_arc[b, t, u]
        np.testing.assert_allclose(token_gradient, expected, atol=2e-6)


def test_fastemit_keeps_the_value():
    plain, scaled = (program(TDT)(*example(1), fastemit=x)[0] for x in (0.0, 0.7))
    np.testing.assert_array_equal(plain, scaled)


def test_another_sigma_or_fastemit_is_no_other_program():
    arrays = example(1, batch=3)

    def _loss(arrays, **options):  # by the name of the program that is counted
        return tdt.tdt_loss(*arrays, durations=TDT, **options)

    assert num_compilations(_loss, arrays, sigma=0.05) == 1
    for options in (dict(sigma=0.1, fastemit=0.2), dict(sigma=1), dict(fastemit=np.float32(0.3))):
        assert num_compilations(_loss, arrays, **options) == 0


def test_sigma_and_fastemit_may_be_traced_and_have_no_gradient():
    arrays, options = example(1), dict(sigma=0.05, fastemit=0.2)
    slopes = jax.jit(jax.grad(lambda options: loss(TDT, *arrays, **options).sum()))(options)
    assert slopes == dict(sigma=0.0, fastemit=0.0)


@pytest.mark.parametrize("durations", [TDT, pytest.param(RNNT, marks=pytest.mark.slow)])
def test_padding_has_no_influence_and_no_gradient(durations):
    tokens, lasting, labels, num_frames, num_labels = example(7, durations)
    wide = [(0, 0), (0, 5), (0, 2), (0, 0)]
    padded = [np.pad(x, wide, constant_values=99.0) for x in (tokens, lasting)]
    padded_labels = np.pad(labels, ((0, 0), (0, 2)), constant_values=3)
    losses, _ = program(durations)(tokens, lasting, labels, num_frames, num_labels)
    padded_losses, gradients = program(durations)(*padded, padded_labels, num_frames, num_labels)
    np.testing.assert_allclose(padded_losses, losses, rtol=1e-6)
    for gradient in gradients:
        assert durations is None or np.any(gradient)
        for b in range(len(labels)):
            assert not np.any(gradient[b, num_frames[b] :])
            assert not np.any(gradient[b, :, num_labels[b] + 1 :])


@pytest.mark.parametrize("durations", DURATIONS)
def test_impossible_and_extreme_utterances_stay_finite(durations):
    """No frames, too many labels, an end that durations cannot reach, peaky logits.

    Without frames and labels the empty path is certain, so that an empty row costs nothing.
    """
    tokens, lasting, labels, _, _ = example(2, durations, scale=1e4)
    num_frames, num_labels = np.array([0, 0, 1, 3] * 2), np.array([0, 3, 3, 3] * 2)
    lengths = num_frames.astype(np.int32), num_labels.astype(np.int32)
    losses, gradients = program(durations)(tokens, lasting, labels, *lengths)
    assert np.all(np.isfinite(losses)) and losses[0] == 0 and losses[1] > 1e29
    assert losses[2] > 1e29 or (durations is None or durations[0] == 0)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.fixture(scope="module")
def golden():
    """Losses of other implementations, as tests/golden/make_loss.py stores them."""
    arrays = dict(np.load(GOLDEN / "loss.npz"))

    def case(name):
        prefix = f"{name}/"
        own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        return own, (own["labels"], arrays["num_frames"], arrays["num_labels"])

    return case


@pytest.mark.parametrize("name", ["tdt_plain", "tdt_sigma", "tdt_peaky"])
def test_tdt_loss_is_that_of_transformers(golden, name):
    case, lengths = golden(name)
    losses, gradients = program(tuple(case["durations"].tolist()))(
        case["tokens"], case["lengths"], *lengths, sigma=float(case["sigma"])
    )
    np.testing.assert_allclose(losses, case["loss"], rtol=5e-7)
    np.testing.assert_allclose(gradients[0], case["token_gradient"], atol=1e-5)
    np.testing.assert_allclose(gradients[1], case["length_gradient"], atol=1e-5)


@pytest.mark.parametrize("name", ["rnnt_plain", "rnnt_peaky", "rnnt_fastemit"])
def test_rnnt_loss_is_that_of_warprnnt(golden, name):
    """Which reports the loss times 1 + fastemit; its gradient errs by 4e-5 on peaky logits."""
    case, lengths = golden(name)
    fastemit = float(case["fastemit"])
    tokens = case["tokens"]
    losses, gradients = program(RNNT)(tokens, tokens[..., :1], *lengths, fastemit=fastemit)
    np.testing.assert_allclose(losses, case["loss"] / (1 + fastemit), rtol=5e-7)
    error = 5e-5 if name == "rnnt_peaky" else 5e-6
    np.testing.assert_allclose(gradients[0], case["token_gradient"], atol=error)


def test_durations_may_be_a_list_and_lengths_narrow():
    *arrays, num_frames, num_labels = example(1)
    expected, _ = program(TDT)(*arrays, num_frames, num_labels)
    narrow = num_frames.astype(np.int8), num_labels.astype(np.uint8)
    np.testing.assert_allclose(
        tdt.tdt_loss(*arrays, *narrow, durations=list(TDT)), expected, rtol=1e-6
    )


def test_a_label_beyond_the_vocabulary_has_the_gradient_of_its_value():
    """It counts as the nearest one."""
    tokens, lasting, labels, *lengths = example(1)
    below, nearest = (
        program(TDT)(tokens, lasting, x, *lengths) for x in (labels * 0 - 1, labels * 0)
    )
    np.testing.assert_array_equal(below[1][0], nearest[1][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(durations=None), "without them it is rnnt_loss"),
        (dict(durations=(1, 0)), "increase strictly"),
        (dict(durations=(0, 1)), "need duration logits"),
        (dict(labels=np.zeros((8, 2), np.int32)), "labels \\[B, U\\]"),
        (dict(num_frames=np.zeros((3,), np.int32)), "num_frames"),
        (dict(sigma=np.zeros(8, np.float32)), r"must be numbers, got arrays of shapes \(8,\) and"),
    ],
)
def test_bad_shapes_are_named(change, message):
    tokens, lasting, labels, num_frames, num_labels = example(0)
    options = dict(labels=labels, num_frames=num_frames, num_labels=num_labels, durations=TDT)
    with pytest.raises(ValueError, match=message):
        tdt.tdt_loss(tokens, lasting, **{**options, **change})
