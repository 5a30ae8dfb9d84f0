"""The loss without logits against the loss on logits: values, gradients, memory, what it skips."""

import functools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from compilations import num_compilations
from flax import nnx
from lattice_oracle import VOCAB, table_inputs, table_joint

import tdt_jax as tdt
from tdt_jax.config import JointConfig
from tdt_jax.losses.grid import tiles_with_mass
from tdt_jax.losses.nodes import plan_joint, score_nodes
from tdt_jax.losses.scores import log_likelihoods_and_posteriors, make_spec
from tdt_jax.models.joint import Joint

TDT = (0, 1, 2)
LEAD = np.array([3, 1, 0, 0], np.int32)


@functools.cache
def make_joint(num_durations=3, *, dropout=0.0, dtype=jnp.float32, width=12, vocab=4):
    config = JointConfig(width=width, dropout=dropout)
    sizes = dict(frame_width=6, state_width=5, vocab_size=vocab, num_durations=num_durations)
    return models.build(lambda: Joint(config, **sizes, dtype=dtype, rngs=nnx.Rngs(0)))


def example(seed=9, frames=9, labels=3, dtype=np.float32):
    """Frames and states, and labels with ragged lengths, of four utterances."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(4, frames, 6)).astype(dtype),
        rng.normal(size=(4, labels + 1, 5)).astype(dtype),
    ), (
        rng.integers(0, 4, size=(4, labels)).astype(np.int32),
        np.array([frames, frames // 2 + 1, frames - 1, 1], np.int32),
        np.array([labels, labels // 2, labels, 0], np.int32),
    )


def without_labels(tokens, lead, labels):
    """Logits [B, T, U+1, V+2] with no probability for the next label in the lead.

    It goes to one more token, so that the others keep theirs.
    """
    tokens = jax.nn.log_softmax(tokens)
    is_next = jax.nn.one_hot(np.pad(labels, ((0, 0), (0, 1))), tokens.shape[-1], dtype=bool)
    is_lead = jnp.arange(tokens.shape[1])[None] < lead[:, None]
    taken = is_next[:, None] & is_lead[:, :, None, None]
    rest = jax.nn.logsumexp(jnp.where(taken, tokens, -1e30), axis=-1, keepdims=True)
    tokens = jnp.where(taken, -1e30, tokens)
    return jnp.concatenate([tokens[..., :-1], rest, tokens[..., -1:]], axis=-1)


def dense_loss(
    joint, frames, states, labels, num_frames, num_labels, durations, *, sigma=0.0, fastemit=0.0,
    lead=None,
):  # fmt: skip
    """`tdt_loss` or `rnnt_loss` on all the joint's logits."""
    tokens, duration_logits = joint(frames, states)
    if lead is not None:
        tokens = without_labels(tokens, lead, labels)
    lengths = labels, num_frames, num_labels
    if durations is None:
        return tdt.rnnt_loss(tokens, *lengths, fastemit=fastemit)
    options = dict(durations=durations, sigma=sigma, fastemit=fastemit)
    return tdt.tdt_loss(tokens, duration_logits, *lengths, **options)


@functools.partial(jax.jit, static_argnums=0)
def losses_and_gradients(function, inputs, options):
    losses, pull = jax.vjp(lambda *x: function(*x, **options), *inputs)
    return losses, pull(jnp.ones_like(losses))


def assert_same(results, expected, rtol=2e-6, atol=4e-6):
    """Losses, and the gradients in all inputs: `atol` times the largest entry, if above 1."""
    (losses, gradients), (expected_losses, expected_gradients) = jax.device_get((results, expected))
    np.testing.assert_allclose(losses, expected_losses, rtol=rtol)
    pairs = zip(*(jax.tree.leaves(x) for x in (gradients, expected_gradients)), strict=True)
    for a, b in pairs:
        assert a.dtype == b.dtype
        a, b = np.float32(a), np.float32(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol * max(1.0, np.abs(b).max()))


def assert_same_functions(tiled, dense, inputs, **options):
    assert_same(*(losses_and_gradients(f, inputs, {}) for f in (tiled, dense)), **options)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def numbers(sigma=0.05, fastemit=0.1, **options):
    return dict(sigma=sigma, fastemit=fastemit, **options)


@functools.cache
def dense_loss_of(durations, frames):
    """One function, so one program, for each set of durations."""
    _, lengths = example(frames=frames)
    return lambda *inputs, **options: dense_loss(*inputs, *lengths, durations, **options)


@pytest.mark.parametrize(
    ("durations", "chunk", "options"),
    [
        (None, 48, [numbers(0.0, lead=LEAD), numbers(0.0, 0.0, lead=LEAD * 0)]),
        ((1, 2), 1, [numbers(lead=LEAD), numbers(0.0, 0.0, lead=LEAD * 0)]),
        slow(TDT, 10_000, [numbers(), numbers(0.0, 0.0)]),
        (TDT, 64, [numbers(lead=LEAD, as_rnnt=x) for x in (False, True)]),
        slow(TDT, 1, [numbers()]),
        slow(TDT, 64, [numbers()]),
        slow((1, 2), 48, [numbers()]),
        slow((2, 3), 48, [numbers()]),
        slow((0, 2, 5), 48, [numbers()]),
        slow(None, 48, [numbers(0.0)]),
        slow(TDT, 48, [numbers(lead=LEAD)]),
        slow(TDT, 48, [numbers(as_rnnt=x) for x in (False, True)]),
        slow((2, 3), 48, [numbers(as_rnnt=x) for x in (False, True)]),
    ],
)
def test_equals_the_loss_on_full_logits(durations, chunk, options):
    """Values and all gradients, whatever is combined; an RNN-T takes the token head alone."""
    size = 17 if durations == (2, 3) else 9
    (frames, states), lengths = example(frames=size)
    inputs = make_joint(len(durations or TDT)), frames, states

    def tiled(*inputs, sigma, **options):
        if durations is not None:
            options["sigma"] = sigma
        return tdt.transducer_loss(*inputs, *lengths, durations=durations, chunk=chunk, **options)

    for each in options:
        as_rnnt = each.get("as_rnnt", False)
        dense = dense_loss_of(None if as_rnnt else durations, size)
        expected = {"lead": LEAD * 0} | {k: v for k, v in each.items() if k != "as_rnnt"}
        assert_same(
            losses_and_gradients(tiled, inputs, each),
            losses_and_gradients(dense, inputs, expected),
            atol=5e-5 if "as_rnnt" in each else 4e-6,
        )


@pytest.mark.slow
@pytest.mark.parametrize("durations", [(0, 1, 2, 3, 4), None])
def test_equals_it_where_most_tiles_are_left_out(durations):
    """A lattice so large that the default leaves out nodes which do have a posterior."""
    inputs, lengths = example(frames=120, labels=36)
    joint = make_joint(len(durations or ()))
    spec = make_spec(durations)
    plan, *rest = plan_joint(joint, *inputs, *lengths, durations, chunk=256)
    _, scores = score_nodes(plan, spec, *rest, *lengths)
    _, posteriors = log_likelihoods_and_posteriors(scores, *lengths[1:], spec)
    mass = plan.grid.split_nodes(posteriors.blank + posteriors.label).sum((1, 2))
    left_out = np.asarray(mass)[~np.asarray(tiles_with_mass(mass, plan.grid, 1e-6))]
    assert np.count_nonzero(left_out) > len(mass) / 10 and left_out.sum() < 4e-6
    assert_same_functions(
        lambda *x: tdt.transducer_loss(*x, *lengths, durations=durations, chunk=256),
        lambda *x: dense_loss(*x, *lengths, durations),
        (joint, *inputs),
    )


def test_neglect_bounds_the_error_of_the_gradient():
    """In the sum of absolute values over all logits of an utterance, by (4 + 2 fastemit) neglect.

    Something is left out unless it is 0, which is as exact as float32 on the full logits. One
    program serves all.
    """
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(2, 60, 25, VOCAB + 1 + 2)).astype(np.float32)
    lengths = (
        rng.integers(0, VOCAB, (2, 24)).astype(np.int32),
        np.array([60, 41], np.int32),
        np.array([24, 20], np.int32),
    )
    options = dict(durations=(0, 1), fastemit=0.1)
    frames, states = table_inputs(tables)

    def dense(frames):
        return tdt.tdt_loss(*table_joint(frames, states), *lengths, **options).sum()

    def _loss(frames, neglect):  # by the name of the program that is counted
        losses = functools.partial(tdt.transducer_loss, table_joint, chunk=64, **options)
        return jax.grad(lambda x: losses(x, states, *lengths, neglect=neglect).sum())(frames)

    exact = jax.jit(jax.grad(dense))(frames)
    assert tdt.transducer_loss.__kwdefaults__["neglect"] == 1e-6
    for index, neglect in enumerate((0.0, 1e-3, 0.3)):
        gradient = _loss(frames, neglect)
        error = np.abs(np.asarray(gradient) - exact)
        assert np.all(error.sum((1, 2)) <= (4 + 2 * 0.1) * neglect + 1e-4)
        assert np.all(error.sum((1, 2)) > 1e-4) if neglect else np.all(error < 2e-6)
        assert index > 0 or num_compilations(_loss, frames, 0.1) == 0


def mlp(parameters, frames, states):
    """A joint network of one's own: two hidden layers, tanh, one head for all."""
    hidden = (frames @ parameters["frame"])[:, :, None] + (states @ parameters["state"])[:, None]
    logits = jnp.tanh(jnp.tanh(hidden) @ parameters["hidden"]) @ parameters["head"]
    return logits[..., :5], logits[..., 5:]


def mlp_parameters():
    rng = np.random.default_rng(1)
    sizes = {"frame": (6, 10), "state": (5, 10), "hidden": (10, 7), "head": (7, 8)}
    return {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}


def masked_mlp(parameters, mask, key, frames, states):
    tokens, durations = mlp(parameters, frames, states)
    shift = mask.astype(jnp.float32) + jax.random.normal(key, (5,))
    return tokens + shift[None, None, None], durations


def dense_loss_of_masked_mlp(parameters, *inputs, mask, key):
    joint = functools.partial(masked_mlp, parameters, mask, key)
    return dense_loss(joint, *inputs, *example()[1], TDT)


@pytest.mark.parametrize("form", [functools.partial, jax.tree_util.Partial])
def test_any_joint_function(form):
    """A function that closes over its parameters, or a pytree of them that is called.

    What it holds may be traced, integers and keys.
    """
    inputs, lengths = example()

    def tiled(parameters, *inputs, mask, key):
        joint = form(masked_mlp, parameters, mask, key)
        return tdt.transducer_loss(joint, *inputs, *lengths, durations=TDT)

    options = dict(mask=np.arange(5), key=jax.random.key(3))
    inputs = mlp_parameters(), *inputs
    assert_same(
        losses_and_gradients(tiled, inputs, options),
        losses_and_gradients(dense_loss_of_masked_mlp, inputs, options),
        atol=1e-5,
    )


def test_a_joint_function_of_tokens_alone():
    inputs, lengths = example()

    def tiled(parameters, *x):
        joint = jax.tree_util.Partial(lambda *y: mlp(*y)[0], parameters)
        return tdt.transducer_loss(joint, *x, *lengths, durations=None)

    def dense(parameters, *x):
        return dense_loss(functools.partial(mlp, parameters), *x, *lengths, None)

    assert_same_functions(tiled, dense, (mlp_parameters(), *inputs))


def test_a_function_is_taken_as_it_is_now():
    """Not as it was: the constants that it closes over may change between calls."""
    inputs, lengths = example()
    parameters = mlp_parameters()

    def joint(*x):
        return mlp(parameters, *x)

    def loss():
        return tdt.transducer_loss(joint, *inputs, *lengths, durations=TDT)

    before = loss()
    parameters["head"] = 2 * parameters["head"]
    expected = jax.jit(lambda *x: dense_loss(joint, *x, *lengths, TDT))(*inputs)
    assert np.all(np.abs(before - expected)[:3] > 1e-2)
    np.testing.assert_allclose(loss(), expected, rtol=2e-6)


def test_a_joint_sees_only_frames_and_states_that_there_are():
    """Tiles are filled up with copies: what is undefined at zero stays away from it."""
    inputs, lengths = example()
    parameters = mlp_parameters()

    def joint(frames, states):
        frames = frames / jnp.linalg.norm(frames, axis=-1, keepdims=True)
        states = states / jnp.linalg.norm(states, axis=-1, keepdims=True)
        return mlp(parameters, frames, states)

    gradients = jax.jit(
        jax.grad(lambda *x: tdt.transducer_loss(joint, *x, *lengths, durations=TDT).sum(), (0, 1))
    )(*inputs)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_is_compiled_once_for_a_shape():
    """Whatever the inputs, sigma and fastemit."""
    (frames, states), lengths = example(frames=11)
    joint = make_joint()

    def _loss(frames, **options):  # by the name of the program that is counted
        return tdt.transducer_loss(joint, frames, states, *lengths, durations=TDT, **options)

    assert num_compilations(_loss, frames) == 1
    assert num_compilations(_loss, frames + 1, sigma=0.05, fastemit=np.float32(0.1)) == 0
    assert num_compilations(_loss, frames, sigma=1) == 0


@pytest.mark.slow
def test_bfloat16_activations():
    """Value and gradients are those on the same bfloat16 joint's logits; heads' in float32."""
    inputs, lengths = example(dtype=jnp.bfloat16)
    assert_same_functions(
        lambda *x: tdt.transducer_loss(*x, *lengths, durations=TDT),
        lambda *x: dense_loss(*x, *lengths, TDT),
        (make_joint(dtype=jnp.bfloat16), *inputs),
        rtol=2e-5,
        atol=0.01,  # one or two of bfloat16's 8 bits
    )


def dropped_loss(joint, frames, key, padding=0, chunk=32):
    (_, states), (labels, *counts) = example(labels=6)
    wide = (0, 0), (0, padding)
    lengths = np.pad(labels, wide), *counts
    states = np.pad(states, (*wide, (0, 0)))
    options = dict(durations=TDT, chunk=chunk, key=key)
    return tdt.transducer_loss(joint, frames, states, *lengths, **options)


@pytest.mark.slow
def test_dropout_depends_on_the_key_alone():
    """Not on its form, the chunk and the padding."""
    (frames, _), _ = example(labels=6)
    joint, key = make_joint(dropout=0.5), jax.random.key(0)
    value = np.asarray(dropped_loss(joint, frames, key))
    for same in (jax.random.PRNGKey(0), jax.random.split(key, 4)):
        losses = dropped_loss(joint, frames, same, padding=5, chunk=64)
        np.testing.assert_allclose(losses, value, rtol=1e-5)
    other = np.asarray(dropped_loss(joint, frames, jax.random.key(1)))
    assert np.all(np.abs(other - value) > 1e-3)


def test_dropout_is_the_same_forward_and_backward():
    """The gradient is the derivative of the value under the same key; without a key none drops."""
    (frames, _), _ = example(labels=6)
    joint, key = make_joint(dropout=0.5), jax.random.key(0)

    def loss(frames):
        return dropped_loss(joint, frames, key)

    direction = np.random.default_rng(0).normal(size=frames.shape).astype(np.float32)
    (value, (gradient,)), (up, _), (down, _) = (
        jax.device_get(losses_and_gradients(loss, (frames + np.float32(step) * direction,), {}))
        for step in (0.0, 1e-3, -1e-3)
    )
    slope = (up.sum() - down.sum()) / 2e-3
    np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=2e-3)
    assert np.all(np.abs(np.asarray(dropped_loss(joint, frames, None)) - value) > 1e-3)


def test_padding_and_impossible_utterances():
    """Whatever lies in the padding; and what no alignment fits has no gradient."""
    (frames, states), (labels, num_frames, _) = example()
    joint, durations = make_joint(2), (1, 2)
    num_labels = np.array([3, 1, 3, 1], np.int32)  # one label in one frame: impossible

    @jax.jit
    def loss_and_gradients(frames, states, labels):
        losses, pull = jax.vjp(
            lambda *x: tdt.transducer_loss(
                joint, *x, labels, num_frames, num_labels, durations=durations
            ),
            frames,
            states,
        )
        return losses, pull(jnp.ones_like(losses))

    value = tdt.transducer_loss(
        joint, frames, states, labels, num_frames, num_labels, durations=durations
    )
    assert np.all(value[:3] < 1e3) and value[3] > 1e29
    losses, (to_frames, to_states) = jax.device_get(
        loss_and_gradients(
            np.pad(frames, ((0, 0), (0, 7), (0, 0)), constant_values=99.0),
            np.pad(states, ((0, 0), (0, 6), (0, 0)), constant_values=99.0),
            np.pad(labels, ((0, 0), (0, 6)), constant_values=-5),
        )
    )
    np.testing.assert_allclose(losses[:3], value[:3], rtol=1e-6)
    assert np.all(np.isfinite(to_frames)) and not np.any(to_frames[3])
    for b in range(4):
        assert not np.any(to_frames[b, num_frames[b] :])
        assert not np.any(to_states[b, num_labels[b] + 1 :])


@functools.cache
def gradient_memory(is_dropped, batch=4, frames=128, labels=24, vocab=1023, width=64):
    """Bytes that the compiled gradient needs beside its inputs and outputs."""
    shapes = (batch, frames, 6), (batch, labels + 1, 5)
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    shapes = (batch, labels), (batch,), (batch,)
    lengths = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes]

    def loss(joint, *arrays):
        key = jax.random.key(0) if is_dropped else None
        return tdt.transducer_loss(joint, *arrays, durations=(0, 1), chunk=256, key=key).sum()

    joint = make_joint(2, dropout=0.5, width=width, vocab=vocab)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    compiled = gradient.lower(joint, *inputs, *lengths).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_never_holds_the_logits():
    """No array of the logits' size is alive in the compiled gradient."""
    logits = 4 * 128 * 25 * (1024 + 2) * 4
    assert gradient_memory(False) < logits / 4


@pytest.mark.slow
def test_dropout_makes_no_gradient_of_the_joint_for_each_tile():
    """One sum over all nodes of a group, whether a key is given or not."""
    tile = 1024 * 64 * 4  # bytes of a head's gradient; a group has 16 tiles
    assert gradient_memory(True) < gradient_memory(False) + 4 * tile
