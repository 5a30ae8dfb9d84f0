"""Tensors become a model and come back unchanged, in any dtype and onto any mesh."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from parakeet_files import (
    ARCHIVE,
    FOLDERS,
    NEMOTRON,
    TEXTS,
    UNIFIED,
    assert_same_leaves,
    change_json,
)

import tdt_jax as tdt
from tdt_jax.checkpoints.parakeet import convert
from tdt_jax.checkpoints.parakeet.hugging_face import read_hugging_face, write_hugging_face
from tdt_jax.checkpoints.parakeet.nemo import read_nemo, write_nemo
from tdt_jax.models.transducer import MismatchError
from tdt_jax.runtime.pytree import named_leaves

SOURCES = [*FOLDERS.values(), ARCHIVE, UNIFIED, NEMOTRON, NEMOTRON.with_suffix(".nemo")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_round_trip_changes_no_bit(source, tmp_path):
    """Theirs to ours to theirs: every tensor; a BatchNorm comes back folded, and stays so."""
    before = tdt.load(source)
    write, read, target = (
        (write_nemo, read_nemo, tmp_path / "model.nemo")
        if source.is_file()
        else (write_hugging_face, read_hugging_face, tmp_path / "hf")
    )
    opened = read(source)
    write(before, target)
    written = read(target).stored
    is_folded = before.config.encoder.convolution_norm == "affine"
    norms = ["conv.norm.", "conv.batch_norm."] if is_folded else []
    assert set(written) == set(opened.stored)
    for name, tensor in opened.stored.items():
        assert written[name].shape == tensor.shape and written[name].dtype == tensor.dtype, name
        if not any(norm in name for norm in norms) and not name.startswith("preprocessor"):
            np.testing.assert_array_equal(written[name].read(), tensor.read(), strict=True)
    after = tdt.load(target)
    assert after.config == before.config or source == ARCHIVE
    assert after.tokenizer.pieces == before.tokenizer.pieces
    assert_same_leaves(after.model, before.model)
    for text in TEXTS[:2]:
        assert after.tokenizer.encode(text) == before.tokenizer.encode(text)


@pytest.mark.parametrize(
    "source",
    [path for path in SOURCES if path != NEMOTRON],  # whose prompt has a width that NeMo has not
    ids=lambda path: path.name,
)
def test_ours_to_theirs_and_back_changes_no_bit(source, tmp_path):
    before = tdt.load(source)
    tdt.save(before, tmp_path / "jax")
    native = tdt.load(tmp_path / "jax")
    assert native.config == before.config
    assert_same_leaves(native.model, before.model)
    write_nemo(native, tmp_path / "model.nemo")
    again = tdt.load(tmp_path / "model.nemo")
    assert_same_leaves(again.model, before.model)
    assert again.config.encoder == before.config.encoder
    assert again.config.durations == before.config.durations


def test_a_folded_batch_norm_computes_what_it_was_folded_from():
    rng = np.random.default_rng(0)
    weight, bias, mean = rng.normal(size=(3, 50)).astype(np.float32)
    variance = rng.uniform(0.01, 3, 50).astype(np.float32).astype(np.float64)
    scale, shift = convert.fold_batch_norm(weight, bias, mean, variance)
    x = rng.normal(size=(7, 50))
    np.testing.assert_allclose(
        x * scale + shift, (x - mean) / np.sqrt(variance + 1e-5) * weight + bias, atol=1e-12
    )
    # What `disassemble` writes divides by exactly 1 in float32, as torch computes it.
    assert np.float32(1) / np.sqrt(convert.UNIT_VARIANCE + np.float32(1e-5)) == 1
    unit = np.full(50, convert.UNIT_VARIANCE)
    folded = convert.fold_batch_norm(weight, bias, np.zeros(50), unit)
    for part, expected in zip(folded, (weight, bias), strict=True):
        np.testing.assert_array_equal(part.astype(np.float32), expected)


def test_parameters_are_split_as_asked():
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))

    def rows(name, shape):
        split = shape and shape[-1] % 8 == 0
        spec = jax.sharding.PartitionSpec(*[None] * (len(shape) - 1), "data" if split else None)
        return jax.sharding.NamedSharding(mesh, spec)

    split = tdt.load(FOLDERS["tdt"], sharding=rows)
    assert_same_leaves(split.model, tdt.load(FOLDERS["tdt"]).model)
    kernel = named_leaves(split.model)["encoder.blocks.feed_forward1.linear1.kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 16, 4)


@pytest.mark.parametrize("format", ["hf", "nemo", "jax"])
def test_bfloat16_comes_back_bit_for_bit(format, tmp_path):
    half = tdt.load(FOLDERS["tdt"], dtype="bfloat16")
    assert half.config.dtype == "bfloat16"
    full = named_leaves(tdt.load(FOLDERS["tdt"]).model)
    for name, leaf in named_leaves(half.model).items():
        expected = np.asarray(full[name]).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(leaf, expected, strict=True)
    tdt.save(half, tmp_path / "m", format=format)
    assert_same_leaves(tdt.load(tmp_path / "m", dtype="bfloat16").model, half.model)
    if format == "hf":
        assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"


def test_every_mismatch_is_in_one_error(tmp_path):
    folder = shutil.copytree(FOLDERS["tdt"], tmp_path / "m")
    change_json(
        folder / "config.json",
        encoder_config__num_hidden_layers=3,
        encoder_config__conv_kernel_size=7,
        decoder_hidden_size=13,
    )
    with pytest.raises(MismatchError) as caught:
        tdt.load(folder)
    message = str(caught.value)
    assert "missing encoder.layers.2.self_attn.q_proj.weight" in message
    assert "conv.depthwise_conv.weight is (16, 1, 5), expected (16, 1, 7)" in message
    assert "decoder.lstm.weight_hh_l0 is (48, 12), expected (52, 13)" in message
    change_json(
        folder / "config.json",
        encoder_config__num_hidden_layers=1,
        encoder_config__conv_kernel_size=5,
        decoder_hidden_size=12,
    )
    with pytest.raises(MismatchError, match=r"extra encoder\.layers\.1\."):
        tdt.load(folder)
