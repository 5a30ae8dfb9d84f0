"""Long audio in pieces: where it is cut, and which piece a word belongs to.

    core    |----------------|-----------------|--------------|     cut at pauses
    pieces  |-------------------|                                   each hears up to `overlap`
                          |-----------------------|                 more on both sides, and begins
                                            |-----------------|     and ends at a pause as well

Every moment is in one core, and a word belongs to the piece whose core holds its middle. Two pieces
hear a word near a cut at slightly different times: heard by both, it is one word with one middle,
so that it is not doubled. Where they have heard different words, it is that of which its piece is
more certain. What only one of them has heard is kept, whichever core holds it, unless
it is at the edge of its piece, where half a word may be mistaken for one, or the other piece has
heard another word there.
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tdt_jax.audio.silence import sounding
from tdt_jax.audio.waveform import quietest
from tdt_jax.inference.transcript import TimedWord, is_blank
from tdt_jax.orthography import may_part, space_between

WINDOW = 0.2  # seconds that must be quiet at a cut
SILENCE = 2.0  # seconds of silence that a piece may hold at most
SHORT = 2.0  # seconds; what sounds for less than this between two silences is not heard alone
BRIDGE = 0.5  # seconds of zeros in place of the silence beside it
EMPTY = np.zeros(0, np.float32)
ALONE = 0.25  # seconds: two words whose middles are less than twice as far apart may be one
ANOTHER = 0.12  # seconds by which words of another text count as farther apart
NEAR = 5.0  # seconds around a cut in which both pieces may hear a word
LONG_WORD = 2.0  # seconds; longer are telephone numbers, and what a model writes without spaces
GAP = 0.5  # seconds between the parts of such a word that two pieces have heard, at most
EDGE = 0.8  # seconds of a piece at both ends in which a word that it alone has heard is doubted


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples of a recording, and its core: [first, last) of the recording's samples."""

    samples: np.ndarray  # [S], without silence at the ends of what sounds
    start: int  # the recording's sample that `samples` begins with
    first: int
    last: int
    # Where silence was left out: (samples before it, samples left out from the start up to it).
    omitted: tuple[tuple[int, int], ...] = ()


def cut(
    blocks: Iterable[np.ndarray], *, longest: int, overlap: int, sample_rate: int
) -> Iterator[Piece]:
    """Cut a recording that comes block by block; no more than about a piece is held at a time.

    Silence (`tdt_jax.audio.silence.sounding`) is in no piece at the ends of a recording, nor if it
    lasts for more than two seconds inside: what is before it and what is after it are cut apart,
    and do not overlap. But what sounds for less than two seconds says little by itself: it stays in
    a piece with what is beside it, half a second of zeros in place of the silence.
    Other cuts are in the middle of the quietest 0.2 s of the last third that a core may reach, and
    pieces begin and end in the quietest of the outer half of what they hear beyond it.

    Args:
      blocks: [S] float32 each, any sizes.
      longest: most samples in a piece.
      overlap: samples that a piece hears before and after its core, at most; half of it at least.
    """
    window = round(WINDOW * sample_rate)
    outer = max(window, overlap // 2)  # where a piece may begin or end
    if overlap < window:
        raise ValueError(f"an overlap of {overlap} is shorter than the {window} of a pause")
    if longest < 2 * overlap + 3 * window:
        raise ValueError(
            f"pieces of {longest} samples are too short for an overlap of {overlap} on both sides"
        )
    length = 0  # of what is read

    def counted():
        nonlocal length
        for block in blocks:
            length += len(block)
            yield block

    sounds = sounding(counted(), longest=round(SILENCE * sample_rate), sample_rate=sample_rate)
    # From here on positions do not count what bridges leave out, until a Piece says them.
    omitted: list[tuple[int, int]] = []  # from which position on, how many samples
    sizes = dict(short=round(SHORT * sample_rate), bridge=round(BRIDGE * sample_rate))
    sounds = _bridged(sounds, omitted, **sizes)
    coming = next(sounds, None)

    def piece(samples: np.ndarray, start: int, first: int, last: int) -> Piece:
        before = _omitted(omitted, start)
        inside = [(n - start, k - before) for n, k in omitted if start < n < start + len(samples)]
        places = (place + _omitted(omitted, place) for place in (start, first, last))
        return Piece(samples, *places, tuple(inside))

    held, start, first = EMPTY, coming[0] if coming else 0, 0
    while True:
        wanted = start + longest + 1
        parts, end = [held], start + len(held)
        while end < wanted and coming and coming[0] == end:
            parts.append(coming[1])
            end += len(coming[1])
            coming = next(sounds, None)
        held = np.concatenate(parts)
        if end < wanted:  # nothing, or silence, is next
            last = coming[0] if coming else length - _omitted(omitted, end)
            yield piece(held, start, first, last)
            if not coming:
                return
            held, start, first = EMPTY, last, last
            continue
        reach = start + longest - overlap  # of the core
        search = max(first + window, reach - (reach - max(first, start)) // 3)
        last = start + _pause(held, search - start, reach - start, window)
        beyond = last + overlap - start
        end = start + _pause(held, beyond - outer, beyond, window)
        yield piece(held[: end - start], start, first, last)
        beyond = max(last - overlap - start, 0)
        begin = start + _pause(held, beyond, beyond + outer, window)
        held, start, first = held[begin - start :].copy(), begin, last


def _omitted(omitted: Sequence[tuple[int, int]], position: int) -> int:
    """How many samples bridges left out before a position that does not count them."""
    index = bisect.bisect_right(omitted, position, key=lambda each: each[0])
    return omitted[index - 1][1] if index else 0


def _bridged(
    sounds: Iterable[tuple[int, np.ndarray]],
    omitted: list[tuple[int, int]],
    *,
    short: int,
    bridge: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields what sounds, with `bridge` zeros for a silence beside less than `short` samples of it.

    Positions do not count what is left out for that; `omitted` takes from which of them on it is
    how much: from the middle of the zeros, as a word's time may be a frame early.
    """
    removed = size = end = 0  # samples left out; of sound since the last silence; behind that sound
    waiting: list[tuple[int, np.ndarray]] = []  # what sounds after a silence, while it is short

    def released(is_bridged: bool):
        nonlocal removed, size, end
        gap = waiting[0][0] - end if waiting else 0
        if waiting and is_bridged and gap > bridge:
            yield end - removed, np.zeros(bridge, np.float32)
            removed += gap - bridge
            omitted.append((waiting[0][0] - removed - bridge // 2, removed))
        elif waiting and not is_bridged:
            size = 0
        for position, samples in waiting:
            yield position - removed, samples
            size, end = size + len(samples), position + len(samples)
        waiting.clear()

    started = False
    for position, samples in sounds:
        behind = waiting[-1][0] + len(waiting[-1][1]) if waiting else end
        if started and position != behind:
            yield from released(True)
            waiting.append((position, samples))
        elif waiting:
            waiting.append((position, samples))
        else:
            started = True
            yield position - removed, samples
            size, end = size + len(samples), position + len(samples)
        if sum(len(part) for _, part in waiting) >= short:
            yield from released(size < short)
    yield from released(True)


def _pause(samples: np.ndarray, begin: int, end: int, window: int) -> int:
    """The middle of the quietest `window` samples between two places."""
    return begin + quietest(samples[begin:end], window) + window // 2


def join(
    pieces: Sequence[Sequence[TimedWord]],
    cuts: Sequence[float],
    extents: Sequence[tuple[float, float]],
    decode: Callable[[Sequence[int]], str],
) -> list[TimedWord]:
    """The words of a recording from those that each piece heard, all in the recording's seconds.

    A word of more than two seconds may be handed over in the middle, between two tokens. Where
    words of two pieces meet, a space is between them if their scripts have any; a closing mark
    joins the word before.

    Args:
      pieces: the words of each piece, in order.
      cuts: seconds, one between each piece and the next.
      extents: seconds where each piece begins and ends, with what it hears beyond the cuts.
      decode: the text of labels.
    """
    if len(cuts) != max(len(pieces) - 1, 0) or len(extents) != len(pieces):
        raise ValueError(
            f"got {len(cuts)} cuts and {len(extents)} extents for {len(pieces)} pieces"
        )
    parts = [[part for word in words for part in _split(word)] for words in pieces]
    kept = [[True] * len(words) for words in parts]
    for i, cut in enumerate(cuts):
        heard_by_both = extents[i + 1][0], extents[i][1]
        keeping = _kept(*parts[i : i + 2], cut, *heard_by_both)
        for words, keeps in zip(kept[i : i + 2], keeping, strict=True):
            words[:] = [a and b for a, b in zip(words, keeps, strict=True)]
    chosen = [
        (number, index, word)
        for number, (words, keeps) in enumerate(zip(parts, kept, strict=True))
        for index, (word, keep) in enumerate(zip(words, keeps, strict=True))
        if keep
    ]
    found: list[TimedWord] = []
    last = None
    for number, index, word in sorted(chosen, key=lambda each: each[2].middle):
        goes_on = not word.begins and found and found[-1].is_part
        follows = last == (number, index - 1)  # in what its own piece has heard
        if goes_on and (follows or word.start - found[-1].end < GAP):
            labels = found[-1].labels + word.labels
            found[-1] = _longer(found[-1], word, decode(labels))
        else:
            text = decode(word.labels) if word.is_part else word.text
            space = word.space_before
            meet = bool(found) and not follows  # two pieces
            if meet and (index == 0 or not space):
                space = space_between(found[-1].text, text)
            if space or not meet or may_part(found[-1].text, text):
                found.append(replace(word, text=text, begins=True, space_before=space))
            else:
                found[-1] = _longer(found[-1], word, found[-1].text + text)
        last = number, index
    return _in_order(found)


def _longer(word: TimedWord, part: TimedWord, text: str) -> TimedWord:
    """A word with another part, spelled `text`."""
    return replace(
        word, labels=word.labels + part.labels, tokens=word.tokens + part.tokens, text=text
    )


def _in_order(words: Sequence[TimedWord]) -> list[TimedWord]:
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


def _split(word: TimedWord) -> list[TimedWord]:
    """A long word by its tokens, each with the whitespace beside it."""
    if word.end - word.start <= LONG_WORD:
        return [word]
    groups: list[list[int]] = []
    blank = [is_blank(token.text) for token in word.tokens]
    for i, is_space in enumerate(blank):
        if not groups or not (is_space or all(blank[k] for k in groups[-1])):
            groups.append([])
        groups[-1].append(i)
    parts = []
    for group in groups:
        labels, tokens = (tuple(x[i] for i in group) for x in (word.labels, word.tokens))
        text = "".join(token.text for token in tokens)
        part = TimedWord(labels, tokens, text, begins=not parts, is_part=True)
        parts.append(replace(part, space_before=word.space_before))
    return parts


def _kept(
    before: Sequence[TimedWord], after: Sequence[TimedWord], cut: float, begin: float, end: float
) -> tuple[list[bool], list[bool]]:
    """Which words of two pieces, on both sides of a cut, are kept; both hear [begin, end]."""
    first = [word.middle < cut for word in before]
    second = [word.middle >= cut for word in after]
    pairs = _pairs(before, after, cut)
    for i, j in pairs:
        first[i] = before[i].middle + after[j].middle < 2 * cut
        if before[i].text != after[j].text:  # the more certain; a half word is none
            one = 0.0 if before[i].end > end - EDGE else before[i].confidence
            other = 0.0 if after[j].start < begin + EDGE else after[j].confidence
            first[i] = one > other or (first[i] and one == other)
        second[j] = not first[i]
    paired = {i for i, _ in pairs}, {j for _, j in pairs}
    mine = [word for word, keep in zip(before, first, strict=True) if keep]
    theirs = [word for word, keep in zip(after, second, strict=True) if keep]
    for i, word in enumerate(before):
        if i not in paired[0] and word.middle >= cut:
            first[i] = word.end <= end - EDGE and not _clashes(word, theirs)
    for j, word in enumerate(after):
        if j not in paired[1] and word.middle < cut:
            second[j] = word.start >= begin + EDGE and not _clashes(word, mine)
    return first, second


def _clashes(word: TimedWord, others: Sequence[TimedWord]) -> bool:
    return any(word.start < other.end and other.start < word.end for other in others)


def _pairs(
    before: Sequence[TimedWord], after: Sequence[TimedWord], cut: float
) -> list[tuple[int, int]]:
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


def _distance(word: TimedWord, other: TimedWord) -> float:
    """Seconds between the middles, and as a fine more if the two are not the same."""
    return abs(word.middle - other.middle) + (0.0 if word.text == other.text else ANOTHER)
