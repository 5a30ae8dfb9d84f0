"""Depthwise convolutions and their written-out gradients against XLA's grouped convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tdt_jax.models.depthwise import depthwise, depthwise_stride2
from tdt_jax.runtime import backend


def grouped(x, kernel):
    """`depthwise` by lax.conv_general_dilated."""
    return jax.lax.conv_general_dilated(
        x, kernel[:, None], (1,), "VALID",
        dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=kernel.shape[-1],
    )  # fmt: skip


def grouped_stride2(x, kernel):
    """`depthwise_stride2` by lax.conv_general_dilated."""
    return jax.lax.conv_general_dilated(
        x, kernel[:, :, None], (2, 2), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=kernel.shape[-1],
    )  # fmt: skip


CASES = [  # size of x, size of the kernel; odd, even, a single output
    (depthwise, grouped, (2, 19, 3), (9, 3)),
    (depthwise, grouped, (1, 12, 5), (9, 5)),
    (depthwise, grouped, (3, 3, 2), (3, 2)),
    (depthwise, grouped, (2, 6, 2), (1, 2)),
    (depthwise_stride2, grouped_stride2, (2, 10, 9, 3), (3, 3, 3)),
    (depthwise_stride2, grouped_stride2, (2, 9, 10, 3), (3, 3, 3)),
    (depthwise_stride2, grouped_stride2, (1, 39, 7, 2), (3, 3, 2)),
    (depthwise_stride2, grouped_stride2, (3, 3, 3, 2), (3, 3, 2)),
    (depthwise_stride2, grouped_stride2, (1, 4, 4, 1), (3, 3, 1)),
]


@pytest.mark.parametrize(("ours", "theirs", "size", "kernel_size"), CASES)
def test_values_and_gradients(ours, theirs, size, kernel_size):
    """Sums of at most a few hundred products of order one: float32 keeps 1e-5."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=size).astype(np.float32)
    kernel = rng.normal(size=kernel_size).astype(np.float32)

    def outputs(convolution, x, kernel, direction):
        y, back = jax.vjp(convolution, x, kernel)
        return y, *back(direction)

    shape = jax.eval_shape(theirs, x, kernel).shape
    direction = rng.normal(size=shape).astype(np.float32)
    both = jax.jit(lambda *x: (outputs(ours, *x), outputs(theirs, *x)))
    for actual, expected in zip(*both(x, kernel, direction), strict=True):
        assert actual.shape == expected.shape and actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("ours", "theirs", "size", "kernel_size"), [CASES[0], CASES[4]])
def test_bfloat16_stays_bfloat16(ours, theirs, size, kernel_size):
    """Values and gradients keep the dtype and stay within its 2^-8 of a sum's largest terms."""
    rng = np.random.default_rng(1)
    x, kernel = (rng.normal(size=s).astype(jnp.bfloat16) for s in (size, kernel_size))

    def outputs(convolution, x, kernel):
        y, back = jax.vjp(convolution, x, kernel)
        return y, *back(jnp.ones_like(y))

    half = jax.jit(lambda *x: outputs(ours, *x))(x, kernel)
    full = [np.asarray(y, np.float32) for y in (x, kernel)]
    for actual, expected in zip(half, jax.jit(lambda *x: outputs(theirs, *x))(*full), strict=True):
        assert actual.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(actual, np.float32), expected, rtol=0.02, atol=0.1)


def test_the_program_of_a_gpu_does_not_grow_with_the_frames():
    """Sums in many steps become one kernel there, which takes minutes to compile."""

    def size(num_frames):
        def gradients(x, kernel):
            y, back = jax.vjp(depthwise_stride2, x, kernel)
            return back(y)

        shapes = jnp.zeros((1, num_frames, 5, 2)), jnp.zeros((3, 3, 2))
        with backend.assume("gpu"):
            return str(jax.make_jaxpr(gradients)(*shapes)).count("\n")

    assert size(1001) == size(21)
