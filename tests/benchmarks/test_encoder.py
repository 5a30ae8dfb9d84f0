"""The encoder's benchmark: its operations are counted right, and it says what it cannot do."""

import dataclasses
import functools

import jax
import models
import pytest

from tdt_jax.benchmarks import cases, encoder, loss
from tdt_jax.benchmarks.encoder import Speed
from tdt_jax.cli import main
from tdt_jax.models.transducer import encode


@pytest.mark.parametrize("context", [None, (16, 16)])
def test_operations_are_those_that_the_compiler_counts(context):
    """But for what is not products: norms, softmaxes and activations."""
    config = dataclasses.replace(
        models.config(),
        encoder=models.encoder_config(width=64, attention_context=context, unroll=2),
    )
    model = encoder._random_model(config, "float32")
    features, lengths = encoder._features(config, 5.12, 1)
    function = jax.jit(functools.partial(encode.__wrapped__))
    cost = function.lower(model, features, lengths).compile().cost_analysis()
    counted = encoder.flops(config, 512)
    if context is None:
        assert 0.75 * cost["flops"] < counted < cost["flops"]
    else:  # the compiler counts one round of the loop over chunks
        assert counted < encoder.flops(
            dataclasses.replace(config, encoder=models.encoder_config(width=64)), 512
        )


def test_it_measures(monkeypatch, capsys):
    monkeypatch.setitem(cases.MODELS, "tiny", models.config())
    monkeypatch.setattr(encoder, "in_subprocess", lambda function, *args: function(*args))
    arguments = ["benchmark", "encoder", "--case", "tiny", "--seconds", "1", "--repeats", "1"]
    assert main.main(arguments) == 0
    assert main.main([*arguments, "--local-attention", "4,4", "--dtype", "bfloat16"]) == 0
    full, local = capsys.readouterr().out.strip().split("tiny: ")[1:]
    assert "attention full" in full and "attention (4, 4)" in local
    for report in (full, local):
        assert "x real time" in report and "temporaries" in report


def test_the_table_sets_ours_beside_theirs():
    ours = Speed(2.0, 1.0, 4e9, 1_000_000, None, "cpu")
    text = encoder.describe(
        "x", models.config(), 30.0, 1, 4e9, {"tdt_jax": ours, "peer": ours._replace(seconds=4.0)}
    )
    assert "0.50 of the products' rate" in text and "0.50 = ours / theirs" in text


def test_what_cannot_be_measured_is_named(capsys, monkeypatch):
    monkeypatch.setattr(encoder, "installed", lambda package: False)
    for arguments, message in (
        (["encoder", "--case", "huge"], "no case 'huge'; there are 110m, 0.6b"),
        (["encoder", "--peers"], "needs torch and transformers"),
        (["parity"], "needs torch and transformers"),
    ):
        assert main.main(["benchmark", *arguments]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(encoder, "installed", lambda package: True)
    assert main.main(["benchmark", "parity", "--case", "huge"]) == 2
    assert loss.installed("jax")
