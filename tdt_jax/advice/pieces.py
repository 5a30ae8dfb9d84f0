"""The texts of a tokenizer's labels, without case, and as a trie of characters."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tdt_jax.orthography import fold, is_boundary
from tdt_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class Pieces:
    """The labels' texts.

    Attributes:
      texts: folded, with spaces for "▁"; None for tags and bytes, which spell no text.
      children: of each node of the trie, by character.
      labels: that end at each node.
    """

    texts: list[str | None]
    children: list[dict[str, int]]
    labels: list[list[int]]

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """1 for labels that go on with the word before them, 0 for those that end it: [V]."""
        return np.array([bool(text) and not is_boundary(text[0]) for text in self.texts], np.int32)

    def fewest(self, text: str) -> int | None:
        """Returns the fewest labels that spell a folded text as words; None if none do."""
        text = f" {text}"
        unreached = len(text) + 1
        counts = [0, 0, *[unreached] * (len(text) - 1)]  # the space may have come before
        for begin in range(len(text)):
            for end in self._ends(text, begin):
                counts[end] = min(counts[end], counts[begin] + 1)
        return counts[-1] if counts[-1] < unreached else None

    def _ends(self, text: str, begin: int) -> Iterator[int]:
        """Yields where labels end that begin at a place of a text."""
        node = 0
        for end in range(begin, len(text)):
            node = self.children[node].get(text[end])
            if node is None:
                return
            if self.labels[node]:
                yield end + 1


@functools.lru_cache(8)
def pieces_of(tokenizer: Tokenizer) -> Pieces:
    """Returns the texts of a tokenizer's labels."""
    texts, children, labels = [], [{}], [[]]
    no_texts = tokenizer.tags | set(getattr(tokenizer, "bytes", ()))
    for label, piece in enumerate(tokenizer.pieces):
        text = None if label in no_texts else fold(piece.replace("▁", " "))
        texts.append(text)
        node = 0
        for character in text or "":
            if character not in children[node]:
                children[node][character] = len(children)
                children.append({})
                labels.append([])
            node = children[node][character]
        if text:
            labels[node].append(label)
    return Pieces(texts, children, labels)
