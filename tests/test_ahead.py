"""Reading the TPU compiler's estimates; compiling for a TPU where libtpu is installed."""

import importlib.util

import pytest

from tdt_jax import ahead, cli
from tdt_jax.benchmark import Case

PROGRAM = """
%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = f32[8] add(%x, %y), backend_config={"estimated_cycles":"300"}
  %b = f32[8] add(%a, %y), backend_config={"estimated_cycles":"1200"}
}

%condition.1 (p: (s32[], f32[8])) -> pred[] {
  %c = pred[] compare(%i, %n), backend_config={"estimated_cycles":"7"}
}

ENTRY %main.2 (x: f32[8]) -> f32[8] {
  %d = f32[8] copy(%x), backend_config={"estimated_cycles":"3000"}
  %w = (s32[], f32[8]) while(%t), condition=%condition.1, body=%body.1, \
metadata={op_name="jit(f)/vmap(recursion)/while"}
}
"""


class Compiled:
    """Stands for a compiled program."""

    argument_size_in_bytes, output_size_in_bytes, temp_size_in_bytes = 1, 2, 3

    def as_text(self):
        return PROGRAM

    def memory_analysis(self):
        return self


def test_cycles_are_summed_by_loop():
    found = ahead.estimate(Compiled(), ["recursion"], "v5e")
    assert found[:3] == (1, 2, 3)
    assert found.seconds_outside == 3000 / 1.5e9
    assert found.seconds_a_turn == {"recursion": 1500 / 1.5e9}


def test_a_loop_of_another_name_is_not_found():
    with pytest.raises(ValueError, match=r"0 loops are named tiles, among .*recursion"):
        ahead.estimate(Compiled(), ["tiles"], "v5e")


def test_an_unknown_chip_is_named(capsys):
    assert cli.main(["benchmark", "loss", "--case", "small", "--aot", "v99:2x2"]) == 2
    assert "'v99:2x2' is none of v5e" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_the_loss_compiles_for_a_tpu():
    case = Case("tiny", 2, 16, 7, 130, width=128)
    report = ahead.loss_report(case, dtype="bfloat16", topology="v5e:2x2")
    assert "MB of temporaries" in report and "x the floor" in report
