"""The loss without logits against the loss on logits: values, gradients, memory, what it skips."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import num_compilations
from flax import nnx

import tdt_jax as tdt
from tdt_jax.config import JointConfig
from tdt_jax.losses import lattice
from tdt_jax.losses.grid import tiles_with_mass
from tdt_jax.losses.nodes import plan_joint, score_nodes
from tdt_jax.losses.scores import log_likelihoods_and_posteriors, make_spec
from tdt_jax.models.joint import Joint


def make_joint(durations, *, dropout=0.0, dtype=jnp.float32, width=12, vocab=4):
    return Joint(
        JointConfig(width=width, dropout=dropout), frame_width=6, state_width=5, vocab_size=vocab,
        num_durations=len(durations or ()), dtype=dtype, rngs=nnx.Rngs(0),
    )  # fmt: skip


def example(seed=9, frames=9, labels=3, dtype=np.float32):
    """Frames, states, and labels with ragged lengths, of four utterances."""
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.normal(size=(4, frames, 6)), dtype),
        jnp.asarray(rng.normal(size=(4, labels + 1, 5)), dtype),
    ), (
        rng.integers(0, 4, size=(4, labels)).astype(np.int32),
        np.array([frames, frames // 2 + 1, frames - 1, 1], np.int32),
        np.array([labels, labels // 2, labels, 0], np.int32),
    )


def whole_loss(joint, frames, states, lengths, durations, as_rnnt=False, **options):
    """`tdt_loss` or `rnnt_loss` on all the joint's logits."""
    tokens, duration_logits = joint(frames, states)
    if durations is None or as_rnnt:
        options.pop("sigma", None)
        return tdt.rnnt_loss(tokens, *lengths, **options)
    return tdt.tdt_loss(tokens, duration_logits, *lengths, durations=durations, **options)


def assert_same(lean, whole, inputs, rtol=2e-6, atol=4e-6):
    """Values, and the gradients in all inputs: `atol` times the largest entry, if above 1."""

    def both(f):
        losses, gradients = jax.vjp(f, *inputs)
        return losses, jax.tree.leaves(gradients(jnp.ones_like(losses)))

    (value, gradients), (expected, expected_gradients) = (
        jax.jit(lambda f=f: both(f))() for f in (lean, whole)
    )
    np.testing.assert_allclose(value, expected, rtol=rtol)
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert a.dtype == b.dtype
        a, b = np.float32(a), np.float32(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize(
    ("durations", "chunk"),
    [((0, 1, 2), 1), ((0, 1, 2), 64), ((0, 1, 2), 10_000), (None, 48), ((1, 2), 48), ((2, 3), 48),
     ((0, 2, 5), 48)],
)  # fmt: skip
def test_equals_the_loss_on_full_logits(durations, chunk):
    inputs, lengths = example()
    options = dict(fastemit=0.1) if durations is None else dict(fastemit=0.1, sigma=0.05)
    assert_same(
        lambda joint, *x: tdt.transducer_loss(
            joint, *x, *lengths, durations=durations, chunk=chunk, **options
        ),
        lambda joint, *x: whole_loss(joint, *x, lengths, durations, **options),
        (make_joint(durations), *inputs),
    )


@pytest.mark.parametrize("durations", [(0, 1, 2), (1, 2), None])
def test_no_label_is_said_in_the_lead(durations):
    """Its arcs are none; the probabilities of the others stay what they are."""
    inputs, lengths = example()
    lead = np.array([3, 1, 0, 0], np.int32)
    is_tdt = durations is not None
    sigma = 0.05 if is_tdt else 0.0

    def without_arcs(joint, frames, states):
        labels, num_frames, num_labels = lengths
        tokens, lasting = joint(frames, states)
        tokens = jax.nn.log_softmax(tokens) - sigma
        following = jnp.pad(labels, ((0, 0), (0, 1)))[:, None, :, None]
        label = jnp.take_along_axis(tokens, following, axis=-1)[:, :, :-1]
        blank = tokens[..., -1:]
        label = jnp.where(
            jnp.arange(9)[None, :, None, None] < lead[:, None, None, None], -1e30, label
        )
        lasts = (1,), (0,)
        if is_tdt:
            lasting = jax.nn.log_softmax(lasting)
            first = durations.index(1)
            blank, label = blank + lasting[..., first:], label + lasting[:, :, :-1]
            lasts = durations[first:], durations
        total = jax.vmap(lambda *x: lattice.log_likelihood(*x, *lasts))
        return -total(blank, label, num_frames, num_labels)

    assert_same(
        lambda joint, *x: tdt.transducer_loss(
            joint, *x, *lengths, durations=durations, sigma=sigma, lead=lead
        ),
        without_arcs,
        (make_joint(durations), *inputs),
    )
    with pytest.raises(ValueError, match=r"lead must be \[4\], got \(3,\)"):
        tdt.transducer_loss(
            make_joint(durations), *inputs, *lengths, durations=durations, lead=lead[:3]
        )


@pytest.mark.slow
@pytest.mark.parametrize("durations", [(0, 1, 2, 3, 4), None])
def test_equals_it_where_most_tiles_are_left_out(durations):
    """A lattice so large that the default leaves out nodes which do have a posterior."""
    inputs, lengths = example(frames=120, labels=36)
    options = dict(durations=durations, chunk=256)
    spec = make_spec(durations)
    plan, *rest = plan_joint(make_joint(durations), *inputs, *lengths, durations, chunk=256)
    _, scores = score_nodes(plan, spec, *rest, *lengths)
    _, posteriors = log_likelihoods_and_posteriors(scores, *lengths[1:], spec)
    mass = plan.grid.split_nodes(posteriors.blank + posteriors.label).sum((1, 2))
    left_out = np.asarray(mass)[~np.asarray(tiles_with_mass(mass, plan.grid, 1e-6))]
    assert np.count_nonzero(left_out) > len(mass) / 10 and left_out.sum() < 4e-6
    assert_same(
        lambda joint, *x: tdt.transducer_loss(joint, *x, *lengths, **options),
        lambda joint, *x: whole_loss(joint, *x, lengths, durations),
        (make_joint(durations), *inputs),
        atol=4e-6,
    )


def table_joint(frames, states):
    """Each frame holds the logits of all its nodes; each state is one-hot and picks them."""
    logits = jnp.einsum("ntuv,nsu->ntsv", frames.reshape(*frames.shape[:2], 25, -1), states)
    return logits[..., :6], logits[..., 6:]


@pytest.mark.parametrize("neglect", [0.0, 1e-3, 0.3])
def test_neglect_bounds_the_error_of_the_gradient(neglect):
    """In the sum of absolute values over all logits of an utterance, by (4 + 2 fastemit) neglect.

    Something is left out unless it is 0, which is as exact as float32 on the full logits.
    """
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(2, 60, 25 * 11)).astype(np.float32)
    states = jnp.broadcast_to(jnp.eye(25), (2, 25, 25))
    lengths = rng.integers(0, 5, (2, 24)).astype(np.int32), np.array([60, 41]), np.array([24, 20])
    options = dict(durations=(0, 1, 2, 3, 4), fastemit=0.1)
    lean, exact = (
        jax.grad(lambda x, f=f: f(x).sum())(tables)
        for f in (
            lambda x: tdt.transducer_loss(
                table_joint, x, states, *lengths, neglect=neglect, chunk=64, **options
            ),
            lambda x: tdt.tdt_loss(*table_joint(x, states), *lengths, **options),
        )
    )
    error = np.abs(lean - exact).sum((1, 2))
    assert np.all(error <= (4 + 2 * 0.1) * neglect + 1e-4)
    assert np.all(error > 1e-4) if neglect else np.all(np.abs(lean - exact) < 2e-6)


@pytest.mark.parametrize("durations", [(0, 1, 2), (2, 3)])
@pytest.mark.parametrize("as_rnnt", [True, False])
def test_as_rnnt_is_the_rnnt_loss(durations, as_rnnt):
    """Value and gradients are those of `rnnt_loss` where asked, of `tdt_loss` where not."""
    inputs, (labels, num_frames, num_labels) = example(frames=17)
    lengths = labels, num_frames, np.minimum(num_labels, 2)
    assert_same(
        lambda joint, *x: tdt.transducer_loss(
            joint, *x, *lengths, durations=durations, sigma=0.05, fastemit=0.1,
            as_rnnt=jnp.array(as_rnnt),
        ),
        lambda joint, *x: whole_loss(
            joint, *x, lengths, durations, as_rnnt=as_rnnt, sigma=0.05, fastemit=0.1
        ),
        (make_joint(durations), *inputs),
        atol=5e-5,
    )  # fmt: skip


def mlp(parameters, frames, states):
    """A joint network of one's own: two hidden layers, tanh, one head for all."""
    hidden = (frames @ parameters["frame"])[:, :, None] + (states @ parameters["state"])[:, None]
    logits = jnp.tanh(jnp.tanh(hidden) @ parameters["hidden"]) @ parameters["head"]
    return logits[..., :5], logits[..., 5:]


def mlp_parameters():
    rng = np.random.default_rng(1)
    sizes = {"frame": (6, 10), "state": (5, 10), "hidden": (10, 7), "head": (7, 8)}
    return {name: jnp.asarray(rng.normal(size=size), jnp.float32) for name, size in sizes.items()}


@pytest.mark.parametrize("form", ["closure", "pytree", "rnnt"])
def test_any_joint_function(form):
    """A function that closes over its parameters, or a pytree that is called; without durations."""
    inputs, lengths = example()
    durations = None if form == "rnnt" else (0, 1, 2)

    def lean(parameters, *x):
        joint = jax.tree_util.Partial(mlp, parameters)
        if form == "closure":
            joint = functools.partial(mlp, parameters)  # a leaf: no pytree
        if form == "rnnt":
            joint = jax.tree_util.Partial(lambda *y: mlp(*y)[0], parameters)
        return tdt.transducer_loss(joint, *x, *lengths, durations=durations)

    def whole(parameters, *x):
        return whole_loss(functools.partial(mlp, parameters), *x, lengths, durations)

    assert_same(lean, whole, (mlp_parameters(), *inputs))


def test_a_function_is_taken_as_it_is_now():
    """Not as it was: its constants may change between calls, and be traced, integers and keys."""
    inputs, lengths = example()
    parameters = mlp_parameters()

    def joint(*x):
        return mlp(parameters, *x)

    def loss():
        return tdt.transducer_loss(joint, *inputs, *lengths, durations=(0, 1, 2))

    before = loss()
    parameters["head"] = 2 * parameters["head"]
    expected = whole_loss(joint, *inputs, lengths, (0, 1, 2))
    assert np.all(np.abs(before - expected)[:3] > 1e-2)
    np.testing.assert_allclose(loss(), expected, rtol=2e-6)

    def masked(parameters, mask, key, *x):
        tokens, durations = mlp(parameters, *x)
        noise = jax.random.normal(key, (5,))
        shift = mask.astype(jnp.float32) + noise
        return tokens + shift[None, None, None], durations

    parameters = mlp_parameters()
    rest = jnp.arange(5), jax.random.key(3)
    for form in (functools.partial, jax.tree_util.Partial):
        gradients = [
            jax.jit(jax.grad(lambda parameters, rest, loss=loss: loss(parameters, rest).sum()))(
                parameters, rest
            )
            for loss in (
                lambda parameters, rest, form=form: tdt.transducer_loss(
                    form(masked, parameters, *rest), *inputs, *lengths, durations=(0, 1, 2)
                ),
                lambda parameters, rest: whole_loss(
                    functools.partial(masked, parameters, *rest), *inputs, lengths, (0, 1, 2)
                ),
            )
        ]
        for a, b in zip(*(jax.tree.leaves(x) for x in gradients), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_joint_sees_only_frames_and_states_that_there_are():
    """Tiles are filled up with copies: what is undefined at zero stays away from it."""
    (frames, states), lengths = example()
    parameters = mlp_parameters()

    def joint(frames, states):
        frames = frames / jnp.linalg.norm(frames, axis=-1, keepdims=True)
        states = states / jnp.linalg.norm(states, axis=-1, keepdims=True)
        return mlp(parameters, frames, states)

    gradients = jax.grad(
        lambda *x: tdt.transducer_loss(joint, *x, *lengths, durations=(0, 1, 2)).sum(), (0, 1)
    )(frames, states)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_visits_the_possible_tiles_alone():
    """Nodes elsewhere have no scores, and their number does not grow with padding."""
    visited = []
    for padding in (0, 16):
        (frames, states), (labels, *counts) = example(frames=32, labels=12)
        pad = ((0, 0), (0, padding))
        lengths = np.pad(labels, pad), *counts
        inputs = (jnp.pad(x, (*pad, (0, 0))) for x in (frames, states))
        plan, *rest = plan_joint(make_joint((0, 1, 2)), *inputs, *lengths, (0, 1, 2), chunk=32)
        _, scores = score_nodes(plan, make_spec((0, 1, 2)), *rest, *lengths)
        is_scored = np.asarray(scores.blank > -1e29)
        for b, (num_frames, num_labels) in enumerate(zip(*counts, strict=True)):
            assert np.all(is_scored[b, :num_frames, : num_labels + 1])
        visited.append(np.asarray(plan.grid.split_nodes(is_scored)).any((1, 2)))
    assert visited[0].sum() < 0.65 * visited[0].size < visited[1].size
    assert abs(visited[0].sum() - visited[1].sum()) <= 1  # two tiles at a time
    assert tdt.transducer_loss.__kwdefaults__["neglect"] == 1e-6


def test_is_compiled_once_for_a_shape():
    (frames, states), lengths = example(frames=11)
    joint = make_joint((0, 1, 2))

    def _loss(frames):  # by the name of the program that is counted
        return tdt.transducer_loss(joint, frames, states, *lengths, durations=(0, 1, 2))

    assert num_compilations(_loss, frames) == 1
    assert num_compilations(_loss, frames + 1) == 0


def test_rnnt_loss_of_a_joint_with_durations():
    """The token head alone counts."""
    inputs, lengths = example()
    joint = make_joint((0, 1, 2))

    def lean(joint, *x):
        return tdt.transducer_loss(joint, *x, *lengths, durations=None)

    assert_same(lean, lambda joint, *x: whole_loss(joint, *x, lengths, None), (joint, *inputs))
    gradient = jax.grad(lambda joint: lean(joint, *inputs).sum())(joint)
    assert not np.any(gradient.duration_head.kernel[...])


def test_bfloat16_activations():
    """Value and gradients are those on the same bfloat16 joint's logits; heads' in float32."""
    durations = (0, 1, 2)
    inputs, lengths = example(dtype=jnp.bfloat16)
    assert_same(
        lambda joint, *x: tdt.transducer_loss(joint, *x, *lengths, durations=durations),
        lambda joint, *x: whole_loss(joint, *x, lengths, durations),
        (make_joint(durations, dtype=jnp.bfloat16), *inputs),
        rtol=2e-5,
        atol=0.01,  # one or two of bfloat16's 8 bits
    )


def test_dropout_is_the_same_forward_and_backward_whatever_the_chunk():
    """The gradient is the derivative of the value under the same key."""
    (frames, states), lengths = example(labels=6)
    joint = make_joint((0, 1, 2), dropout=0.5)

    def loss(frames, key, chunk=32):
        return tdt.transducer_loss(
            joint, frames, states, *lengths, durations=(0, 1, 2), chunk=chunk, key=key
        )

    key = jax.random.key(0)
    value = loss(frames, key)
    np.testing.assert_allclose(value, loss(frames, key, 64), rtol=1e-5)
    np.testing.assert_allclose(value, loss(frames, jax.random.split(key, 4)), rtol=1e-5)
    np.testing.assert_allclose(value, loss(frames, jax.random.PRNGKey(0)), rtol=1e-5)
    (_, states), lengths = (frames, jnp.pad(states, ((0, 0), (0, 5), (0, 0)))), (
        np.pad(lengths[0], ((0, 0), (0, 5))), *lengths[1:],
    )  # fmt: skip
    np.testing.assert_allclose(value, loss(frames, key), rtol=1e-5)  # whatever the padding
    for other in (None, jax.random.key(1)):
        assert np.all(np.abs(value - loss(frames, other)) > 1e-3)
    gradient = jax.grad(lambda frames: loss(frames, key).sum())(frames)
    direction = np.random.default_rng(0).normal(size=frames.shape).astype(np.float32)
    up, down = (loss(frames + step * direction, key).sum() for step in (1e-3, -1e-3))
    np.testing.assert_allclose(np.vdot(gradient, direction), (up - down) / 2e-3, rtol=2e-3)


def test_dropout_makes_no_gradient_of_the_joint_a_tile():
    """One sum over all nodes of a group, whether a key is given or not."""
    (frames, states), lengths = example(frames=40, labels=20)
    joint = make_joint((0, 1, 2), dropout=0.5, vocab=511, width=64)

    def memory(key):
        def total(joint):
            options = dict(durations=(0, 1, 2), chunk=256, key=key)
            return tdt.transducer_loss(joint, frames, states, *lengths, **options).sum()

        compiled = jax.jit(jax.grad(total)).lower(joint).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    tile = 512 * 64 * 4  # bytes of a head's gradient; a group has 16 tiles
    assert memory(jax.random.key(0)) < memory(None) + 4 * tile


def test_padding_and_impossible_utterances():
    """Whatever lies in the padding; and what no alignment fits has no gradient."""
    (frames, states), (labels, num_frames, num_labels) = example()
    joint = make_joint((1, 2))
    num_labels = np.array([3, 1, 3, 1])  # the last has one frame and one label: impossible

    def loss(frames, states, labels):
        return tdt.transducer_loss(
            joint, frames, states, labels, num_frames, num_labels, durations=(1, 2)
        )

    value = loss(frames, states, labels)
    assert np.all(value[:3] < 1e3) and value[3] > 1e29
    padded = (
        jnp.pad(frames, ((0, 0), (0, 7), (0, 0)), constant_values=99.0),
        jnp.pad(states, ((0, 0), (0, 6), (0, 0)), constant_values=99.0),
        np.pad(labels, ((0, 0), (0, 6)), constant_values=-5),
    )
    np.testing.assert_allclose(loss(*padded)[:3], value[:3], rtol=1e-6)
    to_frames, to_states = jax.grad(lambda *x: loss(*x).sum(), (0, 1))(*padded)
    assert np.all(np.isfinite(to_frames)) and not np.any(to_frames[3])
    for b in range(4):
        assert not np.any(to_frames[b, num_frames[b] :])
        assert not np.any(to_states[b, num_labels[b] + 1 :])


def test_never_holds_the_logits():
    """No array of the size of the logits is alive in the compiled gradient."""
    joint = make_joint((0, 1, 2, 3, 4), width=16, vocab=1024)
    batch, frames, labels = 2, 128, 24

    def loss(joint, frames, states, *lengths):
        return tdt.transducer_loss(
            joint, frames, states, *lengths, durations=(0, 1, 2, 3, 4), chunk=256
        ).sum()

    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in [
            ((batch, frames, 6), jnp.float32),
            ((batch, labels + 1, 5), jnp.float32),
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
        (dict(durations=(0, 1)), r"durations \(0, 1\) need duration logits \(1, 2, 3, 2\)"),
        (dict(durations=None, sigma=0.1), "takes neither sigma"),
        (dict(chunk=0), "chunk must be >= 1, got 0"),
        (dict(neglect=1.0), r"neglect must be in \[0, 1\), got 1.0"),
        (dict(states=jnp.zeros((4, 3, 5))), r"states \[B, U\+1, P\]"),
        (dict(frames=jnp.zeros((3, 9, 6))), r"got \(3, 9, 6\)"),
        (dict(num_labels=np.zeros((3,), np.int32)), "num_labels"),
        (dict(joint=lambda f, s: (f @ jnp.ones((6, 5)), None)), "the joint gives token logits"),
        (
            dict(joint=lambda f, s: jnp.swapaxes(mlp(mlp_parameters(), f, s)[0], 1, 2)),
            r"token logits \(1, 3, 2, 5\), not \(1, 2, 3, V\+1\)",
        ),
        (dict(frames=jnp.zeros((4, 0, 6))), "no nodes in 4 utterances of 0 frames"),
        (dict(num_frames=[9, 5, 8, 1]), "num_frames must be an array of integers, got a list"),
        (dict(num_labels=jnp.ones(4)), "num_labels must be an array of integers, got one of float"),
        (
            dict(key=jax.random.split(jax.random.key(0), 3)),
            r"one key or 4, got keys of shape \(3,\)",
        ),
        (dict(joint=table_joint, key=jax.random.key(0)), "a key needs a joint"),
    ],
)
def test_bad_arguments_are_named(change, message):
    (frames, states), (labels, num_frames, num_labels) = example()
    options = dict(
        joint=make_joint((0, 1, 2)), frames=frames, states=states, labels=labels,
        num_frames=num_frames, num_labels=num_labels, durations=(0, 1, 2),
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        tdt.transducer_loss(**{**options, **change})
