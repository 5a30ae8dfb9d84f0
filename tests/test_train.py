"""What train.py refuses to continue, and what it asks the device's memory."""

import pytest

import tdt_jax as tdt
import train
from tdt_jax import config
from tdt_jax.data.selection import Selection
from tdt_jax.training import tuning


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


def test_a_source_is_needed_to_tune():
    for assignment in ("tuning.rank=4", "tuning.vocabulary=replaced", "tuning.freeze=encoder.*"):
        tuned = config.override(config.Config(), assignment)
        with pytest.raises(ValueError, match=r"names none: add --set training.init_from=PATH"):
            tuning.check_source(tuned)
        tuning.check_source(config.override(tuned, "training.init_from=a.nemo"))
    tuning.check_source(config.override(config.Config(), "tuning.layer_decay=0.9"))


def test_the_base_gives_the_architecture_and_the_run_the_rest():
    given = config.override(
        config.Config(), "tuning.same_model=true", "model.dtype=bfloat16", "model.ctc=true",
        "loss.ctc_weight=0.3", "model.encoder.dropout=0.2", "model.encoder.remat=true",
    )  # fmt: skip
    base = config.override(
        config.Config().model, "encoder.width=64", "joint.width=32", "joint.dropout=0",
        "durations=none", "encoder.dropout=0", "piece_seconds=20", "vocab_size=9",
    )  # fmt: skip
    tuned = tuning.with_model_of(given, base)
    assert tuned.model == config.override(
        base, "encoder.dropout=0.2", "encoder.remat=true", "joint.dropout=0.2", "dtype=bfloat16",
        "piece_seconds=none",
    )  # fmt: skip
    assert tuned.loss.ctc_weight == 0.0
    hybrid = config.override(base, "ctc=true")
    assert tuning.with_model_of(given, hybrid).loss.ctc_weight == 0.3
    assert tuning.with_model_of(config.Config(), base) == config.Config()


def test_too_many_utterances_without_an_alignment_are_refused():
    def selection(num_kept, num_unaligned):
        reasons = {"with more labels than frames allow": [f"bad{i}" for i in range(num_unaligned)]}
        return Selection([None] * num_kept, [], None, {"without text": ["x"], **reasons})

    tuning.check_alignments(None)
    tuning.check_alignments(selection(198, 1))
    with pytest.raises(ValueError, match=r"^3 of 202 utterances, such as bad0, have more labels"):
        tuning.check_alignments(selection(198, 3))


def test_tokens_are_described():
    known = tdt.tokenizer.Characters("abc")
    assert tuning.describe_tokens(known, known, "base") == "tokens: the 3 of base"
    other = tdt.tokenizer.Characters("bcde")
    assert (
        tuning.describe_tokens(known, other, "base") == "tokens: 4, 2 of them among the 3 of base"
    )


def test_another_tokenizer_than_the_heads_names_the_ways_out(tmp_path):
    tdt.tokenizer.Characters("abcd").save(tmp_path)
    now = config.override(
        config.Config(), f"tokenizer.model={tmp_path}", "training.init_from=base.nemo"
    )
    with pytest.raises(ValueError, match=r"base.nemo has .* of 3 .*vocabulary=replaced, or ext"):
        train.check_tokenizer(now, None, tdt.tokenizer.Characters("abc"))
    replaced = config.override(now, "tuning.vocabulary=replaced")
    train.check_tokenizer(replaced, None, tdt.tokenizer.Characters("abc"))
