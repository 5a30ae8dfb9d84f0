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
from tdt_jax.profiling import hlo, step_parts, tpu

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
CHIP = tpu.Chip(memory=1e9, peak=1e12, bandwidth=1e11, link=1e9, clock=1e6)


def test_an_unknown_chip_is_named(capsys):
    assert main.main(["benchmark", "loss", "--case", "small", "--aot", "v99:2x2"]) == 2
    assert "'v99:2x2' is none of v4, v5e" in capsys.readouterr().err


def test_without_libtpu_it_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs libtpu"):
        tpu.devices("v5e:2x2")


@needs_libtpu
def test_an_unknown_topology_is_named():
    with pytest.raises(ValueError, match="no topology 'v5e:3x77'"):
        tpu.devices("v5e:3x77")


def test_a_program_that_cannot_be_read_is_an_error():
    class Compiled:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: should have 1 operands but sees 3\nstack")

    with pytest.raises(ValueError, match=r"'jax.tpu.' installs .* fits it: .* sees 3$"):
        tpu.text_of(Compiled())


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


def test_exchange_takes_what_its_bytes_take_and_hides_behind_what_runs_beside_it():
    whole = hlo.Collective("all-gather", 10**6, 4, "bf16", 0, 3)
    hidden = whole._replace(kind="all-reduce", num_devices=0, hidden_cycles=1000)
    program = hlo.Program([hlo.Operation("fusion", "", "", 5000, 2)], [whole, hidden])
    hops = tpu.HOP_SECONDS * 2
    gather, reduce = 0.75e-3 + hops, 2 * (0.75e-3 + hops)
    compute, exchange, exposed = tpu.cost_of(program, CHIP, 4)
    assert compute == pytest.approx(10e-3)
    assert exchange == pytest.approx(3 * (gather + reduce))
    assert exposed == pytest.approx(3 * (gather + reduce - 1e-3))


def test_operations_belong_to_parts():
    def part(stack, scope=""):
        return step_parts.part_of(hlo.Operation("fusion", scope, stack, 1, 1))

    assert part("loss/Encoder.__call__/Block.__call__/RelativeAttention.__call__") == "attention"
    assert part("Block.__call__/FeedForward.__call__/dropout") == "dropout"
    assert part("", "jit(train_step)/jit(_loss)/recursion/while/body/add") == "loss, recursion"
    assert part("train_step/apply_updates") == "optimiser"
    assert part("train_step") == "elsewhere"


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
