"""The training benchmark: its parts add up, and it says what it cannot do."""

import dataclasses
import re

import jax
import pytest
from run_config import get_config

from tdt_jax.benchmarks import train_step
from tdt_jax.benchmarks.cases import Shape
from tdt_jax.cli import main
from tdt_jax.profiling import hlo
from tdt_jax.profiling.step_parts import part_of


@pytest.mark.slow
def test_a_profile_has_every_part(monkeypatch, capsys):
    config = dataclasses.replace(get_config(), loss=dataclasses.replace(get_config().loss, omega=0))
    monkeypatch.setattr(train_step, "case", lambda name: config)
    monkeypatch.setattr(train_step, "matmul_rate", lambda model, dtype: 1e9)
    profiled = []
    origins = hlo.origins
    monkeypatch.setattr(hlo, "origins", lambda text: profiled.append(origins(text)) or profiled[-1])
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        arguments = ["benchmark", "train", "--case", "tiny_run", "--batch", "1.28,5,2"]
        assert main.main([*arguments, "--repeats", "1"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"[\d.]+ s a step \(compiled in \d+ s\): [\d.]+ s of audio a second", output)
    shares = dict(re.findall(r"([a-z, -]+) (\d+)(?:,|$)", output.partition("time, %: ")[2]))
    shares = {name.strip(" ,"): int(share) for name, share in shares.items()}
    assert {"attention", "feed-forward", "subsampling", "predictor", "optimiser"} <= set(shares)
    assert 90 <= sum(shares.values()) <= 110  # each is rounded
    (operations,) = profiled
    products = [each for each in operations.values() if each.opcode in ("dot", "convolution")]
    traced = [part_of(each) for each in products if each.scope]  # XLA's own have none
    assert len(traced) > 0.9 * len(products) and "elsewhere" not in traced


def test_noise_fills_the_shape():
    batch = train_step.noise(get_config(), Shape(1.28, 5, 2), 6)
    assert batch.samples.shape == (6, 20480) and batch.labels.shape == (6, 5)
    assert set(batch.num_samples) == {20480} and set(batch.num_labels) == {5}
    assert batch.labels.max() < get_config().model.vocab_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--case", "huge"], "no case 'huge'; there are micro"),
     (["--batch", "1,2"], "a batch reads SECONDS,TOKENS,ROWS")],
)  # fmt: skip
def test_what_is_not_there_is_told(arguments, message, capsys):
    assert main.main(["benchmark", "train", *arguments]) != 0
    assert message in capsys.readouterr().err
