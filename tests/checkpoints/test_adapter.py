"""Adapters: saved apart, merged at load, and refused on another base."""

import json

import jax
import models
import numpy as np
import pytest
from tuned import make_adapter

import tdt_jax as tdt
from tdt_jax.checkpoints.adapter import BASE_FILE, read_adapter, write_adapter
from tdt_jax.models.adapters import merge_adapters
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.tokenizer import Characters


def make_base(seed=0) -> tdt.Recogniser:
    config = models.config(ctc=True, vocab_size=5)
    return tdt.Recogniser(models.numpy_model(models.transducer(config, seed)), Characters(" abcd"))


def arrays(recogniser) -> dict[str, np.ndarray]:
    return {name: np.array(leaf) for name, leaf in named_leaves(recogniser.model).items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A base and two adapters of it, in folders."""
    folder = tmp_path_factory.mktemp("adapters")
    base = make_base()
    tdt.save(base, folder / "base")
    for seed in (1, 2):
        write_adapter(make_adapter(base, folder / "base", seed), folder / f"adapter{seed}")
    return folder


def test_an_adapter_is_merged_at_load_and_the_base_stays(saved):
    base = tdt.load(saved / "base")
    before = arrays(base)
    first, second = (tdt.with_adapter(base, saved / f"adapter{seed}") for seed in (1, 2))
    for name, leaf in arrays(base).items():  # nothing was merged into it
        np.testing.assert_array_equal(leaf, before[name])
    for tuned, seed in ((first, 1), (second, 2)):
        adapter = read_adapter(saved / f"adapter{seed}")
        expected = merge_adapters({**before, **adapter.leaves}, adapter.leaves, 0.5)
        for name, leaf in arrays(tuned).items():
            np.testing.assert_allclose(leaf, expected[name], atol=1e-6, err_msg=name)
    untouched = "encoder.subsampling.output.kernel"
    np.testing.assert_array_equal(arrays(first)[untouched], before[untouched])


def test_an_adapter_can_be_loaded_with_its_base_or_by_itself(saved):
    expected = arrays(tdt.with_adapter(tdt.load(saved / "base"), saved / "adapter1"))
    for recogniser in (
        tdt.load(saved / "base", adapter=saved / "adapter1"),
        tdt.load(saved / "adapter1"),
    ):
        jax.tree.map(np.testing.assert_array_equal, arrays(recogniser), expected)
    half = tdt.load(saved / "adapter1", dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(half.model)} == {"bfloat16"}


def test_an_adapter_of_another_base_is_refused(saved, tmp_path):
    tdt.save(make_base(seed=7), tmp_path / "other")
    with pytest.raises(ValueError, match=r"adapter1 is an adapter of another base: of .*base with"):
        tdt.load(tmp_path / "other", adapter=saved / "adapter1")


def test_a_base_that_is_gone_is_named(saved, tmp_path):
    write_adapter(make_adapter(make_base(), tmp_path / "gone"), tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"base cannot be loaded: .*gone.* lies elsewhere: .*load"):
        tdt.load(tmp_path / "adapter")
    tdt.load(saved / "base", adapter=tmp_path / "adapter")


def test_an_adapter_in_the_place_of_its_base_is_refused(tmp_path):
    write_adapter(make_adapter(make_base(), tmp_path / "base"), tmp_path / "base")
    with pytest.raises(ValueError, match="base is an adapter in the place of its own base"):
        tdt.load(tmp_path / "base")


def test_an_adapter_brings_its_tokens(saved, tmp_path):
    adapter = make_adapter(
        make_base(), saved / "base", tokenizer=Characters(" abcdé"), vocabulary="extended"
    )
    write_adapter(adapter, tmp_path / "adapter")
    tuned = tdt.load(saved / "base", adapter=tmp_path / "adapter")
    assert tuned.tokenizer == Characters(" abcdé") and tuned.config.vocab_size == 6
    for name in ("predictor.embedding", "joint.token_head.kernel", "ctc.bias"):
        np.testing.assert_array_equal(arrays(tuned)[name], adapter.leaves[name])


def test_a_merged_recogniser_is_saved_like_any_other(saved, tmp_path):
    tuned = tdt.load(saved / "adapter1")
    tdt.save(tuned, tmp_path / "merged")
    jax.tree.map(
        np.testing.assert_array_equal, arrays(tdt.load(tmp_path / "merged")), arrays(tuned)
    )


def test_what_is_no_adapter_or_damaged_is_refused(saved, tmp_path):
    base = tdt.load(saved / "base")
    with pytest.raises(ValueError, match=r"base is not an adapter: it has no base.json"):
        tdt.with_adapter(base, saved / "base")
    with pytest.raises(ValueError, match="base is not an adapter"):
        tdt.save_adapter(saved / "base", tmp_path / "adapter")
    with pytest.raises(ValueError, match="adapter2 holds something already"):
        tdt.save_adapter(saved / "adapter1", saved / "adapter2")
    tdt.save_adapter(saved / "adapter1", tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    config["tuning"]["rank"] = 3
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"does not fit config.json: .*kernel.a"):
        tdt.with_adapter(base, tmp_path / "copy")
    (tmp_path / "copy" / BASE_FILE).write_text("{}")
    with pytest.raises(ValueError, match=r"base.json cannot be read: KeyError"):
        tdt.with_adapter(base, tmp_path / "copy")


def test_an_adapter_is_small(saved):
    size = {
        name: sum(file.stat().st_size for file in (saved / name).rglob("*") if file.is_file())
        for name in ("adapter1", "base")
    }
    assert size["adapter1"] < size["base"]
