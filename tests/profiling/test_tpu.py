"""TPU topologies, and seconds from cycles and bytes."""

import importlib.util

import jax
import pytest

from tdt_jax.profiling import hlo, tpu

CHIP = tpu.Chip(memory=1e9, peak=1e12, bandwidth=1e11, link=1e9, clock=1e6)


def test_missing_libtpu_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs libtpu"):
        tpu.devices("v5e:2x2")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_an_unknown_topology_is_named():
    with pytest.raises(ValueError, match="no topology 'v5e:3x77'"):
        tpu.devices("v5e:3x77")


def test_a_program_that_cannot_be_read_is_an_error():
    class Compiled:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: should have 1 operands but sees 3\nstack")

    with pytest.raises(ValueError, match=r"'jax.tpu.' installs .* fits it: .* sees 3$"):
        tpu.text_of(Compiled())


def test_seconds_of_collectives_and_those_that_are_exposed():
    whole = hlo.Collective("all-gather", 10**6, 4, "bf16", 0, 3)
    hidden = whole._replace(kind="all-reduce", num_devices=0, hidden_cycles=1000)
    program = hlo.Program([hlo.Operation("fusion", "", "", 5000, 2)], [whole, hidden])
    hops = tpu.HOP_SECONDS * 2
    gather, reduce = 0.75e-3 + hops, 2 * (0.75e-3 + hops)
    compute, exchange, exposed = tpu.cost_of(program, CHIP, 4)
    assert compute == pytest.approx(10e-3)
    assert exchange == pytest.approx(3 * (gather + reduce))
    assert exposed == pytest.approx(3 * (gather + reduce - 1e-3))
