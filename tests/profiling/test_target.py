"""Accelerators to compile for."""

import importlib.util
from pathlib import Path

import jax
import pytest

from tdt_jax.profiling import gpu, target


@pytest.mark.parametrize("name", ["v9:2x2", "h200", "tpu"])
def test_an_unknown_device_is_named(name):
    with pytest.raises(ValueError, match=f"'{name}' is none of v4, v5e, v5p, v6e, h100"):
        target.find(name)


@pytest.mark.parametrize("name", ["h100:0", "h100:9", "h100:2x2"])
def test_a_number_of_gpus_that_no_host_has_is_named(name):
    with pytest.raises(ValueError, match=f"1 to 8 H100s, got '{name}'"):
        target.find(name)


@pytest.mark.parametrize(("name", "compiler"), [("v5e:2x2", "libtpu"), ("h100", "its plugin")])
def test_a_missing_compiler_is_named(name, compiler, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"needs {compiler}"):
        target.find(name)


def test_a_program_that_cannot_be_read_is_an_error():
    class Compiled:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: should have 1 operands but sees 3\nstack")

    with pytest.raises(ValueError, match=r"'jax.tpu.' installs .* fits it: .* sees 3$"):
        target.text_of(Compiled())


def test_what_does_not_fit_is_an_error():
    class Lowered:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 20G of 15.75G hbm.\nmore")

    with pytest.raises(ValueError, match=r"does not fit: RESOURCE_EXHAUSTED: Used .* hbm.$"):
        target.compile(Lowered(), target.Target("v5e:2x2", "tpu", gpu.H100, [], {}))


def test_a_gpu_program_that_does_not_fit_is_an_error():
    class Memory:
        peak_memory_in_bytes = 90 * 10**9

    class Compiled:
        def memory_analysis(self):
            return Memory()

    class Lowered:
        def compile(self, compiler_options):
            folder = Path(compiler_options["xla_dump_to"])
            for name in ("sequence", "metadata"):
                (folder / f"module.thunk_{name}.txt").write_text("")
            return Compiled()

    h100 = target.Target("h100", "gpu", gpu.H100, [], gpu.OPTIONS)
    with pytest.raises(ValueError, match=r"does not fit: it needs 90.00 GB .* of 80 GB"):
        target.compile(Lowered(), h100)
    assert "xla_dump_to" not in gpu.OPTIONS
