"""The benchmark of the loss: its methods agree, its floor is counted right, and it says why not."""

import numpy as np
import pytest

from tdt_jax.benchmarks import cases, loss
from tdt_jax.benchmarks.cases import Case
from tdt_jax.benchmarks.loss import Result
from tdt_jax.cli import main

TINY = Case("tiny", 2, 12, 4, 6, width=8)


def test_the_floor_is_the_products_of_every_node():
    """2 * 12 * 5 nodes with 7 + 5 logits of 8 products and 8 sums, four times."""
    assert TINY.num_logits == 2 * 12 * 5 * 12
    assert TINY.flops == 4 * 2 * 8 * 2 * 12 * 5 * 12


def test_methods_agree_and_are_measured():
    lean, exact, full = (
        measure(TINY, dtype="float32", repeats=1, **options)
        for measure, options in (
            (loss.measure_lean, {}),
            (loss.measure_lean, {"neglect": 0.0}),
            (loss.measure_full, {}),
        )
    )
    for result in (lean, exact, full):
        assert result.seconds > 0 and result.compile_seconds > 0 and result.temporary_bytes > 0
        np.testing.assert_allclose(result.losses, lean.losses, rtol=1e-6)
    assert len(lean.losses) == 2 and all(np.isfinite(lean.losses))
    lines = loss.describe(TINY, 1e9, {"tdt_jax": lean, "other": full, "third": "needs 9 GB"})
    floor = TINY.flops / 1e9
    assert f"{lean.seconds / floor:6.2f} x floor" in lines
    assert f"{full.seconds / lean.seconds:5.1f} x the time" in lines and "needs 9 GB" in lines


def test_the_rate_of_products_is_measured():
    assert 1e6 < loss.matmul_rate(TINY, "float32") < 1e16


def test_table_runs_apart_and_leaves_out_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(loss, "in_subprocess", lambda function, *args, **options: (
        1e9 if function is loss.matmul_rate else Result(1.0, 1.0, 1, 1, [1.0], "cpu")
    ))  # fmt: skip
    monkeypatch.setattr(loss, "available_bytes", lambda: 10**9)
    (_, rate, results), (_, _, large) = loss.loss_table(
        [cases.CASES["small"], cases.CASES["v3"]], dtype="float32", repeats=1, peers=False
    )
    assert rate == 1e9 and all(isinstance(result, Result) for result in results.values())
    assert large["tdt_jax, full logits"] == "needs about 12 GB"
    assert isinstance(large["tdt_jax"], Result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--case", "huge"], "no case 'huge'; there are small, v2, v3, long"),
     (["--peers"], "--peers needs torch and transformers")],
)  # fmt: skip
def test_what_cannot_be_measured_is_named(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(loss, "installed", lambda package: False)
    assert main.main(["benchmark", "loss", *arguments]) == 2
    assert message in capsys.readouterr().err
