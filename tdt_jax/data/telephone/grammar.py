"""A grammar of what people say to a telephone system, over recorded words.

There is a function for each kind of text ("digits", "date"), which returns a random text as a list
of units. A unit is the text of one recording: a word, or two words that were recorded together
("a m", "you entered"). `KINDS`, at the end, holds these functions by name, each with all the units
that can occur.

The spelling of the recordings is kept ("fourtieth", "xray"). The letter "o" and the digit "oh"
sound alike, so no kind has both.
"""

import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from numpy.random import Generator

T = TypeVar("T")


def split(text: str) -> list[str]:
    return text.split()


ONES = split("zero one two three four five six seven eight nine")
TEENS = split("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = split("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = {word: f"{word}th" for word in [*ONES[4:], *TEENS, "hundred", "thousand", "million"]}
ORDINALS |= {word: f"{word[:-1]}ieth" for word in TENS} | {"forty": "fourtieth"}
ORDINALS |= {"one": "first", "two": "second", "three": "third", "five": "fifth"}
ORDINALS |= {"eight": "eighth", "nine": "ninth", "twelve": "twelfth"}
MONTHS = split(
    "january february march april may june july august september october november december"
)
WEEKDAYS = split("monday tuesday wednesday thursday friday saturday sunday")
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
ALPHABET = split(
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar "
    "papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
)
SYMBOLS = split(
    "dot dash slash underscore at plus star pound equals ampersand asterisk backslash backtick "
    "caret colon comma semicolon pipe quote tick tilde space"
)
SYMBOLS += ["question mark", "dollar sign", "less than", "greater than"]
SYMBOLS += ["left bracket", "right bracket", "left brace", "right brace"]
OPENINGS = (
    ["extension"],
    ["your", "extension", "is"],
    ["calling", "extension"],
    ["at", "extension"],
    ["transfer", "to extension"],
    ["you entered"],
    ["press", "star"],
    ["press", "pound"],
    ["your", "telephone number", "is"],
)
FEATURES = ["call waiting", "call forwarding", "speed dial", "password", "transfer", "playback"]
STATES = split("activated added cancelled disabled enabled paused removed saved")
COMMANDS = split(
    "agent calling console goodbye hello is local location message password pause press record "
    "removed time transfer with"
)
COMMANDS += ["hello world", "thank you", "i'm sorry"]


def pick(rng: Generator, options: Sequence[T]) -> T:
    """Returns one of the options, each with the same probability."""
    return options[int(rng.random() * len(options))]


def chance(rng: Generator, probability: float) -> bool:
    """Returns True with the probability."""
    return rng.random() < probability


def integer(rng: Generator, low: int, high: int) -> int:
    """Returns one of low, ..., high, each with the same probability."""
    return low + int(rng.random() * (high - low + 1))


def cardinal(number: int, *, use_and: bool = False) -> list[str]:
    """Returns a cardinal number below 1,000,000,000: "four hundred (and) twenty five"."""
    words = []
    for size, name in ((1_000_000, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= size:
            words += [*cardinal(number // size, use_and=use_and), name]
            number %= size
    if words and number and use_and:
        words.append("and")
    if number >= 20:
        words.append(TENS[number // 10 - 2])
        number %= 10
    elif number >= 10:
        return [*words, TEENS[number - 10]]
    return words + [ONES[number]] * (number > 0 or not words)


def ordinal(number: int, *, use_and: bool = False) -> list[str]:
    """Returns an ordinal number: "twenty first", "one hundredth"."""
    *words, last = cardinal(number, use_and=use_and)
    return [*words, ORDINALS[last]]


def pair(number: int) -> list[str]:
    """Returns two digits as in years, times and telephone numbers: "oh five", "forty two"."""
    return ["oh", ONES[number] if number else "oh"] if number < 10 else cardinal(number)


def year(rng: Generator, number: int) -> list[str]:
    """Returns a year: "nineteen ninety eight", "two thousand (and) eight"."""
    if 2000 <= number < 2010 or (2010 <= number < 2020 and chance(rng, 0.3)):
        return cardinal(number, use_and=chance(rng, 0.4))
    century, rest = divmod(number, 100)
    return cardinal(century) + (pair(rest) if rest else ["hundred"])


def digit_string(
    rng: Generator, length: int, *, names: Sequence[str] = ONES, repeat: float | None = None
) -> list[str]:
    """Returns `length` random digits, or other `names`.

    Each repeats the one before with the probability `repeat`; None: one drawn for the whole string.
    """
    repeat = pick(rng, (0.0, 0.2, 0.5)) if repeat is None else repeat
    string = [pick(rng, names)]
    while len(string) < length:
        string.append(string[-1] if chance(rng, repeat) else pick(rng, names))
    return string


def digit_names(rng: Generator) -> list[str]:
    """Returns the names of the ten digits, sometimes with "oh" for zero."""
    return ["oh", *ONES[1:]] if chance(rng, 0.4) else ONES


def digits(rng: Generator) -> list[str]:
    """Returns a PIN, a code or an account number: "seven seven oh two"."""
    length = pick(rng, (1, 2, 3, 4, 4, 4, 5, 6, 6, 7, 8, 9, 10, 12))
    return digit_string(rng, length, names=digit_names(rng))


def phone(rng: Generator) -> list[str]:
    """Returns a telephone number: "one eight hundred five five five twelve forty two"."""
    names = digit_names(rng)
    if chance(rng, 0.15):  # in pairs: "oh six forty two seventeen oh five"
        return [word for _ in range(integer(rng, 3, 5)) for word in pair(integer(rng, 0, 99))]
    start = ["number"] if chance(rng, 0.15) else []
    if chance(rng, 0.2):
        start += [*(["one"] if chance(rng, 0.7) else []), pick(rng, ("eight", "nine")), "hundred"]
    elif chance(rng, 0.6):
        start += [*(["one"] if chance(rng, 0.2) else []), pick(rng, ONES[2:])]
        start += digit_string(rng, 2, names=names)
    exchange = [pick(rng, ONES[2:]), *digit_string(rng, 2, names=names)]
    if chance(rng, 0.15):
        exchange = ["five", "five", "five"]
    if chance(rng, 0.7):
        line = digit_string(rng, 4, names=names)
    elif chance(rng, 0.8):
        line = pair(integer(rng, 10, 99)) + pair(integer(rng, 0, 99))
    else:
        line = [pick(rng, ONES[1:]), pick(rng, ("hundred", "thousand"))]
    return start + exchange + line


def round_number(rng: Generator, most: int) -> int:
    """Returns a number from 1 to 10^most - 1; long numbers tend to be round.

    Every number of digits has the same probability.
    """
    length = integer(rng, 1, most)
    number = integer(rng, 10 ** (length - 1), 10**length - 1)
    zeros = integer(rng, 0, length - 1) if chance(rng, 0.6) else 0
    return number // 10**zeros * 10**zeros


def counted(number: int, noun: str, *, use_and: bool = False) -> list[str]:
    """Returns a number with its noun: "one dollar", "two dollars"."""
    return [*cardinal(number, use_and=use_and), noun if number == 1 else f"{noun}s"]


def amount(rng: Generator) -> list[str]:
    """Returns a sum of money: "four hundred and twenty five dollars"."""
    if chance(rng, 0.1):  # "twelve hundred dollars"
        return [*cardinal(integer(rng, 11, 19)), "hundred", "dollars"]
    number = round_number(rng, pick(rng, (3, 4, 5, 7)))
    return counted(number, "dollar", use_and=chance(rng, 0.5))


def time(rng: Generator) -> list[str]:
    """Returns a time of the day: "ten forty five", "at seven o'clock", "twelve thirty p m"."""
    hour, minute = integer(rng, 1, 12), pick(rng, (0, 15, 30, 45, 5 * integer(rng, 1, 11), -1))
    minute = integer(rng, 1, 59) if minute < 0 else minute
    words = cardinal(hour) + (pair(minute) if minute else [])
    if minute == 0 and chance(rng, 0.6):
        words.append("o'clock")
    if words[-1] != "o'clock" and chance(rng, 0.4 if minute else 0.9):
        words.append(pick(rng, ("a m", "p m")))
    return ["at", *words] if chance(rng, 0.3) else words


def date(rng: Generator) -> list[str]:
    """Returns a date of the calendar: "march twenty first", "monday june third nineteen ninety"."""
    day = datetime.date.fromordinal(
        integer(rng, datetime.date(1900, 1, 1).toordinal(), datetime.date(2039, 12, 31).toordinal())
    )
    weekday = WEEKDAYS[day.weekday()]
    if chance(rng, 0.15):
        return [pick(rng, ("today", "tomorrow", "yesterday", weekday)), *at_time(rng)]
    words = [MONTHS[day.month - 1], *ordinal(day.day)]
    if chance(rng, 0.35):
        words.insert(0, weekday)
    if chance(rng, 0.45):
        words += year(rng, day.year)
    elif chance(rng, 0.2):
        words += at_time(rng)
    return words


def at_time(rng: Generator) -> list[str]:
    """Returns a time of the day that begins with "at"."""
    words = time(rng)
    return words if words[0] == "at" else ["at", *words]


def letters(rng: Generator) -> list[str]:
    """Returns a spelled code: "k seven q two", "a b c one two three"."""
    names = [*LETTERS[:-1], "zed"] if chance(rng, 0.2) else LETTERS
    code = digit_string(rng, integer(rng, 1, 6), names=names, repeat=0.1)
    if chance(rng, 0.3):  # a number plate
        return code[:3] + digit_string(rng, integer(rng, 2, 4))
    if chance(rng, 0.3):
        code = digit_string(rng, integer(rng, 3, 8), names=[*names, *ONES], repeat=0.1)
    return [pick(rng, ("uppercase", "lowercase")), *code] if chance(rng, 0.1) else code


def spelling(rng: Generator) -> list[str]:
    """Returns words of the spelling alphabet, with digits: "kilo niner tango dash four"."""
    names = [*ONES[:-1], "niner"] if chance(rng, 0.6) else ONES
    words = digit_string(rng, integer(rng, 1, 6), names=ALPHABET, repeat=0.1)
    if chance(rng, 0.5):
        words += [*(["dash"] if chance(rng, 0.2) else []), *digit_string(rng, 2, names=names)]
    return words


def extension(rng: Generator) -> list[str]:
    """Returns an extension: "your extension is four one two", "transfer to extension sixty"."""
    number = digit_string(rng, integer(rng, 2, 5), names=digit_names(rng))
    if chance(rng, 0.2):
        number = [*pair(integer(rng, 10, 99)), *(pair(integer(rng, 1, 99)) * chance(rng, 0.5))]
    return [*pick(rng, OPENINGS), *number]


def message(rng: Generator) -> list[str]:
    """Returns an announcement of a mailbox: "you have three new messages", "last message"."""
    if chance(rng, 0.5):
        words = ["you have", *message_count(rng)]
        return [*words, "and", *message_count(rng)] if chance(rng, 0.3) else words
    words = [*(["your"] if chance(rng, 0.3) else []), pick(rng, ("first", "last", "new", "urgent"))]
    words.append("message")
    if chance(rng, 0.5):
        caller = digit_string(rng, integer(rng, 2, 4), names=digit_names(rng))
        words += ["from", *pick(rng, (["extension", *caller], caller, ["family"], ["friends"]))]
    if chance(rng, 0.5):
        words += ["received", pick(rng, ("today", "yesterday", *WEEKDAYS)), *at_time(rng)]
    return words


def message_count(rng: Generator) -> list[str]:
    """Returns a number of messages: "no new messages", "one saved message"."""
    number = pick(rng, (0, 1, 2, 3, 4, 5, integer(rng, 6, 99)))
    count = cardinal(number) if number else ["no"]
    quality = [] if chance(rng, 0.2) else [pick(rng, ("new", "old", "saved", "urgent"))]
    return [*count, *quality, "message" if number == 1 else "messages"]


def duration(rng: Generator) -> list[str]:
    """Returns a length of time: "two hours fifteen minutes and thirty seconds"."""
    parts = [
        [*cardinal(integer(rng, 2, 24)), "hours"],
        counted(integer(rng, 1, 59), "minute"),
        [*cardinal(integer(rng, 2, 59)), "seconds"],
    ]
    first = integer(rng, 0, 2)
    parts = parts[first : integer(rng, first, 2) + 1]
    if len(parts) > 1 and chance(rng, 0.5):
        parts[-1].insert(0, "and")
    return [word for part in parts for word in part]


def symbols(rng: Generator) -> list[str]:
    """Returns an address or a command, sign by sign: "slash a dash b dot seven"."""
    words = [pick(rng, SYMBOLS)] if chance(rng, 0.5) else []
    for _ in range(integer(rng, 1, 3)):
        words += digit_string(rng, integer(rng, 1, 3), names=pick(rng, (LETTERS, LETTERS, ONES)))
        words.append(pick(rng, SYMBOLS))
    return words if chance(rng, 0.3) else words[:-1]


def percent(rng: Generator) -> list[str]:
    """Returns a percentage: "minus twelve dot five percent"."""
    words = [*(["minus"] if chance(rng, 0.3) else []), *cardinal(round_number(rng, 3))]
    if chance(rng, 0.3):
        words += ["dot", *digit_string(rng, integer(rng, 1, 2))]
    return [*words, "percent"]


def rank(rng: Generator) -> list[str]:
    """Returns a place in a list: "three hundred and fourtieth"."""
    return ordinal(round_number(rng, pick(rng, (2, 3, 7))), use_and=chance(rng, 0.5))


def command(rng: Generator) -> list[str]:
    """Returns a single word of a menu, or a feature and its state: "call waiting enabled"."""
    if chance(rng, 0.4):
        return [pick(rng, COMMANDS)]
    words = [pick(rng, FEATURES), pick(rng, STATES)]
    return [*words, "for", pick(rng, ("family", "friends", "work"))] if chance(rng, 0.4) else words


class Kind(NamedTuple):
    """A function that returns a random text, and all the units that can occur in it."""

    draw: Callable[[Generator], list[str]]
    units: list[str]


DIGITS = ["oh", *ONES]
TIMES = [*DIGITS[2:], "oh", *TEENS, *TENS[:4], "at", "o'clock", "a m", "p m"]
DAYS = [ORDINALS[word] for word in [*ONES[1:], *TEENS, "twenty", "thirty"]]
CALENDAR = split("hundred thousand and today tomorrow yesterday")
CARDINALS = [*ONES[1:], *TEENS, *TENS, *split("hundred thousand million and")]
MAILBOX = split("no and new old saved urgent first last your message messages from received")
MAILBOX += ["you have", "extension", "family", "friends", "today", "yesterday"]

KINDS = {
    "digits": Kind(digits, DIGITS),
    "phone": Kind(phone, [*DIGITS, *TEENS, *TENS, "number", "hundred", "thousand"]),
    "amount": Kind(amount, [*CARDINALS, "dollar", "dollars"]),
    "date": Kind(date, [*MONTHS, *WEEKDAYS, *DAYS, *TIMES, *TENS, *CALENDAR]),
    "time": Kind(time, TIMES),
    "letters": Kind(letters, [*LETTERS, *ONES, "zed", "uppercase", "lowercase"]),
    "spelling": Kind(spelling, [*ALPHABET, *ONES, "niner", "dash"]),
    "extension": Kind(
        extension, [*DIGITS, *TEENS, *TENS, *(unit for opening in OPENINGS for unit in opening)]
    ),
    "message": Kind(message, [*MAILBOX, *WEEKDAYS, *TIMES, *DIGITS, *TENS]),
    "duration": Kind(
        duration, [*ONES[1:], *TEENS, *TENS[:4], *split("and hours minute minutes seconds")]
    ),
    "symbols": Kind(symbols, [*LETTERS, *ONES, *SYMBOLS]),
    "percent": Kind(percent, [*ONES, *TEENS, *TENS, *split("hundred minus dot percent")]),
    "rank": Kind(rank, [*CARDINALS, *ORDINALS.values()]),
    "command": Kind(command, [*COMMANDS, *FEATURES, *STATES, *split("for family friends work")]),
}
