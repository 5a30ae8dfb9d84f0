"""Counting the products of a function."""

import jax
import jax.numpy as jnp

from tdt_jax.profiling.flops import product_flops


def test_a_scan_of_products_counts_each():
    def run(x, kernels):
        def body(x, kernel):
            return jax.jit(lambda x, y: jnp.sin(x @ y))(x, kernel), None

        return jax.lax.scan(jax.checkpoint(body), x, kernels)[0]

    shapes = jax.ShapeDtypeStruct((8, 16), jnp.float32), jnp.zeros((5, 16, 16))
    assert product_flops(run, *shapes) == 5 * 2 * 8 * 16 * 16

    def total(*arrays):
        return jnp.sum(run(*arrays))

    again = product_flops(jax.grad(total, argnums=(0, 1)), *shapes)
    assert again == 4 * 5 * 2 * 8 * 16 * 16  # once more, and two for the gradient


def test_a_convolution_counts_what_a_channel_sees():
    def run(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=2
        )

    assert product_flops(run, jnp.zeros((3, 10, 8)), jnp.zeros((5, 4, 6))) == 2 * 3 * 5 * 6 * 5 * 4


def test_the_costliest_branch_counts_and_a_loop_without_a_length_does_not():
    x = jnp.zeros((4, 4))

    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    def loop(x):
        return jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ x, x)

    assert product_flops(branch, x) == 2 * 2 * 4**3
    assert product_flops(loop, x) == 0
