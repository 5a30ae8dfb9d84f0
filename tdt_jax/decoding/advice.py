"""Advice: automata that a decoder asks for weights of the labels that may come next.

Two numbers are added to a label's logit. Its *rank* counts when labels compete with each other; its
*lift*, the same within the automaton's bounds, when they compete with blank:

    emit    if max(logit + lift of the labels) >= logit of blank
    label   argmax(logit + rank)

So a language model (bounds 0, 0) changes labels and never how many there are; phrases (bounds 0, m)
may insert a label that is at most e^m times less probable than blank; and labels that are forbidden
(bounds -inf, 0) do not exist. Both numbers change when a label is emitted, and only then.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tdt_jax.decoding.automaton import Array, Automaton
from tdt_jax.runtime import backend


class Advice(NamedTuple):
    """Automata whose weights are added, with the one of each that a row of the batch follows."""

    automata: tuple[Automaton, ...]
    chosen: tuple[Array, ...]  # [B] int32 each, from 0 to G - 1

    def start(self) -> tuple[jax.Array, ...]:
        """Returns the states [B] before the first label."""
        return tuple(
            jnp.asarray(each.start)[chosen]
            for each, chosen in zip(self.automata, self.chosen, strict=True)
        )

    def advance(self, states: tuple[jax.Array, ...], labels: jax.Array) -> tuple[jax.Array, ...]:
        """Returns the states [B] after labels [B]."""
        return tuple(map(_advance, self.automata, self.chosen, states, (labels,) * len(states)))

    def weigh(self, states: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        """Returns rank and lift [B, V] of all labels in states [B]."""
        weights = list(map(_weights, self.automata, self.chosen, states))
        bounds = [
            jnp.asarray(each.lift)[chosen]
            for each, chosen in zip(self.automata, self.chosen, strict=True)
        ]
        lifts = [
            jnp.clip(each, low_high[:, :1], low_high[:, 1:])
            for each, low_high in zip(weights, bounds, strict=True)
        ]
        return sum(weights[1:], weights[0]), sum(lifts[1:], lifts[0])


def best_token(logits: jax.Array, rank: jax.Array, lift: jax.Array) -> jax.Array:
    """Returns the token [...] to take, of logits [..., V+1] whose last is blank's.

    `rank` and `lift` [..., V] are those of the labels.
    """
    labels, blank = logits[..., :-1], logits[..., -1]
    emits = jnp.max(labels + lift, axis=-1) >= blank
    label = jnp.argmax(labels + rank, axis=-1)
    return jnp.where(emits, label, labels.shape[-1]).astype(jnp.int32)


class _Arcs(NamedTuple):
    """The arcs of a state of each row."""

    begin: jax.Array  # [B], of its arcs among all
    labels: jax.Array  # [B, width]; V where the state has fewer


def _chain(automaton: Automaton, chosen: Array, state: jax.Array):
    """Follows back-offs. Returns the arcs and the weight [B, 2] of each level, and the last's row.

    The weight is that of the back-offs before the level, the last item that of all of them.
    """
    num_labels = automaton.row_weights.shape[-1]
    arcs, weights = [], [jnp.zeros((len(state), 2))]
    for _ in range(automaton.levels):
        begin = jnp.asarray(automaton.first)[chosen, state]
        count = jnp.asarray(automaton.first)[chosen, state + 1] - begin
        labels = _slices(automaton.labels, chosen, begin, automaton.width)
        is_arc = jnp.arange(automaton.width)[None] < count[:, None]
        arcs.append(_Arcs(begin, jnp.where(is_arc, labels, num_labels)))
        weights.append(weights[-1] + jnp.asarray(automaton.backoff_weights)[chosen, state])
        state = jnp.asarray(automaton.backoff)[chosen, state]
    return arcs, weights, jnp.asarray(automaton.row)[chosen, state]


def _weights(automaton: Automaton, chosen: Array, state: jax.Array) -> jax.Array:
    """Returns the weights [B, V] of all labels in states [B]."""
    arcs, before, row = _chain(automaton, chosen, state)
    classes = jnp.asarray(automaton.classes)[chosen]

    def backed_off(level: int, classes: jax.Array) -> jax.Array:
        return jnp.where(classes == 0, before[level][:, :1], before[level][:, 1:])

    weights = jnp.asarray(automaton.row_weights)[chosen, row] + backed_off(-1, classes)
    for level in reversed(range(automaton.levels)):
        begin, labels = arcs[level]
        values = _slices(automaton.weights, chosen, begin, automaton.width)
        if level:
            in_range = jnp.minimum(labels, classes.shape[-1] - 1)
            values += backed_off(level, jnp.take_along_axis(classes, in_range, axis=1))
        weights = _put(weights, labels, values)
    return weights


def _advance(automaton: Automaton, chosen: Array, state: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the states [B] that states [B] go to with labels [B]."""
    arcs, _, row = _chain(automaton, chosen, state)
    target = jnp.asarray(automaton.row_targets)[chosen, row, labels]
    for begin, of_arcs in reversed(arcs):
        targets = _slices(automaton.targets, chosen, begin, automaton.width)
        is_taken = of_arcs == labels[:, None]
        taken = jnp.sum(jnp.where(is_taken, targets, 0), axis=1)
        target = jnp.where(jnp.any(is_taken, axis=1), taken, target)
    return target


def _slices(array: Array, chosen: Array, begin: jax.Array, size: int) -> jax.Array:
    """Returns array[chosen, begin : begin + size] [B, size] of an array [G, A]."""

    def one(row, start):
        return jax.lax.dynamic_slice(jnp.asarray(array), (row, start), (1, size))[0]

    return jax.vmap(one)(jnp.asarray(chosen), begin)


def _put(weights: jax.Array, labels: jax.Array, values: jax.Array) -> jax.Array:
    """Puts values [B, n] at labels [B, n] of weights [B, V]; those at V are dropped.

    A TPU scatters one number at a time, and compares all labels at once.
    """
    if backend.current() != "tpu":
        rows = jnp.arange(len(labels))[:, None]
        return weights.at[rows, labels].set(values, mode="drop")
    is_here = labels[:, :, None] == jnp.arange(weights.shape[-1])[None, None]
    put = jnp.sum(jnp.where(is_here, values[:, :, None], 0), axis=1)
    return jnp.where(jnp.any(is_here, axis=1), put, weights)
