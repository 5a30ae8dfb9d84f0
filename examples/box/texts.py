"""Composes what people say to a voice interface, as words in lower case: the texts of the corpus.

Numbers, telephone numbers, money, dates, times, percentages, spelling, yes and no, commands. Many
kinds are those of `tdt_jax.data.telephone.grammar`.
"""

from collections.abc import Callable

from numpy.random import Generator

from tdt_jax.data.telephone import grammar
from tdt_jax.data.telephone.grammar import (
    ALPHABET,
    LETTERS,
    MONTHS,
    ONES,
    TENS,
    WEEKDAYS,
    cardinal,
    chance,
    counted,
    digit_names,
    digit_string,
    integer,
    ordinal,
    pair,
    pick,
    round_number,
    split,
)

SPELLINGS = {"fourtieth": "fortieth"}
CURRENCIES = ("dollar", "cent"), ("pound", "penny"), ("euro", "cent")
YES_NO = (
    *split("yes no yeah yep nope okay correct right wrong sure maybe never please thanks"),
    *"yes please|no thanks|no thank you|yes that's right|that's correct|that's wrong".split("|"),
    *"of course|not now|not yet|i don't know|that's right|no that's wrong|yes i do".split("|"),
    *"no i don't|i agree|sounds good|all right|okay thanks|i think so|yes of course".split("|"),
)
COMMANDS = (
    *split("stop start next back previous repeat help cancel confirm continue pause resume play"),
    *split("louder quieter softer faster slower mute unmute call answer hold redial send reply"),
    *split("forward delete save undo redo open close enter exit quit search up down left right"),
    *split("on off menu home settings more less first last again done ready submit skip select"),
    *split("copy paste print refresh update upload download login logout password hello goodbye"),
    *"go back|go home|go on|hang up|hold on|start over|say again|say that again|try again".split(
        "|"
    ),
    *"volume up|volume down|turn on|turn off|turn it up|turn it down|scroll up|scroll down".split(
        "|"
    ),
    *"zoom in|zoom out|page up|page down|sign in|sign out|log in|log out|main menu".split("|"),
    *"new message|send message|read messages|check messages|check balance|pay bill".split("|"),
    *"speak slower|speak louder|repeat that|never mind|one moment|wait|good morning".split("|"),
    *"good evening|good afternoon|thank you|excuse me|talk to agent|operator|agent".split("|"),
    *"customer service|technical support|billing|sales|support|account balance".split("|"),
    *"lights on|lights off|lock|unlock|lock the door|open the door|take photo|call home".split("|"),
)
OPENINGS: dict[str, tuple[str, ...]] = {
    "phone": (
        "my number is", "the number is", "call", "dial", "you can call me at", "my phone number is",
        "it's", "please call", "call me at",
    ),
    "digits": (
        "my pin is", "the code is", "code", "account number", "my account number is", "it's",
        "my zip code is", "the password is", "press", "enter",
    ),
    "money": (
        "pay", "send", "transfer", "the total is", "it costs", "that's", "my balance is",
        "the price is", "i owe",
    ),
    "date": ("on", "it's", "today is", "my birthday is", "i was born on", "the date is", "from"),
    "clock": ("at", "it's", "set alarm for", "wake me up at", "call me at", "the time is", "by"),
    "number": (
        "it's", "number", "page", "room", "channel", "go to page", "set volume to", "about",
        "i need", "option", "flight", "gate", "platform", "i am", "more than", "less than",
    ),
    "percentage": ("about", "set brightness to", "volume", "battery at", "it's", "up to"),
    "letters": ("it's", "the code is", "that's", "my name is spelled", "booking reference"),
    "name": ("it's", "that's", "my name is spelled", "spelled", "last name", "first name"),
    "nato": ("this is", "it's", "call sign", "that's", "the code is"),
    "length": ("set timer for", "for", "in", "wait", "snooze for", "remind me in"),
    "ordinals": ("the", "on the", "my", "it's the"),
}  # fmt: skip
MINUTES = (
    "half past", "quarter past", "quarter to", "ten to", "five past", "twenty to", "ten past",
    "twenty past", "five to",
)  # fmt: skip
DAY_TIMES = (
    "in the morning", "in the afternoon", "in the evening", "tonight", "today", "tomorrow"
)  # fmt: skip
NAMES = split(
    "smith johnson williams brown jones garcia miller davis martinez lopez wilson anderson "
    "thomas taylor moore jackson martin lee perez thompson white harris clark lewis robinson "
    "walker young allen king wright scott torres nguyen hill flores green adams nelson baker "
    "hall rivera mitchell carter roberts gomez phillips evans turner diaz parker cruz edwards "
    "collins reyes stewart morris morales murphy cook rogers gutierrez ortiz morgan cooper "
    "peterson bailey reed kelly howard ramos kim cox ward richardson watson brooks chavez "
    "wood james bennett gray mendoza ruiz hughes price alvarez castillo sanders patel myers "
    "long ross foster jimenez fitzgerald quinn xavier zimmerman vazquez mary john linda david "
    "susan robert karen paul lisa mark nancy daniel betty kevin emma jason olivia ryan sophia "
    "gary amy eric anna frank zoe jack victoria felix"
)


def number(rng: Generator) -> list[str]:
    """Returns a cardinal number, sometimes with decimals or a minus."""
    words = cardinal(round_number(rng, pick(rng, (2, 2, 3, 4, 6))), use_and=chance(rng, 0.5))
    if chance(rng, 0.1):
        words = ["zero"]
    if chance(rng, 0.15):
        words += ["point", *digit_string(rng, integer(rng, 1, 3), repeat=0.1)]
    return ["minus", *words] if chance(rng, 0.05) else words


def money(rng: Generator) -> list[str]:
    """Returns a sum of money: "twelve dollars and fifty cents", "eighty pounds"."""
    unit, small = pick(rng, (*CURRENCIES, CURRENCIES[0], CURRENCIES[0]))
    amount = round_number(rng, pick(rng, (2, 3, 4, 6)))
    words = counted(amount, unit, use_and=chance(rng, 0.5))
    if chance(rng, 0.35):
        cents = integer(rng, 1, 99)
        if small == "penny":
            coins = ["penny"] if cents == 1 else ["pence"]
            coins = [*cardinal(cents), *coins]
        else:
            coins = counted(cents, small)
        if chance(rng, 0.2):
            return coins
        words += [*(["and"] if chance(rng, 0.6) else []), *coins]
    elif chance(rng, 0.15):  # "nine ninety nine"
        return [*cardinal(integer(rng, 1, 99)), *pair(integer(rng, 1, 99))]
    return words


def phone(rng: Generator) -> list[str]:
    """Returns a telephone number, sometimes with "double", "triple", or a country's code."""
    if chance(rng, 0.5):
        return grammar.phone(rng)
    string = digit_string(rng, integer(rng, 6, 10), names=digit_names(rng), repeat=0.3)
    if chance(rng, 0.7):
        string = _with_double(rng, string)
    if chance(rng, 0.15):
        string = ["plus", *digit_string(rng, integer(rng, 1, 2)), *string]
    return string


def _with_double(rng: Generator, digits: list[str]) -> list[str]:
    """Says "double three" for "three three" and "triple three", all of them."""
    words, position = [], 0
    while position < len(digits):
        run = 1
        while run < 3 and digits[position : position + run + 1] == [digits[position]] * (run + 1):
            run += 1
        words += [*([] if run == 1 else [("double", "triple")[run - 2]]), digits[position]]
        position += run
    return words


def clock(rng: Generator) -> list[str]:
    """Returns a time of the day: "half past three", "quarter to nine", "ten forty five p m"."""
    if chance(rng, 0.55):
        words = grammar.time(rng)
        return words[1:] if words[0] == "at" else words
    hour = cardinal(integer(rng, 1, 12))
    words = [*split(pick(rng, MINUTES)), *hour]
    if not chance(rng, 0.8):
        words = [pick(rng, ("noon", "midnight"))]
    if chance(rng, 0.3):
        words += split(pick(rng, DAY_TIMES))
    return words


def date(rng: Generator) -> list[str]:
    """Returns a date: "the third of june", "next friday", "may twenty first nineteen eighty"."""
    draw = rng.random()
    if draw < 0.6:
        return grammar.date(rng)
    if draw < 0.85:
        words = [*(["the"] if chance(rng, 0.8) else []), *ordinal(integer(rng, 1, 31)), "of"]
        words.append(pick(rng, MONTHS))
        return words + grammar.year(rng, integer(rng, 1930, 2039)) * chance(rng, 0.4)
    return [pick(rng, ("next", "this", "last")), pick(rng, (*WEEKDAYS, "week", "month", "year"))]


def percentage(rng: Generator) -> list[str]:
    """Returns a percentage: "twelve point five percent"."""
    words = cardinal(integer(rng, 0, 100))
    if chance(rng, 0.3):
        words += ["point", *digit_string(rng, integer(rng, 1, 2))]
    return [*words, "percent"]


def name(rng: Generator) -> list[str]:
    """Returns a name letter by letter, sometimes said first or with "double"."""
    word = pick(rng, NAMES)
    letters = list(word)[:9]
    return _with_double(rng, letters) if chance(rng, 0.3) else letters


def nato(rng: Generator) -> list[str]:
    """Returns words of the spelling alphabet, or letters with them: "b as in bravo"."""
    if chance(rng, 0.7):
        return grammar.spelling(rng)
    words = []
    for _ in range(integer(rng, 1, 2)):
        index = integer(rng, 0, 25)
        words += [LETTERS[index], *pick(rng, (["as", "in"], ["for"])), ALPHABET[index]]
    return words


def ordinals(rng: Generator) -> list[str]:
    """Returns an ordinal number."""
    return ordinal(round_number(rng, pick(rng, (1, 2, 2, 3))), use_and=chance(rng, 0.5))


def length(rng: Generator) -> list[str]:
    """Returns a length of time."""
    if chance(rng, 0.3):
        return counted(integer(rng, 1, 31), pick(rng, ("day", "week", "month", "year", "hour")))
    return grammar.duration(rng)


def yes_no(rng: Generator) -> list[str]:
    return split(pick(rng, YES_NO))


def command(rng: Generator) -> list[str]:
    words = split(pick(rng, COMMANDS))
    if chance(rng, 0.12):
        words = [*words, "please"] if chance(rng, 0.6) else ["please", *words]
    return words


def any_word(rng: Generator) -> list[str]:
    """Returns one to three words of any kind, as in answers to a menu."""
    words = (*ONES, *grammar.TEENS, *TENS, *LETTERS, *ALPHABET, *MONTHS, *WEEKDAYS, *ORDINAL_WORDS)
    return [pick(rng, words) for _ in range(integer(rng, 1, 3))]


ORDINAL_WORDS = tuple(dict.fromkeys(grammar.ORDINALS.values()))
KINDS: dict[str, tuple[float, Callable[[Generator], list[str]]]] = {
    "digits": (9, grammar.digits),
    "phone": (11, phone),
    "number": (10, number),
    "money": (9, money),
    "date": (10, date),
    "clock": (7, clock),
    "percentage": (3, percentage),
    "letters": (9, grammar.letters),
    "name": (6, name),
    "nato": (8, nato),
    "ordinals": (3, ordinals),
    "length": (4, length),
    "yes_no": (9, yes_no),
    "command": (24, command),
    "any_word": (6, any_word),
    "extension": (2, grammar.extension),
    "message": (2, grammar.message),
    "symbols": (2, grammar.symbols),
    "feature": (4, grammar.command),
}
MAX_WORDS = 13


def draw(rng: Generator) -> tuple[str, list[str]]:
    """Returns a random kind and a text of it, as words."""
    names = list(KINDS)
    weights = [KINDS[name][0] for name in names]
    while True:
        kind = names[rng.choice(len(names), p=[w / sum(weights) for w in weights])]
        units = KINDS[kind][1](rng)
        words = [SPELLINGS.get(word, word) for unit in units for word in unit.split()]
        if kind in OPENINGS and chance(rng, 0.25):
            words = [*split(pick(rng, OPENINGS[kind])), *words]
        if chance(rng, 0.03):
            words = [pick(rng, ("yes", "no", "okay", "please")), *words]
        if len(words) <= MAX_WORDS:
            return kind, words


SHORT = {*ONES, "oh", *LETTERS, *ALPHABET, "zed", "niner"}


def written(words: list[str], rng: Generator, letter: Callable[[str], str]) -> str:
    """Returns the text as a synthesizer reads it: letters apart, pauses in long strings.

    `letter` returns how the synthesizer must be given a letter.
    """
    pause = pick(rng, (0.0, 0.15, 0.5, 0.9))
    group = integer(rng, 3, 4)
    parts, run = [], 0
    for position, word in enumerate(words):
        is_short = word in SHORT
        run = run + 1 if is_short else 0
        parts.append(letter(word) if word in LETTERS else word)
        following = words[position + 1] if position + 1 < len(words) else ""
        if (
            following in SHORT
            and is_short
            and (chance(rng, pause) or (pause > 0 and run % group == 0))
        ):
            parts[-1] += ","
    text = " ".join(parts)
    return text[0].upper() + text[1:] + pick(rng, (".", ".", ".", "", "?", "!"))
