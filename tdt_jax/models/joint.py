"""The joint network: a frame and a predictor state in, token and duration logits out."""

import jax
import jax.numpy as jnp
from flax import nnx

from tdt_jax.config import JointConfig
from tdt_jax.models.layers import dropout
from tdt_jax.runtime import backend

FEW_ROWS, MANY_LABELS = 4, 4096  # from which on a CPU two halves are faster than a product


@jax.custom_vjp
def product(x, kernel):
    """x [..., J] @ kernel [J, V] in x's dtype, accumulated in float32, and so its gradient.

    The gradient of logits is float32, and would else take both its products to float32.
    """
    return _product(x, kernel.astype(x.dtype), ((x.ndim - 1,), (0,)))


def _product(x, y, contracted):
    return jax.lax.dot_general(
        x,
        y,
        (contracted, ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(residuals, gradient):
    x, kernel = residuals
    gradient = gradient.astype(x.dtype)
    rows = tuple(range(x.ndim - 1))
    to_x = _product(gradient, kernel.astype(x.dtype), ((x.ndim - 1,), (1,)))
    to_kernel = _product(x, gradient, (rows, rows))
    return to_x.astype(x.dtype), to_kernel.astype(kernel.dtype)


product.defvjp(_product_forward, _product_backward)


class Head(nnx.Linear):
    """A linear layer whose output is float32, whatever the dtype of its product."""

    def __call__(self, x):
        """[..., J] -> [..., V] float32."""
        return self._biased(product(x.astype(self.dtype), self.kernel[...]))

    def in_halves(self):
        """The same function of x, from two halves of the kernel: for loops on a CPU.

        With few rows XLA takes nearly twice as long for a product as for two of half the inputs,
        which run at once. The halves are copies: slices would be made again in every turn.
        """
        kernel = self.kernel[...]
        half = len(kernel) // 2
        top, bottom = jax.lax.optimization_barrier((kernel[:half], kernel[half:]))

        def head(x):
            x = x.astype(self.dtype)
            return self._biased(product(x[..., :half], top) + product(x[..., half:], bottom))

        return head

    def _biased(self, logits):
        return logits + self.bias[...].astype(jnp.float32).reshape((1,) * (logits.ndim - 1) + (-1,))


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
        dtype,
        rngs: nnx.Rngs,
    ):
        width = config.width
        options = dict(dtype=dtype, rngs=rngs, precision=jax.lax.Precision.HIGHEST)
        self.frame_projection = nnx.Linear(frame_width, width, **options)
        self.state_projection = nnx.Linear(state_width, width, **options)
        self.token_head = Head(width, vocab_size + 1, **options)
        self.duration_head = Head(width, num_durations, **options) if num_durations else None
        self.dropout = config.dropout

    def project_frames(self, frames):
        """[..., D] -> [..., J]."""
        return self.frame_projection(frames)

    def project_states(self, states):
        """[..., P] -> [..., J]."""
        return self.state_projection(states)

    def heads(self, frames, states, *, key=None):
        """Projected frames and states, of shapes that broadcast to [..., J].

        Returns token logits [..., V + 1] and duration logits [..., N] (None for an RNN-T). A `key`
        turns dropout on; keys [n] draw for an n-th of the rows each.
        """
        hidden = dropout(jax.nn.relu(frames + states), self.dropout, key)
        return self.token_head(hidden), self._durations(hidden)

    def heads_in_loop(self, num_rows: int):
        """`heads` of frames and states, to be called over and over with `num_rows` rows."""
        is_large = self.token_head.kernel.shape[-1] >= MANY_LABELS and num_rows >= FEW_ROWS
        if not (is_large and backend.current() == "cpu"):
            return self.heads
        token_head = self.token_head.in_halves()

        def heads(frames, states):
            hidden = jax.nn.relu(frames + states)
            return token_head(hidden), self._durations(hidden)

        return heads

    def _durations(self, hidden):
        return None if self.duration_head is None else self.duration_head(hidden)

    def __call__(self, frames, states, *, key=None):
        """All pairs: frames [B, T, D], states [B, U+1, P] -> [B, T, U+1, V+1], [B, T, U+1, N]."""
        frames = self.project_frames(frames)[:, :, None]
        states = self.project_states(states)[:, None]
        return self.heads(frames, states, key=key)
