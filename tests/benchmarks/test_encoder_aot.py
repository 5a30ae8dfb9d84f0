"""The encoder as compilers of TPUs and GPUs estimate it, where they are installed."""

import importlib.util

import jax
import models
import pytest

from tdt_jax.benchmarks import cases, encoder_aot


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "compiler"), [("v5e:2x2", "libtpu"), ("h100", "jax_cuda13_plugin")]
)
def test_the_encoder_compiles(target, compiler, monkeypatch):
    if importlib.util.find_spec(compiler) is None:
        pytest.skip(f"needs {compiler}")
    monkeypatch.setitem(cases.MODELS, "tiny", models.config())
    options = dict(seconds=5.0, batch=2, dtype="bfloat16", attention_context=None, target=target)
    with jax.numpy_dtype_promotion("standard"):  # the rotated scores of a TPU count on it
        (report,) = encoder_aot.encoder_aot_reports(["tiny"], **options)
    assert "x real time" in str(report)
    (row,) = report.rows
    assert row["seconds"] > 0 and row["peak_bytes"] > row["argument_bytes"]
    if target == "h100":  # the loop over layers, whose length is known
        (loop,) = row["loops"]
        assert loop["is_known"] and loop["launches"]["waits"] == 0
        assert row["launches"]["most"] > loop["iterations"] * loop["launches"]["most"]
