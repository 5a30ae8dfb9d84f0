"""Depthwise convolutions as sums of shifted products, with closed-form gradients.

A depthwise convolution multiplies few numbers and moves many, so a sum of k shifted products is
enough, and XLA fuses it into one loop. XLA's own grouped convolution is some fifty times slower on
CPU. The gradients are written out because the gradient of a slice, taken k times, is k padded
copies. A TPU has a unit for convolutions and no cheap way to take every second row. There XLA's own
convolution takes a third of the time, with a stride a fifth, as its compiler estimates.
"""

import jax
import jax.numpy as jnp

from tdt_jax.runtime import backend


def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the depthwise convolution along time, without padding: [B, T - k + 1, D].

    y[b, t, d] = sum_i x[b, t + i, d] kernel[i, d]

    Args:
      x: [B, T, D].
      kernel: [k, D].
    """
    if backend.current() != "tpu":
        return _shifted(x, kernel)
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, None],
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=x.shape[-1],
    )


def depthwise_stride2(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the depthwise 3 x 3 convolution of stride 2, without padding.

    y[b, t, f, c] = sum_ij x[b, 2t + i, 2f + j, c] kernel[i, j, c]

    Args:
      x: [B, M, F, C].
      kernel: [3, 3, C].

    Returns:
      [B, (M - 1) // 2, (F - 1) // 2, C].
    """
    if backend.current() != "tpu":
        return _shifted_stride2(x, kernel)
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        window_strides=(2, 2),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@jax.custom_vjp
def _shifted(x, kernel):
    size = kernel.shape[0]
    num_frames = x.shape[1] - size + 1
    return sum(x[:, i : i + num_frames] * kernel[None, i : i + 1] for i in range(size))


def _shifted_forward(x, kernel):
    return _shifted(x, kernel), (x, kernel)


def _shifted_backward(residuals, gradient):
    x, kernel = residuals
    size, num_frames = kernel.shape[0], gradient.shape[1]
    products = [
        jnp.sum(x[:, i : i + num_frames] * gradient, axis=(0, 1), dtype=jnp.float32)
        for i in range(size)
    ]
    padded = jnp.pad(gradient, ((0, 0), (size - 1, size - 1), (0, 0)))
    return _shifted(padded, kernel[::-1]), jnp.stack(products).astype(kernel.dtype)


_shifted.defvjp(_shifted_forward, _shifted_backward)


@jax.custom_vjp
def _shifted_stride2(x, kernel):
    weights = kernel.reshape(9, 1, 1, 1, kernel.shape[-1])
    return sum(view * weight for view, weight in zip(_windows(x), weights, strict=True))


def _shifted_stride2_forward(x, kernel):
    return _shifted_stride2(x, kernel), (x, kernel)


def _shifted_stride2_backward(residuals, gradient):
    x, kernel = residuals
    products = [_sum(view * gradient) for view in _windows(x)]
    kernel_gradient = jnp.stack(products).reshape(kernel.shape).astype(kernel.dtype)

    batch, rows, columns, channels = x.shape
    padded = jnp.pad(gradient, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = gradient.shape[1] + 1, gradient.shape[2] + 1

    def phase(p, q):
        """The gradient of the even (0) or odd (1) rows p and columns q of x."""
        return sum(
            padded[:, 1 - i // 2 : 1 - i // 2 + height, 1 - j // 2 : 1 - j // 2 + width]
            * kernel[None, None, None, i, j]
            for i in range(p, 3, 2)
            for j in range(q, 3, 2)
        )

    phases = jnp.stack([jnp.stack([phase(p, q) for q in range(2)], 3) for p in range(2)], 2)
    x_gradient = phases.reshape(batch, 2 * height, 2 * width, channels)
    return x_gradient[:, :rows, :columns], kernel_gradient


_shifted_stride2.defvjp(_shifted_stride2_forward, _shifted_stride2_backward)


def _windows(x):
    """Returns the nine shifted views that a 3 x 3 convolution of stride 2 sums.

    Each is [B, (M - 1) // 2, (F - 1) // 2, C] of x [B, M, F, C]; they come row by row.
    """
    rows, columns = (x.shape[1] - 1) // 2, (x.shape[2] - 1) // 2
    phases = _phases(x)
    return [
        phases[i % 2][j % 2][:, i // 2 : i // 2 + rows, j // 2 : j // 2 + columns]
        for i in range(3)
        for j in range(3)
    ]


def _phases(x):
    """Returns 2 x 2 arrays, the even and odd rows and columns of x [B, M, F, C].

    The 3 x 3 window of output (t, f) covers rows 2t, 2t + 1, 2t + 2 of x, which are even[t],
    odd[t], even[t + 1]. Columns alike.
    """
    batch, rows, columns, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
    x = x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)
    return [[x[:, :, p, :, q] for q in range(2)] for p in range(2)]


def _sum(products):
    """Sums [B, T, F, C] over all but C, in float32: [C].

    On a CPU it halves time a few times before it reduces the rest. There XLA, when it reduces over
    leading axes what it computes on the fly, takes an element at a time on one core (six times
    slower). On a GPU it would fuse all halvings, and compile for minutes.
    """
    products = products.astype(jnp.float32)
    while products.shape[1] > 8 and backend.current() == "cpu":
        products = jnp.pad(products, ((0, 0), (0, products.shape[1] % 2), (0, 0), (0, 0)))
        half = products.shape[1] // 2
        products = products[:, :half] + products[:, half:]
    return jnp.sum(products, axis=(0, 1, 2))
