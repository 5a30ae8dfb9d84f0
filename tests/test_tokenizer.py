"""Tokenizers: text -> labels -> text, words and their positions, unknown text, files."""

import mixed
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from tdt_jax.orthography import tidy
from tdt_jax.tokenizer import (
    Characters,
    SentencePiece,
    UnknownTextError,
    load,
    train_characters,
    train_sentencepiece,
    without_tags,
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
        assert [word.text for word in words] == text.split()
        for word in words:
            assert tokenizer.decode([labels[i] for i in word.positions]) == word.text
            assert word.space_before


def test_words_of_any_labels_join_to_their_text(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        labels = rng.integers(0, tokenizer.vocab_size, size=rng.integers(1, 12))
        words = tokenizer.words(labels)
        text = "".join(" " * word.space_before + word.text for word in words)
        assert text.lstrip() == tokenizer.decode(labels)
        positions = [i for word in words for i in word.positions]
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
    assert tokenizer.decode([0]) == "" and tokenizer.words([0]) == []
    assert tokenizer.decode([0], keep_tags=True) == "<unk>"


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


# Words, marks and tags of a model of many scripts

QUICK = settings(deadline=None, derandomize=True)


def spelled(*pieces, keep_tags=False):
    words = mixed.tokenizer().words(mixed.spell(*pieces), keep_tags=keep_tags)
    return "|".join(" " * word.space_before + word.text for word in words).lstrip()


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ("▁vra i ▁ ?", "vrai?"),
        ("▁vra i ▁? ▁ ▁. ▁the", "vrai?.| the"),
        ("▁東京 で ▁Para keet ▁を 使 う 。 です ？", "東京|で| Parakeet| を|使|う。|です？"),
        ("▁東京 で Para keet を 2 0 % 使", "東京|で|Parakeet|を|20%|使"),
        ("パ ー ・ きょ ッ コ", "パー・|きょッ|コ"),
        ("ฉัน เ ป็น ▁ ไทย ▁คน", "ฉัน|เป็น| ไทย| คน"),
        ("한국 é ▁한국", "한국é| 한국"),
        ("▁ 1 2 . 3 ▁ $ 2 , ▁- ▁the", "12.3| $2,| -| the"),
        ("▁the ▁¿ Qué ▁ ? ▁« ▁it ▁ »", "the| ¿Qué?| «it»"),
        ("▁the ▁' i ▁it ' s", "the| 'i| it's"),
        ("▁the ▁of▁the s", "the| of thes"),
        ("京 都 ▁the", "京|都| the"),  # pieces that are spelled in bytes
        ("▁ ▁", ""),
    ],
)
def test_words_of_pieces(pieces, words):
    assert spelled(*pieces.split(" ")) == words
    labels = mixed.spell(*pieces.split(" "))
    assert mixed.tokenizer().decode(labels) == words.replace("|", "")
    positions = [i for word in mixed.tokenizer().words(labels) for i in word.positions]
    assert positions == (list(range(len(labels))) if words else [])


def test_bytes_of_one_character_are_not_parted():
    tokenizer, (first, second, third) = mixed.tokenizer(), mixed.spell("都")
    assert [w.positions for w in tokenizer.words([first, second, third] * 2)] == [
        [0, 1, 2],
        [3, 4, 5],
    ]
    assert tokenizer.decode([first, second]) == "\ufffd\ufffd"
    assert tokenizer.decode([second, *mixed.spell("é", "x"), first]) == "\ufffdéx\ufffd"
    assert tokenizer.decode(mixed.spell("\ufffd")) == "\ufffd"


@pytest.mark.parametrize("special", [mixed.USER_DEFINED, mixed.CONTROL, mixed.NORMAL])
def test_tags_are_left_out_whatever_their_kind(special):
    """.nemo files have them as user-defined pieces, Hugging Face's some as control pieces."""
    tokenizer, spell = mixed.tokenizer(special), mixed.spell
    labels = spell("<|ja|>", "▁vra", "<|endoftext|>", "i", "<unk>", "▁?", "<|en|>", "<|nospeech|>")
    assert tokenizer.decode(labels) == "vrai?"
    (word,) = tokenizer.words(labels)
    assert word.positions == [1, 3, 5]
    shown = "<|ja|> vra <|endoftext|> i <unk>? <|en|> <|nospeech|>"
    assert tokenizer.decode(labels, keep_tags=True) == shown
    tags = {"<unk>", "<|nospeech|>", "<|endoftext|>", "<|en|>", "<|ja|>", "<|pnc|>", "<en-US>"}
    if special != mixed.NORMAL:  # a piece that is learned may look like this
        tags.add("<pad>")
    assert {tokenizer.pieces[i] for i in tokenizer.tags} == tags
    assert tokenizer.languages(labels) == ["ja", "en"]


@pytest.mark.parametrize("special", [mixed.USER_DEFINED, mixed.CONTROL, mixed.NORMAL])
def test_ends_of_utterances_and_backchannels_are_tags(special):
    """`<EOU>` and `<EOB>` follow the pieces of parakeet_realtime_eou_120m."""
    model = sentencepiece_model_pb2.ModelProto.FromString(mixed.tokenizer().model)
    before = len(model.pieces)
    for piece in ("<EOU>", "<EOB>"):
        model.pieces.add(piece=piece, score=0.0, type=special)
    tokenizer = SentencePiece(model.SerializeToString())
    assert tokenizer.end_of_utterance == {before}
    assert tokenizer.tags == mixed.tokenizer().tags | {before, before + 1}
    labels = [*mixed.spell("▁vra", "i"), before, *mixed.spell("▁the"), before + 1]
    assert tokenizer.decode(labels) == "vrai the"
    assert tokenizer.decode(labels, keep_tags=True) == "vrai <EOU> the <EOB>"
    assert mixed.tokenizer().end_of_utterance == frozenset()


def test_languages_by_their_tags():
    texts = (
        "en fr yue haw pt-BR zh-Hant es-419 itn pnc pad eos 0 spk0 unklang emo:sad en-us".split()
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(mixed.tokenizer().model)
    for text in texts:
        if text != "en" and text != "pnc":
            model.pieces.add(piece=f"<|{text}|>", score=-999.0, type=mixed.USER_DEFINED)
    tokenizer = SentencePiece(model.SerializeToString())
    found = tokenizer.languages(range(tokenizer.vocab_size))
    assert found == ["en", "ja", "en-US", "fr", "yue", "haw", "pt-BR", "zh-Hant", "es-419"]


def test_tags_in_texts_are_labels_as_ever():
    tokenizer = mixed.tokenizer()
    labels = tokenizer.encode("<|en|> the")
    assert "<|en|>" in [tokenizer.pieces[i] for i in labels]
    assert tokenizer.decode(labels) == "the"
    assert tokenizer.decode(labels, keep_tags=True) == "<|en|> the"
    assert without_tags("<|en|>the <|ja|> cat<b> <pad>").split() == ["the", "cat<b>", "<pad>"]


def test_characters_without_spaces():
    tokenizer = train_characters(["今日は、いい天気。 ok?"])
    labels = tokenizer.encode("今日は、いい天気。 ok ok?")
    words = ["今", "日", "は、", "い", "い", "天", "気。", "ok", "ok?"]
    assert [word.text for word in tokenizer.words(labels)] == words
    assert [word.space_before for word in tokenizer.words(labels)[1:]] == [False] * 6 + [True] * 2
    assert tokenizer.decode(labels) == "今日は、いい天気。 ok ok?"
    assert tokenizer.tags == frozenset() and tokenizer.languages(labels) == []
    assert tokenizer.end_of_utterance == frozenset()


@QUICK
@given(mixed.any_labels(), st.booleans())
def test_every_label_is_in_one_word_of_the_text(labels, keep_tags):
    tokenizer = mixed.tokenizer()
    words = tokenizer.words(labels, keep_tags=keep_tags)
    text = "".join(" " * word.space_before + word.text for word in words).lstrip()
    assert text == tokenizer.decode(labels, keep_tags=keep_tags)
    shown = [i for i, label in enumerate(labels) if keep_tags or label not in tokenizer.tags]
    spelled = [i for word in words for i in word.positions]
    assert spelled == (shown if words else []) and all(word.text for word in words)


@QUICK
@given(mixed.any_labels())
def test_the_text_is_sentencepieces_but_for_tags_and_spaces(labels):
    tokenizer = mixed.tokenizer()
    labels = [label for label in labels if label not in tokenizer.tags]
    theirs = tokenizer._processor.decode(labels)
    assert tokenizer.decode(labels) == tidy(theirs)
