"""Trains a transducer of your own network, in plain JAX, with the loss and decoder of tdt_jax.

    tdt-jax prepare telephone configs/quickstart.py data
    python examples/own_network.py data/composed.jsonl --steps 400

In a minute and a half of CPU time it learns to transcribe the utterances that it is trained on.

The encoder is a stack of convolutions, the predictor has no state but the last two labels, and the
joint is a hidden layer with two heads. None of them is a class of tdt_jax. `transducer_loss` needs
a joint with `project_frames`, `project_states` and `heads`; `greedy_decode` also needs
`heads_in_loop`, and a predictor with `start` and `step`.
"""

import argparse
import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import tdt_jax as tdt
from tdt_jax.audio.reading import as_samples
from tdt_jax.data.manifest import read_manifest
from tdt_jax.tokenizer import Characters

DURATIONS = (0, 1, 2, 3, 4)
CONTEXT = 2  # labels that the predictor knows
FEATURES = tdt.FeatureConfig()


def module(**static):
    """Registers a dataclass as a pytree; its fields but those in `static` are arrays."""

    def register(cls):
        cls = dataclasses.dataclass(frozen=True)(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        data = [name for name in names if name not in static]
        return jax.tree_util.register_dataclass(cls, data, list(static))

    return register


@module()
class Encoder:
    convolutions: list[jax.Array]  # [kernel, D in, D out], each of stride 2: 8 in all
    blocks: list[jax.Array]  # [kernel, D, D], residual

    def __call__(self, features, num_features):
        """[B, M, F], [B] -> [B, T, D], [B]: frames of 80 ms."""
        x = features
        for kernel in self.convolutions:
            x = jax.nn.silu(_convolve(x, kernel, stride=2))
        for kernel in self.blocks:
            x = x + jax.nn.silu(_convolve(_normalized(x), kernel, stride=1))
        return _normalized(x), (num_features + 7) // 8


def _convolve(x, kernel, stride: int):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )


def _normalized(x):
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


@module(blank=int)
class Predictor:
    embeddings: jax.Array  # [CONTEXT, V + 1, P]
    blank: int

    def __call__(self, labels):
        """[B, U] -> [B, U + 1, P]: a state before each label and after the last."""
        padded = jnp.pad(labels, ((0, 0), (CONTEXT, 0)), constant_values=self.blank)
        length = labels.shape[1] + 1
        return sum(table[padded[:, i : i + length]] for i, table in enumerate(self.embeddings))

    def start(self, batch_size: int):
        """Returns the state before any label: the last labels [CONTEXT, B], B on axis 1."""
        return jnp.full((CONTEXT, batch_size), self.blank, jnp.int32)

    def step(self, labels, state):
        """Takes one label each [B]: -> output [B, P], the new state."""
        state = jnp.concatenate([state[1:], labels[None]])
        return sum(table[last] for table, last in zip(self.embeddings, state, strict=True)), state


@module()
class Joint:
    frame_kernel: jax.Array  # [D, J]
    state_kernel: jax.Array  # [P, J]
    token_kernel: jax.Array  # [J, V + 1]
    duration_kernel: jax.Array  # [J, N]

    def project_frames(self, frames):
        return frames @ self.frame_kernel

    def project_states(self, states):
        return states @ self.state_kernel

    def heads(self, frames, states):
        """Projected frames and states [..., J] -> [..., V + 1], [..., N]."""
        hidden = jnp.tanh(frames + states)
        return hidden @ self.token_kernel, hidden @ self.duration_kernel

    def heads_in_loop(self, num_rows: int):
        return self.heads


@module(config=tdt.ModelConfig)
class Model:
    encoder: Encoder
    predictor: Predictor
    joint: Joint
    config: tdt.ModelConfig  # of which the decoder reads durations and blank


def make_model(vocab_size: int, width: int, num_blocks: int) -> Model:
    """Returns a model of random parameters."""
    rng = np.random.default_rng(0)

    def kernel(*shape: int) -> jax.Array:
        values = rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
        return jnp.asarray(values, jnp.float32)

    inputs = FEATURES.num_mels, width, width
    return Model(
        Encoder(
            [kernel(5, size, width) for size in inputs],
            [kernel(9, width, width) for _ in range(num_blocks)],
        ),
        Predictor(kernel(CONTEXT, vocab_size + 1, width), blank=vocab_size),
        Joint(
            kernel(width, width),
            kernel(width, width),
            kernel(width, vocab_size + 1),
            kernel(width, len(DURATIONS)),
        ),
        tdt.ModelConfig(vocab_size=vocab_size, durations=DURATIONS),
    )


def mean_loss(model: Model, features, num_features, labels, num_labels):
    """Returns the TDT loss per label of a batch."""
    frames, num_frames = model.encoder(features, num_features)
    given = model.joint, frames, model.predictor(labels), labels, num_frames, num_labels
    losses = tdt.transducer_loss(*given, durations=DURATIONS, sigma=0.05)
    return losses.sum() / num_labels.sum()


def make_step(optimizer):
    """Returns a function of (model, optimizer state, batch) that takes one training step."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(model, state, batch):
        loss, gradients = jax.value_and_grad(mean_loss)(model, *batch)
        updates, state = optimizer.update(gradients, state, model)
        return optax.apply_updates(model, updates), state, loss

    return step


@jax.jit
def decode(model: Model, features, num_features) -> tdt.Hypothesis:
    return tdt.greedy_decode(model, *model.encoder(features, num_features))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", help="JSONL: audio_filepath, duration, text")
    parser.add_argument("--steps", type=int, default=400, help="training steps [400]")
    parser.add_argument("--batch", type=int, default=8, help="utterances in a step [8]")
    parser.add_argument("--width", type=int, default=128, help="of all layers [128]")
    parser.add_argument("--blocks", type=int, default=4, help="residual convolutions [4]")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest utterance [10]")
    options = parser.parse_args(arguments)

    entries = [e for e in read_manifest(options.manifest) if e.seconds <= options.seconds]
    tokenizer = Characters("".join(sorted({" "}.union(*(entry.text for entry in entries)))))
    rate, size = FEATURES.sample_rate, len(entries)
    samples = np.zeros((size, round((options.seconds + 1) * rate)), np.float32)
    num_samples, num_labels = np.zeros(size, np.int32), np.zeros(size, np.int32)
    labels = np.zeros((size, max(len(entry.text) for entry in entries)), np.int32)
    for i, entry in enumerate(entries):
        found, text = as_samples(entry.audio, rate), tokenizer.encode(entry.text)
        samples[i, : len(found)], num_samples[i] = found, len(found)
        labels[i, : len(text)], num_labels[i] = text, len(text)

    model = make_model(tokenizer.vocab_size, options.width, options.blocks)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    state, step = jax.jit(optimizer.init)(model), make_step(optimizer)
    rng = np.random.default_rng(1)
    for number in range(1, options.steps + 1):
        rows = rng.choice(size, options.batch)
        batch = (*tdt.log_mel(samples[rows], num_samples[rows], FEATURES), labels[rows])
        model, state, loss = step(model, state, (*batch, num_labels[rows]))
        if number == 1 or number % 50 == 0 or number == options.steps:
            print(f"step {number}: loss {loss:.3f} per label", flush=True)

    hypothesis = jax.device_get(decode(model, *tdt.log_mel(samples[:4], num_samples[:4], FEATURES)))
    for entry, text, number in zip(entries, hypothesis.labels, hypothesis.num_labels, strict=False):
        print(f"reference   {entry.text}\ntranscript  {tokenizer.decode(text[:number].tolist())}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:  # a bad argument or file, which it names
        sys.exit(f"error: {error}")
