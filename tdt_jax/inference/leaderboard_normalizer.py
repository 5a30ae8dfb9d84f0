"""The English text normalizer of the Open ASR Leaderboard, as it scores since the summer of 2026.

Rules and tables are those of github.com/huggingface/open_asr_leaderboard (Apache-2.0), in its
`normalizer` folder: Whisper's normalizer (Radford et al., 2022, arXiv 2212.04356, appendix C), and

- "uhhh", "mm-hmm", "ah-ha" and the like are left out, however long they are drawn,
- "half past three", "3:30" and "ten o'clock", "10:00" come out alike,
- "'s" is written out after pronouns and question words only, "kinda" and "'cause" stay as they are,
- "wi-fi" is "wifi", "et cetera" is "etc", "o.k." and "ok" are "okay",
- "oh" is a digit only among digits, "Kathryn" is "Catherine", and "b b c" is "bbc".

Numbers, contractions and spellings are the package whisper-normalizer's.
"""

import itertools
import re
from collections.abc import Iterator

from whisper_normalizer.basic import remove_symbols_and_diacritics
from whisper_normalizer.english import (
    EnglishNumberNormalizer,
    EnglishSpellingNormalizer,
    EnglishTextNormalizer,
)

NUMERIC_SYMBOLS = ".%$¢€£"
INTERJECTION = "oh!"  # stands for an "oh" that is no digit: no word has a "!" any more
FILLERS = re.compile(
    r"\b(?:ah-ha|a+h+a+|a+h+m*|e+h+m*|u+h+m*|u+h+u+[hm]*|e+m+|u+m+h*|e+r+m*|u+g+h+|t+s+k+"
    r"|h+(?:a+|e+|u+)h+|h+m+|m{2,}|m+h+m*"
    r"|ahem|eheh|ehehe|ehr|hmmph|hum|hunh|mhum|mmkay)\b"
)
# Contractions of the package whisper-normalizer that the leaderboard leaves alone.
KEPT = (r"\bkinda\b", r"\bsorta\b", r"\bdunno\b", r"\bcause\b")
IS = r"\b(it|he|she|what|that|who|here|there|how|when|where|why|this)'s\b"
COMPOUNDS = {
    "et cetera": "etc",
    "al right": "alright",
    "all right": "alright",
    "how ever": "however",
    "wi fi": "wifi",
    "hi fi": "hifi",
    "lo fi": "lofi",
    "sci fi": "scifi",
    "e mail": "email",
    "e book": "ebook",
    "e commerce": "ecommerce",
    "x ray": "xray",
    "t shirt": "tshirt",
    "a m": "am",
    "p m": "pm",
    "o k": "okay",
}
SPELLINGS = {"ok": "okay", "kay": "okay", "etcetera": "etc"}
NAMES = """
    aaron: aron / alfonso: alphonso / alison: allison alyson / allen: alan allan / anne: ann /
    anthony: antony / arthur: artur / brett: bret / brian: bryan / bridget: bridgette /
    caitlin: katelyn kaitlyn kaitlin / carl: karl / carol: carrol carole carroll /
    catherine: katherine kathryn catharine / cathy: kathy / charlie: charly charley / chris: kris /
    christina: kristina / christopher: kristopher cristopher / colin: collin / deborah: devorah /
    dennis: denis / dominic: dominick / douglas: douglass / dylan: dillon / eric: erik erick /
    fatima: fatimah / frederick: frederik fredrick / gail: gayle / gary: garry / greg: gregg /
    henry: henri / ivonne: yvonne / jackie: jacky / jamie: jaime / jason: jayson / jeff: geoff /
    jeffrey: geoffrey jeffery / joanne: joann joane / john: jon / jonathan: johnathan jonathon /
    joseph: josef / karen: caren caryn karin / kelly: kellye kelli kelley / kevin: kevan /
    kristin: kristen / laurie: lori / lawrence: laurence / lee: leigh / leslie: lesley /
    lily: lilly / linda: lynda / lindsay: linsey lindsey / louis: lewis / lucas: lukas /
    lynn: lynne / mark: marc / martin: martyn / matthew: mathew / mcarthur: macarthur /
    mccarthy: macarthy maccarthy / mccartney: macartney / mcdonald: macdonald / mcgowan: macgowan /
    mcintosh: macintosh / mcintyre: macintyre / mckay: mackay / mckenzie: mackenzie /
    mclean: maclean / mcleod: macleod / mcmillan: macmillan / mcnamara: macnamara / megan: meghan /
    michael: micheal / michelle: michele / miriam: myriam /
    mohammed: mohamad mohamed mohammad muhammad muhamad muhammed mouhamed mouhamad mahomet /
    molly: mollie / natalie: nathalie / neil: neal / nicholas: nicolas / nicole: nikole /
    patrick: patrik / peter: pieter / philip: phillip / rachel: rachael / rajiv: rajeev /
    rebecca: rebekah / rob: robb / robin: robyn / roger: rodger / ronda: rhonda / russell: russel /
    sally: sallie / sarah: sara / sean: shaun shawn / shane: shayne / sherry: sheri cheri sherrie /
    simon: symon / stacy: stacey stacie / steven: stephen / stuart: stewart / susanne: suzanne /
    teresa: theresa / terry: terri / thomas: tomas / toby: tobey / tony: toni /
    tracy: tracey tracie / veronica: veronika / victor: viktor / victoria: viktoria /
    walter: walther / yousef: yusuf yusef / zach: zak / zachary: zackary zachery
"""  # spelling: its variants


class LeaderboardNormalizer:
    """Turns English text in any writing into lower-case words that can be compared."""

    def __init__(self):
        whisper = EnglishTextNormalizer()
        self.contractions = [
            (re.compile(IS), r"\1 is") if pattern == r"'s\b" else (re.compile(pattern), words)
            for pattern, words in whisper.replacers.items()
            if pattern not in KEPT
        ]
        self.compounds = [
            (re.compile(r"\b" + words.replace(" ", r"\s+") + r"\b"), word)
            for words, word in COMPOUNDS.items()
        ]
        self.numbers = _Numbers()
        self.times = _Times(self.numbers)
        self.spellings = EnglishSpellingNormalizer().mapping | SPELLINGS
        self.names = {}
        for entry in NAMES.split("/"):
            name, variants = entry.split(":")
            self.names |= dict.fromkeys(variants.split(), name.strip())

    def __call__(self, text: str) -> str:
        text = text.lower()
        text = re.sub(r"[<\[][^>\]]*[>\]]", "", text)  # [noise], <unk>
        text = re.sub(r"\(([^)]+?)\)", "", text)
        text = FILLERS.sub("", text)
        text = re.sub(r"\s+'", "'", text)
        text = self.times(text)
        for pattern, words in self.contractions:
            text = pattern.sub(words, text)
        text = re.sub(r"(\d),(\d)", r"\1\2", text)
        text = re.sub(r"\.(?![0-9])", " ", text)
        text = remove_symbols_and_diacritics(text, keep=NUMERIC_SYMBOLS)
        for pattern, word in self.compounds:
            text = pattern.sub(word, text)
        words = [self.spellings.get(word, word) for word in self.numbers(text).split()]
        text = " ".join(_joined_letters([self.names.get(word, word) for word in words]))
        text = re.sub(r"[.$¢€£](?![0-9])", " ", text)
        text = re.sub(r"(?<![0-9])%", " ", text)
        return " ".join(text.split())


class _Numbers(EnglishNumberNormalizer):
    """Whisper's numbers, but "oh" is a zero only before another digit.

    At the start of a number it takes two: "four oh one" is 401, "oh seven nine" 079, "oh two" is
    "oh 2".
    """

    def process_words(self, words: list[str]) -> Iterator[str]:
        for word in super().process_words(self._marked(words)):
            yield "oh" if word == INTERJECTION else word

    def _marked(self, words: list[str]) -> list[str]:
        """Returns the words with "o" for each "oh" that is a digit, INTERJECTION for others."""
        result, is_pending = [], False  # whether a number has begun that may go on
        for i, word in enumerate(words):
            before = words[i - 1] if i else ""
            if word != "oh":
                result.append(word)
                is_pending = self._may_go_on(word, before, is_pending)
                continue
            goes_on, goes_further = map(self._is_digit, [*words[i + 1 : i + 3], "", ""][:2])
            if before in ("double", "triple") or (goes_on and (is_pending or goes_further)):
                result.append("o")
                is_pending = True
                continue
            if before in self.preceding_prefixers:
                result[-1] = self.preceding_prefixers[before] + "oh"  # "plus oh"
            else:
                if before == "point" or (before == "and" and is_pending):
                    result.pop()  # as before a zero
                result.append(INTERJECTION)
            is_pending = False
        return result

    def _is_digit(self, word: str) -> bool:
        numbers = (self.zeros, self.ones, self.tens)
        return word.isdecimal() or any(word in group for group in numbers)

    def _may_go_on(self, word: str, before: str, is_pending: bool) -> bool:
        """Returns whether a number is pending after the word, if an "oh" follows it."""
        if word == "and":  # "two hundred and oh five"
            return is_pending and before in self.multipliers
        number = word[1:] if word[0] in self.prefixes else word
        return (
            word == "point"
            or self._is_digit(number)
            or word in self.multipliers
            or re.fullmatch(r"\d+\.\d+", number) is not None
        )


class _Times:
    """Turns times of day, in words or digits, into H:MM, or H on the hour."""

    def __init__(self, numbers: EnglishNumberNormalizer):
        self.numbers = numbers
        units = "|".join(word for word, value in numbers.ones.items() if value < 10)
        tens = "twenty|thirty|forty|fifty"
        small = "|".join(numbers.ones)
        number = rf"(?:[0-9]{{1,2}}|(?:{tens})(?:[\s-]+(?:{units}))?|{small}|zero)"
        clock = r"o\s*['\u2019]?\s*clock"
        self.relative = re.compile(
            rf"(?<![\w.:])(half|(?:a\s+)?quarter|{number}\s+minutes?)\s+(past|after|to|before)\s+"
            rf"({number})(?:\s+{clock})?\b"
        )
        self.full_hour = re.compile(rf"(?<![\w.:])({number})\s+{clock}\b")
        self.digits = re.compile(r"(?<![\w:./])([01]?[0-9]|2[0-3]):([0-5][0-9])(?![\w:]|\.[0-9])")

    def __call__(self, text: str) -> str:
        text = self.relative.sub(self._from_relative, text)
        text = self.full_hour.sub(self._from_full_hour, text)
        return self.digits.sub(self._from_digits, text)

    def _from_relative(self, match: re.Match) -> str:
        amount, relation, hour = match.groups()
        hour = self._value(hour)
        if amount == "half":
            minutes = 30
        elif amount.endswith("quarter"):
            minutes = 15
        else:
            minutes = self._value(re.sub(r"\s+minutes?$", "", amount))
        if hour > 23 or minutes > 59:
            return match.group()
        if minutes and relation in ("to", "before"):
            hour = (hour - 2) % 12 + 1 if 1 <= hour <= 12 else (hour - 1) % 24
            minutes = 60 - minutes
        return f"{hour}:{minutes:02d}"

    def _from_full_hour(self, match: re.Match) -> str:
        hour = self._value(match[1])
        return match.group() if hour > 23 else f"{hour}:00"

    def _value(self, text: str) -> int:
        number = self.numbers(text.replace("-", " ")).strip()
        return 1 if number == "one" else int(number)

    @staticmethod
    def _from_digits(match: re.Match) -> str:
        return str(int(match[1])) if match[2] == "00" else f"{int(match[1])}:{match[2]}"


def _joined_letters(words: list[str]) -> list[str]:
    """Joins single letters and digits that stand side by side: "b b c" is "bbc".

    With an "a" or "i" among them at least three.
    """
    result: list[str] = []
    for is_single, group in itertools.groupby(words, lambda x: len(x) == 1 and x.isalnum()):
        run = list(group)
        shortest = 3 if {"a", "i"}.intersection(run) else 2
        result += ["".join(run)] if is_single and len(run) >= shortest else run
    return result
