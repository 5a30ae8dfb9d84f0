"""Other tokens: which rows stay, what new ones start from, and where blank is."""

import dataclasses

import jax
import models
import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.tokenizer import Characters
from tdt_jax.vocabulary import spell, with_vocabulary

OF_TOKENS = {
    "predictor.embedding", "joint.token_head.kernel", "joint.token_head.bias", "ctc.kernel",
    "ctc.bias",
}  # fmt: skip


def make_recogniser(alphabet: str, **changes) -> tdt.Recogniser:
    config = models.config(vocab_size=len(alphabet), **{"ctc": True, **changes})
    return tdt.Recogniser(models.numpy_model(models.transducer(config)), Characters(alphabet))


def leaves_of(recogniser) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in named_leaves(recogniser.model).items()}


def test_an_extended_vocabulary_keeps_the_old_rows_and_blank():
    before = make_recogniser(" abcd")
    after = with_vocabulary(before, Characters(" abcdxy"))
    assert after.config == dataclasses.replace(before.config, vocab_size=7)
    assert after.config.blank == 7
    old, new = leaves_of(before), leaves_of(after)
    for name, leaf in old.items():
        if name not in OF_TOKENS:
            np.testing.assert_array_equal(new[name], leaf, err_msg=name)
    np.testing.assert_array_equal(new["predictor.embedding"][:5], old["predictor.embedding"])
    assert len(new["predictor.embedding"]) == 7  # blank's is zero, and has no row
    for head in ("joint.token_head", "ctc"):
        for part in ("kernel", "bias"):
            x, y = old[f"{head}.{part}"], new[f"{head}.{part}"]
            np.testing.assert_array_equal(y[..., :5], x[..., :5])
            np.testing.assert_array_equal(y[..., -1], x[..., -1])  # blank
            assert y.shape[-1] == 8 and np.all(np.isfinite(y))


def test_blank_keeps_a_learned_embedding():
    predictor = tdt.PredictorConfig(width=8, num_layers=2, blank_embedding=True)
    before = make_recogniser(" ab", predictor=predictor)
    after = with_vocabulary(before, Characters("xb a"))
    old, new = (leaves_of(each)["predictor.embedding"] for each in (before, after))
    assert len(new) == 5
    np.testing.assert_array_equal(new[4], old[3])
    np.testing.assert_array_equal(new[[1, 2, 3]], old[[2, 0, 1]])


def test_a_replaced_vocabulary_keeps_shared_pieces_and_spells_the_others():
    known, other = models.sentencepiece(), tokenizers.train_sentencepiece(["two nines"] * 5, 16)
    before = models.make_recogniser(tokenizer=known)
    after = with_vocabulary(before, other)
    old, new = leaves_of(before), leaves_of(after)
    shared = [piece for piece in other.pieces if piece in known.pieces]
    assert 5 < len(shared) < len(other.pieces)
    for i, piece in enumerate(other.pieces):
        if piece in known.pieces:
            labels = [known.pieces.index(piece)]
        else:
            labels = known.encode(piece.replace("▁", " "))
            labels = labels if piece.startswith("▁") else labels[1:]
            spelled = "".join(known.pieces[label] for label in labels)
            if spelled != piece:  # in another way than with the fewest tokens
                continue
        for name, axis in (
            ("predictor.embedding", 0),
            ("joint.token_head.kernel", 1),
            ("ctc.bias", 0),
        ):
            row = np.take(new[name], i, axis)
            expected = np.take(old[name], labels, axis).astype(np.float64).mean(axis)
            np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-7, err_msg=piece)
    np.testing.assert_array_equal(new["ctc.kernel"][:, -1], old["ctc.kernel"][:, -1])


def test_what_no_token_spells_starts_small_with_a_rare_tokens_bias():
    before = make_recogniser(" abcdefg")
    new, old = leaves_of(with_vocabulary(before, Characters("aж"))), leaves_of(before)
    row = new["predictor.embedding"][1]
    assert 0 < np.abs(row).max() < 0.5 * old["predictor.embedding"].std()
    rare = np.sort(old["ctc.bias"][:8])[:2].mean()
    np.testing.assert_allclose(new["ctc.bias"][1], rare, rtol=1e-6)


def test_a_ctc_model_and_a_half_precision_model_take_other_tokens():
    ctc = make_recogniser("ab", durations=None, predictor=None, joint=None)
    assert with_vocabulary(ctc, Characters("abc")).model.ctc.kernel.shape[-1] == 4
    model = jax.tree.map(lambda x: x.astype("bfloat16"), make_recogniser("ab").model)
    half = with_vocabulary(tdt.Recogniser(model, Characters("ab")), Characters("bac"))
    assert {str(x.dtype) for x in leaves_of(half).values()} == {"bfloat16"}


def test_the_same_pieces_keep_the_model():
    before = make_recogniser("ab")
    assert with_vocabulary(before, Characters("ab")).model is before.model


@pytest.mark.parametrize(
    ("text", "labels"),
    [(" eleven", [4, 2, 1]), ("even", [3, 1]), ("", []), ("xevenx", [3, 1]), ("xy", [])],
)
def test_spelling_takes_the_fewest_tokens(text, labels):
    assert spell(text, {"e": 0, "en": 1, "lev": 2, "ev": 3, " e": 4, "l": 5}) == labels


def test_a_tokenizer_is_extended():
    known = models.sentencepiece()
    other = tokenizers.train_sentencepiece(["eleven Größe thirteen zwölf"] * 3, 44)
    both = tokenizers.extend(known, other)
    assert both.pieces[: known.vocab_size] == known.pieces
    assert set(both.pieces) == {*known.pieces, *other.pieces}
    assert len(set(both.pieces)) == both.vocab_size < known.vocab_size + other.vocab_size
    for text in [*models.TEXTS[:2], "eleven Größe"]:
        assert both.decode(both.encode(text)) == text
    assert len(both.encode("Größe zwölf")) < 6
    with pytest.raises(tokenizers.UnknownTextError):
        known.encode("Größe")
    assert tokenizers.extend(Characters("ab"), Characters("bc")) == Characters("abc")
    with pytest.raises(ValueError, match="Characters cannot be extended by one of SentencePiece"):
        tokenizers.extend(Characters("ab"), other)


def test_an_extended_unigram_keeps_its_scores():
    known, other = (
        tokenizers.train_sentencepiece([text] * 5, 30, model_type="unigram")
        for text in ("one two three four", "eleven twelve")
    )
    both = tokenizers.extend(known, other)
    assert both.pieces[: known.vocab_size] == known.pieces
    assert both.encode("one two") == known.encode("one two")
