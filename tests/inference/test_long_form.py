"""Windows of long audio: where the cuts are, and that no word is lost or doubled at one."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tdt_jax.inference import long_form
from tdt_jax.inference.long_form import cut
from tdt_jax.inference.transcript import TimedWord, Token

RATE = 1000  # a slow clock makes small arrays


def cores(windows):
    """The samples that the cores of windows cover, and the windows themselves."""
    windows = list(windows)
    assert windows[0].first == 0
    assert all(a.last == b.first for a, b in itertools.pairwise(windows))
    return np.concatenate(
        [w.samples[w.first - w.start : w.last - w.start] for w in windows]
    ), windows


@pytest.mark.parametrize("size", [2, 1999, 2000, 2001, 3999, 12345, 60000])
@pytest.mark.parametrize("block", [700, 100000])
def test_windows_cover_everything_whatever_the_blocks(size, block):
    samples = np.random.default_rng(size).normal(size=size).astype(np.float32)
    blocks = (samples[i : i + block] for i in range(0, size, block))
    covered, windows = cores(cut(blocks, longest=4000, overlap=500, sample_rate=RATE))
    np.testing.assert_array_equal(covered, samples)
    assert max(len(w.samples) for w in windows) <= 4000
    assert (len(windows) == 1) == (size <= 4000)
    for window in windows:
        first, last = window.start, window.start + len(window.samples)
        np.testing.assert_array_equal(window.samples, samples[first:last])
        assert first == 0 if window.first == 0 else 250 <= window.first - first <= 500
        assert last == size if window.last == size else 250 <= last - window.last <= 500


def test_windows_begin_and_end_where_it_is_quiet():
    samples = np.random.default_rng(0).normal(size=6000).astype(np.float32)
    quiet = [2500, 3000, 3400]  # the middle is where the core ends
    for middle, level in zip(quiet, (0.02, 0.01, 0.02), strict=True):
        samples[middle - 120 : middle + 120] *= level
    sizes = dict(longest=4000, overlap=600, sample_rate=RATE)
    first, second = itertools.islice(cut([samples], **sizes), 2)
    found = second.start, first.last, len(first.samples)
    np.testing.assert_allclose(found, quiet, atol=25)


def test_cuts_are_where_it_is_quiet():
    samples = np.random.default_rng(0).normal(size=6000).astype(np.float32)
    quiet = [1600, 3100, 4700]
    for middle in quiet:
        samples[middle - 120 : middle + 120] *= 0.01
    _, windows = cores(cut([samples], longest=2000, overlap=200, sample_rate=RATE))
    cuts = [window.last for window in windows[:-1]]
    assert len(cuts) == 3
    np.testing.assert_allclose(cuts, quiet, atol=25)


def blocks_of(samples, size):
    return (samples[i : i + size] for i in range(0, len(samples), size))


@pytest.mark.parametrize("lead", [1, 499, 2500, 30000])  # up to many windows long
def test_digital_silence_at_the_ends_changes_no_window(lead):
    sizes = dict(longest=4000, overlap=500, sample_rate=RATE)
    samples = np.random.default_rng(0).normal(size=9000).astype(np.float32)
    quiet = np.full(lead, 2.0**-24, np.float32) * np.where(np.arange(lead) % 3, -1, 1)
    expected = list(cut([samples], **sizes))
    found = list(cut(blocks_of(np.concatenate([quiet, samples, quiet]), 700), **sizes))
    for window, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(window.samples, other.samples)
        assert window.start == other.start + lead
    assert [w.last for w in found[:-1]] == [w.last + lead for w in expected[:-1]]
    assert found[0].first == 0 and found[-1].last == 9000 + 2 * lead
    assert all(a.last == b.first for a, b in itertools.pairwise(found))


def test_long_digital_silence_parts_what_is_on_its_sides():
    noise = np.random.default_rng(0).normal(size=(3, 2000)).astype(np.float32)
    silence = np.zeros(2000, np.float32)  # as long as a window may hold
    samples = np.concatenate([noise[0], silence, noise[1], silence, [0], noise[2], silence, [0]])
    for block in (1, 700, 100000):
        first, second = cut(blocks_of(samples, block), longest=9000, overlap=500, sample_rate=RATE)
        np.testing.assert_array_equal(first.samples, samples[:6000])
        np.testing.assert_array_equal(second.samples, noise[2])
        assert (first.start, first.first, first.last) == (0, 0, 8001)
        assert (second.start, second.first, second.last) == (8001, 8001, 12002)
        assert first.omitted == second.omitted == ()


def test_what_sounds_briefly_stays_with_what_is_beside_it():
    """0.3 s, 5 s later 4 s, 3 s later 1 s, 9 s later 3 s: the last by itself."""
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=size).astype(np.float32) for size in (300, 4000, 1000, 3000)]
    parts = [np.zeros(700), noise[0], np.zeros(5000), noise[1], np.zeros(3000), noise[2]]
    samples = np.concatenate([*parts, np.zeros(9000), noise[3], np.zeros(100)])
    samples = samples.astype(np.float32)
    for block in (1, 700, 100000):
        first, second = cut(blocks_of(samples, block), longest=9000, overlap=500, sample_rate=RATE)
        bridge = np.zeros(500)
        expected = np.concatenate([noise[0], bridge, noise[1], bridge, noise[2]])
        np.testing.assert_array_equal(first.samples, expected)
        assert first.omitted == ((550, 4500), (5050, 7000))  # in the middle of each bridge
        assert (first.start, first.first, first.last) == (700, 0, 23000)
        np.testing.assert_array_equal(second.samples, noise[3])
        assert (second.start, second.first, second.last) == (23000, 23000, len(samples))


def test_brief_sounds_all_along_are_cut_as_anything_is():
    """0.4 s every 3 s, for ten minutes: windows of half a minute without the silence."""
    rng = np.random.default_rng(0)
    samples = np.zeros((200, 3000), np.float32)
    samples[:, :400] = rng.normal(size=(200, 400))
    windows = list(
        cut(blocks_of(samples.ravel(), 777), longest=20000, overlap=1000, sample_rate=RATE)
    )
    assert 9 <= len(windows) < 15 and max(len(w.samples) for w in windows) <= 20000
    assert windows[0].first == 0 and windows[-1].last == samples.size
    assert all(a.last == b.first for a, b in itertools.pairwise(windows))
    covered = np.zeros(samples.size, bool)
    for window in windows:
        omitted = np.zeros(len(window.samples), int)
        for place, size in window.omitted:
            omitted[place:] = size
        places = window.start + np.arange(len(window.samples)) + omitted
        loud = window.samples != 0
        np.testing.assert_array_equal(window.samples[loud], samples.ravel()[places[loud]])
        core = (places >= window.first) & (places < window.last)
        covered[places[loud & core]] = True
    np.testing.assert_array_equal(covered, samples.ravel() != 0)


def test_a_silent_recording_has_a_window_without_samples():
    (window,) = cut([np.zeros(700), np.zeros(5000)], longest=4000, overlap=500, sample_rate=RATE)
    assert len(window.samples) == 0 and (window.first, window.last) == (0, 5700)


def test_windows_must_be_longer_than_their_overlap():
    with pytest.raises(
        ValueError, match="windows of 900 samples are too short for an overlap of 2"
    ):
        list(cut([np.zeros(10)], longest=900, overlap=200, sample_rate=RATE))
    with pytest.raises(ValueError, match="an overlap of 199 is shorter than the 200 of a pause"):
        list(cut([np.zeros(10)], longest=9000, overlap=199, sample_rate=RATE))


def join(windows, cuts, decode, *, overlap):
    """Joins windows that reach `overlap` seconds beyond the cuts on both sides."""
    ends = [0.0, *cuts, 1e9]
    extents = [(a - overlap, b + overlap) for a, b in itertools.pairwise(ends)]
    return long_form.join(windows, cuts, extents[: len(windows)], decode)


def word(text, start, end, confidence=1.0):
    return TimedWord((0,), (Token(text, start, end, confidence, 1.0),), text)


def sentence(rng, seconds=60.0):
    """Words of 0.2 to 0.7 s, one after another, many of them the same."""
    words, at = [], 0.5
    while at < seconds - 1:
        length = rng.uniform(0.2, 0.7)
        words.append(word(str(rng.choice(["oh", "oh", "one", "two"])), at, at + length))
        at += length + rng.choice([0.0, 0.1, 0.8])
    return words


def decoded(words, first, last, rng):
    """The words of a window: times off by up to a frame, and nonsense for half a word."""
    found = []
    for each in words:
        if each.end <= first or each.start >= last:
            continue
        shift = 0.08 * rng.integers(-1, 2)
        length = each.end - each.start
        shift = float(np.clip(shift, -length / 2, length / 2))
        start, end = max(first, each.start + shift), min(last, each.end + shift)
        is_cut = each.start < first or each.end > last
        found.append(word("?" if is_cut else each.text, start, max(start, end)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_anywhere_neither_loses_nor_doubles_a_word(seed):
    """Cuts swept through words and pauses, of speech without and with."""
    rng = np.random.default_rng(seed)
    words = sentence(rng)
    for at in np.arange(20.0, 40.0, 0.13):
        before, after = decoded(words, 0, at + 1, rng), decoded(words, at - 1, 60, rng)
        joined = join([before, after], [at], str, overlap=1.0)
        assert [each.text for each in joined] == [each.text for each in words], at


def test_three_windows_and_silent_ones():
    a, b, c = word("a", 1.0, 1.5), word("b", 4.8, 5.2), word("c", 9.9, 10.3)
    late = word("b", 4.9, 5.3)
    windows = [[a, b], [late, c], [c]]
    assert [w.text for w in join(windows, [5.0, 10.0], str, overlap=1.0)] == ["a", "b", "c"]
    assert join([[]], [], str, overlap=1.0) == []
    assert join([[], [c]], [5.0], str, overlap=1.0) == [c] and join(
        [[a], []], [5.0], str, overlap=1.0
    ) == [a]
    assert join([[a, b], [], [c]], [5.1, 9.0], str, overlap=1.0) == [a, b, c]
    with pytest.raises(ValueError, match="got 1 cuts and 2 extents for 3 windows"):
        join(windows, [5.0], str, overlap=1.0)


def test_a_word_of_one_window_alone_is_kept():
    """Unless it is at the window's edge, or the other has another word there."""
    a, b = word("a", 17.0, 17.4), word("b", 22.5, 22.9)
    missed = word("x", 19.2, 19.6)  # before the cut, only in the window after it
    assert [w.text for w in join([[a], [missed, b]], [20.0], str, overlap=2.0)] == ["a", "x", "b"]
    late = word("y", 20.5, 20.9)  # after the cut, only in the window before it
    assert [w.text for w in join([[a, late], [b]], [20.0], str, overlap=2.0)] == ["a", "y", "b"]
    edges = [[a, word("?", 21.6, 21.9)], [word("?", 18.1, 18.6), b]]
    assert [w.text for w in join(edges, [20.0], str, overlap=2.0)] == ["a", "b"]
    other = word("z", 18.9, 19.5)
    joined = join([[a, other], [word("w", 19.4, 19.9), b]], [20.0], str, overlap=2.0)
    assert [w.text for w in joined] == ["a", "z", "b"]


@pytest.mark.parametrize("cut", [19.8, 20.4])  # before and after the word's middle
def test_of_two_words_the_more_certain_is_kept(cut):
    def kept(one, other):
        (found,) = join([[one], [other]], [cut], str, overlap=2.0)
        return found.text

    second = word("second", 20.0, 20.3, 0.6)
    assert kept(second, word("seven", 20.0, 20.3, 0.9)) == "seven"
    assert kept(second, word("seven", 20.0, 20.3, 0.4)) == "second"
    assert kept(second, word("seven", 20.0, 20.3, 0.6)) == ("second" if cut == 20.4 else "seven")
    end, begin = cut + 2.0, cut - 2.0  # of the windows: what is there may be half a word
    assert kept(word("half", end - 0.2, end, 0.9), word("a", end - 0.2, end, 0.1)) == "a"
    assert kept(word("b", begin, begin + 0.2, 0.1), word("half", begin, begin + 0.2, 0.9)) == "b"


def test_words_without_spaces_are_handed_over_between_tokens():
    """A language without spaces makes one word of a whole window."""

    def run(first, last):
        numbers = range(first, last)
        tokens = tuple(Token(str(i), i / 2, i / 2 + 0.4, 1.0, 1.0) for i in numbers)
        return TimedWord(tuple(numbers), tokens, "".join(map(str, numbers)))

    def decode(labels):
        return "".join(map(str, labels))

    (joined,) = join([[run(0, 42)], [run(38, 80)]], [20.0], decode, overlap=2.0)
    assert joined.labels == tuple(range(80)) and joined.text == decode(range(80))
    assert [token.text for token in joined.tokens] == [str(i) for i in range(80)]


def test_a_long_word_is_not_glued_to_another():
    """A word of only one window stays whole; times never go back."""

    def spelt(text, first, last):
        ends = np.linspace(first, last, len(text) + 1)
        tokens = tuple(
            Token(letter, float(a), float(b), 1.0, 1.0)
            for letter, a, b in zip(text, ends[:-1], ends[1:], strict=True)
        )
        return TimedWord(tuple(map(ord, text)), tokens, text)

    def decode(labels):
        return "".join(map(chr, labels))

    before = [spelt("h", 1.0, 1.4), spelt("i", 2.0, 2.4)]
    after = [spelt("abcdef", 18.9, 21.6), spelt("z", 23.0, 23.4)]
    joined = join([before, after], [20.0], decode, overlap=2.0)
    assert [each.text for each in joined] == ["h", "i", "abcdef", "z"]
    before.append(spelt("abcdef", 18.6, 21.5))
    joined = join([before, after], [20.0], decode, overlap=2.0)
    assert [each.text for each in joined] == ["h", "i", "abcdef", "z"]
    late, early = spelt("one", 19.0, 20.4), spelt("two", 19.9, 20.5)
    joined = join([[late], [early]], [20.1], decode, overlap=2.0)
    tokens = [token for each in joined for token in each.tokens]
    assert all(a.end <= b.start and b.start <= b.end for a, b in itertools.pairwise(tokens))


def test_a_slow_word_stays_one():
    """Pauses inside a word part it neither in one window nor beside a cut."""
    tokens = tuple(Token(str(i), 1.0 + i, 1.2 + i, 1.0, 1.0) for i in range(5))
    slow = TimedWord((0, 1, 2, 3, 4), tokens, "01234")

    def decode(labels):
        return "".join(map(str, labels))

    (alone,) = join([[slow]], [], decode, overlap=2.0)
    assert alone.text == "01234" and alone.tokens == tokens
    joined = join([[slow], [word("b", 9.0, 9.3)]], [8.0], decode, overlap=2.0)
    assert [each.text for each in joined] == ["01234", "b"]


def test_a_part_of_a_long_word_is_spelled_without_its_space():
    """A number of v3's, "▁" and digits; one window has its first token alone."""
    tokens = tuple(
        Token(text, 1 + i / 2, 1.4 + i / 2, 1.0, 1.0)
        for i, text in enumerate("▁ 4 1 5 5 5".split())
    )
    number = TimedWord(tuple(range(6)), tokens, "41555", space_before=False)

    def decode(labels):
        return "".join(tokens[label].text for label in labels).replace("▁", "")

    joined = join([[number], []], [1.9], decode, overlap=0.2)
    assert [(w.text, w.labels, w.space_before) for w in joined] == [("4", (0, 1), False)]
    joined = join([[number]], [], decode, overlap=0.2)
    assert [(w.text, w.labels) for w in joined] == [("41555", tuple(range(6)))]


def in_japanese(texts, start=0.5):
    """Words of 0.3 s, one after another, none with a space before it but the first."""
    ends = start + 0.3 * np.arange(1, len(texts) + 1)
    return [
        replace(word(text, end - 0.3, end), space_before=i == 0)
        for i, (text, end) in enumerate(zip(texts, ends, strict=True))
    ]


@pytest.mark.parametrize("seed", range(2))
def test_cuts_put_no_space_into_japanese(seed):
    rng = np.random.default_rng(seed)
    words = in_japanese([str(rng.choice(["東京", "で", "を。", "使", "本"])) for _ in range(180)])
    for at in np.arange(20.0, 30.0, 0.23):
        first, second = (
            [each for each in words if a <= each.start and each.end <= b]
            for a, b in ((0, at + 2), (at - 2, 60))
        )
        second[0] = replace(second[0], space_before=True)  # as if it began the text
        joined = join([first, second], [at], str, overlap=2.0)
        assert [w.text for w in joined] == [w.text for w in words], at
        assert not any(w.space_before for w in joined[1:])


def test_spaces_and_marks_at_cuts():
    def joined(before, after):
        """One window after another, with no word in both."""
        windows = [[word(before, 1.0, 1.4)], [word(after, 11.0, 11.4)]]
        found = join(windows, [6.0], str, overlap=0.5)
        assert sum((w.tokens for w in found), ()) == windows[0][0].tokens + windows[1][0].tokens
        return "".join(" " * w.space_before + w.text for w in found).strip(), len(found)

    assert joined("Yes.", "No") == ("Yes. No", 2)
    assert joined("本", "東") == ("本東", 2) and joined("本。", "東") == ("本。東", 2)
    assert joined("で", "Para") == ("でPara", 2) and joined("Para", "を") == ("Paraを", 2)
    assert joined("yes", "?") == ("yes?", 1) and joined("本", "。") == ("本。", 1)
    assert joined("¿", "Qué") == ("¿Qué", 1)
