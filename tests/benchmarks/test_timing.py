"""Measuring: seconds and memory of a function, and rates that a machine can have."""

import os

import jax
import numpy as np
import pytest

from tdt_jax.benchmarks import timing


def test_runs_are_counted_after_the_first():
    runs = []
    seconds, result = timing.median_seconds(lambda: runs.append(None) or len(runs), 3)
    assert result == len(runs) == 4 and seconds >= 0


def test_a_compiled_function_is_measured():
    cost, result = timing.measure(jax.jit(lambda x: x @ x), np.ones((8, 8), np.float32), repeats=1)
    assert np.all(result == 8)
    assert cost.seconds > 0 and cost.compile_seconds > 0 and cost.temporary_bytes >= 0
    assert cost.device == "cpu"


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux only")
def test_a_peak_is_what_was_allocated():
    # In a process of its own: what other tests leave behind is freed at any time.
    assert 150e6 < timing.in_subprocess(_peak_of, 300_000_000) < 600e6
    assert timing.available_bytes() > 1e6


def _peak_of(num_bytes: int) -> int | None:
    before = timing.reset_peak()
    np.ones(num_bytes, np.uint8)
    return timing.peak_since(before)


def test_memory_that_is_not_known():
    assert timing.peak_since(None) is None
    assert timing._field("MemAvailable", "/no/such/file") is None


def test_rates_are_measured():
    assert 1e6 < timing.heads_rate(8, 12, "float32") < 1e16
    assert 1e6 < timing.feed_forward_rate(8, "float32") < 1e16
    assert 1e6 < timing.bandwidth(1 << 16, repeats=2) < 1e15


def test_a_function_runs_in_a_process_of_its_own():
    assert timing.in_subprocess(os.getpid) != os.getpid()
