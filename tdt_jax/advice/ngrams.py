"""Trains n-gram models over labels: interpolated Kneser-Ney, written as an ARPA file.

    p(w | c) = (max(n(c w) - D, 0) + D n(c .) p(w | c')) / n(c)
    n(c .)     different words after c;  c' is c without its first word

The counts n are of the text for the longest n-grams and those that begin a sentence, and for others
the number of different words before them (Kneser & Ney, 1995). D is n1 / (n1 + 2 n2) of each order,
from the n-grams that occur once and twice. Below the unigrams is a uniform distribution, so that
every label has a probability.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TextIO

from tdt_jax.advice.arpa import BEGIN, END, UNKNOWN, token_of
from tdt_jax.tokenizer import Tokenizer, UnknownTextError

Gram = tuple[str, ...]


def write_arpa(texts: Iterable[str], tokenizer: Tokenizer, order: int, file: TextIO) -> int:
    """Trains a model of `order` on texts and writes it; returns how many texts were left out.

    These have characters without labels.

    Raises: ValueError for an order below 1, and without text.
    """
    if order < 1:
        raise ValueError(f"the order must be at least 1, got {order}")
    words = [token_of(piece) for piece in tokenizer.pieces]
    sentences, left_out = [], 0
    for text in texts:
        try:
            labels = tokenizer.encode(text)
        except UnknownTextError:
            left_out += 1
            continue
        if labels:
            sentences.append([words[label] for label in labels])
    if not sentences:
        raise ValueError("there is no text that the model's labels can spell")
    vocabulary = [word for i, word in enumerate(words) if i not in tokenizer.tags]
    probabilities, backoffs = kneser_ney(sentences, vocabulary, order)
    file.write("\\data\\\n")
    by_order = [[gram for gram in probabilities if len(gram) == n + 1] for n in range(order)]
    for n, grams in enumerate(by_order, 1):
        file.write(f"ngram {n}={len(grams)}\n")
    for n, grams in enumerate(by_order, 1):
        file.write(f"\n\\{n}-grams:\n")
        for gram in sorted(grams):
            value = probabilities[gram]
            line = f"{math.log10(value) if value else -99:.6f}\t{' '.join(gram)}"
            if gram in backoffs:
                line += f"\t{math.log10(backoffs[gram]):.6f}"
            file.write(line + "\n")
    file.write("\n\\end\\\n")
    return left_out


def kneser_ney(
    sentences: Sequence[Sequence[str]], vocabulary: Sequence[str], order: int
) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """Returns the probabilities of n-grams, and the back-off weights of contexts.

    A sentence of words has BEGIN before it, whose probability is 0, and END after it.
    """
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        padded = (BEGIN, *sentence, END)
        for end in range(2, len(padded) + 1):
            for n in range(1, min(order, end) + 1):
                gram = padded[end - n : end]
                if n == order or gram[0] == BEGIN:
                    counts[n - 1][gram] += 1
    for n in range(order - 1, 0, -1):  # the different words before the shorter ones
        for gram in counts[n]:
            counts[n - 1][gram[1:]] += 1
    lowest = [*vocabulary, END, UNKNOWN]
    probabilities: dict[Gram, float] = {(BEGIN,): 0.0}
    backoffs: dict[Gram, float] = {}
    for n, grams in enumerate(counts):
        totals: Counter[Gram] = Counter()
        kinds: defaultdict[Gram, int] = defaultdict(int)
        for gram, count in grams.items():
            totals[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        once, twice = (sum(count == k for count in grams.values()) for k in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else 0.5
        rests = {context: discount * kinds[context] / totals[context] for context in totals}
        if n == 0:
            for word in lowest:
                share = max(grams[word,] - discount, 0.0) / totals[()]
                probabilities[word,] = share + rests[()] / len(lowest)
            continue
        for gram, count in grams.items():
            context = gram[:-1]
            share = (count - discount) / totals[context]
            probabilities[gram] = share + rests[context] * probabilities[gram[1:]]
        backoffs |= rests
    return probabilities, backoffs
