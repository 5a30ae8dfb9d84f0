"""What is recomputed in the backward pass, by what fits into memory."""

import dataclasses
import types

import jax
import pytest

from tdt_jax import presets
from tdt_jax.config import Bucket, Config, override
from tdt_jax.runtime import backend, sharding
from tdt_jax.training import memory


def run_config(**changes):
    model = dataclasses.replace(presets.MICRO, vocab_size=16)
    data = dataclasses.replace(
        Config().data, buckets=(Bucket(0.5, 2, 2), Bucket(1.0, 4, 2), Bucket(1.5, 4, 1))
    )
    config = Config(model=model, data=data)
    encoder = dataclasses.replace(config.model.encoder, **changes)
    return dataclasses.replace(config, model=dataclasses.replace(model, encoder=encoder))


def chosen(config):
    return config.model.encoder.remat, config.model.encoder.remat_policy


@pytest.fixture
def on_tpu():
    """A GPU would not keep everything."""
    with backend.assume("tpu"):
        yield


@pytest.mark.usefixtures("on_tpu")
@pytest.mark.parametrize("number", range(4))
def test_the_fastest_that_fits_is_chosen(number):
    asked = []

    def fits(config):
        asked.append(chosen(config))
        return len(asked) > number

    expected = memory.CHOICES[min(number, 2)]
    assert chosen(memory.choose_remat(run_config(), fits)) == expected
    assert asked == list(memory.CHOICES[: min(number + 1, 2)])


def test_a_gpu_does_not_keep_everything():
    with backend.assume("gpu"):
        assert chosen(memory.choose_remat(run_config(), lambda config: True)) == memory.CHOICES[1]


@pytest.mark.usefixtures("on_tpu")
def test_a_choice_that_was_made_stays_and_a_cpu_recomputes(monkeypatch):
    mesh = sharding.make_mesh(jax.devices()[:1])
    assert memory.with_remat(run_config(), mesh) == run_config()
    device = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": 1000})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    limits = []
    monkeypatch.setattr(memory, "step_fits", lambda *arguments: bool(limits.append(arguments[2])))
    for remat in (True, False):
        assert chosen(memory.with_remat(run_config(remat=remat), mesh))[0] is remat
    assert not limits
    assert chosen(memory.with_remat(run_config(), mesh)) == memory.CHOICES[-1]
    assert limits == [900, 900]


@pytest.mark.slow
def test_a_step_fits_into_what_the_compiler_says():
    mesh, config = sharding.make_mesh(jax.devices()[:1]), run_config(remat=False)
    with jax.numpy_dtype_promotion("standard"):  # which optax counts on
        assert memory.step_fits(config, mesh, 1e12)
        assert not memory.step_fits(config, mesh, 1e4)


def test_a_run_that_does_not_fit_says_what_to_reduce(monkeypatch):
    mesh = sharding.make_mesh(jax.devices()[:1])
    config = run_config(remat=True)
    memory.require_memory(config, mesh)  # a CPU does not report its memory
    device = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": 16e9})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(memory, "step_fits", lambda *arguments: True)
    memory.require_memory(config, mesh)
    asked = []
    monkeypatch.setattr(memory, "step_fits", lambda *arguments: bool(asked.append(arguments[2])))
    tuned = override(config, "training.init_from=base", "tuning.freeze=ctc.*")
    with pytest.raises(ValueError) as error:
        memory.require_memory(tuned, mesh)
    assert asked == [16e9]
    message = str(error.value)
    assert message.startswith(
        "a training step of 2 x 1 s needs more memory than the 16.0 GB of a device; reduce it by"
    )
    for advice in (
        "training.accumulate=2", "less than 1 s in data.buckets", "tuning.rank=16",
        "tuning.base_dtype=bfloat16", "model.dtype=bfloat16",
    ):  # fmt: skip
        assert advice in message
    assert "fsdp" not in message
