"""Every experiment in configs/ and every size of presets builds and traces."""

import ast
import functools

import jax
import jax.numpy as jnp
import pytest
from paths import ROOT

from tdt_jax import config as configs
from tdt_jax import presets
from tdt_jax.data.buckets import bucket_samples
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime.pytree import num_parameters
from tdt_jax.training.step import BatchArrays, init_state, train_step

FOLDER = ROOT / "configs"
PARAKEET = [
    f"parakeet.py:{name}"
    for name in (
        "tdt_0_6b_v2", "tdt_0_6b_v3", "tdt_1_1b", "tdt_ctc_110m",
        "rnnt_0_6b", "rnnt_1_1b", "ctc_0_6b", "ctc_1_1b",
    )
]  # fmt: skip
NAMES = [path.name for path in sorted(FOLDER.glob("*.py")) if path.stem != "parakeet"] + PARAKEET

load = functools.cache(lambda name: configs.load(f"{FOLDER}/{name}"))


@pytest.mark.parametrize("name", NAMES)
def test_config_builds(name):
    config = load(name)
    assert configs.from_json(configs.to_json(config)) == config
    file = name.partition(":")[0]
    docstring = ast.get_docstring(ast.parse((FOLDER / file).read_text()))
    assert f"--config configs/{file}" in docstring
    assert name.removeprefix("parakeet.py:") in docstring or file != "parakeet.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_config_traces_a_step(name):
    config = load(name)
    bucket = config.data.buckets[-1]
    num_samples = bucket_samples(bucket, config.model.features.sample_rate)
    batch = BatchArrays(
        jax.ShapeDtypeStruct((bucket.batch_size, num_samples), jnp.float32),
        jax.ShapeDtypeStruct((bucket.batch_size,), jnp.int32),
        jax.ShapeDtypeStruct((bucket.batch_size, bucket.tokens), jnp.int32),
        jax.ShapeDtypeStruct((bucket.batch_size,), jnp.int32),
    )
    with jax.numpy_dtype_promotion("standard"):
        state = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
        key = jax.eval_shape(lambda: jax.random.key(0))
        after, metrics = jax.eval_shape(
            lambda *args: train_step(*args, config=config), state, batch, key
        )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics.loss.dtype == jnp.float32


def test_parakeet_needs_the_name_of_a_checkpoint():
    for name, message in (
        ("parakeet.py", r"no checkpoint is named; choose one of tdt_0_6b_v2, .*, ctc_1_1b, as in"),
        ("parakeet.py:tdt", r"there is no checkpoint 'tdt'; choose one of tdt_0_6b_v2, "),
    ):
        with pytest.raises(ValueError, match=message):
            configs.load(f"{FOLDER}/{name}")
    kinds = {name: load(name).model.kind for name in PARAKEET}
    assert all(
        name.startswith(f"parakeet.py:{kind.lower().replace('-', '')}_")
        for name, kind in kinds.items()
    )
    sources = [load(name).training.init_from for name in PARAKEET]
    assert len(set(sources)) == 8 and all(each.startswith("nvidia/parakeet-") for each in sources)


@pytest.mark.parametrize(
    ("name", "millions"),  # NVIDIA's: 14, 32, 115 (120 with its CTC head), 616 and about 1,100
    [
        ("MICRO", 1.2), ("TINY", 4.7), ("SMALL", 14), ("MEDIUM", 32), ("LARGE", 115),
        ("XLARGE", 616), ("XXLARGE", 1070),
    ],
)  # fmt: skip
def test_preset_has_the_published_size(name, millions):
    size = num_parameters(abstract_model(getattr(presets, name))) / 1e6
    assert size == pytest.approx(millions, rel=0.03)


def test_twins_differ_in_the_model_alone():
    tdt, rnnt = load("librispeech_tdt.py"), load("librispeech_rnnt.py")
    assert (tdt.model.kind, rnnt.model.kind) == ("TDT", "RNN-T")
    for name in ("optimizer", "augment", "tokenizer", "data"):
        assert getattr(tdt, name) == getattr(rnnt, name)
