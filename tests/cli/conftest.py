"""Recordings, and a recogniser that decodes without a model."""

import json
from types import SimpleNamespace

import pytest
import soundfile
import stub
from models import make_recogniser, noise

import tdt_jax as tdt


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """No test writes to the user's cache."""
    monkeypatch.setattr("tdt_jax.runtime.process.set_up", lambda: None)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three recordings, manifests of them and of others, and a file that is no audio."""
    path = tmp_path_factory.mktemp("recordings")
    lines = []
    for i, seconds in enumerate((1.0, 2.0, 1.5)):
        soundfile.write(path / f"{i}.wav", noise(seconds, i), 16000)
        line = {"audio_filepath": f"{i}.wav", "duration": seconds, "text": "one two"}
        lines.append(json.dumps(line) + "\n")
    (path / "all.jsonl").write_text("".join(lines))
    (path / "one.jsonl").write_text(lines[0])
    (path / "bad.jsonl").write_text("".join(lines).replace("1.wav", "gone.wav"))
    (path / "broken.jsonl").write_text("{")
    (path / "text.wav").write_text("not audio")
    return path


@pytest.fixture(scope="session")
def random_recogniser():
    return make_recogniser()


@pytest.fixture(scope="session")
def saved(random_recogniser, tmp_path_factory):
    """The folder of a recogniser, for a test of each command with a model."""
    path = tmp_path_factory.mktemp("saved") / "model"
    tdt.save(random_recogniser, path)
    return path


@pytest.fixture
def loads(random_recogniser, monkeypatch):
    """Loads one recogniser for every MODEL, and keeps the arguments; decodes without the model."""
    fake = SimpleNamespace(recogniser=random_recogniser, calls=[])

    def load(source, **options):
        fake.calls.append((source, options))
        return fake.recogniser

    monkeypatch.setattr("tdt_jax.checkpoints.loading.load", load)
    monkeypatch.setattr("tdt_jax.inference.transcription.decode_samples_on_mesh", stub.decode)
    return fake
