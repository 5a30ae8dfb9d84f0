"""The kernel of the recursions, by Pallas' interpreter; compiled where a compiler is installed."""

import functools
import importlib.util
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas
from jax.sharding import SingleDeviceSharding
from lattice_oracle import brute_force, log_softmax

from tdt_jax.losses import lattice, lattice_kernel
from tdt_jax.losses.recursion import Recursion, Step
from tdt_jax.profiling import target as targets
from tdt_jax.runtime import backend

PLATFORMS = pytest.mark.parametrize("platform", ["tpu", "gpu"])
BOTH = Recursion(forward=True), Recursion(forward=False)
DURATIONS = [
    ((1, 2), (0, 1, 2)),
    ((1,), (0,)),  # RNN-T
    *(
        pytest.param(*pair, marks=pytest.mark.slow)
        for pair in [
            ((1, 2, 3, 4), (0, 1, 2, 3, 4)),
            ((1, 2), (1, 2)),
            ((2, 5), (0, 2, 5)),
            ((1, 2, 60), (0, 1, 2, 60)),  # beyond a lattice
        ]
    ),
]


def example(blank_durations, label_durations, batch=9, frames=37, labels=5, scale=1.0):
    """Random arcs of a batch with ragged lengths, some of them too short for their labels."""
    rng = np.random.default_rng(frames + labels)
    sizes = (labels + 1, len(blank_durations)), (labels, len(label_durations))
    blank, label = (
        -scale * rng.exponential(size=(batch, frames, *size)).astype(np.float32) for size in sizes
    )
    num_frames = rng.integers(0, frames + 1, batch).astype(np.int32)
    num_labels = rng.integers(0, labels + 1, batch).astype(np.int32)
    num_frames[:2], num_labels[:2] = (frames, 1), labels
    return blank, label, num_frames, num_labels


def posteriors_and_gradients(durations, *arguments):
    """Returns the log-likelihoods, and their gradients by the custom rule."""

    def total(blank, label):
        totals = jax.vmap(lambda *x: lattice.log_likelihood(*x, *durations))(
            blank, label, *arguments[2:]
        )
        return jnp.sum(totals), totals

    return jax.value_and_grad(total, (0, 1), has_aux=True)(*arguments[:2])


def best_paths(durations, *arguments):
    return jax.vmap(lambda *x: lattice.best_path(*x, *durations))(*arguments)


def compare_with_scan(function, platform, *arguments):
    """Asserts that the kernel's results are those of the scan, up to rounding; returns them."""
    expected = jax.device_get(jax.jit(function)(*arguments))
    with backend.assume(platform, kernels=True, interpret=True):
        result = jax.device_get(jax.jit(function)(*arguments))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-6, 1e-6), result, expected)
    return result


@PLATFORMS
@pytest.mark.parametrize(("blank_durations", "label_durations"), DURATIONS)
def test_likelihoods_and_posteriors_are_those_of_the_scan(
    platform, blank_durations, label_durations
):
    """42 diagonals are two blocks of a TPU, and 9 utterances two of its programs."""
    durations = blank_durations, label_durations
    function = functools.partial(posteriors_and_gradients, durations)
    compare_with_scan(function, platform, *example(*durations))


@PLATFORMS
@pytest.mark.parametrize(("blank_durations", "label_durations"), DURATIONS)
def test_best_paths_are_those_of_the_scan(platform, blank_durations, label_durations):
    durations = blank_durations, label_durations
    function = functools.partial(best_paths, durations)
    compare_with_scan(function, platform, *example(*durations))


@PLATFORMS
@pytest.mark.parametrize(("frames", "labels"), [(1, 0), (3, 130)])
def test_the_smallest_and_a_wide_lattice(platform, frames, labels):
    """One frame without labels; 131 columns are two registers of a TPU."""
    durations = (1,), (0,)
    function = functools.partial(posteriors_and_gradients, durations)
    compare_with_scan(function, platform, *example(*durations, 2, frames, labels))


@PLATFORMS
def test_whole_nats_are_exact(platform):
    """A log-likelihood of thousands of nats leaves float32 few digits after the point."""
    durations = (1,), (0,)
    function = functools.partial(posteriors_and_gradients, durations)
    (_, totals), _ = compare_with_scan(function, platform, *example(*durations, 2, 90, 30, 100.0))
    assert -1e5 < totals[0] < -2000


@PLATFORMS
def test_one_utterance_equals_every_path(platform):
    """Without a batch, as `vmap` is not needed."""
    durations = (0, 1, 2)
    rng = np.random.default_rng(7)
    tokens, lengths = (rng.normal(size=(5, 4, n)).astype(np.float32) for n in (5, 3))
    labels = np.array([2, 0, 3], np.int32)
    expected = brute_force(tokens, lengths, labels, 5, 3, durations)
    tokens, lengths = log_softmax(tokens), log_softmax(lengths)
    blank = tokens[..., -1:] + lengths[..., 1:]
    label = np.take_along_axis(tokens[:, :-1], labels[None, :, None], -1) + lengths[:, :-1]
    with backend.assume(platform, kernels=True, interpret=True):
        function = jax.jit(lattice.log_likelihood, static_argnums=(4, 5))
        total = function(blank, label, np.int32(5), np.int32(3), durations[1:], durations)
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def operations(jaxpr):
    """Yields the names of all operations of a program but those within its kernels."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        if equation.primitive.name != "pallas_call":
            for inner in jax.tree.leaves(list(equation.params.values())):
                inner = getattr(inner, "jaxpr", inner)
                yield from operations(inner) if hasattr(inner, "eqns") else ()


@PLATFORMS
@pytest.mark.parametrize(("labels", "launches"), [(5, {"pallas_call": 1}), (9000, {"scan": 1})])
def test_a_loss_and_its_gradient_are_one_launch(platform, labels, launches):
    """Unless the lattice is too large for the kernel."""
    durations = (1, 2), (0, 1, 2)
    lengths = [jax.ShapeDtypeStruct((9,), jnp.int32)] * 2
    arcs = [
        jax.ShapeDtypeStruct(size, jnp.float32)
        for size in ((9, 8, labels + 1, 2), (9, 8, labels, 3))
    ]
    with backend.assume(platform, kernels=True):
        function = functools.partial(posteriors_and_gradients, durations)
        found = list(operations(jax.make_jaxpr(function)(*arcs, *lengths).jaxpr))
    counts = {name: found.count(name) for name in ("pallas_call", "scan", "while")}
    assert {name: count for name, count in counts.items() if count} == launches


def test_a_jax_without_triton_scans(monkeypatch):
    monkeypatch.delattr(pallas, "triton", raising=False)
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    with backend.assume("gpu", kernels=True):
        assert not lattice_kernel.fits(6, [], BOTH)


def test_long_utterances_fit_a_tpu():
    steps = [Step(d, emitted) for emitted in (0, 1) for d in (1, 2, 3, 4)] + [Step(0, 1)]
    with backend.assume("tpu"):
        assert lattice_kernel.fits(601, steps, BOTH)


def compiled(name):
    """Returns the text of the compiled gradient for 16 utterances of 40 frames and 10 labels."""
    target = targets.find(name)
    durations = (1, 2, 3, 4), (0, 1, 2, 3, 4)
    sharding = SingleDeviceSharding(target.devices[0])
    arguments = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
        for x in example(*durations, 16, 40, 10)
    ]
    with backend.assume(target.platform, kernels=True), targets.lowering(target):
        function = functools.partial(posteriors_and_gradients, durations)
        return jax.jit(function).lower(*arguments).compile().as_text()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2"])
def test_a_tpu_launches_one_kernel(topology):
    program = compiled(topology)
    assert program.count('custom_call_target="tpu_custom_call"') == 1
    assert " while(" not in program


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None
    or "JAX_SKIP_CUDA_CONSTRAINTS_CHECK" not in os.environ,
    reason="needs jax's plugin for CUDA, and JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1",
)
def test_a_gpu_launches_one_kernel():
    program = compiled("h100")
    assert program.count('custom_call_target="__gpu$xla.gpu.triton"') == 1
    assert " while(" not in program
