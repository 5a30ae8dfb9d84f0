"""Transcripts as text: every format by example, and what must hold of subtitles of any words."""

import itertools
import json
import math
import re
from dataclasses import replace

import mixed
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdt_jax.inference.formats import FORMATS, SubtitleRules, render
from tdt_jax.inference.transcript import Segment, Token, Transcript, Word
from tdt_jax.orthography import divide, is_wide, width

CLOCK = r"\d\d+:\d\d:\d\d[.,]\d\d\d"
TALK = (
    "So, what do you think? I talked to Mr. Quilter yesterday, and he said that the new bridge, "
    "which was finished in the spring, is already closed again because of the floods. Yes. Really!"
)


def transcript_of(*words: tuple[str, float, float], duration: float = 0.0) -> Transcript:
    """One segment of (text, start, end), the audio as long as they are, or longer."""
    found = [Word(text, start, end, 0.91239, 0.5) for text, start, end in words]
    text, end = " ".join(word.text for word in found), max([0.0, *(word.end for word in found)])
    segments = [Segment(text, found[0].start, end, 0.91239, 0.5, found)] if found else []
    return Transcript(text, [], found, segments, max(duration, end))


def spoken(text: str) -> Transcript:
    """A word lasts 70 ms a letter, and ones with punctuation are followed by pauses."""
    words, now = [], 0.5
    for word in text.split():
        words.append((word, now, now + 0.07 * len(word)))
        now += 0.07 * len(word) + 0.4 * (word[-1] in ".?!") + 0.2 * (word[-1] == ",")
    return transcript_of(*words, duration=now + 1)


def parse(text: str) -> list[tuple[int, int, list[str]]]:
    """(start, end) in milliseconds and the lines of each cue of SRT or VTT."""
    numbered, text = not text.startswith("WEBVTT\n\n"), text.removeprefix("WEBVTT\n\n")
    cues = []
    for number, block in enumerate(text.removesuffix("\n").split("\n\n"), 1):
        lines = block.split("\n")
        assert not numbered or lines.pop(0) == str(number)
        start, end = re.fullmatch(f"({CLOCK}) --> ({CLOCK})", lines.pop(0)).groups()
        assert lines and all(line.strip() and "-->" not in line for line in lines)
        cues.append((milliseconds(start), milliseconds(end), lines))
    return cues


def milliseconds(clock: str) -> int:
    hours, minutes, seconds, rest = map(int, re.split("[:.,]", clock))
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def texts(transcript: Transcript, **rules) -> list[str]:
    return ["|".join(x[2]) for x in parse(render(transcript, "srt", rules=SubtitleRules(**rules)))]


def times(*words: tuple[str, float, float], duration=9.0, **rules) -> list[tuple[int, int]]:
    talk = transcript_of(*words, duration=duration)
    return [x[:2] for x in parse(render(talk, "srt", rules=SubtitleRules(**rules)))]


HELLO = transcript_of(("Hello,", 0.48, 0.8), ("<world>", 1.0, 1.5004), duration=4.0)


def test_json():
    token = Token("▁Héllo", 0.48, 0.80049, 0.912349, math.nan)
    line = render(replace(HELLO, tokens=[token]), "json", name="a b.wav")
    assert line.startswith('{"file": "a b.wav", "text": "Hello, <world>"')
    assert "▁Héllo" in line and line.endswith("}\n") and line.count("\n") == 1
    score = {"confidence": 0.9124, "probability": 0.5}
    hello = {"text": "Hello,", "start": 0.48, "end": 0.8} | score
    world = {"text": "<world>", "start": 1.0, "end": 1.5} | score
    both = {"text": "Hello, <world>", "start": 0.48, "end": 1.5} | score
    assert json.loads(line) == {
        "file": "a b.wav",
        "text": "Hello, <world>",
        "duration": 4.0,
        "segments": [both | {"words": [hello, world]}],
        "words": [hello, world],
        "tokens": [hello | {"text": "▁Héllo", "confidence": 0.9123, "probability": None}],
        "language": None,
    }
    assert "file" not in json.loads(render(HELLO, "json"))


def test_txt_and_tsv():
    assert render(HELLO, "txt") == "Hello, <world>\n"
    transcript = replace(HELLO, segments=[replace(HELLO.segments[0], text="a\tb\nc")] * 2)
    assert render(transcript, "tsv") == "start\tend\ttext\n" + "480\t1500\ta b c\n" * 2


def test_ctm():
    transcript = transcript_of(("New York", 0.48, 0.8), ("\n", 1, 1), ("was", 1.2, 1.1))
    expected = "my_talk 1 0.480 0.320 New_York 0.9124\nmy_talk 1 1.200 0.000 was 0.9124\n"
    assert render(transcript, "ctm", name="my talk") == expected
    assert render(transcript, "ctm") == expected.replace("my_talk", "audio")


def test_srt():
    talk = transcript_of(("Hello,", 0.48, 0.8), ("world.", 0.88, 1.2), ("Bye", 3.0, 3.0004))
    assert render(replace(talk, duration=360_003.9), "srt") == (
        "1\n00:00:00,480 --> 00:00:01,480\nHello, world.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye\n"
    )
    late = transcript_of(("a", 360_061.5, 360_063.25))
    assert render(late, "srt") == "1\n100:01:01,500 --> 100:01:03,250\na\n"


def test_vtt():
    cue = "00:00:00.480 --> 00:00:01.500\nHello, &lt;world&gt;\n"
    assert render(HELLO, "vtt") == f"WEBVTT\n\n{cue}"
    words = ("a", 1, 1.2), ("&", 1.3, 1.3), ("c", 1.3, 1.5), ("d", 2, 2)
    marked = "<c>a</c> <00:00:01.300><c>&amp;</c> <c>c</c> <c>d</c>"
    shown = parse(render(transcript_of(*words), "vtt", highlight_words=True))
    assert shown == [(1000, 2000, [marked])]


def test_highlighted_srt():
    words = ("a", 1, 1.2), ("b", 1.3, 1.3), ("c", 1.3, 1.5), ("d", 2, 2)
    shown = parse(render(transcript_of(*words), "srt", highlight_words=True))
    first, rest = ["<u>a</u> b c d"], ["a <u>b</u> <u>c</u> <u>d</u>"]
    assert shown == [(1000, 1300, first), (1300, 2000, rest)]
    talk = spoken(TALK)
    steps = parse(render(talk, "srt", highlight_words=True))
    assert [start for start, _, _ in steps] == [round(1000 * word.start) for word in talk.words]


def test_nothing_was_said():
    silence = Transcript("", [], [], [], 3.0)
    nothing = '{"text": "", "tokens": [], "words": [], "segments": [], "duration": 3.0, '
    nothing += '"language": null}\n'
    empty = ["\n", "", "WEBVTT\n", nothing, "start\tend\ttext\n", ""]
    for highlight in (False, True):
        assert [render(silence, x, highlight_words=highlight) for x in FORMATS] == empty
    blank = transcript_of(("", 0, 1), (" \n", 1, 2))
    assert [render(blank, x) for x in ("srt", "vtt", "ctm")] == ["", "WEBVTT\n", ""]


def test_cues_end_with_sentences_then_with_clauses():
    assert texts(spoken(TALK)) == [
        "So, what do you think?",
        "I talked to Mr. Quilter yesterday,",
        "and he said that the new bridge,|which was finished in the spring,",
        "is already closed again|because of the floods.",
        "Yes. Really!",  # too short to be on the screen apart
    ]


def test_sentences_end_in_many_scripts_and_inside_quotes():
    for end in ("?", "…", "。", "؟", "।", '."', "!)"):
        talk = transcript_of(("one" + end, 0, 1.5), ("two", 1.5, 3))
        assert texts(talk) == ["one" + end, "two"]
    for middle in ("3.5", "Dr.", "J.", "it's"):
        assert len(texts(transcript_of((middle, 0, 1.5), ("two", 1.5, 3)))) == 1


def test_a_full_cue_ends_at_the_longest_pause():
    starts = np.arange(24) * 0.28
    starts[15:] += 0.5  # before the 16th word
    talk = transcript_of(*(("word", start, start + 0.28) for start in starts))
    assert [text.count("word") for text in texts(talk)] == [15, 9]
    assert [text.count("word") for text in texts(spoken("word " * 24))] == [12, 12]


def test_pauses_end_cues_and_segments_alone_do_not():
    talk = transcript_of(("a", 0, 1), ("b", 1.99, 3), ("c", 4, 5))
    assert texts(talk) == ["a b", "c"]
    assert texts(talk, max_gap=math.inf) == ["a b c"]
    assert texts(talk, max_gap=0.9) == ["a", "b", "c"]


def test_lines_are_balanced_and_the_upper_is_the_shorter():
    assert texts(spoken("word " * 9)) == ["word word word word|word word word word word"]
    assert texts(spoken("a bb cccc"), max_chars=5) == ["a bb|cccc"]
    assert texts(spoken("a b xxxxxxx c d"), max_chars=5, max_lines=3) == ["a b|xxxxxxx|c d"]


def test_short_cues_stay_on_the_screen():
    word = ("a.", 2.0, 2.1)
    assert times(word) == [(2000, 3000)]
    assert times(word, min_seconds=0) == [(2000, 2100)]
    assert times(word, duration=2.5) == [(2000, 2500)]
    assert times(word, ("b", 2.5, 4.5), max_gap=0.3) == [(2000, 2420), (2500, 4500)]
    assert times(word, ("b", 2.5, 4.5), max_gap=0.3, min_gap=0) == [(2000, 2500), (2500, 4500)]
    assert times(word, ("b", 2.15, 4), max_gap=0.04) == [(2000, 2100), (2150, 4000)]
    assert times(("a", 0, 5), ("b", 3, 4), max_chars=1, max_lines=1) == [(0, 3000), (3000, 4000)]


def test_cues_of_words_without_time():
    at_once = [("word", 2.0, 2.0)] * 3
    rules = {"max_chars": 4, "max_lines": 1}
    assert times(*at_once, **rules, duration=2) == [(1997, 1998), (1998, 1999), (1999, 2000)]
    assert times(*[("word", 0, 0)] * 3, **rules) == [(0, 1), (1, 2), (2, 1002)]
    assert times(("a", 0, 0), duration=0) == [(0, 1)]


def test_hostile_words():
    hostile = ["-->", "--->", "<b>", "&amp;", "a'\nb", "", "\u2028\x85\n", "<00:00:00.500>"]
    talk = transcript_of(*((word, 0.4 * i, 0.4 * i + 0.4) for i, word in enumerate(hostile)))
    [(_, _, lines)] = parse(render(talk, "srt"))
    assert " ".join(lines) == "→ -→ <b> &amp; a' b <00:00:00.500>"
    [(_, _, lines)] = parse(render(talk, "vtt"))
    escaped = "--&gt; ---&gt; &lt;b&gt; &amp;amp; a' b &lt;00:00:00.500&gt;"
    assert " ".join(lines) == escaped
    [(_, _, lines)] = parse(render(talk, "vtt", highlight_words=True))
    assert re.sub("<[^>]*>", "", " ".join(lines)) == escaped
    assert len(parse(render(talk, "srt", highlight_words=True))) == 6


def random_transcript(rng: np.random.Generator) -> Transcript:
    words, now = [], float(rng.uniform(0, 2))
    for _ in range(rng.integers(1, 60)):
        length = rng.integers(1, 61) if rng.random() < 0.1 else rng.integers(1, 10)
        text = "".join(rng.choice(list("abcdeé"), length)) + rng.choice(["", "", "", ",", ".", "?"])
        seconds = rng.choice([0, 0, 0.08, 0.3, 0.6, 9.0], p=[0.1, 0.1, 0.3, 0.3, 0.18, 0.02])
        words.append((text, now, now + seconds))
        now += seconds * rng.choice([0, 0.5, 1], p=[0.05, 0.05, 0.9])
        now += rng.choice([0, 0.0004, 0.08, 0.5, 1, 4], p=[0.5, 0.1, 0.2, 0.1, 0.05, 0.05])
    return transcript_of(*words, duration=now + rng.choice([0, 0.3, 5]))


RULES = [
    SubtitleRules(),
    SubtitleRules(max_chars=20, max_lines=1, max_seconds=2, min_seconds=0.5),
    SubtitleRules(max_chars=12, max_lines=3, max_gap=0.3, min_gap=0),
    SubtitleRules(max_chars=1, max_lines=1, max_seconds=0.5, min_seconds=0.5, min_gap=0.5),
    SubtitleRules(max_chars=60, max_lines=4, max_seconds=1000, min_seconds=3, max_gap=math.inf),
]


@pytest.mark.parametrize("count", [25, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rules", RULES)
def test_any_subtitles(rules, count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        transcript = random_transcript(rng)
        shown = parse(render(transcript, "srt", rules=rules))
        assert parse(render(transcript, "vtt", rules=rules)) == shown
        require_rules(transcript, shown, rules)
        highlighted = render(transcript, "srt", rules=rules, highlight_words=True)
        require_same_on_screen(shown, parse(highlighted))
        stamped = render(transcript, "vtt", rules=rules, highlight_words=True)
        for cue, (start, end, lines) in zip(shown, parse(stamped), strict=True):
            assert cue == (start, end, [re.sub("<[^>]*>", "", line) for line in lines])
            stamps = map(milliseconds, re.findall(f"<({CLOCK})>", " ".join(lines)))
            clock = [start, *stamps, end]
            assert clock == sorted(set(clock))


def require_rules(transcript, shown, rules):
    words, last = list(transcript.words), 0
    for start, end, lines in shown:
        assert last <= start < end <= round(1000 * transcript.duration)
        last = end
        said = [words.pop(0) for line in lines for _ in line.split(" ")]
        assert [word.text for word in said] == " ".join(lines).split(" ")
        assert len(lines) <= rules.max_lines
        assert all(len(line) <= rules.max_chars or " " not in line for line in lines)
        assert end - start <= 1000 * rules.max_seconds or len(said) == 1
        if len(lines) == 2 and max(map(len, lines)) <= rules.max_chars:
            upper, lower = (line.split(" ") for line in lines)
            moved = [" ".join([*upper, lower[0]]), " ".join([upper[-1], *lower])]
            assert min(map(len, moved)) >= max(map(len, lines))
        for i in range(1, len(said)):
            spoken_until = max(round(1000 * word.end) for word in said[:i])
            assert round(1000 * said[i].start) - spoken_until < 1000 * rules.max_gap
    assert not words
    for (start, end, _), (following, _, _) in itertools.pairwise(shown):
        assert end > min(start + 1000 * rules.min_seconds, following - 1000 * rules.min_gap) - 1


def require_same_on_screen(shown, highlighted):
    """The steps of a cue are its text, follow one another, and underline each word once."""
    for start, end, lines in shown:
        now, underlined = start, []
        while now < end:
            begin, now, marked = highlighted.pop(0)
            assert begin == start and begin < now <= end
            assert [re.sub("</?u>", "", line) for line in marked] == lines
            underlined += re.findall("<u>(.+?)</u>", " ".join(marked))
            start = now
        assert underlined == " ".join(lines).split(" ")
    assert not highlighted


# Scripts without spaces


def unspaced(*texts: str, seconds=0.3, **options) -> Transcript:
    """Words one after another; a space is before those that begin with one."""
    now, words = 0.5, []
    for text in texts:
        space = text.startswith(" ")
        words.append(Word(text.strip(), now, now + seconds, 0.9, 0.9, space_before=space))
        now += seconds
    whole = "".join(texts).strip()
    segments = [Segment(whole, 0.5, now, 0.9, 0.9, words)]
    return Transcript(whole, [], words, segments, now, **options)


JAPANESE = (
    "今日|は|東京|で|Parakeet| を|使っ|て、|会議|の|内容|を|文字|に|しま|した。|とても|便利|です！"
)
JAPANESE += (
    "|それ|から|明日|も|２０|人|以上|が|参加|する|予定|な|の|で、|また|よろ|しく|お|願い|しま|す"
)


def test_subtitles_of_japanese():
    talk = unspaced(*JAPANESE.split("|"))
    assert texts(talk) == [
        "今日は東京でParakeet を使って、|会議の内容を文字にしました。",
        "とても便利です！それから明日も|２０人以上が参加する予定なので、",  # too short apart
        "またよろしくお願いします",
    ]
    short = ["今日は東京で", "Parakeet を使って、", "会議の内容を", "文字にしました。"]
    assert texts(talk, max_wide_chars=8, max_lines=1)[:4] == short
    marked = render(talk, "srt", highlight_words=True)
    assert "<u>今日</u>は東京でParakeet を使って、\n会議" in marked
    stamped = render(talk, "vtt", highlight_words=True)
    assert "<c>今日</c><00:00:00.800><c>は</c><00:00:01.100><c>東京</c>" in stamped


def test_lines_end_at_spaces_and_clauses_where_words_have_none():
    assert texts(unspaced("จะ", "ไป", "ที่", "ตลาด", "นะ", " พรุ่ง", "นี้", "ครับ"), max_chars=17) == [
        "จะไปที่ตลาดนะ|พรุ่งนี้ครับ"
    ]
    assert texts(unspaced(*"東京で、使うととても便利"), max_chars=18) == [
        "東京で、|使うととても便利"
    ]
    assert texts(unspaced(*"東京で、使うととても便利"), max_chars=14) == [
        "東京で、使う|ととても便利"
    ]


def test_a_line_has_sixteen_wide_characters():
    def longest(letter, expected, **rules):
        """Of a text that fills three cues of two lines."""
        shown = render(
            unspaced(*letter * 6 * expected, seconds=0.05), "srt", rules=SubtitleRules(**rules)
        )
        lines = [line for _, _, lines in parse(shown) for line in lines]
        assert [len(line) for line in lines] == [expected] * 6

    longest("東", 16)
    longest("東", 13, max_wide_chars=13)
    longest("東", 10, max_chars=20)
    longest("東", 21, max_wide_chars=99)
    longest("ท", 42)
    korean = parse(render(unspaced(*[" 한국어"] * 40, seconds=0.05), "srt"))
    assert {line for _, _, lines in korean for line in lines} == {" ".join(["한국어"] * 4)}


def test_no_line_begins_with_a_closing_mark():
    """Also where a stream has given it as a word of its own."""
    talk = unspaced(*("東" * 15), "。", *("京" * 15), "ー", "」", " a", ",", " b", seconds=0.05)
    for size in range(1, 40):
        for _, _, lines in parse(render(talk, "srt", rules=SubtitleRules(max_chars=size))):
            assert not any(line[0] in "。ー」," for line in lines)


def test_words_without_spaces_in_json_and_ctm():
    talk = unspaced(" 東京", "で", " ok", language="ja")
    found = json.loads(render(talk, "json"))
    assert found["language"] == "ja" and found["text"] == "東京で ok"
    for words in (found["words"], found["segments"][0]["words"]):
        assert [word.get("space_before", True) for word in words] == [True, False, True]
        assert "space_before" not in words[0]
    ctm = render(talk, "ctm", name="a").splitlines()
    assert [line.split()[:5] for line in ctm] == [
        ["a", "1", "0.500", "0.300", "東京"],
        ["a", "1", "0.800", "0.300", "で"],
        ["a", "1", "1.100", "0.300", "ok"],
    ]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(
        st.sampled_from(mixed.tokenizer().pieces[-len(mixed.WORDS + mixed.MARKS) :]), max_size=60
    ),
    st.sampled_from(RULES),
    st.integers(2, 20),
    st.randoms(use_true_random=False),
)
def test_limits_hold_for_any_text(pieces, rules, wide, random):
    """But for one word that is too long; no line begins or ends where it must not."""
    rules = replace(rules, max_wide_chars=wide)
    words = divide([piece.replace("▁", " ") for piece in pieces])
    talk = unspaced(*(" " * w.space_before + w.text for w in words), seconds=random.uniform(0, 0.5))
    left = [word.text for word in words]
    for start, end, lines in parse(render(talk, "srt", rules=rules)) if words else []:
        assert len(lines) <= rules.max_lines
        count = 0
        for line in lines:
            said = []
            while "".join(said).replace(" ", "") != line.replace(" ", ""):
                said.append(left.pop(0))
            count += len(said)
            columns = width(line) <= rules.max_chars
            assert len(said) == 1 or (columns and sum(map(is_wide, line)) <= wide)
        assert count == 1 or end - start <= 1000 * rules.max_seconds
    assert not left


def test_unusable_rules_and_formats():
    with pytest.raises(ValueError, match="one of txt, srt, vtt, json, tsv, ctm, got 'doc'"):
        render(HELLO, "doc")
    for bad, message in [
        ({"max_chars": 0}, "max_chars must be at least 1, got 0"),
        ({"max_lines": -2}, "max_lines must be at least 1, got -2"),
        ({"max_wide_chars": 0}, "max_wide_chars must be at least 1, got 0"),
        ({"max_seconds": 0}, "max_seconds must be above 0 seconds, got 0"),
        ({"max_gap": math.nan}, "max_gap must be above 0 seconds, got nan"),
        ({"min_gap": -0.1}, r"min_gap must be at least 0 seconds, got -0\.1"),
        ({"min_seconds": 8}, r"which is 7\.0, got 8"),
        ({"min_seconds": -1}, "got -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            SubtitleRules(**bad)
