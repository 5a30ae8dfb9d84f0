"""Recognisers, and variants of them with the same parameters."""

import dataclasses
import math

import models
import pytest
from parakeet_files import FOLDERS, assert_same_leaves

import tdt_jax as tdt
from tdt_jax.checkpoints.parakeet.hugging_face_config import model_config
from tdt_jax.recogniser import with_lookahead, without_ctc
from tdt_jax.tokenizer import Characters


def make_recogniser(**changes):
    return tdt.Recogniser(
        models.transducer(models.config(vocab_size=3, **changes)), Characters("ab ")
    )


def test_the_tokenizer_has_a_piece_for_each_label():
    with pytest.raises(ValueError, match="the tokenizer has 2 pieces, the model 3"):
        dataclasses.replace(make_recogniser(), tokenizer=Characters("ab"))


def test_decoders_are_those_of_the_model():
    hybrid = make_recogniser(ctc=True)
    for decoder in ("", "transducer", "ctc"):
        hybrid.check_decoder(decoder)
    with pytest.raises(ValueError, match=r"no decoder 'beam'.* transducer and ctc"):
        hybrid.check_decoder("beam")


def test_a_hybrid_without_its_ctc_head():
    """Then transformers has such a model too."""
    encoder = models.encoder_config(convolution_norm="affine")
    hybrid = make_recogniser(ctc=True, encoder=encoder, joint=tdt.JointConfig(width=8))
    with pytest.raises(ValueError, match="CTC head"):
        model_config(hybrid.config)
    plain = without_ctc(hybrid)
    assert model_config(plain.config)["architectures"] == ["ParakeetForTDT"]
    assert plain.model.ctc is None and plain.config.decoders == ("transducer",)
    assert_same_leaves(plain.model.encoder, hybrid.model.encoder)
    assert_same_leaves(plain.model.joint, hybrid.model.joint)
    with pytest.raises(ValueError, match="nothing is left"):
        without_ctc(tdt.load(FOLDERS["ctc"]))


def test_an_attention_context_changes_no_parameter():
    recogniser = make_recogniser()
    local = tdt.with_attention_context(recogniser, (8, 4))
    assert local.config.encoder.attention_context == (8, 4)
    assert_same_leaves(local.model, recogniser.model)
    assert tdt.with_attention_context(local, None).config == recogniser.config


CAUSAL = dict(
    chunked_contexts=((6, 2), (6, 1), (6, 0)), convolution_context=(4, 0), causal_subsampling=True
)


def test_a_lookahead_changes_the_default_context_alone():
    recogniser = make_recogniser(encoder=models.encoder_config(**CAUSAL))
    assert recogniser.config.lookaheads == pytest.approx((0.16, 0.08, 0.0))
    for seconds, contexts in (
        (0.08, ((6, 1), (6, 2), (6, 0))),
        (0.0, ((6, 0), (6, 2), (6, 1))),
        (0.16, ((6, 2), (6, 1), (6, 0))),
        (0.1, ((6, 1), (6, 2), (6, 0))),  # the nearest, within half a frame
    ):
        chosen = with_lookahead(recogniser, seconds)
        assert chosen.config.encoder.chunked_contexts == contexts
        assert chosen.config.lookaheads[0] == pytest.approx(contexts[0][1] * 0.08)
        assert_same_leaves(chosen.model, recogniser.model)
        state = tdt.start_encoding(chosen.model, 1)
        assert state.chunk == contexts[0][1] + 1
    back = with_lookahead(with_lookahead(recogniser, 0.08), 0.16)
    assert back.config.lookaheads == pytest.approx((0.16, 0.08, 0.0))


def test_lookaheads_that_the_model_has_not_are_refused():
    recogniser = make_recogniser(encoder=models.encoder_config(**CAUSAL))
    for seconds, named in (
        (0.4, "0.4"),
        (-0.03, "-0.03"),
        (math.nan, "nan"),
        (0.21, "0.21"),
        (1e9, "1e"),
    ):
        with pytest.raises(ValueError, match=rf"no look-ahead of {named}.* it has 0.16, 0.08, 0 s"):
            with_lookahead(recogniser, seconds)
    with pytest.raises(ValueError, match=r"chunked_contexts.* encodes audio as a whole"):
        with_lookahead(make_recogniser(), 0.08)
