"""Hostile and damaged archives and folders: a clear error, nothing outside, nothing executed."""

import dataclasses
import gc
import io
import json
import shutil
import tarfile
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax.checkpoints.parakeet.nemo_config import _seconds
from tdt_jax.cli import main
from tdt_jax.models.transducer import abstract_model
from tdt_jax.recogniser import Recogniser

ARCHIVE = GOLDEN / "parakeet_hybrid.nemo"
FOLDER = GOLDEN / "parakeet_tdt"


def members():
    with tarfile.open(ARCHIVE) as archive:
        return {
            each.name.removeprefix("./"): archive.extractfile(each).read()
            for each in archive
            if each.isreg()
        }


def pack(path, contents, *special, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return path


def with_config(tmp_path, **changes):
    """The archive with fields of its configuration changed, by path with __ for the dots."""
    contents = members()
    config = yaml.safe_load(contents["model_config.yaml"])
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = config
        for name in outer:
            place = place[name]
        place[last] = value
    contents["model_config.yaml"] = yaml.safe_dump(config).encode()
    return pack(tmp_path / "changed.nemo", contents)


@pytest.mark.parametrize("name", ["/tmp/evil", "../evil", "a/../../evil"])
def test_members_outside_are_refused(tmp_path, name):
    path = pack(tmp_path / "a.nemo", {**members(), name: b"evil"})
    with pytest.raises(ValueError, match="no plain file"):
        tdt.load(path)
    assert not (tmp_path.parent / "evil").exists() and not Path("/tmp/evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    link = tarfile.TarInfo("model_weights.ckpt")
    link.type, link.linkname = kind, "/etc/passwd"
    contents = members()
    contents.pop("model_weights.ckpt")
    with pytest.raises(ValueError, match="no plain file"):
        tdt.load(pack(tmp_path / "a.nemo", contents, link))


def test_incomplete_archives(tmp_path):
    contents = members()
    for name in contents:
        if name.endswith("vocab.txt"):
            continue
        rest = {key: value for key, value in contents.items() if key != name}
        with pytest.raises(ValueError, match=r"holds no"):
            tdt.load(pack(tmp_path / "a.nemo", rest))
    whole = ARCHIVE.read_bytes()
    for content in (b"", b"hello", whole[:1000], whole[: len(whole) // 2], b"\x1f\x8b" + whole):
        (tmp_path / "b.nemo").write_bytes(content)
        with pytest.raises(ValueError, match=r"b\.nemo"):
            tdt.load(tmp_path / "b.nemo")
    with pytest.raises(ValueError, match="no file, folder or repository"):
        tdt.load(tmp_path / "c.nemo")


def test_an_archive_that_unpacks_without_end_is_stopped(tmp_path):
    path = pack(tmp_path / "bomb.nemo", {"model_weights.ckpt": bytes(200 << 20)}, mode="w:gz")
    with pytest.raises(ValueError, match="times its size"):
        tdt.load(path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"target": "nemo.collections.tts.models.FastPitch"}, "FastPitch"),
        ({"encoder__n_layers": 10**9}, "n_layers is 1000000000"),
        ({"encoder__d_model": 10**12}, "d_model is 1000000000000"),
        ({"encoder__d_model": -3}, "d_model is -3"),
        ({"encoder__n_layers": "many"}, "n_layers is 'many'"),
        ({"decoder__prednet__pred_rnn_layers": 10**8}, "pred_rnn_layers"),
        ({"encoder__n_heads": 3}, "multiple of n_heads"),
        ({"encoder__subsampling": "striding"}, "dw_striding"),
        ({"encoder__subsampling_factor": 4}, "subsampling_factor is 4"),
        ({"encoder__self_attention_model": "abs_pos"}, "abs_pos"),
        ({"encoder__att_context_size": [0, 0]}, r"\[0, 0\]; two limits"),
        ({"encoder__att_context_size": [[70, -1]]}, "two limits"),
        ({"encoder__att_context_size": "all"}, "'all'"),
        ({"encoder__att_context_style": "chunked_limited"}, "chunked_limited"),
        ({"encoder__causal_downsampling": True}, "causal_downsampling"),
        ({"encoder__conv_context_size": [4, 0]}, "conv_context_size"),
        ({"encoder__use_bias": "maybe"}, "use_bias"),
        ({"preprocessor__normalize": "all_features"}, "all_features"),
        ({"preprocessor__normalize": {"fixed_mean": [0.0, 1.0], "fixed_std": [1.0] * 2}}, "share"),
        ({"preprocessor__normalize": {"fixed_mean": [0.0], "fixed_std": ["1"]}}, "share"),
        ({"preprocessor__log": None}, "log is None"),
        ({"preprocessor__mel_norm": None}, "mel_norm is None"),
        ({"preprocessor__highfreq": 7600}, "highfreq is 7600"),
        ({"preprocessor__log_zero_guard_value": 1e-5}, "log_zero_guard_value is 1e-05"),
        ({"preprocessor__window_size": None}, "window_size is None"),
        ({"preprocessor__window_size": 0}, "window_size is 0"),
        ({"preprocessor__n_window_size": 400}, "n_window_size are both given"),
        ({"joint__num_extra_outputs": 3}, "durations"),
        ({"joint__jointnet__activation": "tanh"}, "tanh"),
        ({"tokenizer__type": "wpe"}, "wpe"),
        ({"tokenizer__model_path": None}, "model_path"),
        ({"tokenizer__model_path": "nemo:../../etc/passwd"}, "holds no tokenizer"),
        ({"encoder__n_layers": 3}, "missing encoder.layers.2"),
        ({"decoder__prednet__pred_hidden": 13}, "expected"),
        ({"joint__vocabulary": ["a", "b"]}, "pieces, the model 2"),
        ({"encoder__d_model": "${encoder.d_model}"}, "refers to itself"),
        ({"preprocessor__preemph": [1]}, "preemph"),
        ({"preprocessor__preemph": float("nan")}, "preemph"),
        ({"preprocessor__dither": {"a": 1}}, "dither"),
        ({"decoding__greedy__max_symbols": 10**30}, "max_symbols"),
        ({"encoder__d_model": 10**30}, "more than 18 digits"),
        ({"target": ["a"]}, "nothing named"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_configurations_that_do_not_fit(tmp_path, changes, why):
    with pytest.raises(ValueError, match=why):
        tdt.load(with_config(tmp_path, **changes))


def test_all_that_is_not_supported_is_said_at_once(tmp_path):
    path = with_config(
        tmp_path,
        preprocessor__n_window_size=-1,
        encoder__subsampling="striding",
        encoder__reduction="pooling",
        encoder__reduction_factor=2,
    )
    with pytest.raises(ValueError, match=r"n_window_size.*striding.*pooling"):
        tdt.load(path)


def test_streaming_models_are_refused_with_the_reason(tmp_path):
    """Fields of nemotron-speech-streaming-en-0.6b."""
    path = with_config(
        tmp_path,
        preprocessor__normalize="NA",
        encoder__causal_downsampling=True,
        encoder__att_context_size=[[70, 13], [70, 6], [70, 1], [70, 0]],
        encoder__att_context_style="chunked_limited",
        encoder__conv_context_size="causal",
        encoder__conv_norm_type="layer_norm",
    )
    with pytest.raises(ValueError, match="the encoder is a streaming one") as caught:
        tdt.load(path)
    for field in ("chunked_limited", "causal_downsampling True", "conv_context_size 'causal'"):
        assert field in str(caught.value)


def test_an_error_names_the_whole_class_and_the_file_once(tmp_path):
    name = "EncDecHybridRNNTCTCBPEModelWithPrompt"
    target = f"nemo.collections.asr.models.hybrid_rnnt_ctc_bpe_models_prompt.{name}"
    with pytest.raises(ValueError, match=rf"is a {name};"):
        tdt.load(with_config(tmp_path, target=target))
    not_there = members()
    not_there.pop("model_weights.ckpt")
    folder = shutil.copytree(FOLDER, tmp_path / "folder")
    (folder / "tokenizer.json").write_text("{}")
    for path in (
        with_config(tmp_path, encoder__subsampling="striding"),
        pack(tmp_path / "rest.nemo", not_there),
        pack(tmp_path / "outside.nemo", {**members(), "../evil": b""}),
        folder,
    ):
        with pytest.raises(ValueError) as caught:
            tdt.load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).count(path.name) == 1


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {f"preprocessor__{name}": None}
            for name in ("n_fft", "highfreq", "dither", "exact_pad", "window", "mag_power",
                         "frame_splicing", "pad_value", "log_zero_guard_value", "pad_to")
        ),
        *(
            {f"encoder__{name}": None}
            for name in ("att_context_size", "att_context_style", "conv_context_size", "feat_out",
                         "conv_norm_type", "causal_downsampling", "reduction", "global_tokens",
                         "self_attention_model", "untie_biases")
        ),
        {"encoder__att_context_size": [[-1, -1]]},
        {"encoder__att_context_size": [[-1, -1], [70, 13]]},
        {"encoder__att_context_size": [70, 13],
         "encoder__att_context_style": "chunked_limited_with_rc"},
        {"encoder__conv_context_size": [2, 2]},
        {"encoder__feat_out": 16},
        {"encoder__reduction": "pooling", "encoder__reduction_factor": 1},
        {"encoder__untie_biases": False},
        {"preprocessor__highfreq": 8000},
        {"preprocessor__window_size": None, "preprocessor__n_window_size": 400},
        {"preprocessor__window_stride": None, "preprocessor__n_window_stride": 160},
        {"decoding": None}, {"decoding__greedy": None}, {"decoding__durations": None},
    ],
    ids=lambda changes: "-".join(changes),
)  # fmt: skip
def test_what_nemo_reads_as_the_same_is_the_same(tmp_path, changes):
    """Nulls that are defaults, lists of lists, samples for seconds: compared with NeMo 3.0.0,
    or what it cannot read, with one meaning."""
    found, expected = tdt.load(with_config(tmp_path, **changes)), tdt.load(ARCHIVE)
    assert found.config == expected.config


def test_nulls_that_are_no_defaults(tmp_path):
    """NeMo 3.0.0: no bias, no scaling, no pre-emphasis, features as they are."""
    features = tdt.load(with_config(tmp_path, preprocessor__normalize=None)).config.features
    assert features.normalize == (0.0, 1.0)
    features = tdt.load(with_config(tmp_path, preprocessor__preemph=None)).config.features
    assert features.preemphasis == 0
    encoder = tdt.load(with_config(tmp_path, encoder__xscaling=None)).config.encoder
    assert not encoder.scale_input
    with pytest.raises(ValueError, match=r"extra encoder\.layers\.0\.\S+\.bias"):
        tdt.load(with_config(tmp_path, encoder__use_bias=None))


def test_seconds_are_samples_rounded_down(tmp_path):
    """As NeMo has it, in and out."""
    path = with_config(tmp_path, preprocessor__window_size=0.02004, preprocessor__n_fft=None)
    with pytest.raises(ValueError, match=r"window is \(400,\), expected \(320,\)"):
        tdt.load(path)
    for samples in (1001, 400, 441):  # int(1001 / 16000 * 16000) is 1000
        assert int(_seconds(samples, 16000) * 16000) == samples


def test_references_in_the_configuration_are_followed(tmp_path):
    path = with_config(
        tmp_path,
        encoder__feat_in="${model.preprocessor.features}",
        decoding__durations="${model_defaults.tdt_durations}",
    )
    assert tdt.load(path).config == tdt.load(ARCHIVE).config


def test_a_limited_context_is_read_from_the_configuration(tmp_path):
    for context in ([6, 2], [[6, 2], [-1, -1]]):
        path = with_config(tmp_path, encoder__att_context_size=context)
        assert tdt.load(path).config.encoder.attention_context == (6, 2)


@pytest.mark.parametrize(
    ("written", "normalize"),
    [("per_feature", None), ("NA", (0.0, 1.0)),
     ({"fixed_mean": [-9.0] * 16, "fixed_std": [3.0] * 16}, (-9.0, 3.0))],
)  # fmt: skip
def test_the_normalisation_of_features_is_read_and_written(tmp_path, written, normalize):
    recogniser = tdt.load(with_config(tmp_path, preprocessor__normalize=written))
    assert recogniser.config.features.normalize == normalize
    tdt.save(recogniser, tmp_path / "again.nemo", format="nemo")
    with tarfile.open(tmp_path / "again.nemo") as archive:
        config = next(each for each in archive if each.name.endswith("model_config.yaml"))
        config = yaml.safe_load(archive.extractfile(config).read())
    assert config["preprocessor"]["normalize"] == written


def test_silence_that_statistics_leave_out_survives_the_format(tmp_path, capsys):
    recogniser = tdt.load(with_config(tmp_path))
    assert recogniser.config.features.silence is None
    features = dataclasses.replace(recogniser.config.features, silence=22.0)
    config = dataclasses.replace(recogniser.config, features=features)
    structure = jax.tree.structure(abstract_model(config))
    model = jax.tree.unflatten(structure, jax.tree.leaves(recogniser.model))
    tdt.save(Recogniser(model, recogniser.tokenizer), tmp_path / "run")
    written = tmp_path / "again.nemo"
    assert main.main(["convert", str(tmp_path / "run"), str(written), "--to", "nemo"]) == 0
    assert "NeMo's features count silence" in capsys.readouterr().err
    assert tdt.load(written).config.features == features
    with pytest.raises(ValueError, match="leave out silence"):
        tdt.save(tdt.load(written), tmp_path / "hf", format="hf")
    with pytest.raises(ValueError, match=r"tdt_jax\.silence is -1, not decibels above 0"):
        tdt.load(with_config(tmp_path, tdt_jax={"silence": -1}))


def test_numbers_are_those_of_nemo(tmp_path):
    """YAML 1.1 takes 1e-5 for text."""
    contents = members()
    text = contents["model_config.yaml"].decode()
    assert "dither: 1.0e-05" in text
    contents["model_config.yaml"] = text.replace("dither: 1.0e-05", "dither: 1e-5").encode()
    found = tdt.load(pack(tmp_path / "a.nemo", contents)).config.features.dither
    assert found == 1e-5


def test_yaml_runs_nothing(tmp_path):
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    copies = "m0: &m0 {x: 1}\n" + "".join(
        f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 10)
    )
    for text in (
        b"!!python/object/apply:os.system ['touch evil']",
        b"a: [",
        b"\xff\xfe\x00",
        b"3",
        b"a: !!timestamp foo",
        b"a: !!bool foo",
        b'a: !!int ""',
        copies.encode(),
    ):
        contents = {**members(), "model_config.yaml": text}
        with pytest.raises(ValueError, match=r"YAML|not fields"):
            tdt.load(pack(tmp_path / "a.nemo", contents))
    contents["model_config.yaml"] = f"{laughs}target: *a11\n".encode()
    with pytest.raises(ValueError, match="nothing named"):
        tdt.load(pack(tmp_path / "a.nemo", contents))


def test_an_absurd_context_is_no_more_than_all_frames(tmp_path):
    """As with full attention, on audio of any length."""
    noise = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    path = with_config(tmp_path, encoder__att_context_size=[10**9, 10**9])
    assert tdt.transcribe(tdt.load(path), [noise]) == tdt.transcribe(tdt.load(ARCHIVE), [noise])


def test_damaged_gzip_and_closed_files(tmp_path):
    packed = pack(tmp_path / "p.nemo", members(), mode="w:gz").read_bytes()
    for at in (20, len(packed) // 2, len(packed) - 5):
        (tmp_path / "d.nemo").write_bytes(packed[:at] + b"\xff\x00\xff" + packed[at + 3 :])
        with pytest.raises(ValueError, match=r"d\.nemo"):
            tdt.load(tmp_path / "d.nemo")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        tdt.load(ARCHIVE)
        gc.collect()


@pytest.mark.slow
def test_flipped_bytes_are_an_error_or_go_unseen(tmp_path):
    whole, rng = ARCHIVE.read_bytes(), np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(whole), 60):
        content = bytearray(whole)
        content[at] ^= 1 << rng.integers(8)
        (tmp_path / "f.nemo").write_bytes(content)
        try:
            tdt.load(tmp_path / "f.nemo")
        except ValueError:
            refused += 1
    assert refused < 60  # most are in weights


def test_a_tokenizer_that_is_none(tmp_path):
    contents = members()
    (name,) = (each for each in contents if each.endswith("tokenizer.model"))
    with pytest.raises(ValueError, match="SentencePiece"):
        tdt.load(pack(tmp_path / "a.nemo", {**contents, name: b"nonsense"}))


# Hugging Face folders


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "model")


def edit(folder, name="config.json", **changes):
    path = folder / name
    config = json.loads(path.read_text())
    for key, value in changes.items():
        outer, _, inner = key.rpartition("__")
        (config[outer] if outer else config)[inner] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_type": "whisper"}, "whisper"),
        ({"encoder_config__num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"encoder_config__hidden_size": 1 << 40}, "hidden_size"),
        ({"num_decoder_layers": 10**7}, "num_decoder_layers"),
        ({"vocab_size": 10**10}, "vocab_size"),
        ({"vocab_size": 50}, "blank_token_id is"),
        ({"durations": [0, "x"]}, "durations"),
        ({"durations": None}, "durations is None"),
        ({"encoder_config": None}, "feature_size is 16; 80"),
        ({"durations": [2, 1, 0, 3, 4]}, "increase strictly"),
        ({"hidden_act": "tanh"}, "tanh"),
        ({"encoder_config__convolution_bias": False}, "convolution_bias"),
        ({"encoder_config__subsampling_factor": 4}, "subsampling_factor is 4"),
        ({"encoder_config__intermediate_size": 33}, "do not go together"),
        ({"decoder_hidden_size": 13}, "expected"),
        ({"encoder_config": 3}, "encoder_config is 3"),
        ({"model_type": []}, "model_type is"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_folders_that_do_not_fit(folder, changes, why):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=why):
        tdt.load(folder)


def test_damaged_folders(folder):
    weights = (folder / "model.safetensors").read_bytes()
    absurd = (1 << 60).to_bytes(8, "little") + weights[8:]
    for content in (b"", weights[:4], weights[:1000], weights[:-4], absurd, weights + b"more"):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            tdt.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="there is no"):
        tdt.load(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        tdt.load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="neither"):
        tdt.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        tdt.load(folder)


def test_a_folder_of_files_of_another_processor(folder):
    edit(folder, "processor_config.json", feature_extractor={"feature_size": 80})
    with pytest.raises(ValueError, match="feature_size is 80"):
        tdt.load(folder)
    (folder / "processor_config.json").unlink()
    assert np.all(tdt.load(folder).config.features.num_mels == 16)


def test_a_feature_extractor_has_a_file_of_its_own_where_the_processor_has_none(folder):
    """As transformers reads them."""
    (folder / "preprocessor_config.json").write_text(json.dumps({"win_length": 320}))
    assert tdt.load(folder).config.features.window_length == 400
    processor = {"processor_class": "ParakeetProcessor", "blank_token": "<blank>"}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    assert tdt.load(folder).config.features.window_length == 320
    (folder / "processor_config.json").unlink()
    assert tdt.load(folder).config.features.window_length == 320
    edit(folder, "preprocessor_config.json", win_length="long")
    with pytest.raises(ValueError, match="win_length is 'long'"):
        tdt.load(folder)
    edit(folder, "preprocessor_config.json", win_length=320, feature_size=80)
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: feature_size is 80"):
        tdt.load(folder)
