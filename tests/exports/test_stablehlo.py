"""What was exported returns what the package decodes, without the package.

Bit for bit as compiled by default; without optimization, as here, XLA orders some sums otherwise.
"""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
from exported import Exported, padded
from models import causal_config, emitting, encoder_config, make_recogniser, noise, transducer
from paths import ROOT

import tdt_jax as tdt
from tdt_jax.inference.cached import Feed, decode_step, start_steps
from tdt_jax.inference.recognition import decode_samples
from tdt_jax.tokenizer import Characters

RECORDINGS = [noise(seconds, seed) for seed, seconds in enumerate((1.1, 2.0, 0.7))]
ROW = 1280
DESCRIBED = ["export.json", "parameters.safetensors"]  # and no program


@pytest.fixture(scope="module")
def recogniser():
    return make_recogniser(encoder=encoder_config(num_layers=1))


@pytest.fixture(scope="module")
def folder(recogniser, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "out"
    assert tdt.export(recogniser, path) == ["cpu.stablehlo", *DESCRIBED]
    return path


def same(actual, hypothesis):
    expected = jax.device_get(hypothesis)._asdict()
    assert actual["num_labels"].sum() > 0
    for name, value in actual.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(value, expected[name], rtol=2e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "frames"), [(3, 26), (1, 40)])
def test_any_number_of_any_length(recogniser, folder, rows, frames):
    arguments = padded(RECORDINGS[:rows], frames * ROW, rows)
    same(
        Exported(folder).run("transcribe", *arguments), decode_samples(recogniser.model, *arguments)
    )


def test_the_description(recogniser, folder):
    description = Exported(folder).description
    assert description["vocabulary"] == recogniser.tokenizer.pieces
    assert description["blank"] == recogniser.config.blank
    assert description["durations"] == list(recogniser.config.durations)
    assert description["model"]["vocab_size"] == recogniser.config.vocab_size
    assert description["programs"] == [
        {"file": "cpu.stablehlo", "kind": "transcribe", "platform": "cpu", "rows": None,
         "samples": None}
    ]  # fmt: skip
    documented = (ROOT / "docs" / "exporting.md").read_text("utf-8")
    assert not [name for name in description if f"`{name}`" not in documented]


@pytest.mark.slow
def test_programs_of_fixed_shapes(recogniser, tmp_path):
    tdt.export(recogniser, tmp_path / "out", seconds=(2.0,), rows=(2, 3))
    exported = Exported(tmp_path / "out")
    shapes = [(each["rows"], each["samples"]) for each in exported.description["programs"]]
    assert shapes == [(2, 32000), (3, 32000)]
    arguments = padded(RECORDINGS, 32000, 3)
    same(
        exported.run("transcribe", *arguments, rows=3), decode_samples(recogniser.model, *arguments)
    )


def test_rows_alone_fix_the_shapes(recogniser, tmp_path, monkeypatch):
    monkeypatch.setattr("tdt_jax.exports.stablehlo.SECONDS", (0.5,))
    assert "cpu-0.56s-3.stablehlo" in tdt.export(recogniser, tmp_path / "out", rows=(3,))


def test_other_platforms(recogniser, tmp_path):
    """A program for each, lowered here; nothing can run them here."""
    files = tdt.export(
        recogniser, tmp_path / "out", platforms=("cuda", "tpu"), seconds=(0.5,), rows=(1,)
    )
    programs = ["cuda-0.56s-1.stablehlo", "tpu-0.56s-1.stablehlo"]
    assert files == sorted([*programs, *DESCRIBED])
    for name in programs:
        exported = jax.export.deserialize(bytearray((tmp_path / "out" / name).read_bytes()))
        assert exported.platforms == (name.partition("-")[0],)


@pytest.mark.slow
def test_streams(tmp_path):
    """Step after step the state goes in and out."""
    config = causal_config()
    recogniser = tdt.Recogniser(emitting(config), Characters("abcdef"))
    tdt.export(recogniser, tmp_path / "out", seconds=(1.0,), rows=(2,))
    exported, feed = Exported(tmp_path / "out"), Feed(config)
    state = exported.run("start")
    expected = start_steps(recogniser.model, batch_size=2)
    size, flags = max(feed.step, feed.first), np.zeros(2, bool)
    start = 0
    for number, count in enumerate((feed.first, feed.step, feed.step)):
        part = [each[start : start + count] for each in (noise(3.0, 5), noise(3.0, 6))]
        arguments = *padded(part, size, 2), flags, np.full(2, not number)
        outputs, num_frames, state = exported.run("step", *arguments, state)
        hypothesis, frames, expected = decode_step(recogniser.model, *arguments, None, expected)
        np.testing.assert_array_equal(num_frames, frames)
        np.testing.assert_array_equal(outputs["labels"], hypothesis.labels)
        np.testing.assert_array_equal(outputs["num_labels"], hypothesis.num_labels)
        start += count


def test_a_ctc_decoder_has_no_streams(tmp_path):
    """Nor is its description that of the transducer beside it."""
    config = dataclasses.replace(causal_config(), durations=(0, 1), ctc=True)
    both = tdt.Recogniser(emitting(config), Characters("abcdef"))
    options = dict(decoder="ctc", seconds=(0.5,), rows=(1,))
    files = tdt.export(both, tmp_path / "out", **options)
    assert files == ["cpu-0.56s-1.stablehlo", *DESCRIBED]
    exported, arguments = Exported(tmp_path / "out"), padded([noise(0.5)], 7 * ROW, 1)
    assert (exported.description["kind"], exported.description["durations"]) == ("CTC", None)
    same(
        exported.run("transcribe", *arguments),
        decode_samples(both.model, *arguments, decoder="ctc"),
    )


def test_a_causal_ctc_model(tmp_path):
    config = dataclasses.replace(causal_config(), predictor=None, joint=None, ctc=True)
    recogniser = tdt.Recogniser(transducer(config), Characters("abcdef"))
    files = tdt.export(recogniser, tmp_path / "out", seconds=(0.5,), rows=(1,))
    assert files == ["cpu-0.56s-1.stablehlo", *DESCRIBED]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"platforms": ("rocm",)}, r"platforms must be of cpu, cuda, tpu, got rocm"),
        ({"platforms": ()}, "got none"),
        ({"seconds": (0.0,)}, "seconds and rows must be above 0"),
        ({"rows": (0,)}, "seconds and rows must be above 0"),
        ({"decoder": "lattice"}, "no decoder 'lattice' in this model"),
        ({"format": "tflite"}, "format must be of stablehlo"),
    ],
)
def test_mistakes_write_nothing(recogniser, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tdt.export(recogniser, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(recogniser, folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="exists already"):
        tdt.export(recogniser, folder)
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ValueError, match=r"pip install 'tdt-jax\[export\]'"):
        tdt.export(recogniser, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(recogniser, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr("tdt_jax.exports.stablehlo.write_safetensors", fail)
    with pytest.raises(OSError, match="the disk is full"):
        tdt.export(recogniser, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_command(recogniser, tmp_path, monkeypatch, capsys):
    from tdt_jax.cli import main

    monkeypatch.setattr("tdt_jax.runtime.process.set_up", lambda: None)
    monkeypatch.setattr("tdt_jax.checkpoints.loading.load", lambda *a, **k: recogniser)
    command = ["export", "m", str(tmp_path / "out"), "--to", "stablehlo"]
    assert main.main([*command, "--seconds", "0.5", "--rows", "1"]) == 0
    assert (
        "out: cpu-0.56s-1.stablehlo, export.json, parameters.safetensors; "
        in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "out" / "export.json").read_text())["format_version"] == 1
    assert main.main(command) == 2
    assert "exists already" in capsys.readouterr().err
    elsewhere = ["export", "m", str(tmp_path / "other"), "--to"]
    for options, message in (
        (["stablehlo", "--int8"], "--int8 or --fp16 is not for --to stablehlo"),
        (["stablehlo", "--whole"], "--whole is not for --to stablehlo"),
        (["onnx", "--rows", "2"], "--rows is not for --to onnx"),
        (["onnx", "--whole", "--for", "sherpa-onnx"], "--whole is for ONNX Runtime itself"),
    ):
        assert main.main([*elsewhere, *options]) == 2
        assert message in capsys.readouterr().err
    for options, message in (
        (["stablehlo", "--seconds", "soon"], "'soon' is not numbers of seconds"),
        (["onnx", "--int8", "--fp16"], "--fp16: not allowed with argument --int8"),
    ):
        with pytest.raises(SystemExit):
            main.main([*elsewhere, *options])
        assert message in capsys.readouterr().err
