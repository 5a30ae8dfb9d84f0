"""The encoder's benchmark: it measures, counts operations, and compares with transformers."""

import models
import pytest

from tdt_jax.benchmarks import cases, encoder
from tdt_jax.benchmarks.timing import Measurement
from tdt_jax.models.transducer import encode


def config(**changes):
    return models.config(encoder=models.encoder_config(width=64, num_layers=1, **changes))


@pytest.mark.slow
def test_operations_are_those_that_the_compiler_counts():
    """But for what is no product: norms, softmaxes and activations."""
    model = cases.random_model(config(), "float32")
    features, lengths = cases.random_features(config(), 5.12, 1)
    cost = encode.lower(model, features, lengths).compile().cost_analysis()
    assert 0.75 * cost["flops"] < encoder.encoder_flops(config(), 5.12, 1) < cost["flops"]


@pytest.mark.slow
def test_operations_grow_with_the_batch_and_shrink_with_the_context():
    one, two = (encoder.encoder_flops(config(), 5.12, batch) for batch in (1, 2))
    assert 1.8 * one < two < 2 * one  # the positions are projected once
    assert encoder.encoder_flops(config(attention_context=(8, 8)), 5.12, 1) < one


@pytest.mark.parametrize(
    ("context", "dtype"),
    [((4, 4), "bfloat16"), pytest.param(None, "float32", marks=pytest.mark.slow)],
)
def test_it_measures(context, dtype, monkeypatch):
    tiny = models.config(encoder=models.encoder_config(num_layers=1))
    monkeypatch.setitem(cases.MODELS, "tiny", tiny)
    monkeypatch.setattr(encoder, "in_subprocess", lambda function, *args: function(*args))
    (report,) = encoder.encoder_reports(
        ["tiny"], seconds=1.0, batch=1, dtype=dtype, repeats=1, attention_context=context,
        peers=False,
    )  # fmt: skip
    table = str(report)
    assert table.startswith("tiny: encoder of 1 x 1 s, attention " + str(context or "full"))
    assert "x real time" in table and "temporaries" in table
    assert report.rows[0]["method"] == "tdt_jax" and report.rows[0]["seconds"] > 0


def test_the_table_compares_with_transformers(monkeypatch):
    monkeypatch.setattr(encoder, "encoder_flops", lambda *_: 4e9)
    ours = Measurement(2.0, 1.0, 1_000_000, None, "abacus")
    methods = {"tdt_jax": ours, "transformers": ours._replace(seconds=4.0)}
    table = str(encoder.make_report("x", models.config(), 30.0, 1, 4e9, methods))
    assert "0.50 of the products' rate" in table and "0.50 = ours / theirs" in table
