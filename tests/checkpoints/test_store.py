"""Checkpoints and recogniser folders: what is written comes back, and damage is told."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from run_config import get_config

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.checkpoints.store import Checkpoints
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime import sharding
from tdt_jax.runtime.pytree import named_leaves

TOKENIZER = tokenizers.train_sentencepiece(["one two three four five six seven eight"] * 9, 40)


def make_recogniser(seed=0, **encoder):
    config = dataclasses.replace(
        get_config().model,
        vocab_size=TOKENIZER.vocab_size,
        encoder=dataclasses.replace(get_config().model.encoder, **encoder),
    )
    return tdt.Recogniser(tdt.Transducer(config, rngs=nnx.Rngs(seed)), TOKENIZER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "recogniser"
    tdt.save(make_recogniser(), path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_recogniser_comes_back_bit_for_bit(folder):
    loaded = tdt.load(folder)
    assert loaded.tokenizer == TOKENIZER
    assert loaded.config == make_recogniser().config
    assert_equal(loaded.model, make_recogniser().model)


def test_a_model_loaded_again_compiles_nothing_anew(folder):
    features, num_features = jnp.zeros((1, 64, 80)), jnp.array([64])
    tdt.encode(tdt.load(folder).model, features, num_features)
    before = tdt.encode._cache_size()
    tdt.encode(tdt.load(folder).model, features, num_features)
    assert tdt.encode._cache_size() == before


def test_save_does_not_overwrite(folder):
    with pytest.raises(ValueError, match="already"):
        tdt.save(make_recogniser(), folder)


def test_names_are_plain():
    names = named_leaves(abstract_model(make_recogniser().config))
    assert "encoder.blocks.attention.query.kernel" in names
    assert "predictor.layers.0.recurrent.bias" in names
    assert len(names) == len(jax.tree.leaves(make_recogniser().model))


def test_newest_are_kept_and_read(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, model={"a": jnp.full((3,), float(step))}, average=None)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]
        step, items = checkpoints.restore_newest(model={"a": jnp.zeros((3,))}, average=None)
    assert step == 3 and items["average"] is None
    np.testing.assert_array_equal(items["model"]["a"], [3.0] * 3)


def test_the_best_stays(tmp_path):
    """By the metric in question; unless it is written again."""

    def write(step, score=None):
        checkpoints.save(step, model={"a": jnp.full((3,), float(step))})
        if score is not None:
            checkpoints.rate(step, score)

    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        for step, score in ((1, -0.5), (2, -0.2), (3, -0.2), (4, -0.4), (5, None)):
            write(step, score)
        checkpoints.wait()
        assert checkpoints.best() == 3 and checkpoints.steps() == [3, 5]
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        assert checkpoints.best() == 3
        write(6)
        checkpoints.wait()
        assert checkpoints.steps() == [3, 6]
    with Checkpoints(tmp_path / "c", metric="bleu") as checkpoints:
        assert checkpoints.best() is None
    shutil.rmtree(tmp_path / "c" / "3")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.is_rated(3)
        write(3)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [3, 6] and not checkpoints.is_rated(3)
    (tmp_path / "c" / "scores.json").write_text("[1")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best() is None


def test_what_is_older_than_a_damaged_one_is_written_all_the_same(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step in (1000, 2000, 3000):
            checkpoints.save(step, model={"a": jnp.arange(5000.0)})
    damaged = largest_file(tmp_path / "c" / "3000")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with Checkpoints(tmp_path / "c", keep=1, writing=True) as checkpoints:
        assert checkpoints.restore_newest(model={"a": jnp.zeros(5000)})[0] == 2000
        checkpoints.save(2500, model={"a": jnp.arange(5000.0)})
    assert (tmp_path / "c" / "3000.damaged").is_dir()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [2500]
        with pytest.raises(OSError, match="could not be written"):
            checkpoints.save(2500, model={"a": jnp.arange(5000.0)})


def test_no_checkpoint_is_none(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore_newest(model={"a": jnp.zeros(3)}) is None


def test_a_checkpoint_moves_to_another_mesh(tmp_path):
    tree = {"a": jnp.arange(16.0), "n": jnp.int32(7)}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, model=sharding.shard(tree, sharding.make_mesh()))
        checkpoints.wait()
        for devices in (jax.devices()[:1], jax.devices()[:4]):
            mesh = sharding.make_mesh(devices)
            _, items = checkpoints.restore_newest(
                model=sharding.shard(jax.tree.map(jnp.zeros_like, tree), mesh)
            )
            assert_equal(items["model"], tree)
            assert items["model"]["a"].sharding.mesh.size == len(devices)


def test_all_misfits_are_named_at_once(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, model={"a": jnp.zeros(3), "b": jnp.zeros(2)})
        checkpoints.wait()
        with pytest.raises(ValueError, match=r"missing c; extra b; a is \(3,\), expected \(4,\)"):
            checkpoints.restore(1, model={"a": jnp.zeros(4), "c": jnp.zeros(2)})
        with pytest.raises(ValueError, match="there is no 'average'"):
            checkpoints.restore(1, average={"a": jnp.zeros(4)})


def largest_file(path):
    return max((f for f in path.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path):
    rng = np.random.default_rng(0)
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, model={"a": jnp.asarray(rng.normal(size=5000))})
        checkpoints.wait()
    damaged = largest_file(tmp_path / "c" / "2")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with Checkpoints(tmp_path / "c") as checkpoints:
        with pytest.raises(ValueError, match="damaged"):
            checkpoints.restore(2, model={"a": jnp.zeros(5000)})
        step, _ = checkpoints.restore_newest(model={"a": jnp.zeros(5000)})
    assert step == 1


def test_a_truncated_checkpoint_is_an_error(copy):
    damaged = largest_file(copy / "checkpoints")
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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: shutil.rmtree(path), "no file, folder or repository"),
        (lambda path: (path / "config.json").write_text("{"), "is not JSON"),
        (lambda path: (path / "config.json").write_text('{"modle": {}}'), "no field modle"),
        (lambda path: (path / "tokenizer.model").unlink(), "must hold one of"),
        (lambda path: (path / "tokenizer.model").write_bytes(b"junk"), "not a SentencePiece model"),
        (lambda path: shutil.rmtree(path / "checkpoints"), "has no checkpoints yet"),
        (lambda path: shutil.rmtree(path / "checkpoints" / "0"), "no whole checkpoint"),
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
