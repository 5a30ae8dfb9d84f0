"""A language prompt on the encoder's frames, as nemotron-3.5-asr-streaming has it.

frames [B, T, D], slots [B] -> linear(frame, one-hot of the slot) -> ReLU -> linear -> [B, T, D]
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import Precision
from jax.typing import DTypeLike

from tdt_jax.config import PromptConfig
from tdt_jax.models.layers import padding_mask


class Prompt(nnx.Module):
    """Changes frames by a slot of each utterance.

    The product of a one-hot with a kernel is a row of the kernel: the last rows of `linear1`, one
    for each slot, are looked up.
    """

    def __init__(self, config: PromptConfig, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs, precision=Precision.HIGHEST)
        self.linear1 = linear(width + config.num_slots, config.width)
        self.linear2 = linear(config.width, width)
        self.config = config
        self.dtype = dtype

    def __call__(
        self, frames: jax.Array, num_frames: jax.Array, slots: jax.Array | None = None
    ) -> jax.Array:
        """Returns frames [B, T, D], which are zero beyond an utterance's length.

        Args:
          frames: [B, T, D].
          num_frames: [B] int.
          slots: [B] int; None: the default for all. A slot that the model does not have gives NaN.
        """
        width = frames.shape[-1]
        if slots is None:
            slots = jnp.full(num_frames.shape, self.config.default)
        assert self.linear1.bias is not None
        kernel = self.linear1.kernel[...].astype(self.dtype)
        bias = self.linear1.bias[...].astype(self.dtype)
        slots = jnp.where(slots < 0, self.config.num_slots, slots)  # -1 is not the last
        added = kernel[width:].at[slots].get(mode="fill", fill_value=jnp.nan) + bias[None]
        hidden = jnp.matmul(frames.astype(self.dtype), kernel[:width], precision=Precision.HIGHEST)
        x = jax.nn.relu(hidden + added[:, None])
        padding = padding_mask(num_frames, frames.shape[1])[:, :, None]
        x = self.linear2(x)
        return jnp.where(padding, jnp.zeros_like(x), x)
