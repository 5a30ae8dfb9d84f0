"""What is trained of a model, and adapters: which parameters, what they compute, fingerprints."""

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from tdt_jax.config import TuningConfig
from tdt_jax.models.adapters import (
    AdaptedBlocks,
    adapter_shapes,
    fingerprint,
    is_partial,
    merge_adapters,
    merged_model,
    new_adapters,
    rate_factors,
    trained_names,
    with_adapters,
)
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves


def shapes_of(config=None) -> dict[str, tuple[int, ...]]:
    leaves = named_leaves(abstract_model(config or models.config(ctc=True)))
    return {name: leaf.shape for name, leaf in leaves.items()}


SHAPES = shapes_of()


def random_adapters(names, rank=2, seed=0):
    """Adapters that change something."""
    rng = np.random.default_rng(seed)
    shapes = adapter_shapes({name: SHAPES[name] for name in names}, rank)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_all_is_trained_by_default():
    trained = trained_names(TuningConfig(), SHAPES)
    assert trained == (tuple(SHAPES), ()) and not is_partial(TuningConfig())


def test_patterns_choose_what_is_trained():
    train = ("joint.*", "predictor.layers.*.kernel")
    config = TuningConfig(train=train, freeze=("*.duration_head.*",))
    full, adapted = trained_names(config, SHAPES)
    assert set(full) == {
        name
        for name in SHAPES
        if (name.startswith("joint.") and "duration" not in name)
        or (name.startswith("predictor.layers.") and name.endswith(".kernel"))
    }
    assert not adapted
    full, _ = trained_names(TuningConfig(freeze=("encoder.*",)), SHAPES)
    assert set(full) == {name for name in SHAPES if not name.startswith("encoder.")}


def test_adapters_go_to_the_products():
    full, adapted = trained_names(TuningConfig(rank=3), SHAPES)
    blocks = {name.removeprefix("encoder.blocks.") for name in adapted if "blocks" in name}
    assert blocks == {
        *(f"attention.{name}.kernel" for name in ("query", "key", "value", "output")),
        *(f"feed_forward{i}.linear{j}.kernel" for i in (1, 2) for j in (1, 2)),
        "convolution.pointwise1.kernel", "convolution.pointwise2.kernel",
    }  # fmt: skip
    assert {name for name in adapted if "blocks" not in name} == {
        *(f"predictor.layers.{i}.{part}.kernel" for i in (0, 1) for part in ("input", "recurrent")),
        "joint.frame_projection.kernel", "joint.state_projection.kernel",
        "joint.token_head.kernel", "ctc.kernel",
    }  # fmt: skip
    assert full == ("joint.duration_head.kernel",)  # of 3 durations


def test_other_tokens_are_trained_in_full():
    full, adapted = trained_names(TuningConfig(rank=2, vocabulary="extended"), SHAPES)
    assert {"predictor.embedding", "joint.token_head.kernel", "ctc.bias"} <= set(full)
    assert not set(full) & set(adapted)


def test_a_model_without_a_predictor_has_adapters_too():
    config = models.config(None, ctc=True, predictor=None, joint=None)
    assert "ctc.kernel" in trained_names(TuningConfig(rank=2), shapes_of(config)).adapted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(train=("decoder.*",)),
            r"tuning.train: decoder.\* matches no parameter .* joint.token",
        ),
        (dict(freeze=("x",)), "tuning.freeze: x matches no parameter"),
        (dict(rank=2, adapt=("*.bias",)), r"tuning.adapt: \*.bias matches no kernel"),
        (dict(train=("ctc.*",), freeze=("ctc.*",)), "nothing is trained: tuning.freeze=ctc"),
        (dict(rank=2, freeze=("*",)), r"nothing is trained: tuning.freeze=\*"),
        (
            dict(train=("encoder.*",), frozen_steps=5),
            "nothing is trained in the first tuning.frozen_steps=5 steps",
        ),
    ],
)
def test_what_trains_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        trained_names(TuningConfig(**changes), SHAPES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(adapt=("joint.*",)), "needs a tuning.rank above 0"),
        (dict(rates=(("joint.*", 0.0),)), "tuning.rates need factors above 0"),
        (dict(layer_decay=1.5), "tuning.layer_decay must be in"),
        (dict(base_dtype="int8"), "tuning.base_dtype must be one of"),
        (dict(vocabulary="other"), "tuning.vocabulary must be one of"),
    ],
)
def test_a_configuration_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        TuningConfig(**changes)


def test_rates_by_layer_and_pattern():
    config = TuningConfig(layer_decay=0.5, rates=(("joint.*", 3.0), ("*.query.kernel", 2.0)))
    names = "encoder.blocks.attention.query.kernel", "joint.token_head.kernel"
    shapes = SHAPES | adapter_shapes({name: SHAPES[name] for name in names}, 2)
    factors = rate_factors(config, shapes)
    for name in ("", ".a", ".b"):
        query = factors[f"encoder.blocks.attention.query.kernel{name}"]
        np.testing.assert_allclose(query[:, 0, 0], [1.0, 2.0])  # the last block's is not reduced
        assert factors[f"joint.token_head.kernel{name}"] == 3.0
    np.testing.assert_allclose(factors["encoder.blocks.attention.query.bias"][:, 0], [0.5, 1.0])
    np.testing.assert_allclose(factors["encoder.subsampling.output.kernel"], [0.25])
    assert "predictor.embedding" not in factors
    with pytest.raises(ValueError, match=r"tuning.rates: none.\* matches no parameter"):
        rate_factors(TuningConfig(rates=(("none.*", 1.0),)), SHAPES)


def test_new_adapters_change_nothing():
    kernels = {name: SHAPES[name] for name in trained_names(TuningConfig(rank=2), SHAPES).adapted}
    adapters = jax.jit(lambda key: new_adapters(kernels, 2, key))(jax.random.key(0))
    assert {name: each.shape for name, each in adapters.items()} == adapter_shapes(kernels, 2)
    for name, each in adapters.items():
        assert np.any(each) == name.endswith(".a"), name
    a = adapters["encoder.blocks.feed_forward1.linear2.kernel.a"]
    assert 0.5 < float(a.std()) * np.sqrt(a.shape[1]) < 1.5


def test_a_merged_kernel_is_the_sum():
    names = "encoder.blocks.attention.key.kernel", "ctc.kernel"
    adapters = random_adapters(names)
    leaves = named_leaves(models.numpy_model(models.transducer(models.config(ctc=True))))
    merged = merge_adapters(leaves, adapters, 0.5)
    for name in names:
        a, b = (adapters[f"{name}.{part}"].astype(np.float64) for part in "ab")
        np.testing.assert_allclose(merged[name], leaves[name] + 0.5 * a @ b, atol=1e-6)
    assert all(merged[name] is leaves[name] for name in leaves if name not in names)


def test_blocks_are_merged_one_at_a_time():
    """As a loop over the blocks slices and merges them, so are they merged all together."""
    names = ["encoder.blocks.attention.key.kernel", "joint.frame_projection.kernel"]
    model = models.numpy_model(models.transducer(models.config(ctc=True)))
    adapters = random_adapters(names)
    whole = merge_adapters(named_leaves(model), adapters, 2.0)
    adapted = with_adapters(model, adapters, 2.0)
    assert isinstance(adapted.encoder.blocks, AdaptedBlocks)
    np.testing.assert_array_equal(adapted.joint.frame_projection.kernel[...], whole[names[1]])
    for layer in range(2):
        block = jax.tree.map(lambda x, layer=layer: x[layer], adapted.encoder.blocks).merged()
        for name, leaf in named_leaves(block).items():
            np.testing.assert_allclose(leaf, whole[f"encoder.blocks.{name}"][layer], atol=1e-6)
    assert not isinstance(model.encoder.blocks, AdaptedBlocks)


def test_a_merged_model_has_the_dtypes_of_its_base_and_leaves_it_alone():
    config = models.config(ctc=True)
    model = models.numpy_model(models.transducer(config))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    before = jax.tree.map(np.copy, half)
    bias = np.full(SHAPES["ctc.bias"], 0.5, np.float32)
    tuned = random_adapters(["ctc.kernel"]) | {"ctc.bias": bias}
    merged = named_leaves(merged_model(half, tuned, 1.0))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in merged.values())
    assert np.all(merged["ctc.bias"] == 0.5)
    changed = {name for name, x in named_leaves(before).items() if np.any(merged[name] != x)}
    assert changed == {"ctc.kernel", "ctc.bias"}
    jax.tree.map(np.testing.assert_array_equal, half, before)


def test_a_fingerprint_tells_bases_apart():
    model = models.numpy_model(models.transducer(models.config(ctc=True)))
    mark = fingerprint(model)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    assert len(mark) == 16 and fingerprint(half) == mark
    leaves = named_leaves(model)
    kernel = leaves["ctc.kernel"] * np.float32(1.01)
    assert fingerprint(from_named_leaves(leaves | {"ctc.kernel": kernel}, model)) != mark
