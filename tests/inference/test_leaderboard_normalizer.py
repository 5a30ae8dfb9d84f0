"""The leaderboard's normalizer against the examples that its repository and its users give."""

import pytest

from tdt_jax.inference.normalizers import make_normalizer

FILLERS = """
    ah aah ahh ahhh aaah ahm ahmm aha ahaa ahaaa eh ehh eeeh ehhh ehm ehmm em emm er err errr erm
    hah hahh heh hehh hm hmm hmmm hhm huh huhh mm mmm mmmm mh mhm mhmm mmhm tsk ugh uuugh
    uh uuh uhh uhhh uuuh uhm uuuhm uhuh uhum um umm ummm uuum umh
    ahem eheh ehehe ehr hmmph hum hunh mhum mmkay um-hmm ah-ha
"""
UNITS = "one two three four five six seven eight nine".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ALIKE = [
    # how the repository says that a thing may be written
    ("colour", "color"),
    ("organise", "organize"),
    ("cancellation", "cancelation"),
    ("T.V.", "TV"),
    ("T. V.", "TV"),
    ("T V", "TV"),
    ("twentieth", "20th"),
    ("e-mail", "email"),
    ("Mr.", "mister"),
    ("etc.", "et cetera"),
    ("etcetera", "etc"),
    ("wi-fi", "wifi"),
    ("sci-fi", "scifi"),
    ("x-ray", "x ray"),
    ("T-shirt", "tshirt"),
    ("e commerce", "e-commerce"),
    ("a.p.i.", "A P I"),
    ("O.K.", "okay"),
    ("ok", "okay"),
    ("all right", "alright"),
    # times of day
    ("half past three", "3:30"),
    ("a quarter to ten", "9:45"),
    ("quarter past twelve o'clock", "12:15"),
    ("ten minutes to one", "12:50"),
    ("ten minutes before zero", "23:50"),
    ("twenty-five minutes after 7", "7:25"),
    ("zero minutes past five", "5:00"),
    ("ten o\u2019clock", "10:00"),
    ("09:05", "9:05"),
    # names
    ("Kathryn", "Catherine"),
    ("Jon MacDonald", "John McDonald"),
    ("Muhammad", "Mohamed"),
]


@pytest.fixture(scope="module")
def normalize():
    return make_normalizer("leaderboard")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # of Whisper
        ("Mr. Smith paid $1,000.", "mister smith paid $1000"),
        ("She'd gone, ain't that right, y'all?", "she had gone aint that right you all"),
        ("It's twenty-three percent!", "it is 23%"),
        ("colour organisation defence", "color organization defense"),
        ("um, it was [inaudible] (laughs) fine", "it was fine"),
        ("one oh one, the 274th, 32nd and 1960s", "101 the 274th 32nd and 1960s"),
        ("one of the ones", "one of the ones"),
        ("$2 and ¢7", "$2.07"),
        ("  \t", ""),
        ("[noise]", ""),
        # of the leaderboard alone
        ("The B B C reported it", "the bbc reported it"),
        ("5 G rollout", "5g rollout"),
        ("a big cat", "a big cat"),
        ("i a", "i a"),
        ("i b m", "ibm"),
        ("Wi-Fi and e-mail", "wifi and email"),
        ("at 3 p.m.", "at 3 pm"),
        ("U.S. and U.S.A.", "us and usa"),
        ("the dog's bone, it's hers", "the dog s bone it is hers"),
        ("kinda, sorta, dunno, 'cause", "kinda sorta dunno cause"),
        ("so ... I'm... 50 %", "so i am 50"),
        ("what... .5 or 3.5%", "what .5 or 3.5%"),
        # "oh"
        ("four oh one", "401"),
        ("nineteen oh five", "1905"),
        ("oh seven nine eight", "0798"),
        ("double oh seven", "007"),
        ("two hundred and oh five", "20005"),
        ("oh oh", "oh oh"),
        ("oh two", "oh 2"),
        ("Oh, I have 2 oh", "oh i have 2 oh"),
        ("version two point oh is out", "version 2 oh is out"),
        ("a hundred and oh no", "a 100 oh no"),
        ("plus oh yes", "+oh yes"),
        # times
        ("at half past 3 in the morning", "at 3 30 in the morning"),
        ("25:00 and 7:60", "25 0 and 7 60"),
        ("half past thirty", "half past 30"),
    ],
)  # fmt: skip
def test_texts(normalize, text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(("text", "other"), ALIKE)
def test_what_is_alike(normalize, text, other):
    assert normalize(f"Say {text} now") == normalize(f"say {other} now")


def test_fillers(normalize):
    assert [filler for filler in FILLERS.split() if normalize(filler)] == []
    assert normalize("hum-drum ahead of uhura, mmm.") == "drum ahead of uhura"


def test_numbers_in_words_and_in_digits(normalize):
    for ten, tens in enumerate(TENS, 2):
        for unit, units in enumerate(UNITS, 1):
            assert normalize(f"{tens}-{units}") == normalize(f"{tens} {units}") == f"{ten}{unit}"
