"""TPU topologies."""

import importlib.util

import pytest

from tdt_jax.profiling import tpu


def test_missing_libtpu_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs libtpu"):
        tpu.devices("v5e:2x2")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_an_unknown_topology_is_named():
    with pytest.raises(ValueError, match="no topology 'v5e:3x77'"):
        tpu.devices("v5e:3x77")
