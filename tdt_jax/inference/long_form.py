"""Cuts long audio into windows that overlap, and joins the words of the windows.

    core     |----------------|-----------------|--------------|     cut at pauses
    windows  |-------------------|                                   each reaches up to `overlap`
                           |-----------------------|                 beyond its core on both sides,
                                             |-----------------|     to a pause as well

Every moment is in one core, and a word belongs to the window whose core holds its middle. Two
windows place a word near a cut at slightly different times: in both, it is one word with one
middle, so that it is not doubled. Where their words differ, the one with the higher confidence is
kept. A word that is in one window only is kept whichever core holds it, unless it is at the edge
of its window, where half a word may be mistaken for one, or overlaps a word of the other window.
"""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tdt_jax.audio.silence import sounding
from tdt_jax.audio.waveform import quietest
from tdt_jax.inference.transcript import TimedWord, is_blank
from tdt_jax.orthography import may_part, space_between

PIECE_SECONDS = 30.72  # length of a window, unless the model's configuration has one
QUIET = 0.2  # seconds that must be quiet at a cut
SILENCE = 2.0  # seconds of silence that a window may hold at most
SHORT = 2.0  # seconds; sound of less than this between two silences is no window of its own
BRIDGE = 0.5  # seconds of zeros in place of the silence beside it
EMPTY = np.zeros(0, np.float32)
ALONE = 0.25  # seconds: two words whose middles are less than twice as far apart may be one
ANOTHER = 0.12  # seconds by which words of another text count as farther apart
NEAR = 5.0  # seconds around a cut in which a word may be in both windows
LONG_WORD = 2.0  # seconds; longer are telephone numbers, and what a model writes without spaces
GAP = 0.5  # seconds between the parts of such a word from two windows, at most
EDGE = 0.8  # seconds at both ends of a window in which a word that is in no other is doubted


@dataclass(frozen=True, eq=False)
class Window:
    """Samples of a recording, and their core: [first, last) of the recording's samples."""

    samples: np.ndarray  # [S], without the silence before and after the sound
    start: int  # the recording's sample that `samples` begins with
    first: int
    last: int
    # Where silence was left out: (samples before it, samples left out from the start up to it).
    omitted: tuple[tuple[int, int], ...] = ()


def cut(
    blocks: Iterable[np.ndarray], *, longest: int, overlap: int, sample_rate: int
) -> Iterator[Window]:
    """Cuts a recording that comes block by block, and holds about one window of it at a time.

    Silence (`tdt_jax.audio.silence.sounding`) is left out at the ends of a recording, and inside
    if it lasts for more than two seconds: the sounds before and after it are cut apart, and do not
    overlap. But a sound of less than two seconds has little context: it shares a window with the
    sounds beside it, half a second of zeros in place of the silence.
    Other cuts are in the middle of the quietest 0.2 s of the last third that a core may reach, and
    windows begin and end in the quietest part of the outer half of their overlap.

    Args:
      blocks: [S] float32 each, any sizes.
      longest: most samples in a window.
      overlap: most samples that a window has before and after its core; it has half of them at
        least.
      sample_rate: in Hz.

    Yields: the windows in order; one without samples for a silent recording.
    Raises: ValueError if `overlap` is too short for a pause, or `longest` for `overlap`.
    """
    quiet = round(QUIET * sample_rate)
    outer = max(quiet, overlap // 2)  # where a window may begin or end
    if overlap < quiet:
        raise ValueError(f"an overlap of {overlap} is shorter than the {quiet} of a pause")
    if longest < 2 * overlap + 3 * quiet:
        raise ValueError(
            f"windows of {longest} samples are too short for an overlap of {overlap} on both sides"
        )
    length = 0  # samples read

    def counted() -> Iterator[np.ndarray]:
        nonlocal length
        for block in blocks:
            length += len(block)
            yield block

    sounds = sounding(counted(), longest=round(SILENCE * sample_rate), sample_rate=sample_rate)
    # From here on positions do not count the samples that bridges leave out; a Window's do.
    omitted: list[tuple[int, int]] = []  # from which position on, how many samples
    sizes = dict(short=round(SHORT * sample_rate), bridge=round(BRIDGE * sample_rate))
    sounds = _bridged(sounds, omitted, **sizes)
    coming = next(sounds, None)

    def window(samples: np.ndarray, start: int, first: int, last: int) -> Window:
        before = _omitted(omitted, start)
        inside = [(n - start, k - before) for n, k in omitted if start < n < start + len(samples)]
        start, first, last = (place + _omitted(omitted, place) for place in (start, first, last))
        return Window(samples, start, first, last, tuple(inside))

    held, start, first = EMPTY, coming[0] if coming else 0, 0
    while True:
        wanted = start + longest + 1
        parts, end = [held], start + len(held)
        while end < wanted and coming and coming[0] == end:
            parts.append(coming[1])
            end += len(coming[1])
            coming = next(sounds, None)
        held = np.concatenate(parts)
        if end < wanted:  # the recording ends, or silence follows
            last = coming[0] if coming else length - _omitted(omitted, end)
            yield window(held, start, first, last)
            if not coming:
                return
            held, start, first = EMPTY, last, last
            continue
        reach = start + longest - overlap  # of the core
        search = max(first + quiet, reach - (reach - max(first, start)) // 3)
        last = start + _pause(held, search - start, reach - start, quiet)
        beyond = last + overlap - start
        end = start + _pause(held, beyond - outer, beyond, quiet)
        yield window(held[: end - start], start, first, last)
        beyond = max(last - overlap - start, 0)
        begin = start + _pause(held, beyond, beyond + outer, quiet)
        held, start, first = held[begin - start :].copy(), begin, last


def join(
    windows: Sequence[Sequence[TimedWord]],
    cuts: Sequence[float],
    extents: Sequence[tuple[float, float]],
    decode: Callable[[Sequence[int]], str],
) -> list[TimedWord]:
    """Joins the words of a recording's windows; all times are seconds of the recording.

    A word of more than two seconds may be joined in the middle, between two tokens. Where words of
    two windows meet, a space is between them if their scripts have any; a closing mark joins the
    word before.

    Args:
      windows: the words of each window, in order.
      cuts: seconds, one between each window and the next.
      extents: seconds where each window begins and ends, its overlap included.
      decode: the text of labels.

    Returns: the words in order, no token before the end of the token before it.
    Raises: ValueError if the numbers of windows, cuts and extents do not fit.
    """
    if len(cuts) != max(len(windows) - 1, 0) or len(extents) != len(windows):
        raise ValueError(
            f"got {len(cuts)} cuts and {len(extents)} extents for {len(windows)} windows"
        )
    parts = [[part for word in words for part in _split(word)] for words in windows]
    kept = [[True] * len(words) for words in parts]
    for i, cut in enumerate(cuts):
        begin, end = extents[i + 1][0], extents[i][1]  # both windows hold what is between
        keeping = _kept(parts[i], parts[i + 1], cut, begin, end)
        for words, keeps in zip(kept[i : i + 2], keeping, strict=True):
            words[:] = [a and b for a, b in zip(words, keeps, strict=True)]
    chosen = [
        (number, index, word)
        for number, (words, keeps) in enumerate(zip(parts, kept, strict=True))
        for index, (word, keep) in enumerate(zip(words, keeps, strict=True))
        if keep
    ]
    joined: list[TimedWord] = []
    last = None
    for number, index, word in sorted(chosen, key=lambda each: each[2].middle):
        continues = not word.begins and joined and joined[-1].is_part
        follows = last == (number, index - 1)  # in its own window
        if continues and (follows or word.start - joined[-1].end < GAP):
            labels = joined[-1].labels + word.labels
            joined[-1] = _longer(joined[-1], word, decode(labels))
        else:
            text = decode(word.labels) if word.is_part else word.text
            space = word.space_before
            meet = bool(joined) and not follows  # two windows
            if meet and (index == 0 or not space):
                space = space_between(joined[-1].text, text)
            if space or not meet or may_part(joined[-1].text, text):
                joined.append(replace(word, text=text, begins=True, space_before=space))
            else:
                joined[-1] = _longer(joined[-1], word, joined[-1].text + text)
        last = number, index
    return _in_order(joined)


def _omitted(omitted: Sequence[tuple[int, int]], position: int) -> int:
    """Returns the samples that bridges left out before a position that does not count them."""
    index = bisect.bisect_right(omitted, position, key=lambda each: each[0])
    return omitted[index - 1][1] if index else 0


def _bridged(
    sounds: Iterable[tuple[int, np.ndarray]],
    omitted: list[tuple[int, int]],
    *,
    short: int,
    bridge: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Puts `bridge` zeros in place of a silence beside a sound of less than `short` samples.

    Yields (position, samples) as `sounding` does; positions do not count what is left out for the
    bridges. Appends to `omitted` from which position on how many samples are left out: from the
    middle of the zeros, as a word's time may be a frame early.
    """
    removed = size = end = 0  # samples left out; of sound since the last silence; behind that sound
    waiting: list[tuple[int, np.ndarray]] = []  # the sound after a silence, while it is short

    def released(is_bridged: bool) -> Iterator[tuple[int, np.ndarray]]:
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


def _pause(samples: np.ndarray, begin: int, end: int, quiet: int) -> int:
    """Returns the middle of the quietest `quiet` samples between two places."""
    return begin + quietest(samples[begin:end], quiet) + quiet // 2


def _split(word: TimedWord) -> list[TimedWord]:
    """Splits a long word into its tokens, each with the whitespace beside it."""
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
        tokens = tuple(word.tokens[i] for i in group)
        part = TimedWord(
            labels=tuple(word.labels[i] for i in group),
            tokens=tokens,
            text="".join(token.text for token in tokens),
            begins=not parts,
            is_part=True,
            space_before=word.space_before,
        )
        parts.append(part)
    return parts


def _kept(
    before: Sequence[TimedWord], after: Sequence[TimedWord], cut: float, begin: float, end: float
) -> tuple[list[bool], list[bool]]:
    """Returns which words of the windows beside a cut are kept; both windows hold [begin, end]."""
    first = [word.middle < cut for word in before]
    second = [word.middle >= cut for word in after]
    pairs = _pairs(before, after, cut)
    for i, j in pairs:
        first[i] = before[i].middle + after[j].middle < 2 * cut
        if before[i].text != after[j].text:  # half a word, at a window's edge, has no confidence
            one = 0.0 if before[i].end > end - EDGE else before[i].confidence
            other = 0.0 if after[j].start < begin + EDGE else after[j].confidence
            first[i] = one > other or (first[i] and one == other)
        second[j] = not first[i]
    paired = {i for i, _ in pairs}, {j for _, j in pairs}
    kept_before = [word for word, keep in zip(before, first, strict=True) if keep]
    kept_after = [word for word, keep in zip(after, second, strict=True) if keep]
    for i, word in enumerate(before):
        if i not in paired[0] and word.middle >= cut:
            first[i] = word.end <= end - EDGE and not _overlaps(word, kept_after)
    for j, word in enumerate(after):
        if j not in paired[1] and word.middle < cut:
            second[j] = word.start >= begin + EDGE and not _overlaps(word, kept_before)
    return first, second


def _overlaps(word: TimedWord, others: Sequence[TimedWord]) -> bool:
    return any(word.start < other.end and other.start < word.end for other in others)


def _pairs(
    before: Sequence[TimedWord], after: Sequence[TimedWord], cut: float
) -> list[tuple[int, int]]:
    """Returns indices (i, j) of words that are one: the alignment in order that costs least.

    A pair costs the seconds between the middles, and ANOTHER if the texts differ; a word without a
    partner costs ALONE.
    """
    rows, columns = (
        [
            (i, word.middle, word.text)
            for i, word in enumerate(words)
            if abs(word.middle - cut) < NEAR
        ]
        for words in (before, after)
    )
    pair = [
        [abs(middle - other) + ANOTHER * (text != other_text) for _, other, other_text in columns]
        for _, middle, text in rows
    ]
    # cost[i][j]: the least cost of the words from i and j on
    cost = [[ALONE * j for j in range(len(columns), -1, -1)] for _ in range(len(rows) + 1)]
    for i in reversed(range(len(rows))):
        cost[i][-1] = ALONE * (len(rows) - i)
        for j in reversed(range(len(columns))):
            alone = ALONE + min(cost[i + 1][j], cost[i][j + 1])
            cost[i][j] = min(alone, pair[i][j] + cost[i + 1][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(rows) and j < len(columns):
        if cost[i][j] == pair[i][j] + cost[i + 1][j + 1]:
            pairs.append((rows[i][0], columns[j][0]))
            i, j = i + 1, j + 1
        elif cost[i + 1][j] <= cost[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def _longer(word: TimedWord, part: TimedWord, text: str) -> TimedWord:
    """Returns a word with another part behind it, spelled `text`."""
    return replace(
        word, labels=word.labels + part.labels, tokens=word.tokens + part.tokens, text=text
    )


def _in_order(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Returns the words with no token before the end of the one before it.

    The times of two windows differ a little.
    """
    ordered, time = [], 0.0
    for word in words:
        tokens = []
        for token in word.tokens:
            start = max(token.start, time)
            tokens.append(replace(token, start=start, end=max(token.end, start)))
            time = tokens[-1].end
        ordered.append(replace(word, tokens=tuple(tokens)))
    return ordered
