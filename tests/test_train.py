"""What train.py prepares before the first step."""

import types

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

import tdt_jax as tdt
import train
from tdt_jax import config
from tdt_jax.checkpoints.adapter import write_base
from tdt_jax.checkpoints.store import Checkpoints
from tdt_jax.models.adapters import fingerprint
from tdt_jax.runtime import sharding
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.tokenizer import Characters
from tdt_jax.training.step import init_state, trained_leaves


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


# The state of a run that trains adapters


@pytest.fixture
def tuned(tmp_path):
    """The configuration of a run, and its base."""
    model = models.config(None, ctc=True, predictor=None, joint=None, vocab_size=3)
    base = tdt.Recogniser(models.numpy_model(models.transducer(model, 1)), Characters("abc"))
    run = config.override(
        config.Config(model=model), "tuning.rank=2", "tuning.base_dtype=bfloat16",
        "optimizer.ema_decay=0.9", "training.init_from=base", f"training.folder={tmp_path}",
    )  # fmt: skip
    return run, base


def prepare_state(run, initial, tmp_path, saved=None):
    mesh = sharding.make_mesh(jax.devices()[:1])
    task = types.SimpleNamespace(tokenizer=Characters("abc"))
    with Checkpoints(tmp_path / "checkpoints", writing=True) as checkpoints:
        if saved is not None:
            checkpoints.save(3, **train.to_items(saved, run))
            checkpoints.wait()
        with jax.numpy_dtype_promotion("standard"):
            return train.prepare_state(run, task, initial, checkpoints, jax.random.key(0), mesh)


def assert_is_base(model, base):
    for name, leaf in named_leaves(base.model).items():
        np.testing.assert_array_equal(named_leaves(model)[name], leaf.astype(jnp.bfloat16))


def random_state(run):
    return models.fill(jax.eval_shape(lambda: init_state(run, jax.random.key(0))), 2)


def test_a_resumed_run_has_its_adapters_on_its_base(tuned, tmp_path, capsys):
    run, base = tuned
    saved = random_state(run)
    state, restored = prepare_state(run, base, tmp_path, saved)
    assert restored and "going on from step 3" in capsys.readouterr().out
    assert_is_base(state.model, base)
    for name in ("step", "adapters", "average", "optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(saved, name))


def test_a_new_run_starts_from_its_base(tuned, tmp_path, monkeypatch):
    run, base = tuned
    new = random_state(run)
    monkeypatch.setattr(train, "init_state", lambda config, key: new)
    state, restored = prepare_state(run, base, tmp_path)
    assert not restored
    assert_is_base(state.model, base)
    jax.tree.map(np.testing.assert_array_equal, state.adapters, new.adapters)
    jax.tree.map(np.testing.assert_array_equal, state.average, trained_leaves(state, run))


def test_another_base_than_that_of_the_beginning_is_refused(tuned, tmp_path, monkeypatch):
    run, base = tuned
    monkeypatch.setattr(train, "load", lambda source, **options: base)
    mesh = sharding.make_mesh(jax.devices()[:1])
    assert train.load_initial(run, mesh) is base
    write_base(tmp_path, "first", fingerprint(base.model))
    assert train.load_initial(run, mesh) is base
    write_base(tmp_path, "first", "0123")
    with pytest.raises(
        ValueError, match=r"base is not the base that .* that was first, with .*0123"
    ):
        train.load_initial(run, mesh)


def test_another_vocabulary_than_the_runs_is_refused(tuned, tmp_path):
    run, base = tuned
    other = tdt.Recogniser(base.model, Characters("abd"))
    with pytest.raises(ValueError, match=r"init_from=base has other tokens than"):
        prepare_state(run, other, tmp_path, random_state(run))
