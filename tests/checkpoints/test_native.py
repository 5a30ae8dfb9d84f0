"""This package's own folders: what is saved comes back bit for bit, damage is reported."""

import dataclasses
import shutil

import jax
import ml_dtypes
import models
import numpy as np
import pytest
from parakeet_files import assert_same_leaves
from run_config import get_config
from safetensors.numpy import save_file

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime.pytree import named_leaves


@pytest.fixture(scope="module")
def recogniser():
    tokenizer = tokenizers.train_sentencepiece(["one two three four five six seven"] * 9, 30)
    config = dataclasses.replace(get_config().model, vocab_size=tokenizer.vocab_size)
    return tdt.Recogniser(models.transducer(config), tokenizer)


@pytest.fixture(scope="module")
def folder(recogniser, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "recogniser"
    tdt.save(recogniser, path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_recogniser_comes_back_bit_for_bit(folder, recogniser):
    loaded = tdt.load(folder)
    assert loaded.tokenizer == recogniser.tokenizer and loaded.config == recogniser.config
    assert_same_leaves(loaded.model, recogniser.model)


def test_another_dtype_and_context(folder, recogniser):
    half = tdt.load(folder, dtype="bfloat16", attention_context=(4, 4))
    assert half.config.encoder.attention_context == (4, 4)
    bfloat16 = ml_dtypes.bfloat16
    expected = jax.tree.map(lambda leaf: np.asarray(leaf).astype(bfloat16), recogniser.model)
    assert_same_leaves(half.model, expected)


def test_a_model_loaded_again_compiles_nothing_anew(folder):
    features, num_features = np.zeros((1, 8, 80), np.float32), np.array([8])
    tdt.encode(tdt.load(folder).model, features, num_features)
    before = tdt.encode._cache_size()
    tdt.encode(tdt.load(folder).model, features, num_features)
    assert tdt.encode._cache_size() == before


def test_save_does_not_overwrite(folder, recogniser):
    with pytest.raises(ValueError, match="already"):
        tdt.save(recogniser, folder)


def test_names_are_plain(recogniser):
    names = named_leaves(abstract_model(recogniser.config))
    assert "encoder.blocks.attention.query.kernel" in names
    assert "predictor.layers.0.recurrent.bias" in names
    assert len(names) == len(jax.tree.leaves(recogniser.model))


def test_a_truncated_checkpoint_is_an_error(copy):
    files = [path for path in (copy / "checkpoints").rglob("*") if path.is_file()]
    damaged = max(files, key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        tdt.load(copy)


def test_a_checkpoint_of_another_configuration_is_an_error(copy):
    path = copy / "config.json"
    path.write_text(
        path.read_text().replace('"feed_forward_factor": 2', '"feed_forward_factor": 3')
    )
    with pytest.raises(
        ValueError, match=r"linear1.kernel is \(2, 16, 32\), expected \(2, 16, 48\)"
    ):
        tdt.load(copy)


def test_a_checkpoint_is_chosen_by_step_or_score(copy):
    with pytest.raises(ValueError, match=r"no checkpoint of .* has been evaluated"):
        tdt.load(f"{copy}@best")
    for name in ("7", "worst"):
        with pytest.raises(ValueError, match=f"has no checkpoint '{name}'; there are best, 0"):
            tdt.load(f"{copy}@{name}")
    (copy / "checkpoints" / "scores.json").write_text('{"wer": {"0": -0.5}}')
    best, step = tdt.load(f"{copy}@best"), tdt.load(f"{copy}@0")
    assert_same_leaves(best.model, step.model)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: shutil.rmtree(path), "no file, folder or repository"),
        (lambda path: (path / "config.json").write_text("{"), "is not JSON"),
        (lambda path: (path / "config.json").write_text('{"modle": {}}'), "no field modle"),
        (lambda path: (path / "tokenizer.model").unlink(), "must hold one of"),
        (lambda path: (path / "tokenizer.model").write_bytes(b"junk"), "not a SentencePiece model"),
        (lambda path: shutil.rmtree(path / "checkpoints"), "has no checkpoints yet"),
        (lambda path: shutil.rmtree(path / "checkpoints" / "0"), "no complete checkpoint"),
        (
            lambda path: (
                tokenizers.train_characters(["ab"]).save(path)
                and (path / "tokenizer.model").unlink()
            ),
            "the tokenizer has 3 pieces, the model",
        ),
    ],
)
def test_an_incomplete_folder_is_an_error(copy, spoil, message):
    spoil(copy)
    with pytest.raises(ValueError, match=message):
        tdt.load(copy)


def test_parameters_without_a_training_state(copy, recogniser):
    """They are read by name; a file that does not fit is refused."""
    shutil.rmtree(copy / "checkpoints")
    arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(recogniser.model).items()}
    save_file(arrays, copy / "parameters.safetensors")
    assert_same_leaves(tdt.load(copy).model, recogniser.model)
    arrays.popitem()
    save_file(arrays, copy / "parameters.safetensors")
    with pytest.raises(ValueError, match=r"does not fit its config\.json"):
        tdt.load(copy)
