"""The losses against every alignment written out, closed forms and finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lattice_oracle import brute_force, log_softmax
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax.losses import lattice

DURATIONS = [(0, 1, 2), (0, 1, 2, 3, 4), (1, 2), (0, 2, 3), (2, 5)]


def example(seed, batch=4, frames=9, labels=3, vocab=4, num_durations=3, scale=1.0):
    rng = np.random.default_rng(seed)
    return (
        (scale * rng.normal(size=(batch, frames, labels + 1, vocab + 1))).astype(np.float32),
        (scale * rng.normal(size=(batch, frames, labels + 1, num_durations))).astype(np.float32),
        rng.integers(0, vocab, size=(batch, labels)).astype(np.int32),
        rng.integers(1, frames + 1, size=batch).astype(np.int32),
        rng.integers(0, labels + 1, size=batch).astype(np.int32),
    )


@pytest.mark.parametrize("durations", DURATIONS)
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_tdt_loss_sums_every_alignment(durations, sigma):
    for seed in range(6):
        tokens, lengths, labels, num_frames, num_labels = example(
            seed, num_durations=len(durations)
        )
        loss = tdt.tdt_loss(
            tokens, lengths, labels, num_frames, num_labels, durations=durations, sigma=sigma
        )
        for b in range(len(labels)):
            expected = brute_force(
                tokens[b], lengths[b], labels[b], num_frames[b], num_labels[b], durations, sigma
            )
            if math.isinf(expected):
                assert loss[b] > 1e29
            else:
                np.testing.assert_allclose(loss[b], -expected, rtol=1e-5, atol=1e-5)


def test_rnnt_loss_sums_every_alignment():
    for seed in range(8):
        tokens, _, labels, num_frames, num_labels = example(seed, frames=6)
        loss = tdt.rnnt_loss(tokens, labels, num_frames, num_labels)
        expected = [
            -brute_force(tokens[b], None, labels[b], num_frames[b], num_labels[b], None)
            for b in range(len(labels))
        ]
        np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)


def test_check_value():
    loss = tdt.tdt_loss(
        jnp.zeros((1, 3, 2, 4)),
        jnp.zeros((1, 3, 2, 3)),
        jnp.zeros((1, 1), jnp.int32),
        jnp.array([3]),
        jnp.array([1]),
        durations=(0, 1, 2),
        sigma=0.05,
    )
    np.testing.assert_allclose(loss, [4.155739], atol=1e-6)


def test_rnnt_closed_form_of_uniform_logits():
    """C(T + U - 1, U) paths end in a blank, each of T + U arcs of probability 1 / (V + 1)."""
    for frames, labels, vocab in [(1, 0, 3), (5, 3, 7), (40, 12, 30)]:
        loss = tdt.rnnt_loss(
            jnp.zeros((1, frames, labels + 1, vocab + 1)),
            jnp.zeros((1, labels), jnp.int32),
            jnp.array([frames]),
            jnp.array([labels]),
        )
        paths = math.comb(frames + labels - 1, labels)
        expected = (frames + labels) * math.log(vocab + 1) - math.log(paths)
        np.testing.assert_allclose(loss, [expected], rtol=2e-6)


def test_rnnt_is_tdt_with_certain_durations():
    """The same lattice: a TDT whose labels stay and whose blanks move by 1 is an RNN-T."""
    tokens, _, labels, num_frames, num_labels = example(3, num_durations=2)

    def certain(tokens):
        blank = jnp.stack([jnp.full_like(tokens[..., 0], lattice.NEG_INF), tokens[..., -1]], -1)
        label = jnp.take_along_axis(tokens[:, :, :-1], labels[:, None, :, None], axis=-1)
        total = jax.vmap(lambda *arcs: lattice.log_likelihood(*arcs, (1,), (0, 2)))
        label = jnp.concatenate([label, jnp.full_like(label, lattice.NEG_INF)], axis=-1)
        return -total(blank[..., 1:], label, num_frames, num_labels)

    expected = tdt.rnnt_loss(tokens, labels, num_frames, num_labels)
    np.testing.assert_allclose(certain(log_softmax(tokens)), expected, rtol=1e-5)


@pytest.mark.parametrize("durations", [(0, 1, 2, 3, 4), (1, 2), None])
def test_gradients_match_finite_differences(durations):
    tokens, lengths, labels, num_frames, num_labels = example(
        11, num_durations=len(durations or (1,))
    )
    num_frames = np.maximum(num_frames, 6)

    def loss(tokens, lengths):
        if durations is None:
            return tdt.rnnt_loss(tokens, labels, num_frames, num_labels).sum()
        return tdt.tdt_loss(
            tokens, lengths, labels, num_frames, num_labels, durations=durations, sigma=0.05
        ).sum()

    gradients = jax.grad(loss, argnums=(0, 1))(tokens, lengths)
    rng = np.random.default_rng(0)
    for _ in range(8):
        direction = [rng.normal(size=x.shape) for x in (tokens, lengths)]

        def total(step, direction=direction):
            shifted = [
                x.astype(np.float64) + step * y
                for x, y in zip((tokens, lengths), direction, strict=True)
            ]
            return -sum(
                brute_force(
                    shifted[0][b], shifted[1][b], labels[b], num_frames[b], num_labels[b],
                    durations, 0.05 if durations else 0.0,
                )
                for b in range(len(labels))
            )  # fmt: skip

        numeric = (total(1e-4) - total(-1e-4)) / 2e-4
        analytic = sum(np.vdot(g, y) for g, y in zip(gradients, direction, strict=True))
        np.testing.assert_allclose(analytic, numeric, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fastemit", [0.0, 0.5])
def test_gradients_match_the_closed_form(fastemit):
    """token: softmax * gamma - posterior; duration alike; fastemit scales label tokens only."""
    durations = (0, 1, 2, 3)
    tokens, lengths, labels, num_frames, num_labels = example(5, num_durations=4)
    num_frames = np.maximum(num_frames, 4)

    def loss(tokens, lengths):
        return tdt.tdt_loss(
            tokens, lengths, labels, num_frames, num_labels, durations=durations, fastemit=fastemit
        ).sum()

    token_gradient, duration_gradient = jax.grad(loss, argnums=(0, 1))(tokens, lengths)
    token, length = log_softmax(tokens), log_softmax(lengths)
    label = np.take_along_axis(token[:, :, :-1], labels[:, None, :, None], axis=-1)
    _, blank_posterior, label_posterior = jax.vmap(
        lambda *arcs: lattice.arc_posteriors(*arcs, (1, 2, 3), durations)
    )(token[..., -1:] + length[..., 1:], label + length[:, :, :-1], num_frames, num_labels)
    blank_posterior = np.pad(blank_posterior, ((0, 0), (0, 0), (0, 0), (1, 0)))
    label_posterior = np.pad(label_posterior, ((0, 0), (0, 0), (0, 1), (0, 0)))

    arcs = blank_posterior + label_posterior
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
    tokens, lengths, labels, num_frames, num_labels = example(1)
    plain, scaled = (
        tdt.tdt_loss(
            tokens, lengths, labels, num_frames, num_labels, durations=(0, 1, 2), fastemit=fastemit
        )
        for fastemit in (0.0, 0.7)
    )
    np.testing.assert_array_equal(plain, scaled)


@pytest.mark.parametrize("durations", [(0, 1, 2), None])
def test_padding_has_no_influence_and_no_gradient(durations):
    tokens, lengths, labels, num_frames, num_labels = example(7)
    wide = [(0, 0), (0, 5), (0, 2), (0, 0)]
    padded = [np.pad(x, wide, constant_values=99.0) for x in (tokens, lengths)]
    padded_labels = np.pad(labels, ((0, 0), (0, 2)), constant_values=3)

    def loss(tokens, lengths, labels):
        if durations is None:
            return tdt.rnnt_loss(tokens, labels, num_frames, num_labels)
        return tdt.tdt_loss(tokens, lengths, labels, num_frames, num_labels, durations=durations)

    np.testing.assert_allclose(
        loss(*padded, padded_labels), loss(tokens, lengths, labels), rtol=1e-6
    )
    gradients = jax.grad(lambda *x: loss(*x, padded_labels).sum(), argnums=(0, 1))(*padded)
    for gradient in gradients:
        for b in range(len(labels)):
            assert not np.any(gradient[b, num_frames[b] :])
            assert not np.any(gradient[b, :, num_labels[b] + 1 :])


@pytest.mark.parametrize("durations", [(0, 1, 2), (2, 4), None])
def test_impossible_and_extreme_utterances_stay_finite(durations):
    """No frames, too many labels, an end that durations cannot reach, peaky logits.

    Without frames and labels the empty path is certain, so that an empty row costs nothing.
    """
    tokens, lengths, labels, _, _ = example(2, num_durations=len(durations or (1,)), scale=1e4)
    num_frames, num_labels = np.array([0, 0, 1, 3]), np.array([0, 3, 3, 3])

    def loss(tokens, lengths):
        if durations is None:
            return tdt.rnnt_loss(tokens, labels, num_frames, num_labels)
        return tdt.tdt_loss(tokens, lengths, labels, num_frames, num_labels, durations=durations)

    values = loss(tokens, lengths)
    assert np.all(np.isfinite(values)) and values[0] == 0 and values[1] > 1e29
    assert values[2] > 1e29 or (durations is None or durations[0] == 0)
    gradients = jax.grad(lambda *x: loss(*x).sum(), argnums=(0, 1))(tokens, lengths)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


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

    for t in range(num_frames + 1):
        for d, i, is_label in arcs(t):
            if not is_label:
                alpha[t] = np.logaddexp(alpha[t], alpha[t - d] + blank[t - d, :, i])
            elif t < num_frames:  # a label cannot land on the end
                arriving = alpha[t - d, :-1] + label[t - d, :, i]
                alpha[t, 1:] = np.logaddexp(alpha[t, 1:], arriving)
        for u in range(1, columns if durations[0] == 0 and t < num_frames else 0):
            alpha[t, u] = np.logaddexp(alpha[t, u], alpha[t, u - 1] + label[t, u - 1, 0])
    for t in range(num_frames - 1, -1, -1):
        for d, i, is_label in arcs(num_frames - t):
            if not is_label:
                beta[t] = np.logaddexp(beta[t], blank[t, :, i] + beta[t + d])
            elif t + d < num_frames:
                beta[t, :-1] = np.logaddexp(beta[t, :-1], label[t, :, i] + beta[t + d, 1:])
        for u in range(columns - 2, -1 if durations[0] == 0 else columns, -1):
            beta[t, u] = np.logaddexp(beta[t, u], label[t, u, 0] + beta[t, u + 1])

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


@pytest.mark.parametrize("durations", [(0, 1, 2, 3, 4), (1, 2, 3), (0, 1)])
@pytest.mark.parametrize(("scale", "error"), [(1.0, 4e-6), (16.0, 4e-5)])
def test_float32_is_as_good_as_float64_on_a_long_utterance(durations, scale, error):
    """400 frames, 300 labels, up to thousands of nats: the value to the last digit or two, and
    posteriors to what rounding leaves of the arcs themselves (2e-6 and 2e-5)."""
    rng = np.random.default_rng(0)
    frames, labels = 400, 300
    first = 1 if durations[0] == 0 else 0
    tokens = log_softmax(scale * rng.normal(size=(frames, labels + 1, 8)))
    lengths = log_softmax(scale * rng.normal(size=(frames, labels + 1, len(durations))))
    blank = (tokens[..., :1] + lengths[..., first:]).astype(np.float32)
    label = (tokens[:, :-1, 1:2] + lengths[:, :-1]).astype(np.float32)
    expected, *expected_posteriors = forward_backward(
        blank.astype(np.float64), label.astype(np.float64), durations
    )
    total, *posteriors = jax.jit(lattice.arc_posteriors, static_argnums=(4, 5))(
        blank, label, frames, labels, durations[first:], durations
    )
    np.testing.assert_allclose(total, expected, rtol=2e-7)
    for posterior, expected in zip(posteriors, expected_posteriors, strict=True):
        np.testing.assert_allclose(posterior, expected, atol=error)


@pytest.fixture(scope="module")
def golden():
    """Losses of other implementations, as tests/golden/make_loss.py stores them."""
    arrays = dict(np.load(GOLDEN / "loss.npz"))

    def case(name):
        prefix = f"{name}/"
        found = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        return found, (found["labels"], arrays["num_frames"], arrays["num_labels"])

    return case


@pytest.mark.parametrize("name", ["tdt_plain", "tdt_sigma", "tdt_peaky"])
def test_tdt_loss_is_that_of_transformers(golden, name):
    case, lengths = golden(name)

    def loss(tokens, duration_logits):
        return tdt.tdt_loss(
            tokens, duration_logits, *lengths,
            durations=tuple(case["durations"].tolist()), sigma=float(case["sigma"]),
        )  # fmt: skip

    inputs = case["tokens"], case["lengths"]
    np.testing.assert_allclose(loss(*inputs), case["loss"], rtol=5e-7)
    gradients = jax.grad(lambda *x: loss(*x).sum(), argnums=(0, 1))(*inputs)
    np.testing.assert_allclose(gradients[0], case["token_gradient"], atol=1e-5)
    np.testing.assert_allclose(gradients[1], case["length_gradient"], atol=1e-5)


@pytest.mark.parametrize("name", ["rnnt_plain", "rnnt_peaky", "rnnt_fastemit"])
def test_rnnt_loss_is_that_of_warprnnt(golden, name):
    """Which reports the loss times 1 + fastemit; its gradient errs by 4e-5 on peaky logits."""
    case, lengths = golden(name)
    fastemit = float(case["fastemit"])

    def loss(tokens):
        return tdt.rnnt_loss(tokens, *lengths, fastemit=fastemit)

    expected = case["loss"] / (1 + fastemit)
    np.testing.assert_allclose(loss(case["tokens"]), expected, rtol=5e-7)
    gradient = jax.grad(lambda tokens: loss(tokens).sum())(case["tokens"])
    error = 5e-5 if name == "rnnt_peaky" else 5e-6
    np.testing.assert_allclose(gradient, case["token_gradient"], atol=error)


def test_durations_may_be_a_list_and_lengths_narrow():
    tokens, lengths, labels, num_frames, num_labels = example(1)
    arguments = tokens, lengths, labels
    expected = tdt.tdt_loss(*arguments, num_frames, num_labels, durations=(0, 1, 2))
    narrow = num_frames.astype(np.int8), num_labels.astype(np.uint8)
    np.testing.assert_array_equal(tdt.tdt_loss(*arguments, *narrow, durations=[0, 1, 2]), expected)


def test_a_label_beyond_the_vocabulary_has_the_gradient_of_its_value():
    """It counts as the nearest one."""
    tokens, lengths, labels, num_frames, num_labels = example(1)

    def gradient(labels):
        return jax.grad(
            lambda x: tdt.tdt_loss(
                x, lengths, labels, num_frames, num_labels, durations=(0, 1, 2)
            ).sum()
        )(tokens)

    np.testing.assert_array_equal(gradient(labels * 0 - 1), gradient(labels * 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(durations=None), "without them it is rnnt_loss"),
        (dict(durations=(1, 0)), "increase strictly"),
        (dict(durations=(0, 1)), "need duration logits"),
        (dict(labels=np.zeros((4, 2), np.int32)), "labels \\[B, U\\]"),
        (dict(num_frames=np.zeros((3,), np.int32)), "num_frames"),
    ],
)
def test_bad_shapes_are_named(change, message):
    tokens, lengths, labels, num_frames, num_labels = example(0)
    options = dict(labels=labels, num_frames=num_frames, num_labels=num_labels, durations=(0, 1, 2))
    with pytest.raises(ValueError, match=message):
        tdt.tdt_loss(tokens, lengths, **{**options, **change})
