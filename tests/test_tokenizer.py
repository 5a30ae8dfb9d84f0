"""Tokenizers: text -> labels -> text, words and their positions, unknown text, files."""

import numpy as np
import pytest

from tdt_jax.tokenizer import (
    Characters,
    SentencePiece,
    UnknownTextError,
    load,
    train_characters,
    train_sentencepiece,
)

TEXTS = ["the cat sat on the mat", "a cat and a hat", "näher, mein größter Hut: 42 %"] * 4


@pytest.fixture(params=["characters", "bpe", "unigram"])
def tokenizer(request):
    if request.param == "characters":
        return train_characters(TEXTS)
    return train_sentencepiece(TEXTS, 60, request.param)


def test_texts_survive(tokenizer):
    for text in TEXTS[:3]:
        labels = tokenizer.encode(text)
        assert all(0 <= label < tokenizer.vocab_size for label in labels)
        assert tokenizer.decode(labels) == text
        assert tokenizer.decode(np.array(labels, np.int32)) == text
    assert len(tokenizer.pieces) == tokenizer.vocab_size == len(set(tokenizer.pieces))


def test_whitespace_is_normalised_and_nothing_else(tokenizer):
    assert tokenizer.decode(tokenizer.encode("  the\tcat \n sat ")) == "the cat sat"
    assert tokenizer.encode("") == tokenizer.encode("  ") == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.words([]) == []


def test_both_forms_of_unicode_are_one_text(tokenizer):
    """Precomposed (NFC) or not (NFD), in training as in use."""
    composed, apart = "näher, mein größter Hut", "na\u0308her, mein gro\u0308ßter Hut"
    assert composed != apart and tokenizer.encode(apart) == tokenizer.encode(composed)
    assert tokenizer.decode(tokenizer.encode(apart)) == composed
    assert train_characters([apart]).pieces == train_characters([composed]).pieces
    assert (
        train_sentencepiece([apart] * 4, 30).pieces
        == train_sentencepiece([composed] * 4, 30).pieces
    )
    written_by_others = Characters("abu\u0308")
    assert written_by_others.decode([0, 2, 3]) == "aü"


def test_words_spell_the_text(tokenizer):
    for text in TEXTS[:3]:
        labels = tokenizer.encode(text)
        words = tokenizer.words(labels)
        assert [word for word, _ in words] == text.split()
        for word, positions in words:
            assert tokenizer.decode([labels[i] for i in positions]) == word


def test_words_of_any_labels_join_to_their_text(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        labels = rng.integers(0, tokenizer.vocab_size, size=rng.integers(1, 12))
        words = tokenizer.words(labels)
        assert " ".join(word for word, _ in words) == tokenizer.decode(labels)
        positions = [i for _, group in words for i in group]
        assert positions == sorted(set(positions))


def test_unknown_characters_are_named(tokenizer):
    with pytest.raises(UnknownTextError, match="'Q' 'ж'"):
        tokenizer.encode("the Qж cat")


@pytest.mark.parametrize("label", [-1, 10**6])
def test_labels_outside_the_vocabulary(tokenizer, label):
    for function in (tokenizer.decode, tokenizer.words):
        with pytest.raises(ValueError, match=rf"0\.\.{tokenizer.vocab_size - 1}, got {label}"):
            function([0, label])


def test_save_and_load(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path / "new")
    for copy in (load(tmp_path / "new"), load(path)):
        assert copy == tokenizer and copy.pieces == tokenizer.pieces


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_training_is_deterministic(model_type):
    first = train_sentencepiece(TEXTS, 60, model_type)
    second = train_sentencepiece(iter(TEXTS), 60, model_type)
    assert first.model == second.model


def test_sentencepiece_labels():
    tokenizer = train_sentencepiece(TEXTS, 60)
    assert tokenizer.vocab_size == 60
    assert tokenizer.pieces[0] == "<unk>" and tokenizer.pieces.count("▁the") == 1
    assert not {"<s>", "</s>", "<pad>"} & set(tokenizer.pieces)
    assert tokenizer.decode([0]) == "⁇"


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("texts", [["a"], ["ab ab"], ["x y z"], ["one two", "three"]])
def test_tiny_corpora_train(model_type, texts):
    tokenizer = train_sentencepiece(texts, 1024, model_type)
    assert tokenizer.vocab_size < 1024
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


def test_every_character_of_long_and_rare_text_is_known():
    texts = ["word " * 3000 + "ß", *["word"] * 50]  # longer than SentencePiece's default limit
    assert train_sentencepiece(texts, 40).encode("ß")


def test_training_errors():
    with pytest.raises(ValueError, match=r"at least 4 .* got 3"):
        train_sentencepiece(["ab"], 3)
    assert train_sentencepiece(["ab"], 4).decode([1, 2]) != ""
    for train in (train_characters, lambda texts: train_sentencepiece(texts, 40)):
        with pytest.raises(ValueError, match="no text"):
            train(["", "  "])
    with pytest.raises(ValueError, match="model_type"):
        train_sentencepiece(TEXTS, 60, "word")
    with pytest.raises(ValueError, match="distinct"):
        Characters("aa")
    with pytest.raises(ValueError, match="distinct"):
        Characters("")


def test_files_that_are_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="found 0"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no tokenizer at"):
        load(tmp_path / "tokenizer.model")
    for data in (b"", b"\x00" * 100, b"nonsense"):
        with pytest.raises(ValueError, match="SentencePiece"):
            SentencePiece(data)
    for text in ("{", "[]", "{}", '{"alphabet": 3}'):
        (tmp_path / "characters.json").write_text(text)
        with pytest.raises(ValueError, match=r"characters\.json"):
            load(tmp_path)
