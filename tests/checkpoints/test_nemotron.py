"""Loaded streaming models compute, whole and chunk by chunk, what NeMo and transformers compute.

The golden files are of tests/golden/make_streaming.py.
"""

import functools
import shutil
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import nnx
from parakeet_files import NEMOTRON, UNIFIED, change_json, pack
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax.models.transducer import MismatchError, encode, encode_chunk, start_encoding

SOURCES = {"nemo": NEMOTRON.with_suffix(".nemo"), "transformers": NEMOTRON}
RIGHTS = 3, 0, 1, 7  # of the contexts, whose left is 8
FAST = ("nemo", 3), ("transformers", 3)  # those compared in every run
GERMAN = 2


@pytest.fixture(scope="module")
def golden():
    return {name: dict(np.load(GOLDEN / f"nemotron_{name}.npz")) for name in SOURCES}


@functools.cache
def model(name):
    return tdt.load(SOURCES[name]).model


@functools.cache
def utterances(count=200, size=160):
    """The random features of the golden files' script: [200, 160, 16], and their lengths."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(1, size + 1, count).astype(np.int32)
    lengths[:8] = (size - np.arange(8))[:count]
    features = rng.normal(size=(count, size, 16)).astype(np.float32)
    features[np.arange(size)[None] >= lengths[:, None]] = 0
    return features, lengths


def streamed(model, features, lengths, right, size):
    """The frames of each row, encoded in pieces of `size` features."""
    state = start_encoding(model, len(features), (8, right))
    rows = [[] for _ in features]
    for start in range(0, features.shape[1], size):
        piece = features[:, start : start + size]
        piece = np.pad(piece, ((0, 0), (0, size - piece.shape[1]), (0, 0)))
        count = np.clip(lengths - start, 0, size)
        last = (lengths > start) & (lengths <= start + size)
        frames, num_frames, state = jax.device_get(
            encode_chunk(model, piece, count.astype(np.int32), state, last)
        )
        for row, x, n in zip(rows, frames, num_frames, strict=True):
            row.append(x[:n])
    return [np.concatenate(row) for row in rows]


def assert_close(computed, expected, tolerance=2e-6):
    """Within `tolerance` of the largest number expected."""
    np.testing.assert_allclose(
        np.asarray(computed), expected, rtol=0, atol=tolerance * np.max(np.abs(expected))
    )


def assert_decodes(model, frames, num_frames, golden, right):
    hypothesis = jax.device_get(tdt.greedy_decode(model, frames, num_frames))
    counts = golden[f"counts{right}"]
    assert len(counts) == 200 and np.sum(counts) > 800
    np.testing.assert_array_equal(hypothesis.num_labels, counts)
    is_label = np.arange(hypothesis.labels.shape[1])[None] < counts[:, None]
    for name in ("labels", "times"):
        expected = golden[f"{name}{right}"]
        np.testing.assert_array_equal(getattr(hypothesis, name)[is_label], expected)


@pytest.mark.parametrize("source", SOURCES)
def test_the_settings_of_nemotron_are_read(source):
    config = model(source).config
    assert config.kind == "RNN-T" and config.encoder.is_causal
    assert config.encoder.chunked_contexts == tuple((8, right) for right in RIGHTS)
    assert config.features.normalize == (0.0, 1.0)
    assert config.prompt.slot("de-DE") == GERMAN and config.prompt.slot("no") == 3
    assert config.prompt.num_slots == 7 and config.prompt.default == 5
    assert config.prompt.width == {"nemo": 32, "transformers": 20}[source]


@pytest.mark.parametrize("source", SOURCES)
def test_every_stage_is_theirs(source, golden):
    golden, ours = golden[source], model(source)
    features, lengths = (each[:2] for each in utterances())

    @jax.jit
    def stages(model, features, lengths, labels):
        subsampled, num_frames = model.encoder.subsampling(features, lengths)
        frames, _ = model.encoder(features, lengths)
        prompted = model.prompted(frames, num_frames)
        states = model.predictor(labels)
        projected = model.joint.project_states(states)
        logits, _ = model.joint(prompted, states)
        return subsampled, frames, num_frames, states, projected, logits

    labels = golden["labels"].astype(np.int32)
    subsampled, frames, num_frames, states, projected, logits = jax.device_get(
        stages(ours, features, lengths, labels)
    )
    valid = np.arange(subsampled.shape[1])[None] < num_frames[:, None]
    assert list(num_frames) == [21, 21]
    assert_close(subsampled[valid], golden["subsampled"][valid])
    if source == "transformers":
        assert_close(frames[valid], golden["block1"][valid])
    assert_close(projected if source == "transformers" else states, golden["states"])
    assert_close(logits[0][valid[0]], golden["logits"][valid[0]], 2e-5)


every_context = pytest.mark.parametrize(
    ("source", "right"),
    [
        pytest.param(source, right, marks=() if (source, right) in FAST else pytest.mark.slow)
        for source in SOURCES
        for right in RIGHTS
    ],
)


@every_context
def test_whole_utterances_are_theirs_in_every_context(source, right, golden):
    ours, expected = model(source), golden[source]
    features, lengths = utterances()
    frames, num_frames = jax.device_get(encode(ours, features, lengths, context=(8, right)))
    if source == "nemo":  # those of transformers are projected for the joint network
        for row in range(2):
            assert_close(frames[row, : num_frames[row]], expected[f"frames{right}_{row}"])
    assert_decodes(ours, frames, num_frames, expected, right)


@every_context
def test_streams_are_theirs_in_every_context(source, right, golden):
    """Pieces as NeMo's chunks, but for the first, and of another size."""
    ours, expected = model(source), golden[source]
    features, lengths = utterances()
    rows = streamed(ours, features, lengths, right, 8 * (right + 1))
    frames = np.zeros((len(rows), 21, rows[0].shape[-1]), np.float32)
    for target, row in zip(frames, rows, strict=True):
        target[: len(row)] = row
    num_frames = np.array([len(row) for row in rows], np.int32)
    assert_decodes(ours, frames, num_frames, expected, right)
    if source == "nemo":
        for row in range(2):
            assert_close(rows[row], expected[f"frames{right}_{row}"])
    else:
        theirs = expected[f"frames{right}"]
        projection = ours.joint.frame_projection
        projected = rows[0] @ np.asarray(projection.kernel) + np.asarray(projection.bias)
        assert_close(projected[: len(theirs)], theirs, 4e-6)


def test_unified_models_are_those_of_nemo_in_contexts_of_left_chunk_and_right():
    """Those of parakeet-unified-en-0.6b, on windows that are longer than their left context."""
    golden = dict(np.load(GOLDEN / "unified_contexts.npz"))
    ours = tdt.load(UNIFIED).model
    assert ours.config.encoder.unified_contexts == ((70,), (1, 2, 7, 13), (0, 1, 2, 3, 4, 7, 13))
    features, _ = utterances(2, 640)
    lengths = np.array([640, 500], np.int32)
    num_frames = golden.pop("num_frames")
    valid = np.arange(80)[None] < num_frames[:, None]
    assert len(golden) == 4
    for name, expected in golden.items():
        context = tuple(map(int, name.split("_")))
        frames, num = jax.device_get(encode(ours, features, lengths, context=context))
        np.testing.assert_array_equal(num, num_frames)
        assert_close(frames[valid], expected[valid])


@pytest.mark.parametrize("source", ["nemo", pytest.param("transformers", marks=pytest.mark.slow)])
def test_a_language_is_theirs(source, golden):
    """Of the first utterance alone; the second has the default."""
    ours = model(source)
    features, lengths = (each[:2] for each in utterances())
    prompt = np.array([ours.config.prompt.slot("de-DE"), ours.config.prompt.default], np.int32)
    frames, _ = jax.device_get(encode(ours, features, lengths, prompt=prompt))
    default, _ = jax.device_get(encode(ours, features, lengths))
    german = golden[source]["german"][0]
    if source == "transformers":
        projection = ours.joint.frame_projection
        projected = frames[0] @ np.asarray(projection.kernel) + np.asarray(projection.bias)
        assert_close(projected, german, 4e-6)
    else:
        assert_close(frames[0, :21], german)
    assert np.max(np.abs(frames[0] - default[0])) > 0.1
    np.testing.assert_allclose(frames[1], default[1], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_language_is_chosen_for_all_that_is_transcribed():
    recogniser = tdt.load(NEMOTRON)
    german = tdt.with_language(recogniser, "de-DE")
    assert german.config.prompt.default == GERMAN
    features, lengths = (each[:2] for each in utterances())
    prompt = np.full(2, GERMAN, np.int32)
    np.testing.assert_array_equal(
        encode(german.model, features, lengths)[0],
        encode(recogniser.model, features, lengths, prompt=prompt)[0],
    )
    assert tdt.with_language(german, "auto").config == recogniser.config
    with pytest.raises(ValueError, match="no prompt for 'fr'; it has auto, de-DE, en, en-US, no"):
        tdt.with_language(recogniser, "fr")
    with pytest.raises(ValueError, match="no language prompt"):
        tdt.with_language(tdt.load(UNIFIED), "de-DE")


def test_features_are_those_of_transformers(golden):
    samples = np.zeros((2, 6543), np.float32)
    for row, n in zip(samples, (4000, 6543), strict=True):
        row[:n] = np.random.default_rng(5).normal(size=n).astype(np.float32) * 0.1
    features, num_features = tdt.log_mel(
        samples, np.array([4000, 6543]), model("transformers").config.features
    )
    golden = golden["transformers"]
    np.testing.assert_array_equal(num_features, golden["num_log_mel"])
    assert_close(features, golden["log_mel"][:, : features.shape[1]], 1e-4)


# What does not fit


def test_tensors_of_an_encoder_that_is_not_causal(tmp_path):
    """4096 instead of 4352 inputs of pre_encode.out; and statistics of a BatchNorm."""
    with tarfile.open(SOURCES["nemo"]) as archive:
        contents = {each.name: archive.extractfile(each).read() for each in archive if each.isreg()}
    (name,) = (each for each in contents if each.endswith("model_config.yaml"))
    config = yaml.safe_load(contents[name])
    config["encoder"] |= {"causal_downsampling": False, "conv_norm_type": "batch_norm"}
    config["model_defaults"]["num_prompts"] = 9
    contents[name] = yaml.safe_dump(config).encode()
    with pytest.raises(MismatchError) as caught:
        tdt.load(pack(tmp_path / "changed.nemo", contents))
    for problem in (
        "encoder.pre_encode.out.weight is (16, 18), expected (16, 12)",
        "missing encoder.layers.0.conv.batch_norm.running_mean",
        "prompt_kernel.0.weight is (32, 23), expected (32, 25)",
    ):
        assert problem in str(caught.value)


def test_a_folder_without_its_prompt(tmp_path):
    folder = shutil.copytree(NEMOTRON, tmp_path / "nemotron")
    change_json(folder / "config.json", model_type="nemotron_asr_streaming")
    with pytest.raises(MismatchError, match=r"extra prompt_projector\.linear_1\.weight"):
        tdt.load(folder)
    change_json(folder / "config.json", model_type="nemotron3_5_asr", prompt_intermediate_size=7)
    with pytest.raises(MismatchError, match=r"linear_2\.weight is \(16, 20\), expected \(16, 7\)"):
        tdt.load(folder)


# Tags


@pytest.fixture(scope="module")
def tagging():
    """A recogniser of which a few labels, most of them tags, are likely; and noise."""
    recogniser = tdt.load(SOURCES["nemo"])
    head, pieces = recogniser.model.joint.token_head, recogniser.tokenizer.pieces
    bias = np.array(head.bias[...])
    bias[[pieces.index(tag) for tag in ("<de-DE>", "<EOU>", "<EOB>")]] += 2
    head.bias = nnx.Param(jnp.asarray(bias))
    loudness = np.abs(np.sin(np.arange(48000) / 3000))
    noise = np.random.default_rng(0).normal(size=48000) * loudness
    return recogniser, noise.astype(np.float32)


def test_labels_of_the_published_tokenizers_are_tags():
    tokenizer = tdt.load(SOURCES["nemo"]).tokenizer
    tags = {tokenizer.pieces[label] for label in tokenizer.tags}
    assert tags == {"<unk>", "<en-US>", "<de-DE>", "<EOU>", "<EOB>"}
    assert tokenizer.pieces[-2:] == ["<EOU>", "<EOB>"]
    assert tokenizer.end_of_utterance == {tokenizer.vocab_size - 2}
    assert tdt.load(SOURCES["transformers"]).tokenizer.tags == tokenizer.tags


def test_transcripts_have_a_language_and_no_tags(tagging):
    recogniser, noise = tagging
    (shown,) = tdt.transcribe(recogniser, [noise], keep_tags=True)
    assert "<de-DE>" in shown.text and "<EOB>" in shown.text
    (transcript,) = tdt.transcribe(recogniser, [noise])
    assert transcript.text and "<" not in transcript.text
    assert transcript.language == shown.language == "de-DE"


def test_streams_have_a_language_and_no_tags(tagging):
    recogniser, noise = tagging
    stream = tdt.Stream(recogniser)
    words = [*stream.push(noise), *stream.finish()]
    assert words and "<" not in stream.text and stream.text.strip()
    assert stream.language == "de-DE"
