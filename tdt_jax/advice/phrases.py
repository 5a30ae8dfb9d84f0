"""Phrases that are likely: a trie of their characters, compiled to an automaton over labels.

From a node of the trie every label whose characters follow the trie is an arc, so that a phrase is
found however the tokenizer cuts it, and whatever its case. A phrase begins and ends where a word
does.

A node has a potential: what its path has been given so far. An arc weighs the difference of two
potentials; a label that leaves a phrase unfinished pays its potential back, and one that leaves it
at its end, as a word ends, does not. Potentials grow with the characters, up to `weight * STRENGTH`
for each of the fewest labels that spell the phrase. A label that leaves the trie goes on from the
longest suffix of the path that begins a phrase (Aho & Corasick, 1975).
"""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real

import numpy as np

from tdt_jax.advice.pieces import Pieces, pieces_of
from tdt_jax.decoding.automaton import Graph
from tdt_jax.orthography import fold, is_boundary
from tdt_jax.tokenizer import Tokenizer

STRENGTH = 1.0  # nats for each label of a phrase of weight 1
INSERTION = 2.0  # nats by which a label of a phrase may be less probable than blank, and be emitted
MANY = 0.75  # share of the labels that begin a word, of which phrases begin with too many

INSIDE, BOUNDARY = 0, 1  # states outside of phrases: in a word, and before a word

Phrase = str | tuple[str, float]


class AdviceWarning(UserWarning):
    """Advice that the decoder cannot follow, or that does harm."""


@dataclass
class Trie:
    """Nodes of the phrases' characters. Node 0 is INSIDE, node 1 BOUNDARY, the trie's root."""

    children: list[dict[str, int]]
    parents: list[int]
    characters: list[str]  # that leads to each node
    credits: list[float]  # of positive phrases through it
    ends: dict[int, float]  # credit of the phrase that ends there

    def path(self, node: int) -> str:
        """Returns the characters that lead to a node."""
        characters = []
        while node > BOUNDARY:
            characters.append(self.characters[node])
            node = self.parents[node]
        return "".join(reversed(characters))


def phrases_graph(phrases: Iterable[Phrase], tokenizer: Tokenizer) -> Graph:
    """Returns the automaton of phrases, each with the weight 1 or its own.

    A negative weight makes a phrase less likely. Of a phrase that is given twice the last counts.
    Phrases that no labels spell are left out, and an AdviceWarning names them; another comes for so
    many phrases that any word may begin one.

    Raises: ValueError for no phrase, an empty one, one that is no text, a weight that is not
    finite, and if labels spell no phrase at all.
    """
    pieces = pieces_of(tokenizer)
    weights = phrase_weights(phrases)
    credits = {}
    for text, weight in weights.items():
        if count := pieces.fewest(fold(text)):
            credits[fold(text)] = STRENGTH * weight * count
    if unspelled := [text for text in weights if fold(text) not in credits]:
        named = ", ".join(map(repr, unspelled[:10])) + ", ..." * (len(unspelled) > 10)
        message = f"the model's labels cannot spell {len(unspelled)} of {len(weights)} phrases"
        if not credits:
            raise ValueError(f"{message}: {named}")
        warnings.warn(f"{message}, which are left out: {named}", AdviceWarning, stacklevel=2)
    graph, _ = compile_trie(make_trie(credits), pieces)
    _check_number(graph, pieces, len(credits))
    return graph


def phrase_weights(phrases: Iterable[Phrase]) -> dict[str, float]:
    """Returns the weight of each phrase, its spaces single.

    Raises: ValueError as `phrases_graph`.
    """
    weights: dict[str, float] = {}
    for phrase in [phrases] if isinstance(phrases, str) else phrases:
        pair = phrase if isinstance(phrase, tuple) else (phrase, 1.0)
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"a phrase is a text, or a text and a weight, got {phrase!r}")
        text, weight = " ".join(pair[0].split()), pair[1]
        if not text or not isinstance(weight, Real) or not math.isfinite(weight):
            raise ValueError(f"a phrase needs a text and a finite weight, got {phrase!r}")
        weights[text] = float(weight)
    if not weights:
        raise ValueError("there are no phrases")
    return weights


def _check_number(graph: Graph, pieces: Pieces, num_phrases: int) -> None:
    """Warns if phrases make most words likelier, and so none."""
    begins = np.array(
        [bool(text and text.startswith(" ") and text.strip()) for text in pieces.texts]
    )
    if not begins.any():
        return
    share = np.mean(graph.rows[INSIDE][0][begins] > STRENGTH / 2)
    if share > MANY:
        warnings.warn(
            f"{num_phrases} phrases begin with {100 * share:.0f} % of the labels that begin a "
            "word: they make nearly any word likelier, and so harm more than they help",
            AdviceWarning,
            stacklevel=3,
        )


def make_trie(credits: dict[str, float]) -> Trie:
    """Returns the trie of folded phrases, each with what it is given in all."""
    trie = Trie([{}, {}], [0, 0], ["", ""], [0.0, 0.0], {})
    children = trie.children
    for text, credit in credits.items():
        node = BOUNDARY
        for depth, character in enumerate(text, 1):
            after = children[node].get(character)
            if after is None:
                after = children[node][character] = len(children)
                children.append({})
                trie.parents.append(node)
                trie.characters.append(character)
                trie.credits.append(0.0)
            node = after
            trie.credits[node] = max(trie.credits[node], credit * depth / len(text))
        trie.ends[node] = credit
    return trie


def compile_trie(
    trie: Trie, pieces: Pieces, *, may_precede: Callable[[str], bool] | None = None
) -> tuple[Graph, np.ndarray]:
    """Returns the automaton of a trie, and the state of each node.

    A path may leave the trie for a phrase that began within it, after a text that `may_precede`
    phrases; None: any may.
    """
    children, num_nodes = trie.children, len(trie.children)
    order = _by_depth(trie)
    fails = [INSIDE, BOUNDARY, *[INSIDE] * (num_nodes - 2)]
    potentials, kept, paid = [0.0] * num_nodes, [0.0] * num_nodes, [0.0] * num_nodes
    # Of a node's path: `paid` remains if the word goes on and leaves the trie, `kept` if it ends.

    def go(node: int, character: str) -> int:
        while node > BOUNDARY:
            if character in children[node]:
                return children[node][character]
            node = fails[node]
        if node == BOUNDARY and character in children[BOUNDARY]:
            return children[BOUNDARY][character]
        return BOUNDARY if is_boundary(character) else INSIDE

    for node in order:
        parent, character = trie.parents[node], trie.characters[node]
        if parent == BOUNDARY:
            fails[node] = BOUNDARY if is_boundary(character) else INSIDE
        else:
            fails[node] = go(fails[parent], character)
        paid[node] = kept[parent] if is_boundary(character) else paid[parent]
        kept[node] = trie.ends.get(node, paid[node])
        is_positive = trie.credits[node] > 0
        potentials[node] = max(trie.credits[node], paid[node]) if is_positive else kept[node]

    def row(node: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.zeros(len(pieces.texts), np.int64)
        for label, text in enumerate(pieces.texts):
            target = BOUNDARY if text is None else node
            for character in text or "":
                target = go(target, character)
            targets[label] = target
        return np.array(potentials)[targets], targets

    own = np.array(potentials)
    losses = np.stack([kept, paid], axis=1) - own[:, None]
    labels, targets, weights, first = [], [], [], [0, 0]
    numbers = {node: number for number, node in enumerate([INSIDE, BOUNDARY, *order])}
    roots = list(fails)  # where back-offs end
    for node in order:  # a suffix is shorter, and has come before
        roots[node] = roots[fails[node]]
        followers = _followers(children, node, pieces)
        suffix = numbers[fails[node]]
        first.append(len(labels))
        inherited = slice(*first[suffix : suffix + 2])
        if may_precede and suffix > BOUNDARY:
            before = trie.path(node).removesuffix(trie.path(fails[node]))
            inherited = inherited if may_precede(before) else slice(0)
        for label, target in zip(labels[inherited], targets[inherited], strict=True):
            if label not in followers:
                labels.append(label)
                targets.append(target)
                weights.append(potentials[target] + losses[node, pieces.classes[label]])
        labels += followers
        targets += followers.values()
        weights += [potentials[target] - potentials[node] for target in followers.values()]
    order = [INSIDE, BOUNDARY, *order]
    number = np.argsort(order)
    rows = {INSIDE: row(INSIDE), BOUNDARY: row(BOUNDARY)}
    graph = Graph(
        first=np.array([*first, len(labels)]),
        labels=np.array(labels, int),
        weights=np.array(weights),
        targets=number[np.array(targets, int)],
        backoff=np.array(roots)[order],
        backoff_weights=losses[order],
        rows={state: (weights, number[targets]) for state, (weights, targets) in rows.items()},
        classes=pieces.classes,
        start=BOUNDARY,
        lift=(0.0, INSERTION),
    )
    return graph, number


def _by_depth(trie: Trie) -> list[int]:
    """Returns the nodes of phrases, the shortest paths first."""
    order = list(trie.children[BOUNDARY].values())
    for node in order:  # grows meanwhile
        order.extend(trie.children[node].values())
    return order


def _followers(children: list[dict[str, int]], node: int, pieces: Pieces) -> dict[int, int]:
    """Returns the labels that follow the trie from a node, with the nodes they end at."""
    found, pairs = {}, [(node, 0)]
    while pairs:
        node, piece = pairs.pop()
        if piece:
            for label in pieces.labels[piece]:
                found[label] = node
        ways, onward = pieces.children[piece], children[node]
        if len(onward) < len(ways):
            pairs += [(after, ways[c]) for c, after in onward.items() if c in ways]
        else:
            pairs += [(onward[c], after) for c, after in ways.items() if c in onward]
    return found
