"""What a run that is started again may not change."""

import pytest

import tdt_jax as tdt
from tdt_jax import config
from tdt_jax.training.resuming import check_model, check_tokenizer, check_tuning


def test_another_model_or_tokenizer_is_refused_in_a_line(tmp_path):
    before = config.Config(tokenizer=config.TokenizerConfig(vocab_size=40))
    tokenizer = tdt.tokenizer.Characters("abc")
    for assignment, message in (
        ("tokenizer.vocab_size=64", "tokenizer.vocab_size is 40 there and 64 here"),
        ("tokenizer.kind=characters", "tokenizer.kind is sentencepiece there and characters here"),
    ):
        now = config.override(before, assignment)
        with pytest.raises(ValueError) as error:
            check_tokenizer(now, before, tokenizer)
        assert str(error.value) == (
            "runs/default holds a run with another tokenizer; give this one its own "
            f"training.folder: {message}"
        )
    check_tokenizer(before, before, tokenizer)
    tdt.tokenizer.Characters("abcd").save(tmp_path / "other")
    tokenizer.save(tmp_path / "same")
    for then in (before, None):
        check_tokenizer(
            config.override(before, f"tokenizer.model={tmp_path / 'same'}"), then, tokenizer
        )
        with pytest.raises(ValueError, match=r"has another tokenizer, of 3 tokens, than .*, of 4"):
            check_tokenizer(
                config.override(before, f"tokenizer.model={tmp_path / 'other'}"), then, tokenizer
            )
    other = config.override(
        config.override(before, "model.durations=0,1"), "model.encoder.width=16"
    )
    with pytest.raises(ValueError) as error:
        check_model(before, other)
    assert str(error.value) == (
        "runs/default holds a run of another model; give this one its own training.folder: "
        "model.durations is (0, 1, 2, 3, 4) there and (0, 1) here, model.encoder.width is 512 "
        "there and 16 here"
    )
    check_model(before, config.override(before, "model.encoder.unroll=2"))


def test_another_tokenizer_than_the_heads_names_the_ways_out(tmp_path):
    tdt.tokenizer.Characters("abcd").save(tmp_path)
    now = config.override(
        config.Config(), f"tokenizer.model={tmp_path}", "training.init_from=base.nemo"
    )
    with pytest.raises(ValueError, match=r"base.nemo has .* of 3 .*vocabulary=replaced, or ext"):
        check_tokenizer(now, None, tdt.tokenizer.Characters("abc"))
    replaced = config.override(now, "tuning.vocabulary=replaced")
    check_tokenizer(replaced, None, tdt.tokenizer.Characters("abc"))


@pytest.mark.parametrize(
    "change",
    ["rank=8", "rank=0", "scale=4", "train=joint.*", "freeze=ctc.*", "vocabulary=extended"],
)
def test_a_run_that_trains_something_else_is_refused(change):
    before = config.override(config.Config(), "tuning.rank=16")
    with pytest.raises(ValueError, match=r"other parameters; .* tuning\.\w+ is .* there and"):
        check_tuning(before, config.override(before, f"tuning.{change}"))
    with pytest.raises(ValueError, match=r"tuning.rank is 0 there and 16 here"):
        check_tuning(config.Config(), before)


def test_how_a_run_is_tuned_may_change():
    before = config.override(config.Config(), "tuning.rank=16")
    others = ["frozen_steps=5", "layer_decay=0.9", "base_dtype=bfloat16", "same_model=true"]
    now = config.override(before, *(f"tuning.{other}" for other in others))
    check_tuning(before, config.override(now, 'tuning.rates=[["joint.*",2]]'))
