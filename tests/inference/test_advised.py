"""Advice from phrases to transcripts: whole, in a batch, live, and evaluated."""

import dataclasses
import math

import numpy as np
import pytest
from models import causal_recogniser, make_recogniser, noise, speech

import tdt_jax as tdt
from tdt_jax.advice.ngrams import write_arpa
from tdt_jax.inference import metrics
from tdt_jax.inference.advised import with_prompt
from tdt_jax.inference.evaluation import evaluate
from tdt_jax.inference.streams import Streams

STRONG = [("seven eight", 8.0), ("one", -3.0)]


def phrases_in(transcripts):
    texts = [each.text for each in transcripts]
    return metrics.phrase_rates(texts, texts, ["seven eight"]).in_references


def test_boosted_phrases_come_more_often(recogniser):
    audio = [noise(s, i) for i, s in enumerate((2.0, 0.5, 1.9))]
    plain = tdt.transcribe(recogniser, audio)
    told = tdt.transcribe(recogniser, audio, boost=STRONG)
    assert phrases_in(told) > phrases_in(plain)
    confidences = [token.confidence for each in told for token in each.tokens]
    assert confidences and min(confidences) >= 0 and max(confidences) <= 1
    assert told == tdt.transcribe(recogniser, audio, boost=[("SEVEN  eight", 8.0), ("One", -3)])


def test_recordings_have_phrases_of_their_own(recogniser):
    """In one batch, each as if alone."""
    audio = [noise(s, i) for i, s in enumerate((2.0, 2.2, 1.9))]
    boost = [STRONG, None, [("ten", 5.0)]]
    together = tdt.transcribe(recogniser, audio, boost=boost)
    for samples, own, transcript in zip(audio, boost, together, strict=True):
        assert transcript.text == tdt.transcribe(recogniser, samples, boost=own).text
    with pytest.raises(ValueError, match="lists for 2 recordings, and there are 3"):
        tdt.transcribe(recogniser, audio, boost=[STRONG, None])


def test_only_what_is_allowed(recogniser):
    """With marks; the last word may not be finished."""
    audio = [noise(s, i) for i, s in enumerate((2.0, 0.5, 1.9))]
    texts = [each.text for each in tdt.transcribe(recogniser, audio, allowed=["seven", "ten"])]
    for text in texts:
        *words, last = text.replace(",", " ").replace(".", " ").split()
        assert set(words) <= {"seven", "ten"} and last in ("seven"[: len(last)], "ten"[: len(last)])


def test_a_language_model_changes_labels_and_not_how_many(recogniser, tmp_path):
    path = tmp_path / "model.arpa"
    with open(path, "w", encoding="utf-8") as file:
        write_arpa(["seven eight", "seven eight nine"], recogniser.tokenizer, 3, file)
    plain = tdt.transcribe(recogniser, noise(2.0))
    told = tdt.transcribe(recogniser, noise(2.0), lm=path, lm_weight=3.0)
    assert told.text.count("eight") > plain.text.count("eight")
    none = tdt.transcribe(recogniser, noise(2.0), lm=path, lm_weight=0.0, language="en")
    assert none == plain
    with pytest.raises(ValueError, match="cannot spell any text in ru"):
        tdt.transcribe(recogniser, noise(2.0), language="ru")


def test_a_ctc_decoder_takes_no_advice():
    hybrid = make_recogniser(ctc=True, piece_seconds=2.56)
    with pytest.raises(ValueError, match="only a transducer takes advice"):
        tdt.transcribe(hybrid, noise(1.0), decoder="ctc", boost=["one"])


def test_a_language_is_the_prompt_of_a_model_that_has_one(recogniser):
    prompt = tdt.PromptConfig(num_slots=4, width=8, default=0, languages=(("en", 1), ("de", 2)))
    prompted = make_recogniser(prompt=prompt)
    told, rest = with_prompt(prompted, "de")
    assert (told.config.prompt.default, rest) == (2, None)
    assert with_prompt(prompted, None) == (prompted, None)
    assert with_prompt(recogniser, ["de"]) == (recogniser, ["de"])
    with pytest.raises(ValueError, match=r"takes one language, got .'en', 'de'."):
        with_prompt(prompted, ["en", "de"])


def words_of(stream, samples, sizes):
    events = []
    for part in np.split(samples, np.cumsum(sizes)):
        events += stream.push(part)
    return [event.text for event in events + stream.finish()]


@pytest.mark.slow
@pytest.mark.parametrize("is_causal", [True, False])
def test_a_stream_has_phrases(is_causal):
    recogniser = causal_recogniser() if is_causal else make_recogniser()
    samples = speech(3.1, 3)
    stream, plain = tdt.Stream(recogniser, boost=STRONG), tdt.Stream(recogniser)
    told = words_of(stream, samples, [9000, 20000])
    assert told != words_of(plain, samples, [9000, 20000])
    stream.reset()
    assert told == words_of(stream, samples, [100, 100, 30000])


@pytest.mark.slow
def test_streams_have_phrases_of_their_own():
    """Whoever comes and goes beside them, before and after the first that has any."""
    streams = Streams(causal_recogniser(), slots=2)
    samples = [speech(seconds, seed) for seed, seconds in enumerate((1.3, 2.1, 1.2))]
    boosts = [None, STRONG, [("ten", 6.0)]]
    live, found = {}, {}

    def run(until_open):
        while sum(stream.is_open for stream in live) > until_open:
            for stream, events in streams.step():
                found[live[stream]] += [event.text for event in events]

    def start(key, samples, boost):
        stream = streams.open(boost=boost)
        live[stream], found[key] = key, []
        stream.push(samples)
        stream.finish()

    start("plain", samples[1], None)
    run(until_open=0)
    for number in range(3):
        start(number, samples[number], boosts[number])
        run(until_open=0)
    assert found[1] != found["plain"]
    start("plain 0", samples[0], boosts[0])
    start("1", samples[1], boosts[1])
    run(until_open=1)
    start("2", samples[2], boosts[2])
    run(until_open=0)
    assert [found["plain 0"], found["1"], found["2"]] == [found[0], found[1], found[2]]


def test_phrases_are_evaluated(recogniser):
    @dataclasses.dataclass
    class Item:
        id: str
        audio: object
        text: str

    items = [Item("a", noise(2.0, 0), "Seven eight, one"), Item("b", noise(1.9, 2), "two")]
    plain, told = (evaluate(recogniser, items, boost=boost) for boost in (None, STRONG))
    assert plain.phrases is None and plain.as_dict()["phrases"] is None
    texts = [each.transcript.text for each in told.results]
    expected = metrics.phrase_rates([item.text for item in items], texts, ["seven eight", "one"])
    assert told.phrases == expected and expected.in_references == 2
    assert f"recall {100 * expected.recall:.1f} %" in told.summary()
    assert told.as_dict()["phrases"]["recall"] == expected.recall


def test_phrases_are_counted_word_by_word():
    rates = metrics.phrase_rates(
        ["New York and new-york", "newyork New  York", ""],
        ["new york and york", "New York.", "new york"],
        ["new york", "York", "new york"],
    )
    assert rates.in_references == (1 + 2) + (1 + 1)  # of "new york" and of "york"
    assert rates.in_transcripts == (1 + 2) + (1 + 1) + (1 + 1)
    assert rates.correct == (1 + 2) + (1 + 1)
    assert math.isnan(metrics.phrase_rates(["a"], ["a"], ["b"]).f1)
