"""What a run that fine-tunes prepares, and what it refuses."""

import pytest

import tdt_jax as tdt
from tdt_jax import config
from tdt_jax.data.selection import Selection
from tdt_jax.training import tuning


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
