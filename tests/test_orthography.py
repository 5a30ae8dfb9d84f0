"""Spaces beside marks, words without spaces, and where lines may end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdt_jax.orthography import divide, may_part, space_between, tidy, width

QUICK = settings(deadline=None, derandomize=True)
ANY = "ab1 .,?!:-–&%$'\"“”„«»¿(){}」「。、ーっ東京かナไเ็าက်្’…한é\u200d\u3000"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("vrai ?", "vrai?"),
        ("ah ! non ; si : oui .", "ah! non; si: oui."),
        ("wait ... what …", "wait... what…"),
        ("¿ qué ? sí ¿qué ¡ no !", "¿qué? sí ¿qué ¡no!"),
        ("( a ) [ b ] c (d) e", "(a) [b] c (d) e"),
        ("dit « oui » .", "dit «oui»."),
        ("sagt: » Ja « .", "sagt: »Ja«."),
        ("sagt: „ Ja “ und „Nein“ .", "sagt: „Ja“ und „Nein“."),
        ("säger ”Hej” och ” nej ” .", "säger ”Hej” och ”nej”."),
        ('say " yes " and "no" , "so" .', 'say "yes" and "no", "so".'),
        ('"Hi ?" he said "no', '"Hi?" he said "no'),
        ("‘ yes ’ they’re dogs’ own", "‘yes’ they’re dogs’ own"),
        ("end ”", "end”"),
        ("is it ؟ نعم ،", "is it؟ نعم،"),
        ("です 。 「 東京 」", "です。 「東京」"),
        ("  a  b\u3000c\n", "a b c"),
    ],
)
def test_marks_join_their_word(written, text):
    assert tidy(written) == text


@pytest.mark.parametrize(
    "text",
    [
        "42 % of R & D", "yes - no – or — so", "get 'til rock 'n' roll", "rock ’n’ roll",
        "$ 5 or 5 €", "use .NET, .5 or ,5", "and ...but", "a / b", "20 °C", "# 1 * @ home",
        "3.5, 1,000 and 10:30",
        "l' amour", "-5 or - 5", "x = y", "col·lega", "。次", "a·b · c",
    ],
)  # fmt: skip
def test_other_marks_keep_their_spaces(text):
    assert tidy(text) == text


@QUICK
@given(st.text(ANY))
def test_tidy_text_is_tidy(text):
    once = tidy(text)
    assert "  " not in once and once == once.strip()
    assert once.replace(" ", "") == "".join(text.split())
    assert tidy(once) == once


@QUICK
@given(st.lists(st.text(ANY, min_size=1, max_size=4)), st.sets(st.integers(0, 5)))
def test_words_join_to_the_tidy_text(units, alone):
    words = divide(units, alone)
    whole = "".join(f" {x} " if i in alone else x for i, x in enumerate(units))
    assert "".join(" " * w.space_before + w.text for w in words).lstrip() == tidy(whole)
    spelled = [i for word in words for i in word.units]
    assert spelled == (list(range(len(units))) if words else [])
    for word in words:
        assert word.text.strip() == word.text != ""
        if any(i in alone and units[i].strip() for i in word.units):
            assert len([i for i in word.units if units[i].strip()]) == 1


def words(text, mark="|"):
    """The words of units between marks, which a space before parts as well."""
    spans = divide(text.split(mark))
    return "|".join(" " * span.space_before + span.text for span in spans).lstrip()


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ("東京|で| Para|keet| を|使|う|。|はい", "東京|で| Parakeet| を|使|う。|はい"),
        ("東京|で|Para|keet|を|2|0|2|4|年", "東京|で|Parakeet|を|2024|年"),
        ("きょ|う|は|「|東京|」|と|言|っ|た|。", "きょ|う|は|「東京」|と|言っ|た。"),
        ("パ|ー|ティ|ー|ー|時|々|〜", "パー|ティーー|時々〜"),
        ("です|?|OK|!|は", "です?|OK!|は"),
        ("3|.|5|％|の|¥|百", "3.5％|の|¥百"),
        ("他|说|“|你|好|”|了|，|OK|。|好", "他|说|“你|好”|了，|OK。|好"),
        ("本| |。| |次", "本。| 次"),
        ("ฉัน|เ|ป็|น|คน| |ไทย| |ๆ|๑|๒", "ฉัน|เป็|น|คน| ไทย| ๆ|๑๒"),
        ("ฟิล|ม|์|ด|ี", "ฟิลม์|ดี"),
        ("ក|្|ខ|ា|។", "ក្ខា។"),
        ("က|န|်|မာ|။", "ကန်|မာ။"),
        ("ລາວ|ເ|ປ|ັ|ນ", "ລາວ|ເປັ|ນ"),
        ("한|국|어| 말", "한국어| 말"),
        ("a|b| |c|-|d| -|e", "ab| c-d| -e"),
        ("of the| end", "of the| end"),
    ],
)
def test_words_of_many_scripts(units, expected):
    assert words(units) == expected


def test_no_line_begins_or_ends_where_it_must_not():
    for after in "。、，．）」』】？！…ー～〜っゃァ々ゝ・：％℃็าํ်ំ?).,":
        assert not may_part("東", f"{after}京"), after
    for before in "「『（【¿$¥เโ\u17d2\u1039":
        assert not may_part(f"東{before}", "京"), before
    for before, after in [("東", "京"), ("で", "P"), ("P", "を"), ("。", "A"), ("ไทย", "คน")]:
        assert may_part(before, after)
    for before, after in [("a", "b"), ("3.", "5"), ("한", "국"), ("a-", "b")]:
        assert not may_part(before, after)


def test_spaces_between_stretches_of_text():
    for before, after in [("a", "b"), ("Yes.", "No"), ("한", "국"), ("a", "¿b"), ("a", ".5")]:
        assert space_between(before, after)
    for before, after in [
        ("東", "京"),
        ("で", "P"),
        ("P", "を"),
        ("a", "."),
        ("a", "?”"),
        ("(", "a"),
    ]:
        assert not space_between(before, after)


def test_wide_characters_take_two_columns():
    assert [width(x) for x in ("", "ab", "東京", "ｱ", "Ａ", "한 a", "é")] == [0, 2, 4, 1, 2, 4, 1]
