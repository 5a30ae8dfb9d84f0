"""The joint network: token and duration logits of a frame and a predictor state."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tdt_jax.config import JointConfig
from tdt_jax.models.layers import dropout
from tdt_jax.runtime import backend

# With so many rows and labels, a CPU computes two products of half the inputs faster than one.
FEW_ROWS, MANY_LABELS = 4, 4096
LANES, GPU_COLUMNS = 128, 8  # a TPU and a GPU compute a product's columns in multiples of these

Logits = tuple[jax.Array, jax.Array | None]  # of tokens and durations


class Joint(nnx.Module):
    """head(ReLU(linear(frame) + linear(state))), with a head for tokens and one for durations.

    Logits are float32 whatever the dtype of the computation. An RNN-T has no duration head.
    """

    def __init__(
        self,
        config: JointConfig,
        *,
        frame_width: int,
        state_width: int,
        vocab_size: int,
        num_durations: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        width = config.width
        linear = functools.partial(
            nnx.Linear, dtype=dtype, rngs=rngs, precision=jax.lax.Precision.HIGHEST
        )
        head = functools.partial(Head, width, dtype=dtype, rngs=rngs)
        self.frame_projection = linear(frame_width, width)
        self.state_projection = linear(state_width, width)
        self.token_head = head(vocab_size + 1)
        self.duration_head = head(num_durations) if num_durations else None
        self.dropout = config.dropout

    def __call__(
        self, frames: jax.Array, states: jax.Array, *, key: jax.Array | None = None
    ) -> Logits:
        """Returns the logits of all pairs of frames [B, T, D] and states [B, U+1, P].

        They are token logits [B, T, U+1, V+1] and duration logits [B, T, U+1, N] (None for an
        RNN-T). A `key` turns dropout on.
        """
        frames = self.project_frames(frames)[:, :, None]
        states = self.project_states(states)[:, None]
        return self.heads(frames, states, key=key)

    def project_frames(self, frames: jax.Array) -> jax.Array:
        """[..., D] -> [..., J]."""
        return self.frame_projection(frames)

    def project_states(self, states: jax.Array) -> jax.Array:
        """[..., P] -> [..., J]."""
        return self.state_projection(states)

    def heads(
        self, frames: jax.Array, states: jax.Array, *, key: jax.Array | None = None
    ) -> Logits:
        """Returns the logits of projected frames and states, whose shapes broadcast to [..., J].

        They are token logits [..., V + 1] and duration logits [..., N] (None for an RNN-T). A `key`
        turns dropout on; of keys [n], each is for an n-th of the rows.
        """
        hidden = dropout(jax.nn.relu(frames + states), self.dropout, key)
        return self.token_head(hidden), self._duration_logits(hidden)

    def heads_in_loop(self, num_rows: int) -> Callable[[jax.Array, jax.Array], Logits]:
        """Returns a function that computes `heads`, fast in a loop over `num_rows` rows."""
        if backend.current() != "cpu":
            return self.one_head(self.token_head.dtype).heads
        if self.token_head.kernel.shape[-1] < MANY_LABELS or num_rows < FEW_ROWS:
            return self.heads
        token_head = self.token_head.in_halves()

        def heads(frames, states):
            hidden = jax.nn.relu(frames + states)
            return token_head(hidden), self._duration_logits(hidden)

        return heads

    def one_head(self, dtype: DTypeLike | None = None) -> "OneHead":
        """Returns the heads as one, with its kernel in a dtype; None: as the parameters."""
        heads = [self.token_head, *([self.duration_head] if self.duration_head else [])]
        kernel = jnp.concatenate([head.kernel[...] for head in heads], axis=1)
        bias = jnp.concatenate([head.bias[...] for head in heads])
        num_tokens, num_outputs = self.token_head.kernel.shape[1], len(bias)
        padding = (0, -num_outputs % (LANES if backend.current() == "tpu" else GPU_COLUMNS))
        kernel = jnp.pad(kernel.astype(dtype or kernel.dtype), ((0, 0), padding))
        kernel, bias = jax.lax.optimization_barrier((kernel, jnp.pad(bias, padding)))
        sizes = num_tokens, num_outputs - num_tokens
        return OneHead(kernel, bias, sizes, self.dropout, self.token_head.dtype)

    def _duration_logits(self, hidden):
        return None if self.duration_head is None else self.duration_head(hidden)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernel", "bias"],
    meta_fields=["sizes", "dropout", "dtype"],
)
@dataclasses.dataclass(frozen=True)
class OneHead:
    """The heads of a joint network as one product, for loops on a TPU or a GPU.

    XLA would put both kernels together too, but in every iteration.
    """

    kernel: jax.Array  # [J, V + 1 + N + padding]
    bias: jax.Array  # [V + 1 + N + padding]
    sizes: tuple[int, int]  # V + 1 and N, which is 0 for an RNN-T
    dropout: float
    dtype: DTypeLike | None  # of the product

    def heads(
        self, frames: jax.Array, states: jax.Array, *, key: jax.Array | None = None
    ) -> Logits:
        """Returns what `Joint.heads` returns."""
        hidden = dropout(jax.nn.relu(frames + states), self.dropout, key)
        logits = linear(hidden.astype(self.dtype), self.kernel, self.bias)
        num_tokens, num_durations = self.sizes
        tokens, others = jnp.split(logits, [num_tokens], axis=-1)
        return tokens, others[..., :num_durations] if num_durations else None


class Head(nnx.Linear):
    """A linear layer whose output is float32, whatever the dtype of its product."""

    bias: nnx.Param

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., J] -> [..., V] float32."""
        return linear(x.astype(self.dtype), self.kernel[...], self.bias[...])

    def in_halves(self) -> Callable[[jax.Array], jax.Array]:
        """Returns the same function of x as two products, each with half of the kernel.

        With few rows, XLA on CPU takes nearly twice as long for one product as for two of half the
        inputs, which it runs at once. The halves are copies, because a loop would compute slices
        anew in every iteration.
        """
        kernel = self.kernel[...]
        half = len(kernel) // 2
        top, bottom = jax.lax.optimization_barrier((kernel[:half], kernel[half:]))

        def head(x):
            x = x.astype(self.dtype)
            halves = _logits(x[..., :half], top) + _logits(x[..., half:], bottom)
            return _with_bias(halves, self.bias[...])

        return head


def _with_bias(logits, bias):
    return logits + bias.astype(jnp.float32).reshape((1,) * (logits.ndim - 1) + (-1,))


@jax.custom_vjp
def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns x [..., J] @ kernel [J, V] + bias [V], computed in x's dtype, summed in float32.

    So are its gradients. That of the logits is float32: it would make both of the backward pass's
    products float32, and is rounded before anything uses it, so that it is in memory in x's dtype
    alone.
    """
    return _with_bias(_logits(x, kernel), bias)


def _logits(x, kernel):
    return _product(x, kernel.astype(x.dtype), ((x.ndim - 1,), (0,)))


def _product(x, y, contracted):
    return jax.lax.dot_general(
        x,
        y,
        (contracted, ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _linear_forward(x, kernel, bias):
    return linear(x, kernel, bias), (x, kernel, bias)


def _linear_backward(residuals, gradient):
    x, kernel, bias = residuals
    gradient = gradient.astype(x.dtype)
    rows = tuple(range(x.ndim - 1))
    x_gradient = _product(gradient, kernel.astype(x.dtype), ((x.ndim - 1,), (1,)))
    kernel_gradient = _product(x, gradient, (rows, rows))
    bias_gradient = jnp.sum(gradient, axis=rows, dtype=jnp.float32)
    return (
        x_gradient.astype(x.dtype),
        kernel_gradient.astype(kernel.dtype),
        bias_gradient.astype(bias.dtype),
    )


linear.defvjp(_linear_forward, _linear_backward)
