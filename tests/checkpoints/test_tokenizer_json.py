"""SentencePiece models as tokenizer.json and back; texts become the same labels by all three."""

import importlib.resources
import json

import pytest

from tdt_jax import tokenizer as tokenizers
from tdt_jax.checkpoints.formats.tokenizer_json import from_tokenizer_json, to_tokenizer_json
from tdt_jax.data.manifest import read_manifest

MANIFEST = importlib.resources.files("tdt_jax.data.telephone") / "asterisk_en/manifest.jsonl"
TEXTS = [entry.text for entry in read_manifest(MANIFEST)]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def sentencepiece(request):
    return tokenizers.train_sentencepiece(TEXTS, 300, request.param)


def test_there_and_back_every_text_has_the_same_labels(sentencepiece):
    text = to_tokenizer_json(sentencepiece, ("<blank>",))
    again = from_tokenizer_json(text, sentencepiece.vocab_size)
    assert again.pieces == sentencepiece.pieces
    for each in TEXTS:
        assert again.encode(each) == sentencepiece.encode(each)
        assert again.decode(again.encode(each)) == each


def test_the_tokenizers_library_gives_the_same_labels(sentencepiece):
    library = pytest.importorskip("tokenizers")
    tokenizer = library.Tokenizer.from_str(to_tokenizer_json(sentencepiece, ("<blank>",)))
    for each in TEXTS:
        assert tokenizer.encode(each).ids == sentencepiece.encode(each)
        assert tokenizer.decode(sentencepiece.encode(each)) == each
    assert tokenizer.token_to_id("<blank>") == sentencepiece.vocab_size


def changed(sentencepiece, **changes):
    whole = json.loads(to_tokenizer_json(sentencepiece))
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = whole
        for name in outer:
            place = place[name]
        place[last] = value
    return json.dumps(whole)


def test_an_error_says_why_it_cannot_be_read(sentencepiece):
    size = sentencepiece.vocab_size
    for text, why in (
        ("", "can be read"),
        ("[]", "can be read"),
        ("{}", "can be read"),
        (changed(sentencepiece, model__type="WordPiece"), "not BPE or Unigram"),
        (changed(sentencepiece, model__vocab=3), "can be read"),
        (changed(sentencepiece, pre_tokenizer=None), "Metaspace"),
        (changed(sentencepiece, added_tokens=[{}]), "can be read"),
        (to_tokenizer_json(sentencepiece)[:-100], "can be read"),
    ):
        with pytest.raises(ValueError, match=why):
            from_tokenizer_json(text, size)
    with pytest.raises(ValueError, match=f"none with index {size}"):
        from_tokenizer_json(to_tokenizer_json(sentencepiece), size + 1)
    with pytest.raises(ValueError, match="cannot have"):
        from_tokenizer_json(to_tokenizer_json(sentencepiece), 1 << 40)
