"""Spaces beside marks, word boundaries in languages without spaces, and widths of characters.

The rules go by the Unicode properties of characters, whatever the language:

    closing   , . ? ! ) 。 ...    join the word before, without a space
    opening   ¿ ¡ ( „ 「 ...      join the word after, without a space
    quotes    " “ ” « » ...       open or close, as the spaces beside them show; if these do not, a
                                  quote closes if one is open or nothing follows, and else opens
    others    - – & % / ' ...     keep their spaces ("42 %", "R & D", "yes - no", "'til"); and so do
                                  a point before a letter or a digit (".NET", ".5", "...but") and a
                                  comma or colon before a digit

NeMo removes the space before every mark of its vocabulary that Unicode calls punctuation: also
before opening marks ("sí¿qué"), dashes, & and % ("R& D", "42%"), apostrophes ("get'til") and
decimal points. French "vrai ?" and "« oui »" become "vrai?" and "«oui»" here, so that words have no
spaces inside.

Japanese, Chinese, Thai, Lao, Khmer, Burmese and Tibetan have no spaces between words. In them a
word may end after any piece of text, if a line may end there: not before closing marks, small kana,
ー and signs that are written above, below or after a letter, and not after opening marks and vowels
that are written before their consonant (Unicode's UAX 14; JIS X 4051 for Japanese).
"""

import functools
import re
import unicodedata
from collections.abc import Container, Sequence
from typing import NamedTuple

OPENS, CLOSES, NEUTRAL = 1, 2, 3  # roles of marks; 0 is the role of all other characters
OPENING = "¿¡"
KEEP_SPACES = "%‰‱٪％﹪&＆﹠@＠#＃*＊/／\\＼'＇§¶†‡•‣·‧・･′″‴※〃"
LEADING_POINT = re.compile(r"(?<!\S)(?:[.…‥]+(?=\w)|[,:](?=\d))")
QUOTES = {  # each quote, with those that it may close
    '"': '"', "“": "„", "”": "“„”", "‘": "‚", "’": "‘‚", "«": "»", "»": "«»", "‹": "›", "›": "‹›",
}  # fmt: skip
UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
    "\u2e80-\u2fff\u3000-\u312f\u3190-\u33ff\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\ufe10-\ufe1f"
    "\ufe30-\ufe4f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U0001aff0-\U0001b16f"
    "\U00020000-\U0003ffff]"
)
NEVER_FIRST = (
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰㇱㇲㇳㇴㇵㇶㇷㇸㇹㇺㇻㇼㇽㇾㇿｧｨｩｪｫｬｭｮｯ"
    "ーｰﾞﾟ゛゜々〻ゝゞヽヾ～℃℉°"
    "\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46\u0eaf\u0eb0\u0eb2\u0eb3\u0ebd\u0ec6\u17d7"  # Thai etc.
)
NEVER_LAST = (
    "$＄£￡¥￥€₩№#＃\u200d\u2060"
    "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4"  # vowels of Thai, Lao
    "\u1039\u17d2\u1a60"  # these stack consonants
)
# A consonant that ends a syllable: silent in Thai; without a vowel, or stacked, in Burmese.
FINAL = re.compile("[\u0e01-\u0e2e][\u0e34\u0e38]?\u0e4c|[\u1000-\u1021]\u1037?[\u1039\u103a]")


class Span(NamedTuple):
    """A word of a text that is given in units."""

    text: str
    units: list[int]  # indices of the units that spell it
    space_before: bool  # True for the first word


def divide(units: Sequence[str], alone: Container[int] = ()) -> list[Span]:
    """Returns the words of a text that is given in units; no unit is divided.

    The words, joined with their spaces, are `tidy` of the text. A unit of whitespace belongs to the
    word after it, or to the word before if that continues or is the last.

    Args:
      units: pieces of the text, whitespace included.
      alone: indices of units that are words of their own.
    """
    units = [f" {unit} " if i in alone else unit for i, unit in enumerate(units)]
    text = "".join(units)
    roles = _roles(text)
    written = _written(text, roles)
    spans: list[Span] = []
    ends: list[tuple[int, int]] = []  # first and last character of each span
    waiting: list[int] = []  # units of whitespace, not yet in a span
    end = 0
    for i, unit in enumerate(units):
        begin, end = end, end + len(unit)
        core = unit.strip()
        if not core:
            waiting.append(i)
            continue
        first = begin + len(unit) - len(unit.lstrip())
        last = first + len(core) - 1
        space, is_new = True, True
        if spans:
            before = ends[-1][1]
            space = any(written[before + 1 : first])
            is_new = space or (before + 1 == first and _may_part(text, roles, first))
            is_new = is_new or i in alone or spans[-1].units[-1] in alone
        if is_new:
            spans.append(Span("", [], space))
            ends.append((first, last))
        spans[-1].units.extend([*waiting, i])
        ends[-1] = ends[-1][0], last
        waiting = []
    if spans:
        spans[-1].units.extend(waiting)
    return [
        span._replace(text="".join(written[first : last + 1]))
        for span, (first, last) in zip(spans, ends, strict=True)
    ]


def tidy(text: str) -> str:
    """Returns the text with single spaces, none around it and none between a mark and its word."""
    return "".join(_written(text, _roles(text))).strip()


def space_between(before: str, after: str) -> bool:
    """Returns whether two texts, which were separated at a pause, have a space between them."""
    is_one = len(divide([before, f" {after}"])) == 1
    return not (is_one or _is_unspaced(before[-1]) or _is_unspaced(after[0]))


def may_part(before: str, after: str) -> bool:
    """Returns whether a line may end between two words without a space between them.

    A quote that begins or ends a word is taken to belong there.
    """
    roles = [NEUTRAL if character in QUOTES else _role(character) for character in before]
    roles.append(0 if after[0] in QUOTES else _role(after[0]))
    return _may_part(before + after, roles, len(before))


def is_wide(character: str) -> bool:
    """Returns whether a character takes two columns (Unicode's UAX 11: wide and full-width)."""
    return unicodedata.east_asian_width(character) in "WF"


def width(text: str) -> int:
    """Returns the columns that a text takes in a terminal."""
    return len(text) + sum(map(is_wide, text))


def fold(text: str) -> str:
    """Returns the text without case, in Unicode's form NFC."""
    return nfc(nfc(text).casefold())


def nfc(text: str) -> str:
    """Returns the text in Unicode's form NFC.

    An "é" of one code point and one of two (NFD, as in names of files on macOS) look the same; so
    they must be the same to a tokenizer and in an error rate.
    """
    return unicodedata.normalize("NFC", text)


@functools.lru_cache(1 << 12)
def is_boundary(character: str) -> bool:
    """Returns whether a word may end beside a character: it is no letter, mark or digit.

    In languages without spaces a word may end beside any character.
    """
    return unicodedata.category(character)[0] not in "LMN" or _is_unspaced(character)


@functools.lru_cache(1 << 12)
def _is_unspaced(character: str) -> bool:
    return UNSPACED.match(character) is not None and not character.isdecimal()


@functools.lru_cache(1 << 12)
def _role(character: str) -> int:
    """Returns the role of a mark that is no quote, and 0 for all other characters."""
    category = unicodedata.category(character)
    if category == "Ps" or character in OPENING:
        return OPENS
    if category == "Pe" or (category == "Po" and character not in KEEP_SPACES):
        return CLOSES
    return NEUTRAL if category[0] == "P" else 0


def _roles(text: str) -> list[int]:
    """Returns the role of every character, quotes included."""
    roles = [_role(character) for character in text]
    for match in LEADING_POINT.finditer(text):
        roles[match.start() : match.end()] = [NEUTRAL] * len(match[0])
    opened: list[str] = []  # quotes that are not closed yet
    for i, quote in enumerate(text):
        if roles[i] == OPENS:
            if quote in "„‚":
                opened.append(quote)
            continue
        if quote not in QUOTES:
            continue
        left, right = i - 1, i + 1
        while left >= 0 and roles[left] == OPENS:
            left -= 1
        while right < len(text) and (roles[right] == CLOSES or text[right] in QUOTES):
            right += 1
        after_space = left < 0 or text[left].isspace()
        before_space = right == len(text) or text[right].isspace()
        pairs = [k for k, other in enumerate(opened) if other in QUOTES[quote]]
        if after_space != before_space:
            role = OPENS if after_space else CLOSES
        elif pairs or right == len(text):
            role = CLOSES
        else:
            role = NEUTRAL if quote == "’" else OPENS  # it may be an apostrophe
        roles[i] = role
        if role == OPENS:
            opened.append(quote)
        elif role == CLOSES and pairs:
            del opened[pairs[-1] :]
    return roles


def _written(text: str, roles: Sequence[int]) -> list[str]:
    """Returns each character as it is written; whitespace as one space or nothing."""
    written = list(text)
    for match in re.finditer(r"\s+", text):
        first, last = match.start(), match.end()
        is_dropped = (last < len(text) and roles[last] == CLOSES) or (
            first and roles[first - 1] == OPENS
        )
        written[first:last] = ["" if is_dropped else " "] + [""] * (last - first - 1)
    return written


def _may_part(text: str, roles: Sequence[int], at: int) -> bool:
    """Returns whether a word or line may end before the character `at`, which follows no space."""
    before, after = text[at - 1], text[at]
    if roles[at] in (CLOSES, NEUTRAL) or roles[at - 1] == OPENS or before in NEVER_LAST:
        return False
    category = unicodedata.category(after)
    if category[0] == "M" or category == "Cf" or after in NEVER_FIRST or FINAL.match(text, at):
        return False
    if _is_unspaced(before) or _is_unspaced(after):
        return True
    place = at - 1
    while place > 0 and roles[place] in (CLOSES, NEUTRAL):
        place -= 1
    return place < at - 1 and _is_unspaced(text[place])
