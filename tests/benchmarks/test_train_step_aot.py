"""A training step as the TPU's compiler estimates it, where libtpu is installed."""

import importlib.util

import jax
import pytest
import run_config

import train
from tdt_jax.benchmarks import train_step_aot

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")


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
