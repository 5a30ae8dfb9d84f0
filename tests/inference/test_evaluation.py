"""Evaluations: what is scored and by which rules, several together, and parts of one."""

import math
import sys
from typing import NamedTuple

import numpy as np
import pytest
from evaluations import CLEAN, NOISY, evaluated
from models import noise

from tdt_jax.inference import evaluation
from tdt_jax.inference.evaluation import average, evaluate, merged
from tdt_jax.inference.metrics import ErrorRate, confidence_interval


class Utterance(NamedTuple):
    """All that `evaluate` reads of one."""

    id: str
    audio: object
    text: str


def test_evaluate_reads_id_audio_and_text(recogniser):
    """Results in order, whichever is decoded first; what cannot be read is not counted."""
    items = [
        Utterance("long", noise(4.0), "one two"),
        Utterance("bad", np.full(100, np.nan), "three"),
        Utterance("short", noise(1.0), "three"),
    ]
    done = []
    found = evaluate(recogniser, items, progress=done.append)
    assert [each.id for each in found.results] == ["long", "short"]
    assert found.failed.keys() == {"bad"} and "not finite" in found.failed["bad"]
    assert found.words.reference_length == 3 and found.audio_seconds == 5.0
    assert sum(done) == pytest.approx(5.0)
    assert found.bleu is None and found.normalizer == "none" and found.seconds >= 0
    assert all(each.num_steps > 0 and each.errors is not None for each in found.results)


def test_evaluate_raises_before_anything_runs(monkeypatch, recogniser):
    def transcribe_each(*_, **__):
        raise AssertionError

    monkeypatch.setattr(evaluation, "transcribe_each", transcribe_each)
    with pytest.raises(ValueError, match="no decoder 'beam'"):
        evaluate(recogniser, [], decoder="beam")
    with pytest.raises(ValueError, match="normalizer must be one of"):
        evaluate(recogniser, [], normalizer="german")
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(ValueError, match="pip install sacrebleu"):
        evaluate(recogniser, [], bleu=True)


def test_references_that_are_not_scored():
    """Only "whisper" leaves out those without words, and those that ask for it."""
    texts = {
        "silence": ("Um...", "yes"),
        "other": ("ignore_time_segment_in_scoring", "no no"),
        "right": ("It's OK.", "it is ok"),
        "wrong": ("ONE word", "word"),
    }

    def evaluate(name):
        return evaluated(texts.values(), name, seconds=1.0)

    found = evaluate("whisper")
    assert found.words == ErrorRate(1 / 5, 1, 0, 1, 0, 5) and found.not_scored == 2
    counts = [(r.errors, r.reference_words) for r in found.results]
    assert counts == [(None, None), (None, None), (0, 3), (1, 2)]
    assert [r.reference for r in found.results] == [reference for reference, _ in texts.values()]
    assert found.interval == confidence_interval([0, 1], [3, 2]) == (0.0, 0.5)
    assert "WER 20.00 % (0.00 to 50.00)" in found.summary()
    assert "4 utterances (2 not scored), 4 s" in found.summary()

    found = evaluate("none")
    assert found.not_scored == 0 and "not scored" not in found.summary()
    counts = [(r.errors, r.reference_words) for r in found.results]
    assert counts == [(1, 1), (2, 1), (3, 2), (1, 2)]


def test_references_are_scored_as_transcripts_are_written():
    """Without tags and spaces before closing marks, which no transcript can have."""
    texts = [("<|fr|> vrai ? oui", "vrai? oui"), ("¿ qué <|es|>", "¿qué"), ("a - b", "a- b")]
    found = evaluated(texts)
    assert [each.errors for each in found.results] == [0, 0, 2]
    assert [each.reference for each in found.results] == [reference for reference, _ in texts]


def test_leaderboard_merges_compounds_and_leaves_out_what_has_no_words():
    found = evaluated(NOISY, "leaderboard")
    assert found.words == ErrorRate(3 / 4, 3, 1, 0, 2, 4)  # "one two" is 12: one word
    assert found.not_scored == 1 and found.results[1].errors is None
    assert found.results[2].errors == 0 and found.results[2].reference_words == 3
    assert evaluated(NOISY, "whisper").words.errors == 5


def test_average_is_the_mean_of_sets_and_of_all_words():
    both = average([evaluated(CLEAN, seconds=1.0), evaluated(NOISY, seconds=3.0)])
    assert both.wer == pytest.approx((1 / 6 + 5 / 6) / 2)
    assert both.words == ErrorRate(6 / 12, 6, 4, 1, 1, 12)
    assert both.interval == confidence_interval([0, 1, 0, 2, 1, 2], [2, 3, 1, 2, 1, 3])
    assert both.rtfx == 6 / 4
    assert "WER 50.00 % as the mean of the sets, 50.00 % (" in both.summary()
    assert both.as_dict()["wer_mean"] == both.wer and both.as_dict()["wer_pooled"] == 0.5
    nothing = average([evaluated(CLEAN), evaluated([], failed=["a"])])
    assert math.isnan(nothing.wer) and nothing.words.rate == 1 / 6
    assert nothing.as_dict()["wer_mean"] is None
    with pytest.raises(ValueError, match="no evaluation"):
        average([])


def test_merged_counts_by_the_rules_of_its_parts():
    whole = evaluated(NOISY, "leaderboard")
    parts = [
        whole._replace(results=whole.results[i::2], audio_seconds=1.0, seconds=s)
        for i, s in ((0, 1.0), (1, 4.0))
    ]
    found = merged(parts[::-1], ["0.wav", "1.wav", "2.wav"])
    assert found.words == whole.words and found.results == whole.results
    assert found.normalizer == "leaderboard" and found.seconds == 4.0
    assert found.interval == whole.interval and found.not_scored == 1
