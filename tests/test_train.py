"""What train.py prepares before the first step."""

import pytest

import train
from tdt_jax import config


def test_a_run_keeps_what_the_memory_allows(tmp_path, monkeypatch):
    given = config.override(config.Config(), f"training.folder={tmp_path}")
    chosen = config.override(given, "model.encoder.remat=false")
    monkeypatch.setattr(train, "prepare_data", lambda config, mesh: (config, None, None))
    monkeypatch.setattr(train, "with_remat", lambda config, mesh: {given: chosen}[config])

    class Trains(Exception):
        pass

    def prepare_state(config, *others):
        raise Trains(config)

    monkeypatch.setattr(train, "prepare_state", prepare_state)
    with pytest.raises(Trains) as trains:
        train.train(given, None)
    assert trains.value.args == (chosen,)
