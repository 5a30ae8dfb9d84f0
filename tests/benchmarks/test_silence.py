"""A TDT beside an RNN-T: silence is inserted as documented, steps and errors are the decoder's."""

import json

import matplotlib

matplotlib.use("Agg")

import jax
import matplotlib.pyplot as plt
import models
import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.audio.errors import AudioError
from tdt_jax.benchmarks import silence
from tdt_jax.benchmarks.report import Report
from tdt_jax.config import Bucket
from tdt_jax.data.manifest import Entry
from tdt_jax.data.utterance import Utterance, collate
from tdt_jax.inference.recognition import decode_samples

RATE = 16000


def speech(seconds, seed=0):
    """Loud noise with a soft tenth."""
    samples = np.random.default_rng(seed).normal(size=round(seconds * RATE)).astype(np.float32)
    samples[round(0.4 * len(samples)) : round(0.5 * len(samples))] *= 0.01
    return samples


@pytest.fixture(scope="module")
def recognisers():
    """A TDT and an RNN-T, random, with heads that emit a few labels."""
    tokenizer, pair = tokenizers.train_characters(["ab def"]), []
    for durations, seed, blank_bias in (((0, 1, 2), 1, 4), (None, 0, 12)):
        predictor = tdt.PredictorConfig(width=8)
        encoder = models.encoder_config(num_layers=1)
        config = models.config(durations, encoder, predictor=predictor)
        model = models.transducer(config, seed)
        head = model.joint.token_head
        head.kernel[...] = 4 * head.kernel[...]
        head.bias[...] = head.bias[...].at[-1].add(blank_bias)
        pair.append(tdt.Recogniser(model, tokenizer))
    return tuple(pair)


def decoded(recogniser, utterances):
    """The hypotheses of a batch."""
    batch = collate(utterances, None, Bucket(2.56, 1, 3), sample_rate=RATE)
    return jax.device_get(decode_samples(recogniser.model, batch.samples, batch.num_samples))


@pytest.fixture(scope="module")
def utterances(recognisers):
    """Three, with the words that the TDT emits."""
    silent = [Utterance(str(i), speech(0.6 + 0.3 * i, i), "") for i in range(3)]
    result, decode = decoded(recognisers[0], silent), recognisers[0].tokenizer.decode
    texts = (decode(x[:n]) for x, n in zip(result.labels, result.num_labels, strict=True))
    return [each._replace(text=text) for each, text in zip(silent, texts, strict=True)]


@pytest.fixture(scope="module")
def results(utterances, recognisers):
    """The hypotheses of both."""
    return [decoded(each, utterances) for each in recognisers]


@pytest.fixture(scope="module")
def compared(utterances, recognisers):
    options = dict(shares=(0.0, 0.5), repeats=2, batch_size=3)
    return silence.compare(*recognisers, utterances, **options)


def test_the_tdt_emits_words(utterances):
    """So that its word error rate on them says something."""
    assert sum(len(each.text.split()) for each in utterances) > 1


def test_a_tdt_takes_fewer_steps(results, utterances):
    """An RNN-T takes one for each frame and each label."""
    tdt_steps, rnnt_steps = (each.num_steps.sum() for each in results)
    frames = sum(-(-(len(each.samples) // 160) // 8) for each in utterances)
    assert rnnt_steps == frames + results[1].num_labels.sum() > tdt_steps


def test_steps_and_errors_are_those_of_the_decoder(results, compared, utterances):
    plain, half = compared.rows
    seconds = [len(utterance.samples) / RATE for utterance in utterances]
    assert (plain["share"], plain["utterances"]) == (0.0, 3)
    assert plain["audio_seconds"] == sum(seconds)
    assert (half["share"], half["audio_seconds"]) == (0.5, 2 * sum(seconds))
    steps = [int(each.num_steps.sum()) for each in results]
    assert plain["tdt"]["steps_per_second"] == pytest.approx(steps[0] / sum(seconds))
    assert plain["rnnt"]["steps_per_second"] == pytest.approx(steps[1] / sum(seconds))
    assert plain["ratios"]["steps"] == pytest.approx(steps[1] / steps[0])
    assert plain["tdt"]["word_error_rate"] == 0 and plain["rnnt"]["word_error_rate"] > 0
    for row, model in ((plain, "tdt"), (plain, "rnnt"), (half, "rnnt")):
        names = ["decoder_seconds", "empty_seconds", "whole_seconds"]
        assert min(row[model][name] for name in names) > 0
    assert min(plain["tdt"]["first_run_seconds"], plain["rnnt"]["first_run_seconds"]) > 0
    assert half["rnnt"]["first_run_seconds"] == 0  # no new shape


@pytest.mark.slow
def test_figures_but_times_do_not_depend_on_the_batch(compared, recognisers, utterances):
    (alone,) = silence.compare(*recognisers, utterances, shares=[0.5], repeats=1).rows
    for model in ("tdt", "rnnt"):
        for name in ("word_error_rate", "steps_per_second"):
            assert alone[model][name] == pytest.approx(compared.rows[1][model][name])


def test_batches_have_few_shapes():
    """2.56 s and twice and four times as much; every utterance is in one of them."""
    items = [Utterance(str(i), speech(seconds), "") for i, seconds in enumerate((1.0, 1.2, 2.0, 4))]
    lengths = {i: len(item.samples) for i, item in enumerate(items)}
    batches = list(silence._batches(items, lengths, 0.5, 3, RATE))
    assert [batch.samples.shape for batch in batches] == [(3, 40960), (3, 81920), (3, 163840)]
    assert [batch.ids for batch in batches] == [("0", "1", ""), ("2", "", ""), ("3", "", "")]
    assert batches[0].num_samples.tolist() == [32000, 38400, 0]


NAMES = """word_error_rate steps_per_second decoder_seconds empty_seconds whole_seconds
first_run_seconds""".split()


def row(share, tdt, rnnt):
    case = dict(share=share, utterances=7, audio_seconds=60.0, batch_size=1, repeats=3)
    models = (dict(zip(NAMES, each, strict=True)) for each in (tdt, rnnt))
    return silence.make_row({**case, "device": "abacus"}, *models)


ROWS = [
    row(0.0, (0.01, 4.0, 1.5, 0.5, 8.0, 2.0), (0.02, 12.0, 3.0, 0.5, 10.0, 3.0)),
    row(0.5, (0.01, 3.0, 1.5, 0.5, 8.0, 0.0), (0.02, 12.0, 4.5, 0.5, 12.0, 0.0)),
]


def test_the_table_and_the_objects_hold_the_ratios():
    assert ROWS[0]["ratios"] == dict(steps=3.0, loop=2.5, decoder=2.0, whole=1.25)
    report = Report(ROWS, silence.make_table(ROWS))
    text = str(report)
    assert "7 utterances, batch 1, on abacus" in text and "took 5.0 s" in text
    assert "3.00 x     2.50 x     2.00 x     1.25 x" in text and "50 %" in text
    objects = [json.loads(line) for line in report.as_json().splitlines()]
    assert objects[1]["ratios"]["steps"] == 4.0 and objects[1]["rnnt"]["whole_seconds"] == 12.0


def test_the_plot_shows_steps_and_ratios():
    left, right = silence.plot(ROWS)
    assert [line.get_ydata().tolist() for line in left.lines] == [[12, 12], [4, 3]]
    assert left.lines[0].get_xdata().tolist() == [0, 50]
    drawn = [line.get_ydata() for line in right.lines[1:]]
    assert [list(each) for each in drawn] == [[3, 4], [2.5, 4], [2, 3], [1.25, 1.5]]
    assert "7 utterances, 1 at a time, on abacus" in left.figure.get_suptitle()
    left.figure.canvas.draw()
    plt.close(left.figure)
    plt.close(silence.plot(ROWS[:1])[0].figure)


def test_what_cannot_be_compared_is_named(recognisers, tmp_path):
    tdt_model, rnnt = recognisers
    utterances = [Utterance("a", speech(1.0), "a")]
    for pair, options, message in (
        ((rnnt, tdt_model), {}, "first .* TDT and the second an RNN-T, got a RNN-T and a TDT"),
        ((tdt_model, tdt_model), {}, "got a TDT and a TDT"),
        (recognisers, {"shares": (0.5, 1.0)}, r"below 1, got \(0.5, 1.0\)"),
        (recognisers, {"batch_size": 0}, "batch_size 0, repeats 3"),
    ):
        with pytest.raises(ValueError, match=message):
            silence.compare(*pair, utterances, **options)
    missing, failed = [Entry("x.wav", tmp_path / "x.wav", 1.0, "a")], {}
    with pytest.raises(AudioError, match="no audio file"):
        silence.compare(*recognisers, missing)
    with pytest.raises(ValueError, match="none of 1 utterances"):
        silence.compare(*recognisers, missing, failed=failed)
    assert "no audio file" in failed["x.wav"]
