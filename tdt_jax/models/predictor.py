"""The prediction network: an embedding and LSTM layers over the labels emitted so far.

The start symbol is blank, and blank's embedding is zero.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tdt_jax.config import PredictorConfig
from tdt_jax.models.layers import dropout, split_key
from tdt_jax.runtime import backend


class PredictorState(NamedTuple):
    """The state of all LSTM layers."""

    hidden: jax.Array  # [layers, B, P]
    cell: jax.Array  # [layers, B, P]


Step = Callable[[jax.Array, PredictorState], tuple[jax.Array, PredictorState]]


class Predictor(nnx.Module):
    """Embedding and LSTM layers, over a whole sequence or, with the same outputs, by `step`."""

    def __init__(
        self, config: PredictorConfig, vocab_size: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        rows = vocab_size + config.blank_embedding
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (rows, config.width)))
        self.layers = nnx.List(
            LSTM(config.width, dtype=dtype, rngs=rngs) for _ in range(config.num_layers)
        )
        self.blank = vocab_size
        self.config = config
        self.dtype = dtype

    def __call__(self, labels: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Returns the outputs [B, U + 1, P] before each of the labels [B, U] and after the last.

        A `key` turns dropout on.
        """
        x = self.embed(jnp.pad(labels, ((0, 0), (1, 0)), constant_values=self.blank))
        for layer, layer_key in zip(self.layers, split_key(key, len(self.layers)), strict=True):
            x = dropout(layer(x), self.config.dropout, layer_key)
        return x

    def start(self, batch_size: int) -> PredictorState:
        """Returns the state before any label."""
        shape = len(self.layers), batch_size, self.config.width
        return PredictorState(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

    def step(self, labels: jax.Array, state: PredictorState) -> tuple[jax.Array, PredictorState]:
        """Reads one label of each utterance [B], blank at the start.

        Returns the output [B, P] and the new state.
        """
        return self._step(labels, state, gates=[layer.gates for layer in self.layers])

    def step_in_loop(self) -> Step:
        """Returns a function that computes `step`, fast in a loop."""
        if backend.current() == "cpu":
            return self.step
        return functools.partial(self._step, gates=[layer.gates_in_loop() for layer in self.layers])

    def _step(self, labels, state, *, gates):
        x = self.embed(labels)
        hiddens, cells = [], []
        for layer_gates, hidden, cell in zip(gates, state.hidden, state.cell, strict=True):
            x, cell = activate(layer_gates(x, hidden), cell)
            hiddens.append(x)
            cells.append(cell)
        return x, PredictorState(jnp.stack(hiddens), jnp.stack(cells))

    def embed(self, labels: jax.Array) -> jax.Array:
        """[...] -> [..., P]; blank (index V) embeds as zero, or as the last row if it has one."""
        table = self.embedding[...].astype(self.dtype)
        embedded = table[labels.clip(0, len(table) - 1)]
        if self.config.blank_embedding:
            return embedded
        is_blank = (labels == self.blank)[..., None]
        return jnp.where(is_blank, jnp.zeros((), self.dtype), embedded)


class LSTM(nnx.Module):
    """One LSTM layer (Hochreiter & Schmidhuber, 1997), gates in the order i, f, g, o.

    c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')
    """

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        # At a TPU's or GPU's default precision, labels would depend on the batch.
        linear = functools.partial(
            Gates, width, 4 * width, dtype=dtype, rngs=rngs, precision=jax.lax.Precision.HIGHEST
        )
        self.input = linear()
        self.recurrent = linear()
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Processes a whole sequence from the zero state: [B, U, P] -> [B, U, P]."""

        def body(carry, gates):
            hidden, cell = carry
            hidden, cell = activate(gates + self.recurrent(hidden), cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros_like(x[:, 0])
        gates = jnp.swapaxes(self.input(x), 0, 1)  # [U, B, 4P], one matrix product for all steps
        _, outputs = jax.lax.scan(body, (zeros, zeros), gates)
        return jnp.swapaxes(outputs, 0, 1)

    def gates(self, x: jax.Array, hidden: jax.Array) -> jax.Array:
        """Returns the gates before their activations [B, 4P], of inputs and hidden [B, P]."""
        return self.input(x) + self.recurrent(hidden)

    def gates_in_loop(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """Returns a function that computes `gates` in one product, with both kernels in one."""
        kernel = jnp.concatenate([self.input.kernel[...], self.recurrent.kernel[...]])
        bias = self.input.bias[...] + self.recurrent.bias[...]
        # A barrier, or it might be made anew in every iteration.
        kernel, bias = jax.lax.optimization_barrier(
            (kernel.astype(self.dtype), bias.astype(self.dtype))
        )

        def gates(x, hidden):
            x = jnp.concatenate([x, hidden], axis=-1)
            return jnp.dot(x, kernel, precision=jax.lax.Precision.HIGHEST) + bias[None]

        return gates


class Gates(nnx.Linear):
    """A linear layer with a bias."""

    bias: nnx.Param


def activate(gates: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the next hidden and cell [B, P], from gates before their activations [B, 4P]."""
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell
