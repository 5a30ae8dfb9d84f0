"""Joint networks on tiles: which nodes are evaluated, and which arguments are refused."""

import functools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from flax import nnx
from lattice_oracle import table_joint

import tdt_jax as tdt
from tdt_jax.config import JointConfig
from tdt_jax.losses.nodes import plan_joint, score_nodes
from tdt_jax.losses.scores import make_spec
from tdt_jax.models.joint import Joint

TDT = (0, 1, 2)


@functools.cache
def make_joint():
    sizes = dict(frame_width=6, state_width=5, vocab_size=4, num_durations=3)
    config = JointConfig(width=12)
    return models.build(lambda: Joint(config, **sizes, dtype=jnp.float32, rngs=nnx.Rngs(0)))


def test_only_tiles_that_a_path_can_reach_are_evaluated():
    """Nodes elsewhere have no scores, and the number of tiles does not grow with padding."""
    rng = np.random.default_rng(9)
    num_frames, num_labels = np.array([[32, 17, 31, 1], [12, 6, 12, 0]], np.int32)
    evaluated = []
    for frames, labels in ((32, 12), (48, 28)):
        inputs = [
            rng.normal(size=(4, *shape)).astype(np.float32)
            for shape in ((frames, 6), (labels + 1, 5))
        ]
        lengths = rng.integers(0, 4, (4, labels)).astype(np.int32), num_frames, num_labels
        plan, *rest = plan_joint(make_joint(), *inputs, *lengths, TDT, chunk=32)
        _, scores = jax.jit(score_nodes, static_argnums=0)(plan, make_spec(TDT), *rest, *lengths)
        is_scored = np.asarray(scores.blank) > -1e29
        for b in range(4):
            assert np.all(is_scored[b, : num_frames[b], : num_labels[b] + 1])
        tiles = jax.jit(plan.grid.split_nodes)(is_scored)
        evaluated.append(np.asarray(tiles).any((1, 2)))
    assert evaluated[0].sum() < 0.65 * evaluated[0].size < evaluated[1].size
    assert abs(evaluated[0].sum() - evaluated[1].sum()) <= 1  # two tiles at a time


def zeros(*shape):
    return np.zeros(shape, np.float32)


def arguments(**options):
    lengths = np.zeros((4, 3), np.int32), np.full(4, 9), np.full(4, 3)
    named = dict(zip(("labels", "num_frames", "num_labels"), lengths, strict=True))
    return dict(
        joint=make_joint(), frames=zeros(4, 9, 6), states=zeros(4, 4, 5), **named, **options
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(durations=(1, 0)), "increase strictly"),
        (dict(durations=(0, 1)), r"durations \(0, 1\) need duration logits \(1, 2, 3, 2\)"),
        (dict(durations=None, sigma=0.1), "takes neither sigma"),
        (dict(durations=None, as_rnnt=True), r"nor as_rnnt \(True\)"),
        (dict(fastemit=zeros(4)), r"must be numbers, got arrays of shapes \(\) and \(4,\)"),
        (dict(chunk=0), "chunk must be >= 1, got 0"),
        (dict(neglect=1.0), r"neglect must be in \[0, 1\), got 1.0"),
        (dict(lead=np.zeros(3, np.int32)), r"lead must be \[4\], got \(3,\)"),
        (dict(states=zeros(4, 3, 5)), r"states \[B, U\+1, P\]"),
        (dict(frames=zeros(3, 9, 6)), r"got \(3, 9, 6\)"),
        (dict(num_labels=np.zeros((3,), np.int32)), "num_labels"),
        (dict(joint=lambda f, s: (f @ zeros(6, 5), None)), "the joint gives token logits"),
        (
            dict(joint=lambda f, s: f[:, None, :, :5] + s[:, :, None]),
            r"token logits \(1, 3, 2, 5\), not \(1, 2, 3, V\+1\)",
        ),
        (dict(frames=zeros(4, 0, 6)), "no nodes in 4 utterances of 0 frames"),
        (dict(num_frames=[9, 5, 8, 1]), "num_frames must be an array of integers, got a list"),
        (dict(num_labels=zeros(4)), "num_labels must be an array of integers, got one of float"),
        (dict(key=lambda: jax.random.split(jax.random.key(0), 3)), r"got keys of shape \(3,\)"),
        (dict(joint=table_joint, key=lambda: jax.random.key(0)), "a key needs a joint"),
    ],
)
def test_bad_arguments_are_named(change, message):
    options = arguments(durations=TDT)
    if "key" in change:
        change = dict(change, key=change["key"]())
    with pytest.raises(ValueError, match=message):
        tdt.transducer_loss(**{**options, **change})


def test_an_rnnt_ignores_a_traced_sigma():
    """Which may be that of a schedule: only a Python number is refused."""
    options = arguments(durations=None)
    expected = tdt.transducer_loss(**options)
    np.testing.assert_array_equal(tdt.transducer_loss(**options, sigma=jnp.float32(0.1)), expected)
