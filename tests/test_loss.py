"""The losses against every alignment written out, closed forms and finite differences."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax import lattice

DURATIONS = [(0, 1, 2), (0, 1, 2, 3, 4), (1, 2), (0, 2, 3), (2, 5)]


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def brute_force(tokens, durations_logits, labels, num_frames, num_labels, durations, sigma=0.0):
    """Log of the sum over all alignments of one utterance, in float64, one path at a time."""
    tokens = log_softmax(tokens.astype(np.float64)) - sigma
    lengths = None if durations is None else log_softmax(durations_logits.astype(np.float64))

    def arcs(t, u):
        """(probability, frames on, labels on) of all that can leave (t, u)."""
        blank, label = tokens[t, u, -1], tokens[t, u, labels[u]] if u < num_labels else None
        if durations is None:
            choices = [(blank, 1, 0)] + ([(label, 0, 1)] if u < num_labels else [])
        else:
            choices = [(blank + lengths[t, u, i], d, 0) for i, d in enumerate(durations) if d]
            if u < num_labels:
                choices += [(label + lengths[t, u, i], d, 1) for i, d in enumerate(durations)]
        return choices

    @functools.cache
    def paths(t, u):
        """Probability of every path from (t, u) to the end, as a list."""
        found = []
        for score, frames, emitted in arcs(t, u):
            if t + frames == num_frames and u + emitted == num_labels and not emitted:
                found.append(score)
            elif t + frames < num_frames:
                found += [score + rest for rest in paths(t + frames, u + emitted)]
        return found

    every = paths(0, 0) if num_frames else []
    return float(np.logaddexp.reduce(every)) if every else -math.inf


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


def test_float32_stays_close_to_float64_on_a_long_utterance():
    tokens, lengths, labels, _, _ = example(
        4, batch=1, frames=200, labels=40, vocab=8, num_durations=5, scale=4.0
    )
    args = labels, np.array([200]), np.array([40])
    loss = tdt.tdt_loss(tokens, lengths, *args, durations=(0, 1, 2, 3, 4))
    token, length = (log_softmax(x[0].astype(np.float64)) for x in (tokens, lengths))
    alpha = np.full((201, 41), -np.inf)
    alpha[0, 0] = 0
    for t in range(200):
        for u in range(41):
            for i, d in enumerate((0, 1, 2, 3, 4)):
                if d and t + d <= 200:
                    arc = alpha[t, u] + token[t, u, -1] + length[t, u, i]
                    alpha[t + d, u] = np.logaddexp(alpha[t + d, u], arc)
                if u < 40 and t + d < 200:
                    arc = alpha[t, u] + token[t, u, labels[0, u]] + length[t, u, i]
                    alpha[t + d, u + 1] = np.logaddexp(alpha[t + d, u + 1], arc)
    np.testing.assert_allclose(loss, [-alpha[200, 40]], rtol=2e-6)


def small_joint(durations, dropout=0.0):
    from flax import nnx

    from tdt_jax.config import JointConfig
    from tdt_jax.joint import Joint

    return Joint(
        JointConfig(width=12, dropout=dropout),
        frame_width=6,
        state_width=5,
        vocab_size=4,
        num_durations=len(durations or ()),
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )


@pytest.mark.parametrize("durations", [(0, 1, 2), None])
@pytest.mark.parametrize("chunk", [1, 4, 9, 100])
def test_transducer_loss_equals_the_loss_on_full_logits(durations, chunk):
    _, _, labels, num_frames, num_labels = example(9)
    rng = np.random.default_rng(9)
    frames = rng.normal(size=(4, 9, 6)).astype(np.float32)
    states = rng.normal(size=(4, 4, 5)).astype(np.float32)
    joint = small_joint(durations)

    def whole(joint, frames, states):
        tokens, lengths = joint(frames, states)
        if durations is None:
            return tdt.rnnt_loss(tokens, labels, num_frames, num_labels, fastemit=0.1)
        return tdt.tdt_loss(
            tokens, lengths, labels, num_frames, num_labels,
            durations=durations, sigma=0.05, fastemit=0.1,
        )  # fmt: skip

    def lean(joint, frames, states):
        return tdt.transducer_loss(
            joint, frames, states, labels, num_frames, num_labels, durations=durations,
            sigma=0.05 if durations else 0.0, fastemit=0.1, chunk=chunk,
        )  # fmt: skip

    args = joint, frames, states
    np.testing.assert_allclose(lean(*args), whole(*args), rtol=1e-5)
    for a, b in zip(
        *(
            jax.tree.leaves(jax.grad(lambda *x, f=f: f(*x).sum(), argnums=(0, 1, 2))(*args))
            for f in (lean, whole)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("durations", [(0, 1, 2), (2, 3)])
def test_transducer_loss_as_rnnt_is_the_rnnt_loss(durations):
    """Value and gradients are those of `rnnt_loss` where asked, of `tdt_loss` where not."""
    _, _, labels, num_frames, num_labels = example(9)
    num_frames, num_labels = num_frames + 8, num_labels % 2
    rng = np.random.default_rng(9)
    frames = rng.normal(size=(4, 17, 6)).astype(np.float32)
    states = rng.normal(size=(4, 4, 5)).astype(np.float32)
    joint = small_joint(durations)

    def lean(joint, as_rnnt):
        return tdt.transducer_loss(
            joint, frames, states, labels, num_frames, num_labels, durations=durations,
            sigma=0.05, fastemit=0.1, as_rnnt=as_rnnt,
        ).sum()  # fmt: skip

    def whole(joint, as_rnnt):
        tokens, lengths = joint(frames, states)
        options = dict(fastemit=0.1)
        if as_rnnt:
            return tdt.rnnt_loss(tokens, labels, num_frames, num_labels, **options).sum()
        return tdt.tdt_loss(
            tokens, lengths, labels, num_frames, num_labels,
            durations=durations, sigma=0.05, **options,
        ).sum()  # fmt: skip

    for as_rnnt in (True, False):
        value, gradient = jax.value_and_grad(lean)(joint, jnp.array(as_rnnt))
        expected, expected_gradient = jax.value_and_grad(whole)(joint, as_rnnt)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
            np.testing.assert_allclose(a, b, atol=5e-5)


def test_transducer_loss_never_holds_the_logits():
    """No array of the size of the logits is alive in the compiled gradient."""
    from flax import nnx

    from tdt_jax.config import JointConfig
    from tdt_jax.joint import Joint

    joint = Joint(
        JointConfig(width=16, dropout=0.0), frame_width=8, state_width=8, vocab_size=1024,
        num_durations=5, dtype=jnp.float32, rngs=nnx.Rngs(0),
    )  # fmt: skip
    batch, frames, labels = 2, 128, 24

    def loss(joint, frames, states, labels, num_frames, num_labels):
        return tdt.transducer_loss(
            joint, frames, states, labels, num_frames, num_labels,
            durations=(0, 1, 2, 3, 4), chunk=8,
        ).sum()  # fmt: skip

    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in [
            ((batch, frames, 8), jnp.float32),
            ((batch, labels + 1, 8), jnp.float32),
            ((batch, labels), jnp.int32),
            ((batch,), jnp.int32),
            ((batch,), jnp.int32),
        ]
    ]
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(joint, *shapes).compile()
    logits = batch * frames * (labels + 1) * 1030 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < logits / 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
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
