"""N-gram language models in ARPA files, over the labels of a tokenizer.

A file's words are labels: as their pieces, spaces as "▁" (`tdt-jax lm`), or as NeMo has KenLM write
them, label i as the character i + 100. An n-gram's context is a state; a label that is no n-gram
backs off to the shorter context, down to the unigrams. Labels without a unigram have that of <unk>.

The weights of labels are added to their logits when labels compete with each other, and never when
they compete with blank (Bataev et al., 2025, arXiv 2505.22857).
"""

import math
import os
from collections.abc import Iterable, Iterator

import numpy as np

from tdt_jax.decoding.automaton import Graph
from tdt_jax.tokenizer import Tokenizer

OFFSET = 100  # NeMo's: below are characters that KenLM would take for spaces
UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
NEVER = -20.0  # the logarithm to base 10 of a label without a unigram or <unk>

Context = tuple[int, ...]


def arpa_graph(path: str | os.PathLike, weight: float, tokenizer: Tokenizer) -> Graph:
    """Returns the automaton of an ARPA file, its natural logarithms times `weight`.

    Raises:
      ValueError: for a file that is no ARPA file, is of another vocabulary, or a weight that is not
        finite.
      OSError: for a file that cannot be read.
    """
    if not math.isfinite(weight):
        raise ValueError(f"the weight of a language model must be finite, got {weight}")
    with open(path, encoding="utf-8") as file:
        try:
            rows = list(_rows(file))
        except ValueError as error:
            raise ValueError(f"{path} is not an ARPA file: {error}") from None
    words = dict.fromkeys(word for _, gram, _ in rows for word in gram)
    numbers = _numbers(words, tokenizer, path)
    begin = tokenizer.vocab_size  # as a label of contexts
    numbers[BEGIN] = begin
    scale = math.log(10) * weight
    backoffs: dict[Context, float] = {(): 0.0}
    entries: dict[Context, float] = {}
    unknown = NEVER
    for logarithm, words, backoff in rows:
        if words == (UNKNOWN,):
            unknown = logarithm
        if END in words or UNKNOWN in words:
            continue
        ids = tuple(numbers[word] for word in words)
        if backoff is not None:
            backoffs[ids] = backoff
        if ids[-1] != begin:
            entries[ids] = logarithm
    for ids in entries:
        backoffs.setdefault(ids[:-1], 0.0)
    states = {context: state for state, context in enumerate(backoffs)}

    def longest(context: Context) -> int:
        while context not in states:
            context = context[1:]
        return states[context]

    grouped = sorted(
        (states[ids[:-1]], ids[-1], logarithm, longest(ids))
        for ids, logarithm in entries.items()
        if len(ids) > 1
    )
    sources, labels, logarithms, targets = (
        map(np.array, zip(*grouped, strict=True)) if grouped else [np.zeros(0, int)] * 4
    )
    row = np.full(tokenizer.vocab_size, unknown)
    row_targets = np.zeros(tokenizer.vocab_size, int)
    for ids, logarithm in entries.items():
        if len(ids) == 1:
            row[ids[0]], row_targets[ids[0]] = logarithm, longest(ids)
    losses = scale * np.array(list(backoffs.values()))
    return Graph(
        first=np.searchsorted(sources, np.arange(len(states) + 1)),
        labels=labels,
        weights=scale * logarithms,
        targets=targets,
        backoff=np.array([longest(context[1:]) for context in states]),
        backoff_weights=np.stack([losses, losses], axis=1),
        rows={0: (scale * row, row_targets)},
        classes=np.zeros(tokenizer.vocab_size, int),
        start=longest((begin,)),
        lift=(0.0, 0.0),
    )


def token_of(piece: str) -> str:
    """Returns the word of an ARPA file for a label with this piece."""
    return piece.replace(" ", "▁")


def _rows(lines) -> Iterator[tuple[float, tuple[str, ...], float | None]]:
    """Yields the logarithm, the words and the back-off, if any, of each n-gram."""
    order = None
    for line in lines:
        line = line.strip(" \t\r\n")
        if line.endswith("-grams:") and line.startswith("\\"):
            order = int(line[1:].partition("-")[0])
        elif line == "\\end\\":
            return
        elif line and order is not None:
            fields = line.replace("\t", " ").split(" ")
            if len(fields) not in (order + 1, order + 2):
                raise ValueError(
                    f"a line of {order}-grams has {len(fields)} fields: {line[:100]!r}"
                )
            logarithm, *others = map(float, (fields[0], *fields[order + 1 :]))
            if not all(each < math.inf for each in (logarithm, *others)):
                raise ValueError(f"a line has no logarithms: {line[:100]!r}")
            yield logarithm, tuple(fields[1 : order + 1]), others[0] if others else None
    raise ValueError("it has no \\end\\")


def _numbers(words: Iterable[str], tokenizer: Tokenizer, path: str | os.PathLike) -> dict[str, int]:
    """Returns the label of each word of a file.

    Raises: ValueError if there are words that are no labels.
    """
    words = [word for word in words if word not in (UNKNOWN, BEGIN, END)]
    by_piece = {token_of(piece): label for label, piece in enumerate(tokenizer.pieces)}
    by_character = {chr(label + OFFSET): label for label in range(tokenizer.vocab_size)}
    for numbers in (by_piece, by_character):
        if words and all(word in numbers for word in words):
            return {word: numbers[word] for word in words}
    unlike = [word for word in words if word not in by_piece]
    raise ValueError(
        f"the language model {path} is of another vocabulary: {len(unlike)} of its {len(words)} "
        f"words are no labels of the model, such as {', '.join(map(repr, unlike[:3]))}"
    )
