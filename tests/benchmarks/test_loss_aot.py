"""The loss as the TPU's compiler estimates it, where libtpu is installed."""

import importlib.util

import pytest

from tdt_jax.benchmarks import loss_aot
from tdt_jax.benchmarks.cases import Case

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")


@needs_libtpu
def test_the_loss_compiles_for_a_tpu():
    case = Case("tiny", 2, 16, 7, 130, width=128)
    report = loss_aot.loss_aot_report(case, dtype="bfloat16", topology="v5e:2x2")
    assert "MB of temporaries" in str(report) and "x the floor" in str(report)
    assert report.rows[0]["floor_seconds"] > 0


def test_a_loop_over_tiles_covers_all_nodes():
    """16 x 16 nodes in tiles: at least one group of tiles, and more of them for more nodes."""
    few, many = loss_aot.num_groups(1, 16, 15, 64), loss_aot.num_groups(8, 160, 150, 64)
    assert 1 <= few < many
