"""Writes a transcript as text: plain, SubRip and WebVTT subtitles, JSON, tab-separated, NIST CTM.

Of all divisions of the words into cues that keep the rules, subtitles have the one whose costs
(`_cost`) have the smallest sum. Their times are in whole milliseconds.

A line has `max_chars` columns, of which a wide character (Japanese, Chinese, Korean, full-width)
takes two or more: `max_wide_chars` of them fill it, as is the custom (13 to 16 in Japanese, 16 in
Chinese and Korean).
"""

import bisect
import dataclasses
import functools
import html
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tdt_jax.inference.transcript import CLOSING, Transcript, ends_sentence
from tdt_jax.orthography import is_wide, may_part

FORMATS = ("txt", "srt", "vtt", "json", "tsv", "ctm")
DIGITS = {"start": 3, "end": 3, "duration": 3, "confidence": 4, "probability": 4}  # of JSON
CLAUSE_ENDS = ",;:–—،؛、，；：､"


@dataclass(frozen=True)
class SubtitleRules:
    """The limits of a cue; a word that alone is beyond a limit has a line or a cue of its own."""

    max_chars: int = 42  # of a line
    max_lines: int = 2
    max_seconds: float = 7.0  # of a cue
    min_seconds: float = 1.0  # where the next cue and the audio's end leave room
    max_gap: float = 1.0  # seconds; a pause this long ends a cue
    min_gap: float = 0.08  # seconds that a cue kept for min_seconds leaves before the next
    max_wide_chars: int = 16  # of a line, if that is less than half of max_chars

    def __post_init__(self):
        for name in ("max_chars", "max_lines", "max_wide_chars"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_seconds", "max_gap"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds, got {getattr(self, name)}")
        if not self.min_gap >= 0:
            raise ValueError(f"min_gap must be at least 0 seconds, got {self.min_gap}")
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise ValueError(
                f"min_seconds must be in 0..max_seconds, which is {self.max_seconds}, "
                f"got {self.min_seconds}"
            )

    @property
    def size(self) -> int:
        """The size of a line, in units in which all sizes are whole numbers."""
        return self.max_chars * self.max_wide_chars

    def size_of(self, text: str) -> int:
        """Returns the size of a text: each character takes its share of a line."""
        wide = sum(map(is_wide, text))
        narrow_size, wide_size = self.max_wide_chars, max(self.max_chars, 2 * self.max_wide_chars)
        return (len(text) - wide) * narrow_size + wide * wide_size


DEFAULT_RULES = SubtitleRules()


def render(
    transcript: Transcript,
    format: str,
    *,
    name: str = "",
    rules: SubtitleRules = DEFAULT_RULES,
    highlight_words: bool = False,
) -> str:
    """Returns the transcript in one of FORMATS; unless it is empty, it ends in a newline.

    Args:
      transcript: of a recording.
      format: one of FORMATS.
      name: of the recording, for JSON's "file" and CTM's first column.
      rules: of srt and vtt.
      highlight_words: srt repeats a cue for each word, underlined while it is spoken; vtt has
        timestamps between the words. The other formats ignore it.

    Raises: ValueError for another format.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if format == "txt":
        return transcript.text + "\n"
    if format == "json":
        return _json(transcript, name)
    if format == "tsv":
        return _tsv(transcript)
    if format == "ctm":
        return _ctm(transcript, name)
    subtitles = _srt if format == "srt" else _vtt
    return subtitles(_cues(transcript, rules), highlight_words)


def _json(transcript: Transcript, name: str) -> str:
    named = {"file": name} if name else {}
    value: dict[str, Any] = {
        key: _rounded(each, key) for key, each in (named | dataclasses.asdict(transcript)).items()
    }
    for word in itertools.chain(value["words"], *(each["words"] for each in value["segments"])):
        if word["space_before"]:  # as most words of most languages have
            del word["space_before"]
    return json.dumps(value, ensure_ascii=False) + "\n"


def _rounded(value: Any, key: str) -> Any:
    """Returns a value with its numbers rounded to the digits of their key.

    JSON has no numbers that are not finite: they become null.
    """
    if isinstance(value, dict):
        return {k: _rounded(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v, "") for v in value]
    if key not in DIGITS:
        return value
    return round(float(value), DIGITS[key]) if math.isfinite(value) else None


def _tsv(transcript: Transcript) -> str:
    rows = [(_ms(s.start), _ms(s.end), " ".join(s.text.split())) for s in transcript.segments]
    return "".join(f"{a}\t{b}\t{text}\n" for a, b, text in [("start", "end", "text"), *rows])


def _ctm(transcript: Transcript, name: str) -> str:
    name = "_".join(name.split()) or "audio"  # no column may be empty
    lines = []
    for word in transcript.words:
        if text := "_".join(word.text.split()):
            start, end = _ms(word.start), max(_ms(word.start), _ms(word.end))
            seconds = f"{start / 1000:.3f} {(end - start) / 1000:.3f}"
            lines.append(f"{name} 1 {seconds} {text} {word.confidence:.4f}\n")
    return "".join(lines)


@dataclass(frozen=True)
class _Word:
    """A word of a cue."""

    text: str  # not empty; no whitespace but single spaces
    start: int  # milliseconds
    end: int
    size: int  # as of SubtitleRules
    space: int  # the size of the space before it; 0: there is none

    @functools.cached_property
    def ends_sentence(self) -> bool:
        return ends_sentence(self.text)

    @functools.cached_property
    def ends_clause(self) -> bool:
        return self.text.rstrip(CLOSING).endswith(tuple(CLAUSE_ENDS))


@dataclass(frozen=True)
class _Cue:
    """A subtitle."""

    start: int  # milliseconds
    end: int
    lines: list[list[_Word]]

    @property
    def words(self) -> list[_Word]:
        return [word for line in self.lines for word in line]

    def layout(self, texts: Iterable[str]) -> str:
        """Returns the lines, with `texts` in place of the words."""
        spaced = (
            " " * (word.space > 0) + text for word, text in zip(self.words, texts, strict=True)
        )
        return "\n".join("".join(next(spaced) for _ in line).lstrip() for line in self.lines)

    def turns(self) -> list[tuple[int, list[int]]]:
        """Returns (time, positions of words): when each word begins, the first at the cue's start.

        Times increase and are before the cue's end; words without a time of their own share one.
        """
        turns = [(self.start, [0])]
        for position, word in enumerate(self.words[1:], 1):
            if turns[-1][0] < word.start < self.end:
                turns.append((word.start, []))
            turns[-1][1].append(position)
        return turns


def _srt(cues: list[_Cue], highlight_words: bool) -> str:
    shown = []
    for cue in cues:
        texts = [word.text.replace("-->", "→") for word in cue.words]  # it marks a line of times
        turns = cue.turns() if highlight_words else [(cue.start, [])]
        ends = [start for start, _ in turns[1:]] + [cue.end]
        for (start, current), end in zip(turns, ends, strict=True):
            marked = [f"<u>{text}</u>" if i in current else text for i, text in enumerate(texts)]
            shown.append((start, end, cue.layout(marked)))
    return "\n".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(shown, 1)
    )


def _vtt(cues: list[_Cue], highlight_words: bool) -> str:
    blocks = ["WEBVTT\n"]
    for cue in cues:
        texts = [html.escape(word.text, quote=False) for word in cue.words]
        if highlight_words:
            texts = [f"<c>{text}</c>" for text in texts]
            for start, (first, *_) in cue.turns()[1:]:
                texts[first] = f"<{_clock(start, '.')}>{texts[first]}"
        times = f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}"
        blocks.append(f"{times}\n{cue.layout(texts)}\n")
    return "\n".join(blocks)


def _cues(transcript: Transcript, rules: SubtitleRules) -> list[_Cue]:
    """Returns the words as cues, in order: each of positive length, none overlapping the next."""
    words = _words(transcript, rules)
    duration = _ms(transcript.duration)
    groups = _divide(words, duration, rules)
    starts: list[int] = []
    for group in groups:  # words may start together, cues may not
        starts.append(max(group[0].start, starts[-1] + 1) if starts else group[0].start)
    later = max([duration, len(groups), *(word.end for word in words)])
    for i in reversed(range(len(starts))):
        starts[i] = later = min(starts[i], later - 1)
    cues = []
    for group, start, following in zip(groups, starts, [*starts, math.inf][1:], strict=True):
        end = min(max(start + 1, *(word.end for word in group)), following)
        room = min(duration, following - 1000 * rules.min_gap)
        end = max(end, int(min(start + 1000 * rules.min_seconds, room)))
        cues.append(_Cue(start, end, _lines(group, rules.size)))
    return cues


def _words(transcript: Transcript, rules: SubtitleRules) -> list[_Word]:
    """Returns the words that are not empty; one that may not begin a line joins the word before."""
    words: list[_Word] = []
    for word in transcript.words:
        text, start, end = " ".join(word.text.split()), _ms(word.start), _ms(word.end)
        if not text:
            continue
        if words and not word.space_before and not may_part(words[-1].text, text):
            before = words.pop()
            text, start, end = before.text + text, before.start, max(before.end, end)
            space = before.space
        else:
            space = rules.size_of(" ") * word.space_before
        words.append(_Word(text, start, end, rules.size_of(text), space))
    return words


def _divide(words: Sequence[_Word], duration: int, rules: SubtitleRules) -> list[Sequence[_Word]]:
    """Returns the words of each cue, by the least cost of all words up to each word."""
    costs, before = [0.0] + [math.inf] * len(words), [0] * (len(words) + 1)
    for first in range(len(words)):
        for last, cost in _candidates(words, first, duration, rules):
            if costs[first] + cost < costs[last + 1]:
                costs[last + 1], before[last + 1] = costs[first] + cost, first
    groups, end = [], len(words)
    while end:
        groups.append(words[before[end] : end])
        end = before[end]
    return groups[::-1]


def _candidates(
    words: Sequence[_Word], first: int, duration: int, rules: SubtitleRules
) -> Iterator[tuple[int, float]]:
    """Yields (position of the last word, cost) of each cue that may begin with the word `first`."""
    start = end = words[first].start
    num_lines, width, whole, sentences = 0, rules.size, -words[first].space, 0
    for last in range(first, len(words)):
        word = words[last]
        whole, width = whole + word.space + word.size, width + word.space + word.size
        end = max(end, word.end)
        if width > rules.size:
            num_lines, width = num_lines + 1, word.size
        long = num_lines > rules.max_lines or end - start > 1000 * rules.max_seconds
        if long and last > first:
            return
        following = words[last + 1].start if last + 1 < len(words) else math.inf
        is_inside = last + 1 < len(words) and not words[last + 1].space
        pause = (following - end) / 1000
        part_of_chars = whole / (rules.size * rules.max_lines)
        fullness = max(part_of_chars, (end - start) / (1000 * rules.max_seconds))
        short = min(following, duration) - start < 1000 * rules.min_seconds
        if pause >= rules.max_gap:
            yield last, _cost(word, fullness, math.inf, sentences, short)
            return
        yield last, _cost(word, fullness, pause, sentences, short, is_inside)
        sentences += word.ends_sentence


def _cost(
    last: _Word,
    fullness: float,
    pause: float,
    sentences: int,
    short: bool,
    is_inside: bool = False,
) -> float:
    """Returns the cost of a cue: few, evenly filled cues that end with the speech cost least.

    Args:
      last: its last word.
      fullness: 1 for a cue of the most characters or the most seconds.
      pause: seconds after it; infinite where it has to end.
      sentences: how many end inside it. Each costs more than one more cue, so sentences share a
        cue only if it would be `short` otherwise.
      short: whether it leaves the screen sooner than allowed.
      is_inside: whether no space follows, so that a phrase may be cut.
    """
    cost = 1 + fullness**2 / 2 + 2 * sentences + 3 * short
    if pause == math.inf or last.ends_sentence:
        return cost
    if last.ends_clause and fullness > 1 / 3:
        return cost + 1
    return cost + is_inside + (3 - min(max(pause, 0), 1) if fullness > 1 / 2 else 3.5)


def _lines(words: Sequence[_Word], size: int) -> list[list[_Word]]:
    """Returns as few lines as possible, as narrow as possible, the lower ones filled first.

    Where words have no spaces between them, lines end at spaces and at the ends of clauses if
    that takes no more lines.
    """
    units = [[word] for word in words]
    fewest = len(_filled(units, size))
    phrases = _phrases(words)
    if len(_filled(phrases, size)) == fewest and max(map(_size, phrases)) <= size:
        units = phrases
    widths = range(min(_size(words) // fewest, size), size + 1)
    enough = bisect.bisect_left(widths, -fewest, key=lambda width: -len(_filled(units, width)))
    return _filled(units, widths[enough])


def _phrases(words: Sequence[_Word]) -> list[list[_Word]]:
    """Returns the words between spaces or ends of clauses."""
    phrases: list[list[_Word]] = []
    for word in words:
        before = phrases[-1][-1] if phrases else None
        if not before or word.space or before.ends_clause or before.ends_sentence:
            phrases.append([])
        phrases[-1].append(word)
    return phrases


def _size(words: Sequence[_Word]) -> int:
    """Returns the size of a line of words."""
    return sum(word.space + word.size for word in words) - words[0].space


def _filled(units: Sequence[list[_Word]], width: int) -> list[list[_Word]]:
    """Returns lines of at most `width`, or of one unit, filled from the last upwards."""
    lines: list[list[_Word]] = []
    room, space = 0, 0  # left on the line; the space before its first word
    for unit in reversed(units):
        size = _size(unit)
        room -= space + size
        if not lines or room < 0:
            lines.insert(0, [])
            room = width - size
        lines[0][:0] = unit
        space = unit[0].space
    return lines


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{milliseconds:03}"


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
