"""One ONNX graph gives the labels, times, durations and scores of the decoder."""

import json
import re

import jax
import models
import numpy as np
import pytest
from exported import onnx_session as session
from paths import ROOT

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.exports.onnx_whole import export_whole, whole_graph
from tdt_jax.inference.recognition import decode_samples

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("decoder", ["transducer", "ctc"])
@pytest.mark.parametrize("durations", [(0, 1, 2), (1, 3), None])
def test_the_graph_gives_the_hypothesis_of_samples_of_any_length(durations, decoder):
    config = models.config(durations, encoder=models.encoder_config(num_layers=1), ctc=True)
    model = models.emitting(config)
    if durations is None:
        bias = np.array(model.joint.token_head.bias[...])
        bias[-1] -= 2
        model.joint.token_head.bias[...] = bias
    graph = session(whole_graph(model, decoder))
    for seconds in (1.003, 0.3):
        samples = models.speech(seconds)
        results = graph.run(None, {"samples": samples})
        padded = np.zeros((1, 16320), np.float32)
        padded[0, : len(samples)] = samples
        lengths = np.array([len(samples)])
        expected = jax.device_get(decode_samples(model, padded, lengths, decoder=decoder))
        count = expected.num_labels[0]
        assert count > 0
        for name, actual in zip(("labels", "times", "durations"), results, strict=False):
            np.testing.assert_array_equal(actual, getattr(expected, name)[0, :count], name)
        np.testing.assert_allclose(results[3], expected.scores[0, :count], atol=1e-4)


@pytest.mark.parametrize("decoder", ["transducer", "ctc"])
@pytest.mark.parametrize("size", [0, 1, 159])
def test_less_than_a_feature_has_no_labels(size, decoder):
    graph = session(whole_graph(models.emitting(models.config(ctc=True)), decoder))
    assert [len(each) for each in graph.run(None, {"samples": np.ones(size, np.float32)})] == [
        0
    ] * 4


def test_an_export_describes_its_vocabulary(tmp_path):
    given = tdt.Recogniser(models.emitting(models.config()), tokenizers.Characters(" abcde"))
    export_whole(given, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "model.json").read_text()) == {
        "kind": "TDT",
        "sample_rate": 16000,
        "seconds_per_frame": 0.08,
        "seconds": 30.0,
        "vocabulary": ["▁", "a", "b", "c", "d", "e"],
        "tags": [],
        "bytes": {},
    }
    assert (tmp_path / "out" / "model.onnx").stat().st_size > 10_000
    with pytest.raises(ValueError, match="exists already"):
        export_whole(given, tmp_path / "out")
    with pytest.raises(ValueError, match="no weights 'int4'"):
        export_whole(given, tmp_path / "other", weights="int4")
    hybrid = tdt.Recogniser(models.emitting(models.config(ctc=True)), given.tokenizer)
    export_whole(hybrid, tmp_path / "ctc", decoder="ctc")
    assert json.loads((tmp_path / "ctc" / "model.json").read_text())["kind"] == "CTC"


def test_the_page_reads_what_an_export_holds(tmp_path):
    page = (ROOT / "examples" / "browser" / "index.html").read_text(encoding="utf-8")
    given = tdt.Recogniser(models.emitting(models.config()), tokenizers.Characters(" abcde"))
    export_whole(given, tmp_path / "out")
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    used = set(re.findall(r"about\.(\w+)", page))
    assert len(used) > 3
    assert used <= set(described)
    addresses = re.findall(r"https?://[^\"' ]+", page)
    assert not addresses, "nothing leaves the device"
