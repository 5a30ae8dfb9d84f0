"""Loaded Parakeet models compute, stage by stage, what transformers and NeMo compute.

The golden files are of tests/golden/make_parakeet.py and make_nemo.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parakeet_files import ARCHIVE, FOLDERS, TEXTS, UNIFIED, assert_same_leaves, changed_archive
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax.inference.recognition import decode_samples
from tdt_jax.models.attention import position_encoding


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "parakeet.npz"))


@pytest.fixture(scope="module")
def nemo():
    return dict(np.load(GOLDEN / "nemo.npz"))


@functools.cache
def utterances(seed):
    """The random features of the golden files' scripts: [400, 96, 16], and their lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 97, 400)
    lengths[0] = 96
    features = rng.normal(size=(400, 96, 16)).astype(np.float32)
    features[np.arange(96)[None] >= lengths[:, None]] = 0
    return features, lengths


@pytest.fixture(scope="module")
def encoded():
    """A function from a checkpoint to its model, and its frames of all utterances of a seed."""

    @functools.cache
    def encode(source, seed):
        model = tdt.load(source).model
        return model, *jax.device_get(tdt.encode(model, *utterances(seed)))

    return encode


@jax.jit
def encoder_stages(model, features, lengths):
    """The subsampled frames, the outputs of the two blocks, and the number of frames."""
    x, num_frames = model.encoder.subsampling(features, lengths)
    padding = jnp.arange(x.shape[1])[None] >= num_frames[:, None]
    stages = [x]
    if model.config.encoder.scale_input:
        x = x * np.sqrt(model.config.encoder.width)
    positions = position_encoding(x.shape[1] - 1, 1 - x.shape[1], x.shape[2])
    for i in range(2):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], model.encoder.blocks)
        x = block(x, positions, padding)
        stages.append(x)
    return *stages, num_frames


@jax.jit
def decoder_stages(model, frames, labels):
    """The predictor's states, as they are and as the joint projects them; logits of the joint."""
    states = model.predictor(labels)
    logits = [each for each in model.joint(frames, states) if each is not None]
    return states, model.joint.project_states(states), jnp.concatenate(logits, -1)


def assert_close(computed, expected, tolerance=2e-6):
    """Within `tolerance` of the largest number expected."""
    np.testing.assert_allclose(
        np.asarray(computed), expected, rtol=0, atol=tolerance * np.max(np.abs(expected))
    )


def assert_decodes(hypothesis, counts, **flat):
    """`flat` has the labels, times or durations of all utterances, one after another."""
    hypothesis = jax.device_get(hypothesis)
    np.testing.assert_array_equal(hypothesis.num_labels, counts)
    for name, expected in flat.items():
        is_label = np.arange(hypothesis.labels.shape[1])[None] < counts[:, None]
        np.testing.assert_array_equal(getattr(hypothesis, name)[is_label], expected)


# transformers


@pytest.mark.parametrize("kind", ["tdt", "rnnt"])
def test_every_stage_is_that_of_transformers(kind, golden):
    model = tdt.load(FOLDERS[kind]).model
    features, lengths = golden["features"][:2], golden["lengths"][:2]
    *stages, num_frames = jax.device_get(encoder_stages(model, features, lengths))
    valid = np.arange(12)[None] < num_frames[:, None]
    for name, stage in zip(("subsampled", "block0", "block1"), stages, strict=True):
        assert_close(stage[valid], golden[f"{kind}_{name}"][valid])
    labels = golden[f"{kind}_labels"].astype(np.int32)
    _, states, logits = jax.device_get(decoder_stages(model, stages[-1], labels))
    assert_close(states, golden[f"{kind}_states"])
    # Heads of large weights multiply what was rounded before.
    assert_close(logits[valid], golden[f"{kind}_logits"][valid], 2e-5)


@pytest.mark.parametrize("kind", ["tdt", "rnnt"])
def test_greedy_decoding_is_that_of_transformers(kind, golden, encoded):
    """Of 200 ragged utterances all labels, times and durations: 0 to 4 of a TDT."""
    model, frames, num_frames = encoded(FOLDERS[kind], 1)
    np.testing.assert_array_equal(utterances(1)[0][:3], golden["features"])
    valid = np.arange(12)[None] < num_frames[:2, None]
    assert_close(frames[:2][valid], golden[f"{kind}_block1"][valid])
    kept = golden[f"{kind}_kept"]
    assert len(kept) == 200
    hypothesis = tdt.greedy_decode(model, frames[kept], num_frames[kept])
    flat = {name: golden[f"{kind}_decoded_{name}"] for name in ("labels", "times", "durations")}
    if kind == "rnnt":
        flat.pop("durations")  # there it is the step of the frame, here 0
    else:
        assert set(flat["durations"]) == {0, 1, 2, 3, 4}
    assert_decodes(hypothesis, golden[f"{kind}_counts"], **flat)


def test_ctc_is_that_of_transformers(golden, encoded):
    model, frames, num_frames = encoded(FOLDERS["ctc"], 1)
    assert model.predictor is None and model.joint is None and model.config.kind == "CTC"
    expected = golden["ctc_logits"]
    valid = np.arange(12)[None] < num_frames[: len(expected), None]
    logits = jax.jit(model.ctc)(frames[: len(expected)])
    assert_close(np.asarray(logits)[valid], expected[valid])
    hypothesis = tdt.ctc_decode(model, frames[:200], num_frames[:200])
    assert_decodes(hypothesis, golden["ctc_counts"], labels=golden["ctc_decoded_labels"])


@pytest.mark.parametrize("kind", ["tdt", "rnnt"])
def test_texts_become_the_labels_of_transformers(kind, golden):
    tokenizer = tdt.load(FOLDERS[kind]).tokenizer
    ids = [tokenizer.encode(text) for text in TEXTS]
    np.testing.assert_array_equal(np.concatenate(ids), golden[f"{kind}_tokenized"])
    assert [tokenizer.decode(each) for each in ids] == list(TEXTS)


# NeMo


def test_every_stage_is_that_of_nemo(nemo, encoded):
    """A hybrid with a CTC head, a joint of another width, and durations of its own."""
    model, frames, num_frames = encoded(ARCHIVE, 2)
    assert model.config.kind == "TDT" and model.config.ctc and model.config.joint.width == 10
    assert not model.config.encoder.scale_input and model.config.predictor.num_layers == 2
    frames, num_frames = frames[:3], num_frames[:3]
    np.testing.assert_array_equal(utterances(2)[0][:3], nemo["features"])
    np.testing.assert_array_equal(num_frames, nemo["num_frames"])
    valid = np.arange(12)[None] < num_frames[:, None]
    assert_close(frames[valid], nemo["frames"][valid])
    labels = nemo["labels"].astype(np.int32)
    states, _, logits = jax.device_get(decoder_stages(model, frames, labels))
    assert_close(states, nemo["states"])
    assert_close(logits[valid], nemo["logits"][valid])
    log_probs = jax.jit(lambda ctc, x: jax.nn.log_softmax(ctc(x)))(model.ctc, frames)
    expected = nemo["ctc_logits"] - np.log(np.sum(np.exp(nemo["ctc_logits"]), -1, keepdims=True))
    assert_close(np.asarray(log_probs)[valid], expected[valid])


def test_greedy_decoding_is_that_of_nemo(nemo, encoded):
    model, frames, num_frames = encoded(ARCHIVE, 2)
    kept = nemo["kept"]
    hypothesis = tdt.greedy_decode(model, frames[kept], num_frames[kept])
    flat = {name: nemo[f"decoded_{name}"] for name in ("labels", "times", "durations")}
    assert set(flat["durations"]) == {0, 1, 2, 3, 4} and len(kept) == 200
    assert_decodes(hypothesis, nemo["counts"], **flat)


def test_a_model_for_both_encodes_whole_audio_as_nemo_does(encoded):
    """With the fields of parakeet-unified-en-0.6b, whose context is limited in streaming only."""
    golden = dict(np.load(GOLDEN / "nemo_unified.npz"))
    model, frames, num_frames = encoded(UNIFIED, 2)
    assert model.config.kind == "RNN-T" and not model.config.ctc
    assert model.config.encoder.attention_context is None and model.config.encoder.scale_input
    np.testing.assert_array_equal(num_frames[:3], golden["num_frames"])
    valid = np.arange(12)[None] < num_frames[:3, None]
    assert_close(frames[:3][valid], golden["frames"][valid])
    kept = golden["kept"]
    hypothesis = tdt.greedy_decode(model, frames[kept], num_frames[kept])
    flat = {name: golden[f"decoded_{name}"] for name in ("labels", "times")}
    assert len(flat["labels"]) >= 500 and len(set(flat["labels"])) >= 25
    assert_decodes(hypothesis, golden["counts"], **flat)


def test_local_attention_is_that_of_nemo(nemo):
    recogniser = tdt.load(ARCHIVE, attention_context=(2, 2))
    frames, num_frames = jax.device_get(
        tdt.encode(recogniser.model, nemo["features"], nemo["lengths"])
    )
    valid = np.arange(12)[None] < num_frames[:, None]
    assert_close(frames[valid], nemo["local_frames"][valid])
    full = tdt.with_attention_context(recogniser, None)
    assert full.config == tdt.load(ARCHIVE).config
    assert_same_leaves(full.model, recogniser.model)


def test_an_absurd_context_is_no_more_than_all_frames(tmp_path, encoded):
    """As with full attention, on audio of any length."""
    _, full, num_frames = encoded(ARCHIVE, 2)
    path = changed_archive(tmp_path, encoder__att_context_size=[10**9, 10**9])
    model = tdt.load(path).model
    assert model.config.encoder.attention_context == (10**9, 10**9)
    features, lengths = utterances(2)
    frames = np.asarray(tdt.encode(model, features[:3], lengths[:3])[0])
    valid = np.arange(12)[None] < num_frames[:3, None]
    assert_close(frames[valid], full[:3][valid])


# Both


def test_features_are_theirs(golden, nemo):
    rng = np.random.default_rng(5)
    samples = np.zeros((2, 6543), np.float32)
    for row, n in zip(samples, (4000, 6543), strict=True):
        row[:n] = rng.normal(size=n).astype(np.float32) * 0.1
    features, num_features = tdt.log_mel(
        samples, np.array([4000, 6543]), tdt.load(FOLDERS["tdt"]).config.features
    )
    np.testing.assert_array_equal(num_features, golden["num_log_mel"])
    assert_close(features, golden["log_mel"][:, : features.shape[1]], 1e-4)

    samples = np.random.default_rng(5).normal(size=(2, 6543)).astype(np.float32) * 0.1
    features, num_features = tdt.log_mel(
        samples, np.array([4000, 6543]), tdt.load(ARCHIVE).config.features
    )
    np.testing.assert_array_equal(num_features, nemo["num_log_mel"])
    assert_close(features, nemo["log_mel"][:, : features.shape[1]], 1e-4)


def test_bfloat16_computes_nearly_the_same(encoded):
    _, full, _ = encoded(FOLDERS["tdt"], 1)
    half = tdt.load(FOLDERS["tdt"], dtype="bfloat16")
    features, lengths = utterances(1)
    frames, num_frames = tdt.encode(half.model, features[:4], lengths[:4])
    assert frames.dtype == jnp.bfloat16
    assert np.max(np.abs(np.asarray(frames, np.float32) - full[:4])) < 0.2
    hypothesis = jax.eval_shape(tdt.greedy_decode, half.model, frames, num_frames)
    assert hypothesis.labels.shape[0] == 4


@pytest.mark.parametrize(
    ("source", "decoder"),
    [
        (ARCHIVE, "transducer"),
        (FOLDERS["ctc"], "ctc"),
        pytest.param(ARCHIVE, "ctc", marks=pytest.mark.slow),
        pytest.param(FOLDERS["tdt"], "transducer", marks=pytest.mark.slow),
        pytest.param(FOLDERS["rnnt"], "transducer", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "stem", value),
)
def test_they_transcribe(source, decoder):
    """Noise in, tokens out, with each decoder that a model has."""
    recogniser = tdt.load(source)
    assert decoder in recogniser.config.decoders
    noise = np.random.default_rng(0).normal(size=24000).astype(np.float32)
    (transcript,) = tdt.transcribe(recogniser, [noise], decoder=decoder)
    assert transcript.duration == 1.5
    assert transcript.tokens or source == FOLDERS["rnnt"]


def test_other_decoders_are_refused():
    recogniser, noise = tdt.load(ARCHIVE), np.zeros(24000, np.float32)
    with pytest.raises(ValueError, match="decoder"):
        tdt.transcribe(recogniser, [noise], decoder="beam")
    with pytest.raises(ValueError, match="decoder"):
        decode_samples(recogniser.model, noise[None], np.array([24000]), decoder="CTC")
