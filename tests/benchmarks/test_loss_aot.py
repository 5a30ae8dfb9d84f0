"""The loss as compilers of TPUs and GPUs estimate it, where they are installed."""

import importlib.util

import pytest

from tdt_jax.benchmarks import loss_aot
from tdt_jax.benchmarks.cases import Case


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "compiler"), [("v5e:2x2", "libtpu"), ("h100", "jax_cuda13_plugin")]
)
def test_the_loss_compiles(target, compiler):
    if importlib.util.find_spec(compiler) is None:
        pytest.skip(f"needs {compiler}")
    case = Case("tiny", 2, 16, 7, 130, width=128)
    report = loss_aot.loss_aot_report(case, dtype="bfloat16", target=target)
    assert "of temporaries" in str(report) and "x the floor" in str(report)
    (row,) = report.rows
    assert row["floor_seconds"] > 0
    parts = (row[f"{part}_seconds"] for part in ("forward", "recursion", "backward", "other"))
    assert sum(parts) == pytest.approx(row["seconds"])
    assert (target == "h100") == ("launches" in row)


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_a_loop_over_tiles_covers_all_nodes(platform):
    """16 x 16 nodes in tiles: at least one group of tiles, and more of them for more nodes."""
    few, many = (
        loss_aot.tile_iterations(platform, *sizes, 64)["scores_of_tiles"]
        for sizes in ((1, 16, 15), (8, 160, 150))
    )
    assert 1 <= few < many
