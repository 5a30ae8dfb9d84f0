"""transformers' folders: read from any of their forms, written as published, damage reported."""

import dataclasses
import io
import json
import shutil

import jax
import models
import numpy as np
import pytest
import sentencepiece
from parakeet_files import ARCHIVE, FOLDERS, TEXTS, assert_same_leaves, change_json

import tdt_jax as tdt
from tdt_jax.checkpoints.parakeet import hugging_face
from tdt_jax.checkpoints.parakeet.hugging_face import write_hugging_face
from tdt_jax.checkpoints.parakeet.nemo import write_nemo

# Reading


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDERS["tdt"], tmp_path / "model")


def test_damaged_folders(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-4])
    with pytest.raises(ValueError, match="damaged"):
        tdt.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="there is no"):
        tdt.load(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        tdt.load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="neither"):
        tdt.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        tdt.load(folder)


def test_a_feature_extractor_of_another_model(folder):
    change_json(folder / "processor_config.json", feature_extractor={"feature_size": 80})
    with pytest.raises(ValueError, match="feature_size is 80"):
        tdt.load(folder)
    (folder / "processor_config.json").unlink()
    assert tdt.load(folder).config.features.num_mels == 16


def test_a_feature_extractor_has_a_file_of_its_own_where_the_processor_has_none(folder):
    """As transformers reads them."""
    extractor, processor = folder / "preprocessor_config.json", folder / "processor_config.json"
    extractor.write_text(json.dumps({"win_length": 320}))
    assert tdt.load(folder).config.features.window_length == 400
    processor.write_text(
        json.dumps({"processor_class": "ParakeetProcessor", "blank_token": "<blank>"})
    )
    assert tdt.load(folder).config.features.window_length == 320
    processor.unlink()
    assert tdt.load(folder).config.features.window_length == 320
    change_json(extractor, win_length="long")
    with pytest.raises(ValueError, match="win_length is 'long'"):
        tdt.load(folder)
    change_json(extractor, win_length=320, feature_size=80)
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: feature_size is 80"):
        tdt.load(folder)


def test_shards_are_read_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face, "SHARD", 20_000)
    before = tdt.load(FOLDERS["rnnt"])
    write_hugging_face(before, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    assert_same_leaves(tdt.load(tmp_path).model, before.model)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["joint.head.bias"] = "../outside.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside the folder"):
        tdt.load(tmp_path)


def test_a_learned_embedding_of_blank_is_kept(tmp_path):
    """Fine-tuning in transformers moves the embedding of blank, which is the start symbol."""
    recogniser = tdt.load(FOLDERS["tdt"])
    predictor = dataclasses.replace(recogniser.config.predictor, blank_embedding=True)
    config = dataclasses.replace(recogniser.config, predictor=predictor)
    learned = tdt.Recogniser(models.transducer(config, seed=3), recogniser.tokenizer)
    write_hugging_face(learned, tmp_path)
    again = tdt.load(tmp_path)
    assert again.config.predictor.blank_embedding
    assert_same_leaves(again.model, learned.model)
    start = jax.jit(lambda predictor: predictor(np.zeros((1, 0), np.int32)))
    state = np.asarray(start(again.model.predictor))
    blank = again.model.predictor.embedding[...].at[-1].set(0.0)
    again.model.predictor.embedding[...] = blank
    assert np.any(state != np.asarray(start(again.model.predictor)))
    with pytest.raises(ValueError, match="embedding of blank"):
        write_nemo(learned, tmp_path / "model.nemo")


# Writing


def test_models_that_transformers_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"CTC head.*another width"):
        write_hugging_face(tdt.load(ARCHIVE), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_special_tokens_are_written_as_published(tmp_path):
    """Of parakeet-tdt-0.6b-v3: padding and end of text among the pieces that its user defined."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=100, model_type="bpe",
        hard_vocab_limit=False, bos_id=-1, eos_id=-1, unk_id=0, minloglevel=2,
        user_defined_symbols=["<|nospeech|>", "<pad>", "<|endoftext|>", "<|en|>", "1", "2"],
    )  # fmt: skip
    tokenizer = tdt.tokenizer.SentencePiece(model.getvalue())
    config = models.config(
        vocab_size=tokenizer.vocab_size,
        encoder=models.encoder_config(convolution_norm="affine"),
        predictor=tdt.PredictorConfig(width=8),
        joint=tdt.JointConfig(width=8),
    )
    tdt.save(tdt.Recogniser(models.transducer(config), tokenizer), tmp_path, format="hf")
    added = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    special = {token["id"]: token["content"] for token in added if token["special"]}
    assert special == {0: "<unk>", 2: "<pad>", 3: "<|endoftext|>", config.blank: "<blank>"}
    tokens = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert tokens["pad_token"] == "<pad>" and tokens["eos_token"] == "<|endoftext|>"
    assert tokens["unk_token"] == "<unk>"
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["pad_token_id"] == 2
    assert generation["decoder_start_token_id"] == config.blank
    assert generation["suppress_tokens"] == [config.blank + 1 + i for i in range(3)]
    again = tdt.load(tmp_path).tokenizer
    assert again.pieces == tokenizer.pieces
    assert again.encode("1 fox") == tokenizer.encode("1 fox")
