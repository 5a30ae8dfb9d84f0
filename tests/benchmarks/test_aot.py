"""Compiling the loss and a training step for a TPU, where libtpu is installed."""

import importlib.util
import re

import jax
import pytest
import run_config

import train
from tdt_jax.benchmarks import cases, loss_aot, train_step_aot
from tdt_jax.benchmarks.cases import Case, Shape
from tdt_jax.cli import main

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")


def test_an_unknown_chip_is_named(capsys):
    assert main.main(["benchmark", "loss", "--case", "small", "--aot", "v99:2x2"]) == 2
    assert "'v99:2x2' is none of v4, v5e" in capsys.readouterr().err


@needs_libtpu
def test_the_loss_compiles_for_a_tpu():
    case = Case("tiny", 2, 16, 7, 130, width=128)
    report = loss_aot.loss_report(case, dtype="bfloat16", topology="v5e:2x2")
    assert "MB of temporaries" in report and "x the floor" in report


def test_a_batch_is_read():
    assert cases.parse_shape("30,160,8") == Shape(30.0, 160, 8)
    assert cases.parse_shape(None) is None
    for text in ("30,160", "30,160,0", "a,b,c"):
        with pytest.raises(ValueError, match=re.escape(repr(text))):
            cases.parse_shape(text)


@needs_libtpu
def test_a_batch_that_cannot_be_split_is_an_error():
    with pytest.raises(ValueError, match="a batch of 4 cannot be split among 8 devices"):
        train_step_aot.training_report(run_config.get_config(), "v5e:2x4")


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x4", "v5p:2x2x2", "v6e:2x4"])
def test_a_training_step_compiles_for_a_tpu(topology, capsys):
    options = ["--aot", topology, "--aot-batch", "4.48,20,2"]
    options += ["--set", "training.fsdp=2", "--set", "training.accumulate=2"]
    with jax.numpy_dtype_promotion("standard"):  # optax counts on it
        train.main(["--config", run_config.__file__, *options])
    report = capsys.readouterr().out
    assert report.startswith(f"{topology}: 8 devices, parameters split among 2; ")
    for line in ("GB: ", "of the peak", "all-reduce of 8", "loss, recursion", "us a step"):
        assert line in report
