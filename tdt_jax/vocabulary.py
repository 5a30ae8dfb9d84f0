"""Other tokens for a recogniser: rows of the embedding, columns of the heads.

Encoder, LSTM, projections, durations and blank stay as they are. A token that both vocabularies
have keeps its row bit for bit; another starts at the mean of the tokens that spell it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tdt_jax.models.transducer import abstract_model
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves
from tdt_jax.tokenizer import Tokenizer

EMBEDDING = "predictor.embedding"
HEADS = "joint.token_head", "ctc"
SMALL = 0.1  # standard deviations: rows of tokens that no known token spells


def with_vocabulary(recogniser: Recogniser, tokenizer: Tokenizer) -> Recogniser:
    """Returns the recogniser with another tokenizer, to be trained further.

    A token that the recogniser has keeps its row of the embedding and its columns of the heads, bit
    for bit. Another starts at the mean of the fewest tokens that spell it. What no token spells,
    such as another script, starts with small random numbers and the mean bias of the quarter of
    the tokens with the lowest.

    Args:
      recogniser: any.
      tokenizer: with more tokens (`tdt_jax.tokenizer.extend`), or altogether others.
    """
    known = recogniser.tokenizer
    if tokenizer.pieces == known.pieces:
        return dataclasses.replace(recogniser, tokenizer=tokenizer)
    table = {_text(piece): i for i, piece in reversed(list(enumerate(known.pieces)))}
    parts = {text: i for text, i in table.items() if i not in known.tags}
    spellings = [
        [table[text]] if (text := _text(piece)) in table else spell(text, parts)
        for piece in tokenizer.pieces
    ]
    config = dataclasses.replace(recogniser.config, vocab_size=tokenizer.vocab_size)
    leaves = named_leaves(recogniser.model)
    blank = recogniser.config.blank
    if EMBEDDING in leaves:
        leaves[EMBEDDING] = _with_rows(leaves[EMBEDDING], spellings, blank, seed=0)
    for head in HEADS:
        kernel, bias = f"{head}.kernel", f"{head}.bias"
        if kernel in leaves:
            leaves[kernel] = _with_rows(leaves[kernel], spellings, blank, seed=1, axis=1)
            leaves[bias] = _with_rows(leaves[bias], spellings, blank)
    return Recogniser(from_named_leaves(leaves, abstract_model(config)), tokenizer)


def spell(text: str, parts: Mapping[str, int]) -> list[int]:
    """Returns the fewest labels whose texts, one after another, are `text`.

    Characters that no part covers are left out.

    Args:
      text: to spell.
      parts: texts and their labels.
    """
    longest = max(map(len, parts), default=0)
    # Of each beginning of the text: (characters left out, labels), the fewest first.
    best: list[tuple[int, list[int]]] = [(0, [])]
    for end in range(1, len(text) + 1):
        missed, labels = best[end - 1]
        choices = [(missed + 1, labels)]
        for start in range(max(0, end - longest), end):
            if (label := parts.get(text[start:end])) is not None:
                missed, labels = best[start]
                choices.append((missed, [*labels, label]))
        best.append(min(choices, key=lambda choice: (choice[0], len(choice[1]))))
    return best[-1][1]


def _text(piece: str) -> str:
    """Returns a piece with spaces as `Characters` has them."""
    return piece.replace("▁", " ")


def _with_rows(
    leaf: Any, spellings: Sequence[Sequence[int]], blank: int, *, seed: int = 0, axis: int = 0
) -> jax.Array:
    """Returns a parameter with a row (or column) for each spelling, and blank's after them."""
    old = np.moveaxis(np.asarray(leaf, np.float32), axis, 0)
    tokens, rest = old[:blank], old[blank:]  # `rest` is empty in an embedding without blank
    rng = np.random.default_rng(seed)

    def row(labels):
        if len(labels) == 1:
            return tokens[labels[0]]
        if labels:
            return tokens[list(labels)].mean(axis=0)
        if old.ndim == 1:
            return np.sort(tokens)[: math.ceil(len(tokens) / 4)].mean()
        return SMALL * tokens.std() * rng.normal(size=tokens.shape[1:])

    rows = np.stack([np.asarray(row(labels), np.float32) for labels in spellings])
    new = np.moveaxis(np.concatenate([rows, rest]), 0, axis).astype(leaf.dtype)
    return jax.device_put(new, getattr(leaf, "sharding", None))
