"""The training benchmark: its parts add up."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from run_config import get_config

from tdt_jax.benchmarks import train_step
from tdt_jax.benchmarks.cases import Shape
from tdt_jax.profiling import hlo
from tdt_jax.profiling.step_parts import part_of


@pytest.mark.slow
def test_a_profile_has_every_part(monkeypatch):
    config = dataclasses.replace(get_config(), loss=dataclasses.replace(get_config().loss, omega=0))
    monkeypatch.setattr(train_step, "in_subprocess", lambda *_: 1e9)
    profiled = []
    origins = hlo.origins
    monkeypatch.setattr(hlo, "origins", lambda text: profiled.append(origins(text)) or profiled[-1])
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        output = str(train_step.train_report("tiny", config, Shape(1.28, 5, 2), repeats=1))
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
    assert np.all(batch.num_samples == 20480) and np.all(batch.num_labels == 5)
    assert batch.labels.max() < get_config().model.vocab_size


def test_the_table_shows_speed_and_parts():
    cost = train_step.StepCost(3.0, 2.0, 60.0, 4e9, None, {"attention": 3.0, "optimiser": 1.0})
    report = train_step.make_report("x", get_config(), Shape(1.28, 5, 2), cost, 1e9)
    table = str(report)
    assert table.startswith("x: 0.0 M parameters, float32, 2 x 1.28 s with 5 tokens on each of 8 ")
    assert "2.000 s a step (compiled in 3 s): 30.0 s of audio a second\n" in table
    assert "4 GFLOP of the model, 25 % of the rate of products alone (1 GFLOP/s)" in table
    assert table.endswith("of the busy time, %: attention 75, optimiser 25")
    assert report.rows[0]["seconds"] == 2.0
