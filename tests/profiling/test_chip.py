"""Seconds from cycles, bytes and operations."""

import pytest

from tdt_jax.profiling import chip, hlo

CHIP = chip.Chip(memory=1e9, peak=1e12, bandwidth=1e11, link=1e9, clock=1e6)


def test_seconds_of_collectives_and_those_that_are_exposed():
    whole = hlo.Collective("all-gather", 10**6, 4, "bf16", 0, 3)
    hidden = whole._replace(kind="all-reduce", num_devices=0, hidden_cycles=1000)
    program = hlo.Program([hlo.Operation("fusion", "", "", 5000, 2)], [whole, hidden])
    hops = chip.HOP_SECONDS * 2
    gather, reduce = 0.75e-3 + hops, 2 * (0.75e-3 + hops)
    compute, kernels, exchange, exposed = chip.cost_of(program, CHIP, 4)
    assert compute == pytest.approx(10e-3) and kernels == 0
    assert exchange == pytest.approx(3 * (gather + reduce))
    assert exposed == pytest.approx(3 * (gather + reduce - 1e-3))


def test_a_kernel_without_an_estimate_takes_at_least_its_bytes_or_operations():
    reads = hlo.Operation("custom-call", "", "", 0, 2, "kernel", num_bytes=10**8, flops=10**6)
    computes = reads._replace(num_bytes=1, flops=10**10, times=1)
    cost = chip.cost_of(hlo.Program([reads, computes], []), CHIP)
    assert cost.kernels == pytest.approx(2 * 1e-3 + 10e-3)
    assert cost.busy == cost.kernels
