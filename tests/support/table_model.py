"""A model that is a table: the decoder's path through it is written by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

FRAMES, LABELS, VOCAB = 8, 12, 9
BLANK = VOCAB
TRAP = VOCAB - 1  # the label of every cell that no path names


@dataclasses.dataclass(frozen=True)
class TableConfig:
    blank: int
    durations: tuple | None


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["tokens", "choices", "labels"],
    meta_fields=["config"],
)
@dataclasses.dataclass
class TableModel:
    """Frame t of utterance b after u labels emits tokens[b, t, u], durations[choices[b, t, u]].

    Frames are (b, t); the predictor's state is (labels so far, last label). Where the last label is
    not the one that the path emitted last, the token is the trap.
    """

    tokens: jax.Array  # [B, T, U]
    choices: jax.Array  # [B, T, U]
    labels: jax.Array  # [B, U], the last label after each number of labels
    config: TableConfig

    predictor = joint = property(lambda self: self)

    def start(self, batch_size):
        return (jnp.full((1, batch_size), -1),) * 2

    def step(self, labels, state):
        count = state[0] + 1
        return jnp.stack([count[0], labels], axis=-1), (count, labels[None])

    def project_frames(self, frames):
        return frames

    def project_states(self, states):
        return states

    def heads_in_loop(self, num_rows):
        return self._heads

    def _heads(self, frames, states):
        b, t = frames[..., 0].astype(jnp.int32), frames[..., 1].astype(jnp.int32)
        u, last = states[..., 0], states[..., 1]
        tokens = jnp.where(last == self.labels[b, u], self.tokens[b, t, u], TRAP)
        tokens = 5.0 * jax.nn.one_hot(tokens, VOCAB + 1)
        if self.config.durations is None:
            return tokens, None
        return tokens, jax.nn.one_hot(self.choices[b, t, u], len(self.config.durations))


def table(paths, durations):
    """A TableModel of a path per utterance: {(frame, labels so far): (token, duration)}."""
    tokens = np.full((len(paths), FRAMES, LABELS), TRAP)
    choices, labels = np.zeros_like(tokens), np.full((len(paths), LABELS), BLANK)
    for b, path in enumerate(paths):
        emitted = [token for token, _ in path.values() if token != BLANK]
        labels[b, 1 : len(emitted) + 1] = emitted
        for (t, u), (token, duration) in path.items():
            tokens[b, t, u] = token
            choices[b, t, u] = 0 if durations is None else durations.index(duration)
    config = TableConfig(BLANK, durations)
    return TableModel(*map(jnp.asarray, (tokens, choices, labels)), config)
