"""The benchmark of the loss: its methods agree, and its table compares them."""

import json

import numpy as np
import pytest
from lattice_oracle import brute_force

from tdt_jax.benchmarks import cases, loss
from tdt_jax.benchmarks.cases import Case
from tdt_jax.benchmarks.timing import Measurement, heads_rate

TINY = Case("tiny", 2, 6, 2, 5, width=8)
COST = Measurement(2.0, 1.0, 1_000_000, None, "abacus")


@pytest.fixture(scope="module")
def expected():
    """The losses of every alignment, written out."""
    inputs = cases.loss_inputs(TINY)
    frames = (inputs["frames"] @ inputs["frame_projection"])[:, :, None]
    states = (inputs["states"] @ inputs["state_projection"])[:, None]
    hidden = np.maximum(frames + states, 0)
    logits = (hidden @ inputs[name] for name in ("token_head", "duration_head"))
    rows = zip(*logits, inputs["labels"], strict=True)
    options = TINY.frames, TINY.labels, cases.DURATIONS, cases.SIGMA
    return [-brute_force(*row, *options) for row in rows]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (loss.measure_tiled, {}),
        (loss.measure_dense, {}),
        pytest.param(loss.measure_tiled, {"neglect": 0.0}, marks=pytest.mark.slow),
    ],
)
def test_methods_give_the_loss_and_are_measured(method, options, expected):
    cost, losses = method(TINY, dtype="float32", repeats=1, **options)
    assert cost.seconds > 0 and cost.compile_seconds > 0 and cost.temporary_bytes > 0
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_the_table_compares_with_the_first_method_and_the_floor():
    other = COST._replace(seconds=3.0, peak_bytes=5_000_000), [1.5, 2.0]
    results = {"tdt_jax": (COST, [1.0, 2.0]), "other": other, "third": "needs 9 GB"}
    report = loss.make_report(TINY, TINY.flops / 4.0, results)
    heading, first, second, third = str(report).splitlines()
    assert heading.startswith("tiny: B=2 T=6 U=2 V=5 J=8; ")
    assert heading.endswith("floor 4.000 s; 0 MB of logits; on abacus")
    assert "0.50 x floor" in first and "temporaries      1 MB" in first
    assert "0.75 x floor  peak      5 MB" in second
    assert second.endswith("  1.5 x the time; loss differs by 5e-01")
    assert third.endswith("needs 9 GB")
    (row,) = map(json.loads, report.as_json().splitlines())
    assert row["name"] == "tiny" and row["floor_seconds"] == 4.0
    assert row["matmul_flops_per_second"] == TINY.flops / 4.0
    assert row["methods"]["third"] == "needs 9 GB"
    assert row["methods"]["other"] == {
        "seconds": 3.0, "compile_seconds": 1.0, "temporary_bytes": 1_000_000,
        "peak_bytes": 5_000_000, "losses": [1.5, 2.0], "device": "abacus",
    }  # fmt: skip


def test_methods_run_apart_and_those_that_do_not_fit_are_left_out(monkeypatch):
    monkeypatch.setattr(loss, "in_subprocess", lambda function, *args, **options: (
        1e9 if function is heads_rate else (COST, [1.0])
    ))  # fmt: skip
    monkeypatch.setattr(loss, "available_bytes", lambda: 10**9)
    small, large = loss.loss_reports(
        [cases.CASES["small"], cases.CASES["v3"]], dtype="float32", repeats=1, peers=False
    )
    assert small.rows[0]["matmul_flops_per_second"] == 1e9
    names = ["tdt_jax", "tdt_jax, neglect=0", "tdt_jax, full logits"]
    assert list(small.rows[0]["methods"]) == names
    assert all(method["losses"] == [1.0] for method in small.rows[0]["methods"].values())
    methods = large.rows[0]["methods"]
    assert methods["tdt_jax, full logits"] == "needs about 12 GB"
    assert methods["tdt_jax"]["seconds"] == 2.0


def test_a_method_that_fails_is_reported(monkeypatch):
    def fail(function, *_, **__):
        if function is heads_rate:
            return 1e9
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")

    monkeypatch.setattr(loss, "in_subprocess", fail)
    (report,) = loss.loss_reports([TINY], dtype="float32", repeats=1, peers=False)
    assert str(report).count("failed: RESOURCE_EXHAUSTED: out of memory") == 3
