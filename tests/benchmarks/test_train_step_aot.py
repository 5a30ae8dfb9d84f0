"""A training step as compilers of TPUs and GPUs estimate it, where they are installed."""

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "compiler"),
    [
        ("v5e:2x4", "libtpu"),
        ("v5p:2x2x2", "libtpu"),
        ("v6e:2x4", "libtpu"),
        ("h100:8", "jax_cuda13_plugin"),
    ],
)
def test_a_training_step_compiles(target, compiler, capsys):
    if importlib.util.find_spec(compiler) is None:
        pytest.skip(f"needs {compiler}")
    options = ["--aot", target, "--aot-batch", "4.48,20,2"]
    options += ["--set", "training.fsdp=2", "--set", "training.accumulate=2"]
    with jax.numpy_dtype_promotion("standard"):  # optax counts on it
        train.main(["--config", run_config.__file__, *options])
    report = capsys.readouterr().out
    assert report.startswith(f"{target}: 8 devices, parameters split among 2; ")
    for line in ("GB: ", "of the peak", "all-reduce of 8", "loss, recursion", "us a turn",
                 "for the backward pass: everything"):  # fmt: skip
        assert line in report
