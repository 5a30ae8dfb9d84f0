"""Connected telephone speech: the grammar's sense, the split, and audio that holds every word."""

import dataclasses
import datetime
import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.signal import fftconvolve

from tdt_jax.audio.reading import read_audio
from tdt_jax.audio.waveform import add_noise, trim
from tdt_jax.config import Bucket, TelephoneConfig
from tdt_jax.data.buckets import bucket_samples
from tdt_jax.data.telephone import grammar
from tdt_jax.data.telephone.batches import TelephoneBatches
from tdt_jax.data.telephone.compose import Telephone, is_test_text, prompts_folder

RATE = 16000
PLAIN = TelephoneConfig(
    phrase_probability=0.0,
    gap=(0.1, 0.1),
    long_silence_probability=0.0,
    speed=(1.0,),
    word_gain=0.0,
    level=(-6.0, -6.0),
    num_test=20,
)
ALL = TelephoneConfig(kinds=tuple(grammar.KINDS))
BUCKETS = (Bucket(2.5, 40, 4), Bucket(5.0, 80, 3), Bucket(8.0, 120, 2))


class Characters:
    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 32 for letter in text]


@pytest.fixture(scope="module")
def telephone():
    return Telephone(ALL)


def texts(kind: str, count: int = 3000) -> list[str]:
    rng = np.random.default_rng(7)
    return [" ".join(grammar.KINDS[kind].say(rng)) for _ in range(count)]


def one_of(words) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


# The recordings.


def test_recordings_carry_their_licence():
    licence = (prompts_folder() / "LICENSE").read_text()
    for part in ("CC-BY-SA-3.0", "creativecommons.org/licenses/by-sa/3.0", "Allison Smith"):
        assert part in licence
    size = sum(path.stat().st_size for path in prompts_folder().iterdir())
    assert 2e6 < size < 4e6
    assert len(list(prompts_folder().glob("*.opus"))) == 553


def test_trim_removes_silence_only(telephone):
    for unit, takes in telephone._takes.items():
        if len(unit.split()) > 1:
            continue
        for recording in takes[:1]:
            samples = read_audio(prompts_folder() / recording.name, RATE)
            kept = trim(samples, RATE)
            lost = np.sum(samples**2) - np.sum(kept**2)
            assert lost < 1e-5 * np.sum(samples**2), unit
            assert len(kept) > 0.5 * RATE


def test_trim_keeps_a_faint_hiss_at_the_end():
    rng = np.random.default_rng(0)
    vowel = np.sin(np.arange(4800) * 0.05)
    hiss = 0.01 * rng.standard_normal(3200)
    silence = 1e-4 * rng.standard_normal(8000)
    samples = np.concatenate([silence, vowel, silence[:2400], hiss, silence]).astype(np.float32)
    kept = trim(samples, RATE)
    assert len(kept) == pytest.approx(4800 + 2400 + 3200 + 2 * 480, abs=320)


# The grammar.


@pytest.mark.parametrize("kind", grammar.KINDS)
def test_kinds_say_exactly_the_recorded_units_they_declare(kind, telephone):
    declared = set(grammar.KINDS[kind].units)
    rng = np.random.default_rng(0)
    said = {unit for _ in range(8000) for unit in grammar.KINDS[kind].say(rng)}
    assert said == declared
    assert declared <= set(telephone._takes)


def test_words_of_the_default_kinds():
    words = Telephone(TelephoneConfig()).words
    assert words == sorted(set(words))
    assert 70 <= len(words) <= 90
    assert {"oh", "zero", "o'clock", "thirtieth", "december", "dollars", "m"} <= set(words)
    assert Telephone(TelephoneConfig(kinds=("digits",))).words == sorted(["oh", *grammar.ONES])


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match=r"has digit, foo; there are digits, phone, amount"):
        Telephone(TelephoneConfig(kinds=("foo", "digits", "digit")))


@pytest.mark.parametrize(
    "change",
    [
        {"kinds": ()},
        {"gap": (0.3, 0.1)},
        {"speed": ()},
        {"phrase_probability": 1.5},
        {"level": (-3.0, 3.0)},
    ],
)
def test_bad_configurations_are_refused(change):
    with pytest.raises(ValueError, match=f"telephone.{next(iter(change))}"):
        TelephoneConfig(**change)


@pytest.mark.parametrize(
    ("number", "plain", "with_and"),
    [
        (0, "zero", "zero"),
        (14, "fourteen", "fourteen"),
        (40, "forty", "forty"),
        (100, "one hundred", "one hundred"),
        (425, "four hundred twenty five", "four hundred and twenty five"),
        (1005, "one thousand five", "one thousand and five"),
        (1200, "one thousand two hundred", "one thousand two hundred"),
        (
            2_425_019,
            "two million four hundred twenty five thousand nineteen",
            "two million four hundred and twenty five thousand and nineteen",
        ),
    ],
)
def test_cardinals(number, plain, with_and):
    assert " ".join(grammar.cardinal(number)) == plain
    assert " ".join(grammar.cardinal(number, use_and=True)) == with_and


def test_ordinals():
    expected = {1: "first", 12: "twelfth", 19: "nineteenth", 20: "twentieth", 31: "thirty first"}
    expected |= {40: "fourtieth", 108: "one hundred eighth", 2000: "two thousandth"}
    assert {number: " ".join(grammar.ordinal(number)) for number in expected} == expected


def test_dates_are_in_the_calendar():
    ordinals = {" ".join(grammar.ordinal(day)): day for day in range(1, 32)}
    date = re.compile(
        f"(?P<weekday>{one_of(grammar.WEEKDAYS)} )?(?P<month>{one_of(grammar.MONTHS)}) "
        f"(?P<day>{one_of(ordinals)})(?P<rest> .*)?"
    )
    rng = np.random.default_rng(0)
    years = {" ".join(grammar.year(rng, y)): y for y in range(1900, 2040) for _ in range(60)}
    found = 0
    for text in texts("date"):
        match = date.fullmatch(text)
        if match is None:
            assert text.split()[0] in ("today", "tomorrow", "yesterday", *grammar.WEEKDAYS)
            assert text.split()[1] == "at"
            continue
        month, day = grammar.MONTHS.index(match["month"]) + 1, ordinals[match["day"]]
        datetime.date(2000, month, day)  # a leap year
        rest = (match["rest"] or "").strip()
        if rest and not rest.startswith("at "):
            date_of_year = datetime.date(years[rest], month, day)
            if match["weekday"]:
                found += 1
                assert grammar.WEEKDAYS[date_of_year.weekday()] == match["weekday"].strip()
    assert found > 100


def test_years():
    rng = np.random.default_rng(0)
    said = [" ".join(grammar.year(rng, number)) for number in (1900, 1905, 1998, 2024)]
    expected = "nineteen hundred, nineteen oh five, nineteen ninety eight, twenty twenty four"
    assert said == expected.split(", ")
    both = {" ".join(grammar.year(rng, 2008)) for _ in range(50)}
    assert both == {"two thousand eight", "two thousand and eight"}


def test_times():
    hours = one_of([*grammar.ONES[1:], "ten", "eleven", "twelve"])
    minutes = one_of(" ".join(grammar.pair(minute)) for minute in range(1, 60))
    time = re.compile(f"(at )?{hours}( o'clock|( {minutes})?( [ap] m)?)")
    said = texts("time")
    assert all(time.fullmatch(text) for text in said)
    assert {"twelve thirty", "at seven o'clock", "seven p m"} <= set(said)
    assert any(" oh five" in text for text in said)


def test_amounts_are_a_number_and_dollars():
    said = texts("amount")
    assert all(re.search(r" dollars$", text) or text == "one dollar" for text in said)
    bad = re.compile(r"zero|\band dollars|\band and\b|^one dollars|hundred hundred")
    assert not any(bad.search(text) for text in said)
    assert sum(" and " in text for text in said) > 300


def test_digits_repeat_and_zero_has_two_names():
    said = [text.split() for text in texts("digits")]
    lengths = {len(words) for words in said}
    assert {1, 4, 10} <= lengths and max(lengths) == 12
    pairs = [(a, b) for words in said for a, b in itertools.pairwise(words)]
    assert 0.2 < np.mean([a == b for a, b in pairs]) < 0.5
    assert any(words == ["oh", "oh"] or words[:3] == ["oh"] * 3 for words in said)
    assert not any({"oh", "zero"} <= set(words) for words in said)


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        ("phone", r"(number )?(one )?(eight|nine) hundred( \w+){3,}"),
        ("phone", r"five five five( \w+){4}"),
        ("letters", r"[a-z] [a-z] [a-z]( \w{3,}){2,4}"),
        ("spelling", r"(\w+ )+dash (niner|\w+) \w+"),
        ("extension", r"your extension is( \w+){2,}"),
        ("message", r"you have no (new )?messages"),
        ("message", r"(first|last) message from extension .*received .* at .*"),
        ("duration", r".* hours .* minutes and .* seconds"),
        ("symbols", r"slash .* dot .*"),
        ("percent", r"minus .* dot \w+ percent"),
        ("rank", r".* hundred (and )?.*th"),
        ("command", r"call waiting enabled"),
    ],
)
def test_kinds_have_their_typical_texts(kind, example):
    assert any(re.fullmatch(example, text) for text in texts(kind))


# Training and test.


def test_training_never_says_a_test_text(telephone):
    test = {utterance.text for utterance in telephone.test_set()}
    phrases = {utterance.text for utterance in telephone.test_phrases()}
    rng = np.random.default_rng(0)
    said = {telephone.sample_text(rng) for _ in range(8000)} | set(telephone.texts(2000))
    said |= {telephone.sample(rng, max_seconds=3.0).text for _ in range(500)}
    assert len(test) == ALL.num_test
    assert all(is_test_text(text) for text in test | phrases)
    assert not said & (test | phrases)
    rng = np.random.default_rng(0)
    everything = {" ".join(telephone._units(rng)) for _ in range(8000)}
    assert len(everything & test) > 2  # the grammar does say them: it is the split that does not


def test_one_text_in_eight_is_for_testing_and_short_ones_never():
    share = np.mean([is_test_text(text) for text in set(texts("phone"))])
    assert share == pytest.approx(1 / 8, abs=0.02)
    assert not any(is_test_text(text) for text in texts("command") if len(text.split()) < 3)


def test_test_set_is_a_function_of_the_seed(telephone):
    few = dataclasses.replace(ALL, num_test=5)
    first, again = (Telephone(few, seed=3).test_set(max_seconds=6.0) for _ in range(2))
    other = Telephone(few, seed=4).test_set()
    for one, two in zip(first, again, strict=True):
        assert (one.id, one.text) == (two.id, two.text)
        np.testing.assert_array_equal(one.samples, two.samples)
        assert len(one.samples) <= 6 * RATE and np.abs(one.samples).max() <= 1
        assert np.count_nonzero(one.samples) > 0.99 * len(one.samples)  # noise, also in the pauses
    assert [utterance.id for utterance in first][:2] == ["composed-0000", "composed-0001"]
    assert {one.text for one in first} != {one.text for one in other}


def test_test_phrases_are_held_out_as_recorded(telephone):
    phrases = telephone.test_phrases()
    assert 30 <= len(phrases) <= 45
    for phrase in phrases:
        recorded = read_audio(prompts_folder() / f"{phrase.id}.opus", RATE)
        np.testing.assert_array_equal(phrase.samples, recorded)
        assert len(recorded) <= 8 * RATE
    trained = {phrase.text for phrase in telephone._phrases}
    assert len(trained) > 200 and not trained & {phrase.text for phrase in phrases}


def test_too_few_test_texts_is_an_error():
    config = dataclasses.replace(PLAIN, kinds=("command",), num_test=60)
    with pytest.raises(ValueError, match=r"num_test is 60, .*command gave only"):
        Telephone(config).test_set(max_seconds=1.0)


def test_texts_cover_every_word(telephone):
    said = telephone.texts(2000)
    assert said == Telephone(ALL).texts(2000) and len(said) == 2000
    assert set(telephone.words) <= {word for text in said for word in text.split()}
    assert "waldo's" not in " ".join(Telephone(PLAIN).texts(2000))


# Composed audio.


def test_words_follow_each_other_with_the_gaps_asked_for():
    telephone = Telephone(PLAIN)
    samples = telephone.compose("seven oh six", np.random.default_rng(0))
    words = [
        trim(read_audio(prompts_folder() / name, RATE), RATE)
        for name in ("digits__7.opus", "digits__oh.opus", "digits__6.opus")
    ]
    gap = RATE // 10
    assert samples.dtype == np.float32
    assert len(samples) == sum(map(len, words)) + 4 * gap
    assert np.abs(samples).max() == pytest.approx(10 ** (-6 / 20), rel=1e-3)
    start = 0
    for word in words:
        assert not samples[start : start + gap].any()
        start += gap
        similarity = np.corrcoef(samples[start : start + len(word)], word)[0, 1]
        assert similarity > 0.999
        start += len(word)
    assert not samples[start:].any()


def test_every_word_can_be_found_in_a_random_composition():
    config = dataclasses.replace(PLAIN, gap=(0.0, 0.3), word_gain=3.0)
    telephone = Telephone(config)
    samples = telephone.compose("one hundred and sixty five dollars", np.random.default_rng(5))
    position = 0
    for word in "one hundred and sixty five dollars".split():
        clip = telephone._clip(telephone._takes[word][0].name, 1.0).astype(np.float32)
        match = fftconvolve(samples, clip[::-1], "valid")
        energy = fftconvolve(samples**2, np.ones_like(clip), "valid")
        similarity = match / np.sqrt(np.maximum(energy, 1e-3) * np.sum(clip**2))
        assert similarity.max() > 0.999
        assert similarity.argmax() >= position
        position = similarity.argmax() + len(clip)


def test_recorded_pairs_are_used_as_pairs():
    telephone = Telephone(PLAIN)
    assert telephone._split("at ten a m") == ["at", "ten", "a m"]
    assert telephone._split("a b m") == ["a", "b", "m"]
    pair = telephone.compose("a m", np.random.default_rng(0))
    apart = telephone.compose(["a", "m"], np.random.default_rng(0))
    assert len(pair) < len(apart)
    with pytest.raises(ValueError, match=r"no recording of 'xylophone'"):
        telephone.compose("one xylophone", np.random.default_rng(0))
    with pytest.raises(ValueError, match="empty"):
        telephone.compose("", np.random.default_rng(0))


def test_speed_changes_the_length():
    rng = np.random.default_rng(0)
    slow, fast = (
        Telephone(dataclasses.replace(PLAIN, speed=(rate,), gap=(0.0, 0.0))).compose("nine", rng)
        for rate in (0.9, 1.1)
    )
    assert len(slow) / len(fast) == pytest.approx(1.1 / 0.9, rel=0.01)


def test_long_silences_where_asked():
    config = dataclasses.replace(PLAIN, long_silence_probability=1.0, long_silence_seconds=2.0)
    telephone = Telephone(config)
    silences = []
    for seed in range(30):
        samples = telephone.compose("eight three eight", np.random.default_rng(seed))
        assert len(samples) < 10 * RATE
        edges = np.flatnonzero(samples)
        inner = np.diff(edges).max()
        silences.append((edges[0], len(samples) - edges[-1], inner))
    assert np.all(np.mean(silences, axis=0) > 0.8 * RATE)
    assert np.all(np.max(silences, axis=0) < 2.2 * RATE)


def test_it_is_known_when_speech_begins():
    config = dataclasses.replace(PLAIN, gap=(0.0, 0.4), phrase_probability=0.3, num_test=5)
    telephone = Telephone(config)
    samples = [telephone.sample(np.random.default_rng(s), max_seconds=9.0) for s in range(20)]
    for utterance in samples:
        first = np.flatnonzero(np.abs(utterance.samples) > 1e-3)[0]
        assert first - 0.1 * RATE < utterance.lead <= first  # recordings begin softly
    leads = [utterance.lead for utterance in [*samples, *telephone.test_set()]]
    assert min(leads) < 0.1 * RATE and max(leads) > 0.3 * RATE


def test_texts_that_fill_an_utterance_have_silence_between():
    def inner_silences(probability):
        """Of more than half a second, inside twenty long utterances."""
        config = dataclasses.replace(
            PLAIN, kinds=("digits",), joint_silence_probability=probability
        )
        telephone, count = Telephone(config), 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            samples = telephone.sample(rng, max_seconds=15.0, min_seconds=9.0).samples
            assert len(samples) <= 15 * RATE
            count += np.count_nonzero(np.diff(np.flatnonzero(samples)) > RATE / 2)
        return count

    assert inner_silences(0.0) == 0
    half, all = inner_silences(0.5), inner_silences(1.0)
    assert 5 < half < all


def test_texts_that_fill_an_utterance_may_be_recorded_apart():
    """The quiet before the first text and after the last: of the same noise, or of another."""
    config = dataclasses.replace(PLAIN, kinds=("digits",), joint_change_probability=1.0)
    telephone, apart, silent = Telephone(config), [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        samples = telephone.sample(rng, max_seconds=15.0, min_seconds=9.0).samples
        assert samples.dtype == np.float32 and len(samples) <= 15 * RATE
        assert np.abs(samples).max() <= 1
        if samples[:100].any():  # else one text fills it
            silent.append(np.count_nonzero(samples == 0) / len(samples))
            first, last = (10 * np.log10(np.mean(x**2)) for x in (samples[:800], samples[-800:]))
            apart.append(abs(first - last))
    assert len(apart) > 10 and np.median(apart) > 3  # dB
    assert 0 == min(silent) < max(silent) < 0.05  # digitally, between two of them
    one_text = telephone.compose("one two three", np.random.default_rng(0))
    assert np.count_nonzero(one_text == 0) > RATE / 10


def test_no_clipping_and_no_clicks(telephone):
    rng = np.random.default_rng(1)
    for _ in range(100):
        samples = telephone.sample(rng, max_seconds=6.0).samples
        assert samples.dtype == np.float32 and np.isfinite(samples).all()
        assert 0.09 < np.abs(samples).max() <= 10 ** (-1 / 20) + 1e-6
        speech = np.flatnonzero(samples)
        assert abs(samples[speech[0]]) < 0.01 and abs(samples[speech[-1]]) < 0.01


def test_noise_has_the_asked_level():
    rng = np.random.default_rng(0)
    speech = 0.2 * rng.standard_normal(RATE).astype(np.float32)
    samples = np.concatenate([np.zeros(RATE, np.float32), speech])
    for snr in (10.0, 30.0):
        noise = add_noise(samples, snr, rng) - samples
        measured = 10 * np.log10(np.mean(speech**2) / np.mean(noise**2))
        assert measured == pytest.approx(snr, abs=0.7)


# Samples and batches.


@pytest.mark.parametrize("kinds", [("phone",), ("digits", "date"), tuple(grammar.KINDS)])
@pytest.mark.parametrize("seconds", [(1.0, 0.0), (1.5, 0.0), (5.0, 2.5), (16.0, 8.0)])
def test_samples_fit(kinds, seconds):
    max_seconds, min_seconds = seconds
    telephone = Telephone(TelephoneConfig(kinds=kinds, phrase_probability=0.0))
    rng = np.random.default_rng(0)
    drawn = [
        telephone.sample(rng, max_seconds=max_seconds, min_seconds=min_seconds) for _ in range(40)
    ]
    lengths = np.array([len(utterance.samples) / RATE for utterance in drawn])
    assert lengths.max() <= max_seconds
    assert np.mean(lengths >= min_seconds) > 0.9
    assert all(utterance.text for utterance in drawn)
    assert len({utterance.text for utterance in drawn}) > 5


def test_max_words_and_what_cannot_fit(telephone):
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert len(telephone.sample(rng, max_seconds=8.0, max_words=2).text.split()) <= 2
    with pytest.raises(ValueError, match=r"max_seconds=0\.1"):
        telephone.sample(rng, max_seconds=0.1)


def test_phrases_come_with_their_probability():
    telephone = Telephone(TelephoneConfig(phrase_probability=0.5))
    rng = np.random.default_rng(0)
    drawn = [telephone.sample(rng, max_seconds=2.0) for _ in range(200)]
    assert 0.35 < np.mean([utterance.id != "composed" for utterance in drawn]) < 0.6
    assert max(len(utterance.samples) for utterance in drawn) <= 2 * RATE


def test_noise_alone_has_no_text():
    telephone = Telephone(dataclasses.replace(PLAIN, noise_probability=0.5))
    rng = np.random.default_rng(0)
    drawn = [telephone.sample(rng, max_seconds=4.0, min_seconds=2.5) for _ in range(60)]
    noise = [each for each in drawn if not each.text]
    assert 15 < len(noise) < 45
    for each in noise:
        assert each.id == "noise" and each.lead == 0
        assert 2.5 * RATE <= len(each.samples) <= 4 * RATE and each.samples.dtype == np.float32
    levels = np.log10([each.samples.std() for each in noise])
    assert -4.01 < levels.min() < -3 and -2 < levels.max() < -0.99


def test_fragments_begin_and_end_anywhere():
    """Of dates such as "march second twenty ten" also "second twenty ten", and "march"."""
    plain = dataclasses.replace(PLAIN, kinds=("date",))
    begins, firsts = {*grammar.MONTHS, *grammar.WEEKDAYS}, {}
    for share in (0.0, 1.0):
        telephone = Telephone(dataclasses.replace(plain, fragment_probability=share))
        rng = np.random.default_rng(0)
        texts = [telephone.sample(rng, max_seconds=8.0).text for _ in range(80)]
        assert not any(map(is_test_text, texts))
        firsts[share] = np.mean([text.split()[0] not in begins for text in texts])
        lengths = [len(text.split()) for text in texts]
        assert (min(lengths) == 1) == bool(share)
    assert firsts[0.0] < 0.1 and firsts[1.0] > 0.25


def test_batches_are_a_function_of_seed_and_step():
    one, two = (TelephoneBatches(Telephone(ALL), Characters(), BUCKETS, seed=5) for _ in range(2))
    two[3]  # what was asked before does not matter
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(one.__getitem__, range(8)))
    for step, batch in enumerate(threaded):
        again = two[step]
        for array, same in zip(batch, again, strict=True):
            np.testing.assert_array_equal(array, same)
    other = TelephoneBatches(Telephone(ALL), Characters(), BUCKETS, seed=6)
    assert {text for i in range(8) for text in other[i].texts} != {
        text for batch in threaded for text in batch.texts
    }
    assert len({text for batch in threaded for text in batch.texts}) > 15
    with pytest.raises(IndexError, match="-1"):
        one[-1]


def test_rows_are_those_of_the_whole_batch(telephone):
    batches = TelephoneBatches(telephone, Characters(), BUCKETS, seed=5)
    for step in range(4):
        size = BUCKETS[batches.bucket_index(step)].batch_size
        whole, half = batches[step], batches.rows(step, range(size // 2, size))
        for array, part in zip(whole, half, strict=True):
            np.testing.assert_array_equal(array[size // 2 :], part)
    with pytest.raises(IndexError):
        batches.rows(0, [])


def test_batches_fill_their_bucket(telephone):
    batches = TelephoneBatches(telephone, Characters(), BUCKETS, seed=0)
    seen = set()
    for step in range(24):
        batch, index = batches[step], batches.bucket_index(step)
        bucket = BUCKETS[index]
        seen.add(index)
        assert batch.samples.shape == (bucket.batch_size, bucket_samples(bucket))
        assert batch.labels.shape == (bucket.batch_size, bucket.tokens)
        assert (batch.num_samples <= bucket.seconds * RATE).all()
        if index:
            assert (batch.num_samples >= 0.9 * BUCKETS[index - 1].seconds * RATE).all()
        for row, text in enumerate(batch.texts):
            assert batch.labels[row, : batch.num_labels[row]].tolist() == Characters().encode(text)
            assert batch.samples[row].any() and not is_test_text(text)
    assert seen == {0, 1, 2}


def test_texts_with_too_many_tokens_are_replaced(telephone):
    tight = (Bucket(5.0, 12, 8),)
    batch = TelephoneBatches(telephone, Characters(), tight, seed=0)[0]
    assert (batch.num_labels <= 12).all() and (batch.num_labels > 0).all()
    impossible = (Bucket(5.0, 1, 1),)
    words = Telephone(dataclasses.replace(PLAIN, kinds=("digits",)))
    with pytest.raises(ValueError, match="as few tokens"):
        TelephoneBatches(words, Characters(), impossible, seed=0)[0]


def test_curriculum_opens_the_buckets_one_by_one(telephone):
    batches = TelephoneBatches(
        telephone, Characters(), BUCKETS, seed=0, curriculum=((0, 0), (100, 1), (200, 2))
    )
    drawn = [batches.bucket_index(step) for step in range(400)]
    assert set(drawn[:100]) == {0}
    assert set(drawn[100:200]) == {0, 1}
    assert set(drawn[200:]) == {0, 1, 2}
    assert batches[0].samples.shape[1] == bucket_samples(BUCKETS[0])
    with pytest.raises(ValueError, match="allows bucket 3 from step 7 on, but there are 3"):
        TelephoneBatches(telephone, Characters(), BUCKETS, seed=0, curriculum=((7, 3),))
