"""The decoder's benchmark: it counts iterations, measures, and compares with transformers."""

import jax
import models
import numpy as np
import pytest

from tdt_jax import plot
from tdt_jax.benchmarks import cases, decoder, random_decoder
from tdt_jax.benchmarks.decoder import Batch, Decoded
from tdt_jax.benchmarks.timing import Measurement
from tdt_jax.config import PredictorConfig
from tdt_jax.decoding.greedy import greedy_decode


def small(durations=(0, 1, 2)):
    return models.config(
        durations, models.encoder_config(num_layers=1), predictor=PredictorConfig(width=8)
    )


@pytest.mark.parametrize("durations", [(0, 1, 2), pytest.param(None, marks=pytest.mark.slow)])
def test_iterations_with_a_label_are_those_of_the_decoders_steps(durations):
    config = small(durations)
    model = random_decoder.make_model(config, 8.0)
    frames = random_decoder.make_frames(config, 3, 30)
    result = greedy_decode(model, frames, np.full(3, 30, np.int32), max_symbols=config.max_symbols)
    result = jax.device_get(result)
    emits = np.zeros((3, int(result.num_steps.max())), bool)
    counts = result.num_labels.tolist()
    logits = jax.jit(lambda model, labels: model.joint(frames, model.predictor(labels)))(
        model, result.labels[:, : max(counts)]
    )
    for i, count in enumerate(counts):
        own = (None if x is None else x[i, :, : count + 1] for x in jax.device_get(logits))
        path = plot.decoder_steps(*own, durations, max_symbols=config.max_symbols)
        emits[i, : len(path)] = [step.token != config.blank for step in path]
    counted = decoder.count_label_iterations(model, frames)
    assert counted == emits.any(axis=0).sum() and 0 < counted < emits.shape[1]


def test_it_measures(monkeypatch):
    """On a model for which no bias is looked for; every window gives the same."""
    functions = {random_decoder.find_blank_bias: lambda *_: 4.0}
    monkeypatch.setattr(
        decoder, "in_subprocess",
        lambda function, *args, **options: functions.get(function, function)(*args, **options),
    )  # fmt: skip
    monkeypatch.setattr(decoder, "WINDOWS", (1, 3))
    monkeypatch.setattr(decoder, "bandwidth", lambda num_bytes: 1e9)
    monkeypatch.setitem(cases.MODELS, "tiny", small())
    (report,) = decoder.decoder_reports(["tiny"], batches=(2,), seconds=1.6, repeats=1)
    table, (row,) = str(report), report.rows
    assert table.startswith("tiny: decoder of 1.6 s an utterance") and "batch 2: " in table
    assert "window 1 (default)" in table and "window 3 " in table
    assert "ms an iteration" in table and "transformers" not in table
    assert row["batch"] == 2 and 0 < row["label_iterations"] < row["iterations"] <= row["steps"]
    assert min(row["seconds"].values()) > 0 and "emitted" not in row


def test_the_table_compares_with_transformers_and_the_floor():
    """10 iterations of 520 bytes and 6 of 5040 more: 35440 bytes, at most at 3544 bytes/s."""
    arrays = tuple(np.arange(3) for _ in range(3))
    ours = Decoded(10, 6, 6, 10, 3544.0, {1: 20.0, 2: 30.0}, [arrays], "abacus")
    slower = ours._replace(bandwidth=1000.0)
    cost = Measurement(40.0, 0.0, None, None, "5.0")
    batches = [
        Batch(1, ours, (cost, [(*arrays[:2], np.zeros(3))])), Batch(1, slower, (cost, [arrays])),
    ]  # fmt: skip
    report = decoder.make_report("x", models.config(), 25, batches)
    table = str(report)
    assert table.count("floor 10.000 s") == 2 and "3.00 labels and 5.00 steps a second" in table
    assert "2.00 x floor  2000.00 ms an iteration" in table and "3.00 x floor" in table
    assert "0.50 = ours / theirs; 0 of 1 alike; 5.0" in table and "; 1 of 1 alike" in table
    assert [row["transformers"]["alike"] for row in report.rows] == [0, 1]


def test_an_rnnts_durations_are_not_compared():
    theirs = tuple(np.arange(3) for _ in range(3))
    ours = *theirs[:2], np.zeros(3)
    assert decoder.alike(ours, theirs, is_tdt=False)
    assert not decoder.alike(ours, theirs, is_tdt=True)


def test_impossible_sizes_are_errors(monkeypatch):
    for arguments, message in (
        (dict(names=["huge"]), "no case 'huge'; there are 110m"),
        (dict(batches=(1, 0)), r"must be positive, got \(1, 0\), 5 and 60"),
        (dict(seconds=0), "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            next(decoder.decoder_reports(**arguments))
