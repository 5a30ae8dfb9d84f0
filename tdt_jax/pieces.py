"""Long audio in pieces: where it is cut, and which piece a word belongs to.

    core    |----------------|-----------------|--------------|     cut at pauses
    pieces  |-------------------|                                   each hears `overlap` more
                          |-----------------------|                 on both sides of its core
                                            |-----------------|

Every moment is in one core, and a word belongs to the piece whose core holds its middle. Two pieces
hear a word near a cut at slightly different times: heard by both, it is one word with one middle,
so that it is neither lost nor doubled.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tdt_jax.transcript import Spoken

WINDOW = 0.2  # seconds that must be quiet at a cut
ALONE = 0.15  # seconds: two words whose middles are less than twice as far apart may be one
ANOTHER = 0.12  # seconds by which words of another text count as farther apart
NEAR = 5.0  # seconds around a cut in which both pieces may hear a word
LONG_WORD = 2.0  # seconds; longer are the words of a language without spaces
GAP = 0.5  # seconds of silence inside such a word, at most


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples of a recording, and its core: [first, last) of the recording's samples."""

    samples: np.ndarray  # [S]
    start: int  # the recording's sample that `samples` begins with
    first: int
    last: int


def cut(
    blocks: Iterable[np.ndarray], *, longest: int, overlap: int, sample_rate: int
) -> Iterator[Piece]:
    """Cut a recording that comes block by block; no more than about a piece is held at a time.

    A cut is in the middle of the quietest 0.2 s of the last third that a core may reach.

    Args:
      blocks: [S] float32 each, any sizes.
      longest: most samples in a piece.
      overlap: samples that a piece hears before and after its core.
    """
    window = round(WINDOW * sample_rate)
    if longest <= 2 * overlap + 3 * window:
        raise ValueError(
            f"pieces of {longest} samples are too short for an overlap of {overlap} on both sides"
        )
    blocks, held, start, first = iter(blocks), np.zeros(0, np.float32), 0, 0
    while True:
        wanted = start + longest + 1
        parts, end = [held], start + len(held)
        while end < wanted and (block := next(blocks, None)) is not None:
            parts.append(block)
            end += len(block)
        held = np.concatenate(parts)
        if end < wanted:
            yield Piece(held, start, first, end)
            return
        reach = start + longest - overlap  # of the core
        search = max(first + window, reach - (reach - first) // 3)
        last = search + quietest(held[search - start : reach - start], window) + window // 2
        yield Piece(held[: last + overlap - start], start, first, last)
        held = held[last - overlap - start :].copy()
        start, first = last - overlap, last


def quietest(samples: np.ndarray, window: int) -> int:
    """Where the `window` samples [S] with the least power begin."""
    power = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(power[window:] - power[:-window]))


def join(
    pieces: Sequence[Sequence[Spoken]],
    cuts: Sequence[float],
    decode: Callable[[Sequence[int]], str],
) -> list[Spoken]:
    """The words of a recording from those that each piece heard, all in the recording's seconds.

    A word of more than two seconds may be handed over in the middle, between two tokens.

    Args:
      pieces: the words of each piece, in order.
      cuts: seconds, one between each piece and the next.
      decode: the text of labels.
    """
    if len(cuts) != max(len(pieces) - 1, 0):
        raise ValueError(f"got {len(cuts)} cuts for {len(pieces)} pieces")
    parts = [[part for word in words for part in _split(word)] for words in pieces]
    bounds = [_hand_over(*parts[i : i + 2], cut) for i, cut in enumerate(cuts)]
    firsts = [0, *(first for _, first in bounds)]
    ends = [*(end for end, _ in bounds), None]
    found: list[Spoken] = []
    is_open = False  # whether the last word is a part of one that may go on
    for words, first, end in zip(parts, firsts, ends, strict=True):
        goes_on = is_open and words[first:end] and _touch(found[-1], words[first])
        while 0 < first < len(words) and not words[first].begins and not goes_on:
            first -= 1  # only this piece has heard the word
        for word in words[first:end]:
            if word.begins or not is_open:
                found.append(replace(word, begins=True))
            else:
                labels = found[-1].labels + word.labels
                found[-1] = Spoken(labels, found[-1].tokens + word.tokens, decode(labels))
            is_open = word.is_part
    return _in_order(found)


def _touch(word: Spoken, following: Spoken) -> bool:
    return following.start - word.end < GAP


def _in_order(words: Sequence[Spoken]) -> list[Spoken]:
    """No token before the end of the one before it: two pieces' times differ a little."""
    found, time = [], 0.0
    for word in words:
        tokens = []
        for token in word.tokens:
            start = max(token.start, time)
            tokens.append(replace(token, start=start, end=max(token.end, start)))
            time = tokens[-1].end
        found.append(replace(word, tokens=tuple(tokens)))
    return found


def _split(word: Spoken) -> list[Spoken]:
    if word.end - word.start <= LONG_WORD:
        return [word]
    return [
        Spoken((label,), (token,), token.text, begins=i == 0, is_part=True)
        for i, (label, token) in enumerate(zip(word.labels, word.tokens, strict=True))
    ]


def _hand_over(before: Sequence[Spoken], after: Sequence[Spoken], cut: float) -> tuple[int, int]:
    """How many words of the one piece come before the cut, and how many of the next are left out.

    A pair counts once, by the mean of its middles; then no word before a pair that comes before the
    cut is left out, and none after a pair that comes after it is kept.
    """
    end = sum(word.middle < cut for word in before)
    first = sum(word.middle < cut for word in after)
    earlier, later = None, None
    for i, j in _pairs(before, after, cut):
        if before[i].middle + after[j].middle < 2 * cut:
            earlier = i, j
        elif later is None:
            later = i, j
    if earlier:
        end, first = max(end, earlier[0] + 1), max(first, earlier[1] + 1)
    if later:
        end, first = min(end, later[0]), min(first, later[1])
    return end, first


def _pairs(before: Sequence[Spoken], after: Sequence[Spoken], cut: float) -> list[tuple[int, int]]:
    """Indices (i, j) of words that are one: the alignment in order that costs least."""
    mine, theirs = (
        [i for i, word in enumerate(words) if abs(word.middle - cut) < NEAR]
        for words in (before, after)
    )
    # The least cost of the words from (i, j) on: a pair costs what its middles are apart.
    cost = np.full((len(mine) + 1, len(theirs) + 1), 0.0)
    cost[:-1, -1] = ALONE * np.arange(len(mine), 0, -1)
    cost[-1, :-1] = ALONE * np.arange(len(theirs), 0, -1)
    pair = np.array([[_distance(before[i], after[j]) for j in theirs] for i in mine])
    for i, j in itertools.product(reversed(range(len(mine))), reversed(range(len(theirs)))):
        alone = ALONE + min(cost[i + 1, j], cost[i, j + 1])
        cost[i, j] = min(alone, pair[i, j] + cost[i + 1, j + 1])
    found, i, j = [], 0, 0
    while i < len(mine) and j < len(theirs):
        if cost[i, j] == pair[i, j] + cost[i + 1, j + 1]:
            found.append((mine[i], theirs[j]))
            i, j = i + 1, j + 1
        elif cost[i + 1, j] <= cost[i, j + 1]:
            i += 1
        else:
            j += 1
    return found


def _distance(word: Spoken, other: Spoken) -> float:
    """Seconds between the middles, and as a fine more if the two are not the same."""
    return abs(word.middle - other.middle) + (0.0 if word.text == other.text else ANOTHER)
