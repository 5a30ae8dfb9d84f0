"""Hostile and damaged .nemo archives: a clear error, nothing outside, nothing executed."""

import dataclasses
import gc
import shutil
import tarfile
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from parakeet_files import (
    ARCHIVE,
    FOLDERS,
    assert_same_leaves,
    changed_archive,
    members,
    pack,
)

import tdt_jax as tdt
from tdt_jax.checkpoints.parakeet.nemo import write_nemo
from tdt_jax.cli import main
from tdt_jax.models.transducer import abstract_model

# Archives


def test_archives_may_be_gzipped(tmp_path):
    packed = pack(tmp_path / "packed.nemo", members(), mode="w:gz")
    assert_same_leaves(tdt.load(packed).model, tdt.load(ARCHIVE).model)


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
    path = pack(tmp_path / "bomb.nemo", {"model_weights.ckpt": bytes(20 << 20)}, mode="w:gz")
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="times its size"):
        tdt.load(path)


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


# Their configuration and tokenizer


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"target": "nemo.collections.tts.models.FastPitch"}, "FastPitch"),
        ({"tokenizer__model_path": "nemo:../../etc/passwd"}, "holds no tokenizer"),
        ({"encoder__n_layers": 3}, "missing encoder.layers.2"),
        ({"decoder__prednet__pred_hidden": 13}, "expected"),
        ({"joint__vocabulary": ["a", "b"]}, "pieces, the model 2"),
        ({"encoder__use_bias": None}, r"extra encoder\.layers\.0\.\S+\.bias"),
        (
            {"preprocessor__window_size": 0.02004, "preprocessor__n_fft": None},
            r"window is \(400,\), expected \(320,\)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_configurations_that_do_not_fit_the_archive(tmp_path, changes, why):
    with pytest.raises(ValueError, match=why):
        tdt.load(changed_archive(tmp_path, **changes))


def test_an_error_names_the_file_once(tmp_path):
    incomplete = members()
    incomplete.pop("model_weights.ckpt")
    folder = shutil.copytree(FOLDERS["tdt"], tmp_path / "folder")
    (folder / "tokenizer.json").write_text("{}")
    for path in (
        changed_archive(tmp_path, encoder__subsampling="striding"),
        pack(tmp_path / "rest.nemo", incomplete),
        pack(tmp_path / "outside.nemo", {**members(), "../evil": b""}),
        folder,
    ):
        with pytest.raises(ValueError) as caught:
            tdt.load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).count(path.name) == 1


def test_a_configuration_with_other_fields_is_read_from_an_archive(tmp_path):
    path = changed_archive(
        tmp_path,
        encoder__feat_in="${model.preprocessor.features}",
        encoder__att_context_size=[[-1, -1], [70, 13]],
        preprocessor__window_size=None,
        preprocessor__n_window_size=400,
        decoding__greedy=None,
    )
    assert tdt.load(path).config == tdt.load(ARCHIVE).config


def test_numbers_are_those_of_nemo(tmp_path):
    """YAML 1.1 takes 1e-5 for text."""
    contents = members()
    text = contents["model_config.yaml"].decode()
    assert "dither: 1.0e-05" in text
    contents["model_config.yaml"] = text.replace("dither: 1.0e-05", "dither: 1e-5").encode()
    config = tdt.load(pack(tmp_path / "a.nemo", contents)).config
    assert config.features.dither == 1e-5


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


def test_a_tokenizer_that_is_none(tmp_path):
    contents = members()
    (name,) = (each for each in contents if each.endswith("tokenizer.model"))
    with pytest.raises(ValueError, match="SentencePiece"):
        tdt.load(pack(tmp_path / "a.nemo", {**contents, name: b"nonsense"}))


# Writing


def test_silence_that_statistics_leave_out_survives_the_format(tmp_path, capsys):
    recogniser = tdt.load(ARCHIVE)
    assert recogniser.config.features.silence is None
    features = dataclasses.replace(recogniser.config.features, silence=22.0)
    config = dataclasses.replace(recogniser.config, features=features)
    structure = jax.tree.structure(abstract_model(config))
    model = jax.tree.unflatten(structure, jax.tree.leaves(recogniser.model))
    tdt.save(tdt.Recogniser(model, recogniser.tokenizer), tmp_path / "run")
    written = tmp_path / "again.nemo"
    assert main.main(["convert", str(tmp_path / "run"), str(written), "--to", "nemo"]) == 0
    assert "NeMo cannot leave silence out" in capsys.readouterr().err
    assert tdt.load(written).config.features == features
    with pytest.raises(ValueError, match="leave out silence"):
        tdt.save(tdt.load(written), tmp_path / "hf", format="hf")


def test_another_tokenizer_is_refused(tmp_path):
    hybrid = tdt.load(ARCHIVE)
    alphabet = "".join(map(chr, range(97, 97 + hybrid.config.vocab_size)))
    characters = dataclasses.replace(hybrid, tokenizer=tdt.tokenizer.Characters(alphabet))
    for format in ("nemo", "hf"):
        with pytest.raises(ValueError, match="SentencePiece"):
            tdt.save(characters, tmp_path / format, format=format)
    with pytest.raises(ValueError, match="SentencePiece"):
        write_nemo(characters, tmp_path / "x.nemo")
    assert list(tmp_path.iterdir()) == []
