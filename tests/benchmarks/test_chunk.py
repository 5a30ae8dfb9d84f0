"""The benchmark of a streaming step: it measures, and compares with transformers."""

import models
import pytest

from tdt_jax.benchmarks import cases, chunk
from tdt_jax.benchmarks.timing import Measurement


@pytest.mark.slow
def test_it_measures(monkeypatch):
    monkeypatch.setitem(cases.CAUSAL_MODELS, "tiny", models.causal_config())
    monkeypatch.setattr(chunk, "in_subprocess", lambda function, *args: function(*args))
    options = dict(batches=[2], rights=[1], dtype="float32", repeats=1, peers=False)
    (report,) = chunk.chunk_reports(["tiny"], **options)
    assert str(report).startswith("tiny: a step of 2 x 160 ms in context (6, 1), compiled in ")
    whole, encoder = report.rows
    assert (whole["method"], encoder["method"]) == ("tdt_jax", "tdt_jax, encoder")
    assert whole["seconds"] > 0 and encoder["seconds"] > 0


def test_the_table_compares_encoders():
    ours = Measurement(0.020, 1.0, 1_000_000, None, "abacus")
    methods = {
        "tdt_jax": ours,
        "tdt_jax, encoder": ours._replace(seconds=0.016),
        "transformers, encoder": ours._replace(seconds=0.040),
    }
    table = str(chunk.make_report("x", (70, 1), 4, methods))
    assert "4 x 160 ms" in table and "32.0 x real time" in table
    assert "0.40 = ours / theirs" in table


def test_a_look_ahead_that_the_model_does_not_have_is_named():
    assert chunk.context_of(models.causal_config(), 1) == (6, 1)
    with pytest.raises(ValueError, match="the model looks ahead 2, 1, 0 frames, not 7"):
        chunk.context_of(models.causal_config(), 7)


def test_the_causal_models_have_the_sizes_of_their_names():
    assert set(cases.CAUSAL_MODELS) == {"120m", "0.6b"}
    for config in cases.CAUSAL_MODELS.values():
        assert config.encoder.is_causal and config.durations is None
        assert chunk.num_samples(config, chunk.context_of(config, 1)) == 2560
