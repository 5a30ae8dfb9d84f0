"""A streaming step as compilers of TPUs and GPUs estimate it, where they are installed."""

import importlib.util

import models
import pytest

from tdt_jax.benchmarks import cases, chunk_aot


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "compiler"), [("v5e:2x2", "libtpu"), ("h100", "jax_cuda13_plugin")]
)
def test_a_step_compiles(target, compiler, monkeypatch):
    if importlib.util.find_spec(compiler) is None:
        pytest.skip(f"needs {compiler}")
    monkeypatch.setitem(cases.CAUSAL_MODELS, "tiny", models.causal_config())
    options = dict(batches=[8], rights=[0], dtype="bfloat16", target=target)
    (report,) = chunk_aot.chunk_aot_reports(["tiny"], **options)
    assert "updated in place" in str(report)
    (row,) = report.rows
    assert row["seconds"] > 0 and row["donated_bytes"] >= row["state_bytes"]


def test_an_unknown_target_is_named():
    options = dict(batches=[1], rights=[0], dtype="bfloat16", target="v9:2x2")
    with pytest.raises(ValueError, match="the chip of 'v9:2x2' is none of v4"):
        next(iter(chunk_aot.chunk_aot_reports(["120m"], **options)))
