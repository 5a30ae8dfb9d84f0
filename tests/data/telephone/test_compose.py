"""Composed telephone speech: training and test texts are apart, and the audio has every word."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.signal import fftconvolve

from tdt_jax.audio.reading import read_audio
from tdt_jax.audio.waveform import trim
from tdt_jax.config import TelephoneConfig
from tdt_jax.data.telephone import grammar
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
SPEED = (0.9, 1.1)
ALL = TelephoneConfig(kinds=tuple(grammar.KINDS), speed=SPEED, num_test=60)


def make(config, **options):
    return Telephone(config, sample_rate=RATE, **options)


@pytest.fixture(scope="module")
def telephone():
    return make(ALL)


@pytest.fixture(scope="module")
def phrases(telephone):
    return telephone.test_phrases()


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


def test_words_of_the_default_kinds():
    words = make(TelephoneConfig()).words
    assert words == sorted(set(words))
    assert 70 <= len(words) <= 90
    assert {"oh", "zero", "o'clock", "thirtieth", "december", "dollars", "m"} <= set(words)
    assert make(TelephoneConfig(kinds=("digits",))).words == sorted(["oh", *grammar.ONES])


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match=r"has digit, foo; there are digits, phone, amount"):
        make(TelephoneConfig(kinds=("foo", "digits", "digit")))


def test_no_training_utterance_has_a_test_text(telephone, phrases):
    test = {utterance.text for utterance in telephone.test_set()}
    phrases = {utterance.text for utterance in phrases}
    rng = np.random.default_rng(0)
    drawn = {telephone.sample_text(rng) for _ in range(4000)} | set(telephone.texts(1000))
    drawn |= {telephone.sample(rng, max_seconds=3.0).text for _ in range(100)}
    assert len(test) == ALL.num_test
    assert all(is_test_text(text) for text in test | phrases)
    assert not drawn & (test | phrases)
    rng = np.random.default_rng(0)
    everything = {" ".join(telephone._draw_units(rng)) for _ in range(8000)}
    assert len(everything & test) > 2  # the grammar has them: it is the split that keeps them apart


def test_one_text_in_eight_is_for_testing_and_short_ones_never():
    rng = np.random.default_rng(7)
    phone, command = (
        {" ".join(grammar.KINDS[kind].draw(rng)) for _ in range(3000)}
        for kind in ("phone", "command")
    )
    share = np.mean([is_test_text(text) for text in phone])
    assert share == pytest.approx(1 / 8, abs=0.02)
    assert not any(is_test_text(text) for text in command if len(text.split()) < 3)


def test_test_set_is_a_function_of_the_seed(telephone):
    few = dataclasses.replace(ALL, num_test=5)
    first, again = (make(few, seed=3).test_set(max_seconds=6.0) for _ in range(2))
    other = make(few, seed=4).test_set()
    for one, two in zip(first, again, strict=True):
        assert (one.id, one.text) == (two.id, two.text)
        np.testing.assert_array_equal(one.samples, two.samples)
        assert len(one.samples) <= 6 * RATE and np.abs(one.samples).max() <= 1
        assert np.count_nonzero(one.samples) > 0.99 * len(one.samples)  # noise, also in the pauses
    assert [utterance.id for utterance in first][:2] == ["composed-0000", "composed-0001"]
    assert {one.text for one in first} != {one.text for one in other}


def test_test_phrases_are_held_out_as_recorded(telephone, phrases):
    assert 30 <= len(phrases) <= 45
    assert max(len(phrase.samples) for phrase in phrases) <= 8 * RATE
    for phrase in phrases[::5]:
        recorded = read_audio(prompts_folder() / f"{phrase.id}.opus", RATE)
        np.testing.assert_array_equal(phrase.samples, recorded)
    trained = {phrase.text for phrase in telephone._phrases}
    assert len(trained) > 200 and not trained & {phrase.text for phrase in phrases}


def test_words_of_the_test_sets_have_times(phrases):
    """A word sounds from its start to its end, and the noise alone between words."""
    quiet = dataclasses.replace(ALL, snr=(60.0, 60.0), num_test=5)
    for utterance in make(quiet).test_set():
        assert " ".join(word.text for word in utterance.words) == utterance.text
        edges = [0.0, *(t for word in utterance.words for t in word[1:])]
        spans = [slice(*(round(t * RATE) for t in pair)) for pair in itertools.pairwise(edges)]
        levels = [np.abs(utterance.samples[span]).max() for span in spans]
        assert min(levels[1::2]) > 0.05 > 0.01 > max(levels[0::2])
        assert edges == sorted(edges) and spans[-1].stop <= len(utterance.samples)
    for phrase in phrases:
        (words,) = phrase.words
        assert words.text == phrase.text
        assert 0 <= words.start < 0.5 and 0 < words.end <= len(phrase.samples) / RATE + 0.01


def test_too_few_test_texts_is_an_error():
    config = dataclasses.replace(PLAIN, kinds=("command",), num_test=3)
    with pytest.raises(ValueError, match=r"num_test is 3, .*command gave only"):
        make(config).test_set(max_seconds=0.5)


def test_texts_cover_every_word(telephone):
    texts = telephone.texts(2000)
    assert texts == make(ALL).texts(2000) and len(texts) == 2000
    assert set(telephone.words) <= {word for text in texts for word in text.split()}
    assert "waldo's" not in " ".join(make(PLAIN).texts(2000))


def test_words_follow_each_other_with_the_gaps_asked_for():
    telephone = make(PLAIN)
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
    telephone = make(config)
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
    telephone = make(PLAIN)
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
        make(dataclasses.replace(PLAIN, speed=(rate,), gap=(0.0, 0.0))).compose("nine", rng)
        for rate in (0.9, 1.1)
    )
    assert len(slow) / len(fast) == pytest.approx(1.1 / 0.9, rel=0.01)


def test_long_silences_where_asked():
    config = dataclasses.replace(PLAIN, long_silence_probability=1.0, long_silence_seconds=2.0)
    telephone = make(config)
    silences = []
    for seed in range(30):
        samples = telephone.compose("eight three eight", np.random.default_rng(seed))
        assert len(samples) < 10 * RATE
        edges = np.flatnonzero(samples)
        inner = np.diff(edges).max()
        silences.append((edges[0], len(samples) - edges[-1], inner))
    assert np.all(np.mean(silences, axis=0) > 0.8 * RATE)
    assert np.all(np.max(silences, axis=0) < 2.2 * RATE)


def test_the_samples_before_speech_are_counted():
    config = dataclasses.replace(PLAIN, gap=(0.0, 0.4), phrase_probability=0.3, num_test=5)
    telephone = make(config)
    samples = [telephone.sample(np.random.default_rng(s), max_seconds=9.0) for s in range(20)]
    for utterance in samples:
        first = np.flatnonzero(np.abs(utterance.samples) > 1e-3)[0]
        # recordings begin softly
        assert first - 0.1 * RATE < utterance.num_leading_samples <= first
    leading = [utterance.num_leading_samples for utterance in [*samples, *telephone.test_set()]]
    assert min(leading) < 0.1 * RATE and max(leading) > 0.3 * RATE


def test_texts_that_fill_an_utterance_have_silence_between():
    def inner_silences(probability):
        """Of more than half a second, inside twenty long utterances."""
        config = dataclasses.replace(
            PLAIN, kinds=("digits",), joint_silence_probability=probability
        )
        telephone, count = make(config), 0
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
    telephone, apart, silent = make(config), [], []
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


@pytest.mark.parametrize("kinds", [("phone",), ("digits", "date"), tuple(grammar.KINDS)])
@pytest.mark.parametrize("seconds", [(1.0, 0.0), (1.5, 0.0), (5.0, 2.5), (16.0, 8.0)])
def test_samples_fit(kinds, seconds):
    max_seconds, min_seconds = seconds
    telephone = make(TelephoneConfig(kinds=kinds, speed=SPEED, phrase_probability=0.0))
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
    telephone = make(TelephoneConfig(speed=SPEED, phrase_probability=0.5))
    rng = np.random.default_rng(0)
    drawn = [telephone.sample(rng, max_seconds=2.0) for _ in range(200)]
    assert 0.35 < np.mean([utterance.id != "composed" for utterance in drawn]) < 0.6
    assert max(len(utterance.samples) for utterance in drawn) <= 2 * RATE


def test_noise_alone_has_no_text():
    telephone = make(dataclasses.replace(PLAIN, noise_probability=0.5))
    rng = np.random.default_rng(0)
    drawn = [telephone.sample(rng, max_seconds=4.0, min_seconds=2.5) for _ in range(60)]
    noise = [each for each in drawn if not each.text]
    assert 15 < len(noise) < 45
    for each in noise:
        assert each.id == "noise" and each.num_leading_samples == 0
        assert 2.5 * RATE <= len(each.samples) <= 4 * RATE and each.samples.dtype == np.float32
    levels = np.log10([each.samples.std() for each in noise])
    assert -4.01 < levels.min() < -3 and -2 < levels.max() < -0.99


def test_fragments_begin_and_end_anywhere():
    """Of dates such as "march second twenty ten" also "second twenty ten", and "march"."""
    plain = dataclasses.replace(PLAIN, kinds=("date",))
    begins, firsts = {*grammar.MONTHS, *grammar.WEEKDAYS}, {}
    for share in (0.0, 1.0):
        telephone = make(dataclasses.replace(plain, fragment_probability=share))
        rng = np.random.default_rng(0)
        texts = [telephone.sample(rng, max_seconds=8.0).text for _ in range(80)]
        assert not any(map(is_test_text, texts))
        firsts[share] = np.mean([text.split()[0] not in begins for text in texts])
        lengths = [len(text.split()) for text in texts]
        assert (min(lengths) == 1) == bool(share)
    assert firsts[0.0] < 0.1 and firsts[1.0] > 0.25


def test_speech_lasts_as_long_at_any_sample_rate():
    seconds = {}
    for rate in (8000, 16000, 24000):
        telephone = Telephone(PLAIN, sample_rate=rate)
        seconds[rate] = len(telephone.compose("seven oh six", np.random.default_rng(0))) / rate
    assert seconds[8000] == pytest.approx(seconds[16000], abs=0.1)
    assert seconds[24000] == pytest.approx(seconds[16000], abs=0.1)
