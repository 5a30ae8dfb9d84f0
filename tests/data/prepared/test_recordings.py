"""Recordings with a manifest into a dataset, or a manifest: telephone speech."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from tdt_jax.audio.reading import as_samples, read_audio
from tdt_jax.cli import main
from tdt_jax.config import TelephoneConfig
from tdt_jax.data.manifest import read_manifest
from tdt_jax.data.sources import read_source
from tdt_jax.data.telephone.compose import Telephone, prompts_folder


def run(*arguments):
    return main.main(["prepare", *map(str, arguments)])


def test_manifest(tmp_path, capsys):
    names = [f"digits__{number}.opus" for number in range(3)]
    for name in names:
        shutil.copy(prompts_folder() / name, tmp_path)
    soundfile.write(tmp_path / "sine.mp3", 0.5 * np.sin(np.arange(16000) / 9), 16000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF and nothing else")
    lines = [
        {"audio_filepath": name, "duration": 9.0, "text": name}
        for name in [*names, "sine.mp3", "bad.wav", "gone.wav"]
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run("manifest", tmp_path / "all.jsonl", tmp_path, "--split", "train") == 1
    err = capsys.readouterr().err
    assert "bad.wav" in err and "no audio file at" in err and "gone.wav" in err
    records = read_source(f"{tmp_path}:train")
    assert [record.id for record in records] == [*names, "sine.mp3"]
    for record in records[:3]:
        expected = read_audio(tmp_path / record.id)
        np.testing.assert_allclose(record.audio(16000), expected, atol=1e-6)
        assert record.seconds == pytest.approx(len(expected) / 16000, abs=0.01)
    expected = read_audio(tmp_path / "sine.mp3")
    np.testing.assert_allclose(records[3].audio(16000), expected, atol=1e-4)


def test_a_split_of_other_recordings_is_not_taken_for_the_same(tmp_path, capsys):
    """Nor is what was left out forgotten when all is done; texts may hold any line end."""
    samples = np.random.default_rng(0).normal(size=1600) * 0.1
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, samples, 16000)
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    manifest = tmp_path / "m.jsonl"

    def write(*names):
        lines = [{"audio_filepath": name, "text": "one\u2028two\u0085"} for name in names]
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run("manifest", manifest, tmp_path / "data", "--split", "train")

    assert write("a.wav", "bad.wav") == 1
    first = capsys.readouterr()
    assert write("a.wav", "bad.wav") == 1
    again = capsys.readouterr()
    assert again.err == first.err and "bad.wav" in again.err
    assert "was there already" in again.out
    assert write("a.wav", "b.wav") == 2
    assert "has a split train of other recordings" in capsys.readouterr().err
    (record,) = read_source(f"{tmp_path / 'data'}:train")
    assert record.text == "one\u2028two\u0085"


def test_telephone(tmp_path, capsys):
    config = tmp_path / "few.py"
    config.write_text(
        "from tdt_jax.config import Config, DataConfig, TelephoneConfig\n"
        "def get_config():\n"
        "    return Config(data=DataConfig(telephone=TelephoneConfig(num_test=3)))\n"
    )
    data = tmp_path / "data"
    assert run("telephone", config, data) == 0
    assert "composed.jsonl: 3 utterances, " in capsys.readouterr().out
    test = Telephone(TelephoneConfig(num_test=3), sample_rate=16000).test_set()
    entries = read_manifest(data / "composed.jsonl")
    assert [entry.text for entry in entries] == [each.text for each in test]
    for entry, each in zip(entries, test, strict=True):
        np.testing.assert_allclose(as_samples(entry.audio), each.samples, atol=2**-15)
    assert len(read_manifest(data / "phrases.jsonl")) == 39
    config.write_text(config.read_text().replace("telephone=TelephoneConfig(num_test=3)", ""))
    assert run("telephone", config, data) == 2
    assert "trains on no telephone speech" in capsys.readouterr().err
