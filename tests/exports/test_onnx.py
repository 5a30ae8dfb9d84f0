"""ONNX graphs give what the model gives, in the layouts that onnx-asr and sherpa-onnx load."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import mixed
import models
import numpy as np
import pytest
from exported import onnx_session as session

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.config import FeatureConfig, PromptConfig
from tdt_jax.exports import onnx_networks as networks
from tdt_jax.exports.onnx import (
    DEVIATION,
    SHERPA_BELOW_NYQUIST,
    _write_vocabulary,
    check,
    export_onnx,
)
from tdt_jax.exports.onnx_graph import Graph, num_bytes, save
from tdt_jax.models.features import _normalize, hertz_to_mel
from tdt_jax.models.transducer import encode

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def run(graph, **inputs):
    return session(graph.model("test", {})).run(None, inputs)


ENCODERS = {
    "full": models.encoder_config(),
    "parakeet": models.encoder_config(
        convolution_norm="affine", use_bias=False, scale_input=True, num_layers=1
    ),
    "local": models.encoder_config(attention_context=(5, 3), num_layers=1),
    "causal": models.causal_config().encoder,
    "unified": models.encoder_config(unified_contexts=((6,), (2,), (1,)), num_layers=1),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_frames_are_those_of_the_encoder(name, weights):
    """For any number of utterances and features, with one graph."""
    prompt = PromptConfig(num_slots=4, width=8, default=2) if name == "full" else None
    model = models.transducer(models.config(encoder=ENCODERS[name], prompt=prompt))
    graph = Graph(weights)
    features = graph.input("features", np.float32, ["batch", "time", models.NUM_MELS])
    lengths = graph.input("lengths", np.int64, ["batch"])
    frames, num_frames = networks.encode(graph, model, features, lengths)
    graph.output("frames", frames, np.float32, ["batch", "frames", 16])
    graph.output("num_frames", num_frames, np.int64, ["batch"])
    onnx_session = session(graph.model("encoder", {}))
    rng = np.random.default_rng(0)
    for size, lengths in ((1, [1]), (101, [101, 57, 8])):
        features = rng.normal(size=(len(lengths), size, models.NUM_MELS)).astype(np.float32)
        inputs = {"features": features, "lengths": np.array(lengths)}
        frames, num_frames = onnx_session.run(None, inputs)
        expected, num_expected = jax.device_get(encode(model, features, np.array(lengths)))
        np.testing.assert_array_equal(num_frames, num_expected)
        tolerance = {"float32": 1e-5, "float16": 1e-2, "int8": 0.3}[weights]
        np.testing.assert_allclose(frames, expected, atol=tolerance)


NORMALIZATIONS = {
    "by utterance": FeatureConfig(num_mels=4),
    "without silence": FeatureConfig(num_mels=4, silence=20.0),
    "by constants": FeatureConfig(num_mels=4, normalize=(-8.0, 3.0)),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_features_are_normalized_as_by_log_mel(name):
    config = NORMALIZATIONS[name]
    features = np.random.default_rng(1).normal(size=(3, 60, 4)).astype(np.float32) - 4
    features[:, 20:40] -= 9
    graph = Graph()
    names = graph.input("x", np.float32, ["b", "t", 4]), graph.input("n", np.int64, ["b"])
    graph.output("y", networks.normalize(graph, *names, config), np.float32, ["b", "t", 4])
    lengths = np.array([60, 45, 9])
    (actual,) = run(graph, x=features, n=lengths)
    np.testing.assert_allclose(actual, _normalize(features, lengths, config), atol=1e-5)


def write(folder, recogniser, **options):
    export_onnx(recogniser, folder, **options)
    return {path.name: path for path in folder.iterdir()}


@functools.cache
def emitting(durations):
    config = models.config(durations, encoder=models.encoder_config(num_layers=1))
    features = FeatureConfig(num_mels=80)
    return models.emitting(dataclasses.replace(config, features=features, ctc=True))


def recogniser(durations=(0, 1, 2)):
    return tdt.Recogniser(emitting(durations), tokenizers.Characters(" abcde"))


def with_features(given, **changes):
    """Returns the recogniser with other features and the same parameters."""
    features = dataclasses.replace(given.config.features, **changes)
    config = dataclasses.replace(given.config, features=features)
    structure = jax.tree.structure(models.abstract_model(config))
    model = jax.tree.unflatten(structure, jax.tree.leaves(given.model))
    return dataclasses.replace(given, model=model)


def greedy(step, frames, blank, durations, state, limit=10):
    """The decoding of onnx-asr: labels and the frames at which they are emitted."""
    labels, times, time, here, token = [], [], 0, 0, blank
    while time < len(frames):
        logits, new = step(frames[time], token, state)
        best = logits[: blank + 1].argmax()
        advance = logits[blank + 1 :].argmax() if durations else 0
        if best != blank:
            labels.append(best)
            times.append(time)
            token, state, here = best, new, here + 1
        if advance == 0 and (best == blank or here == limit):
            advance = 1
        here = 0 if advance else here
        time += advance
    return labels, times


@pytest.mark.parametrize("durations", [(0, 1, 2), (1, 3), None])
def test_the_graphs_of_decoder_and_joint_decode_as_greedy_decode(tmp_path, durations):
    """Durations are indices of the logits, also where the model has not all of them."""
    given = recogniser(durations)
    files = write(tmp_path / "a", given, consumer="onnx-asr")
    decoder = session(files["decoder_joint-model.onnx"])
    frames = np.random.default_rng(2).normal(size=(1, 40, 16)).astype(np.float32)
    expected = jax.device_get(tdt.greedy_decode(given.model, frames, np.array([40])))
    count = expected.num_labels[0]
    assert count > 5

    def inputs(token, state):
        names = "targets", "target_length", "input_states_1", "input_states_2"
        values = np.array([[token]], np.int32), np.ones(1, np.int32), *state
        return dict(zip(names, values, strict=True))

    def joint_step(frame, token, state):
        names = ["outputs", "output_states_1", "output_states_2"]
        given = {"encoder_outputs": frame[None, :, None], **inputs(token, state)}
        logits, *state = decoder.run(names, given)
        return logits[0, 0, 0], state

    files = write(tmp_path / "b", given, consumer="sherpa-onnx")
    predictor, joiner = (session(files[f"{name}.onnx"]) for name in ("decoder", "joiner"))

    def separate_step(frame, token, state):
        output, _, *state = predictor.run(None, inputs(token, state))
        (logits,) = joiner.run(
            None, dict(encoder_outputs=frame[None, :, None], decoder_outputs=output)
        )
        return logits[0, 0, 0], state

    zeros = (np.zeros((2, 1, 8), np.float32),) * 2
    for step in (joint_step, separate_step):
        labels, times = greedy(step, frames[0], 6, durations, zeros)
        assert labels == list(expected.labels[0, :count])
        assert times == list(expected.times[0, :count])


def test_the_vocabulary_and_the_settings_are_as_onnx_asr_reads_them(tmp_path):
    files = write(tmp_path / "out", recogniser())
    assert set(files) == {
        "encoder-model.onnx", "decoder_joint-model.onnx", "vocab.txt", "config.json",
    }  # fmt: skip
    assert files["vocab.txt"].read_text().splitlines() == [
        "▁ 0", "a 1", "b 2", "c 3", "d 4", "e 5", "<blk> 6",
    ]  # fmt: skip
    assert json.loads(files["config.json"].read_text()) == {
        "model_type": "nemo-conformer-tdt",
        "features_size": 80,
        "subsampling_factor": 8,
        "max_tokens_per_step": 10,
    }


def test_the_metadata_are_as_sherpa_onnx_reads_them(tmp_path):
    for durations in ((0, 1, 2), None):
        files = write(tmp_path / f"{durations}", recogniser(durations), consumer="sherpa-onnx")
        metadata = session(files["encoder.onnx"]).get_modelmeta().custom_metadata_map
        assert ("tdt" in metadata["url"]) == (durations is not None)
        expected = dict(
            vocab_size="6", normalize_type="", subsampling_factor="8", feat_dim="80",
            pred_rnn_layers="2", pred_hidden="8",
        )  # fmt: skip
        assert expected.items() <= metadata.items()
        outputs = session(files["decoder.onnx"]).get_outputs()
        assert outputs[0].name == "outputs"


def test_ctc_labels_are_those_of_the_model(tmp_path):
    """sherpa-onnx reads frames // 8 of a recording: no label is lost to that."""
    given = recogniser()
    features = np.random.default_rng(3).normal(size=(2, 101, 80)).astype(np.float32)
    lengths = np.array([101, 64])
    inputs = {"audio_signal": features.swapaxes(1, 2), "length": lengths}
    frames, num_frames = encode(given.model, features, lengths)
    expected = jax.device_get(tdt.ctc_decode(given.model, frames, num_frames))

    def labels(tokens):
        return [t for t, before in zip(tokens, [6, *tokens], strict=False) if t not in (6, before)]

    files = write(tmp_path / "a", given, decoder="ctc")
    (logprobs,) = session(files["model.onnx"]).run(["logprobs"], inputs)
    np.testing.assert_allclose(np.exp(logprobs).sum(-1), 1, atol=1e-5)
    raw = with_features(given, normalize=(0.0, 1.0))  # features as they are, for sherpa-onnx
    files = write(tmp_path / "b", raw, decoder="ctc", consumer="sherpa-onnx")
    (read_by_sherpa,) = session(files["model.onnx"]).run(None, inputs)
    for row in range(2):
        whole = logprobs[row, : num_frames[row]].argmax(-1)
        assert labels(whole) == list(expected.labels[row, : expected.num_labels[row]])
        assert labels(read_by_sherpa[row, : lengths[row] // 8].argmax(-1)) == labels(whole)


def frames_of(files, name, features, lengths):
    inputs = {"audio_signal": features.swapaxes(1, 2), "length": lengths}
    return session(files[name]).run(["outputs"], inputs)[0].swapaxes(1, 2)


def test_the_encoder_undoes_what_sherpa_onnx_computes_otherwise(tmp_path):
    """Its features end below ours and are not normalized: the frames are those of our features."""
    given = with_features(recogniser(), normalize=(-8.0, 3.0))
    top, below = hertz_to_mel(8000), hertz_to_mel(8000 - SHERPA_BELOW_NYQUIST)
    ours, theirs = (np.linspace(0, end, 82)[1:-1] for end in (top, below))
    slopes = np.random.default_rng(4).normal(size=(1, 40, 1)) / 20
    features = (slopes * np.minimum(ours, theirs[-1])).astype(np.float32)
    lengths = np.array([40])
    files = write(tmp_path / "out", given, consumer="sherpa-onnx")
    actual = frames_of(files, "encoder.onnx", (slopes * theirs).astype(np.float32), lengths)
    normalized = _normalize(features, lengths, given.config.features)
    np.testing.assert_allclose(actual, encode(given.model, normalized, lengths)[0], atol=1e-4)


def test_the_encoder_leaves_silence_out_of_what_onnx_asr_normalizes(tmp_path):
    """Which has normalized by all frames."""
    given = with_features(recogniser(), silence=20.0)
    features = np.random.default_rng(5).normal(size=(1, 60, 80)).astype(np.float32) - 4
    features[:, 20:40] -= 2 * DEVIATION
    lengths = np.array([60])
    files = write(tmp_path / "out", given)
    by_all = _normalize(features, lengths, FeatureConfig())
    actual = frames_of(files, "encoder-model.onnx", np.asarray(by_all), lengths)
    normalized = _normalize(features, lengths, given.config.features)
    np.testing.assert_allclose(actual, encode(given.model, normalized, lengths)[0], atol=1e-4)
    assert np.abs(encode(given.model, by_all, lengths)[0] - actual).max() > 0.1


def test_weights_of_fewer_bits_are_smaller():
    """A quarter and a half, of blocks that are most of the model."""
    config = models.config(encoder=models.encoder_config(width=64, num_layers=4))
    model, sizes = models.transducer(config), {}
    for weights in ("float32", "float16", "int8"):
        graph = Graph(weights)
        names = graph.input("x", np.float32, ["b", "t", 16]), graph.input("n", np.int64, ["b"])
        networks.encode(graph, model, *names)
        sizes[weights] = num_bytes(graph.model("encoder", {}))
    assert sizes["float16"] < 0.55 * sizes["float32"]
    assert sizes["int8"] < 0.35 * sizes["float32"]


def test_weights_beyond_float16_stay_wide():
    graph = Graph("float16")
    graph.output("y", graph.weight(np.array([1e6, 0.5])), np.float32, [2])
    assert run(graph)[0].tolist() == [1e6, 0.5]


def test_a_model_of_more_than_a_file_holds_has_its_weights_beside_it(tmp_path, monkeypatch):
    graph = Graph()
    x = graph.input("x", np.float32, [1, 600])
    graph.output("y", graph.op("MatMul", x, np.ones((600, 2), np.float32)), np.float32, [1, 2])
    model = graph.model("test", {})
    monkeypatch.setattr("tdt_jax.exports.onnx_graph.LARGEST_FILE", 1000)
    save(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx.data").stat().st_size >= 4800
    (y,) = session(tmp_path / "m.onnx").run(None, {"x": np.ones((1, 600), np.float32)})
    assert y.tolist() == [[600, 600]]


REFUSED = {
    "consumer": (dict(consumer="vosk"), "no export for 'vosk'"),
    "weights": (dict(weights="int4"), "no weights 'int4'"),
    "decoder": (dict(decoder="aed"), "no decoder 'aed'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown_options_are_refused(tmp_path, name):
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        export_onnx(recogniser(), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


FEATURES = {
    "constants": (dict(num_mels=80, normalize=(-13.0, 3.5)), "by constants"),
    "bins": (dict(num_mels=16), "80 or 128 mel bins"),
    "rate": (dict(sample_rate=8000, window_length=200, hop_length=80, fft_length=256), "8000 Hz"),
    "window": (dict(hop_length=200), "features.hop_length = 200 .160."),
}


@pytest.mark.parametrize("name", FEATURES)
def test_features_that_the_consumer_does_not_compute_are_refused(name):
    changes, message = FEATURES[name]
    config = dataclasses.replace(models.config(), features=FeatureConfig(**changes))
    given = tdt.Recogniser(models.transducer(config), tokenizers.Characters("abcdef"))
    with pytest.raises(ValueError, match=message):
        check(given, "onnx-asr")
    if name != "window":
        check(given, "sherpa-onnx")


def test_a_vocabulary_that_the_consumer_cannot_spell_is_refused():
    given = models.make_recogniser(tokenizer=mixed.tokenizer(), features=FeatureConfig(num_mels=80))
    with pytest.raises(ValueError, match="bytes"):
        check(given, "onnx-asr")
    with pytest.raises(ValueError, match=r"the labels 3 to 258 for the bytes .* one at 12"):
        check(given, "sherpa-onnx")
    given = tdt.Recogniser(emitting((0, 1, 2)), tokenizers.Characters("\tabcde"))
    with pytest.raises(ValueError, match="has spaces or is empty"):
        check(given, "onnx-asr")
    given = dataclasses.replace(given, tokenizer=SimpleNamespace(pieces=["<blk>"], vocab_size=6))
    with pytest.raises(ValueError, match="the piece <blk> for the blank"):
        check(given, "onnx-asr")


def test_sherpa_onnx_has_the_scores_of_pieces(tmp_path):
    tokenizer = models.sentencepiece()
    _write_vocabulary(tokenizer, tmp_path, "sherpa-onnx")
    lines = (tmp_path / "bpe.vocab").read_text("utf-8").splitlines()
    pieces, scores = zip(*(line.split("\t") for line in lines), strict=True)
    assert list(pieces) == tokenizer.pieces and len(set(scores)) > 10
    np.testing.assert_allclose(np.array(scores, float), tokenizer.scores, rtol=1e-5)


def test_a_graph_that_sherpa_onnx_cannot_load_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tdt_jax.exports.onnx.LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="at most 2 GB"):
        export_onnx(recogniser(), tmp_path / "out", consumer="sherpa-onnx")
    assert not list(tmp_path.iterdir())


def test_an_export_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    given = recogniser()
    monkeypatch.setattr("tdt_jax.exports.onnx._write_vocabulary", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_onnx(given, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(ValueError, match="exists already"):
        export_onnx(given, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
