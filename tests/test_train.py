"""What train.py refuses to continue, and what it asks the device's memory."""

import pytest

import tdt_jax as tdt
import train
from tdt_jax import config


def test_another_model_or_tokenizer_is_refused_in_a_line(tmp_path):
    before = config.Config(tokenizer=config.TokenizerConfig(vocab_size=40))
    tokenizer = tdt.tokenizer.Characters("abc")
    for assignment, message in (
        ("tokenizer.vocab_size=64", "tokenizer.vocab_size is 40 there and 64 here"),
        ("tokenizer.kind=characters", "tokenizer.kind is sentencepiece there and characters here"),
    ):
        now = config.override(before, assignment)
        with pytest.raises(ValueError) as error:
            train.check_tokenizer(now, before, tokenizer)
        assert str(error.value) == (
            "runs/default holds a run with another tokenizer; give this one its own "
            f"training.folder: {message}"
        )
    train.check_tokenizer(before, before, tokenizer)
    tdt.tokenizer.Characters("abcd").save(tmp_path / "other")
    tokenizer.save(tmp_path / "same")
    for then in (before, None):
        train.check_tokenizer(
            config.override(before, f"tokenizer.model={tmp_path / 'same'}"), then, tokenizer
        )
        with pytest.raises(ValueError, match=r"has another tokenizer, of 3 tokens, than .*, of 4"):
            train.check_tokenizer(
                config.override(before, f"tokenizer.model={tmp_path / 'other'}"), then, tokenizer
            )
    other = config.override(
        config.override(before, "model.durations=0,1"), "model.encoder.width=16"
    )
    with pytest.raises(ValueError) as error:
        train.check_model(before, other)
    assert str(error.value) == (
        "runs/default holds a run of another model; give this one its own training.folder: "
        "model.durations is (0, 1, 2, 3, 4) there and (0, 1) here, model.encoder.width is 512 "
        "there and 16 here"
    )
    train.check_model(before, config.override(before, "model.encoder.unroll=2"))


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
