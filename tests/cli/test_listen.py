"""tdt-jax listen: a pipe, what else there may be at its end, and its options."""

import io
import types

import numpy as np
import pytest
import soundfile

import tdt_jax as tdt
from tdt_jax.cli import main, terminal

SIZES = dict(chunk=0.4, left=0.4, right=0.4)  # seconds


@pytest.fixture
def pipe(monkeypatch):
    """Puts bytes on standard input."""

    def put(data):
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))

    return put


@pytest.fixture
def calls(monkeypatch):
    """The arguments of `write_words`, which reads its blocks and writes nothing."""
    calls = []

    def write_words(recogniser, blocks, write, **options):
        calls.append((recogniser, np.concatenate([*blocks]), options))

    monkeypatch.setattr(terminal, "write_words", write_words)
    return calls


def test_options_arrive(loads, folder, pipe, calls):
    pipe((folder / "0.wav").read_bytes())
    sizes = ["--chunk", "0.8", "--left", "3", "--right", "0.4", "--keep-tags"]
    assert main.main(["listen", "MODEL", "-", *sizes]) == 0
    recogniser, samples, options = calls[0]
    assert recogniser is loads.recogniser
    np.testing.assert_array_equal(samples, soundfile.read(folder / "0.wav", dtype="float32")[0])
    assert options == dict(columns=0, ansi=False, chunk=0.8, left=3.0, right=0.4, keep_tags=True)


def test_the_microphone_is_the_default(loads, monkeypatch, capsys, calls):
    block = np.ones(160, np.float32)
    monkeypatch.setattr("tdt_jax.audio.live.microphone", lambda rate: iter([block, block]))
    assert main.main(["listen", "MODEL"]) == 0
    assert len(calls[0][1]) == 320
    assert capsys.readouterr().err == "tdt-jax: listening; Ctrl-C ends\n"


def test_a_pipe_is_transcribed(saved, random_recogniser, folder, capsys, pipe):
    """With the model itself, in small chunks."""
    pipe((folder / "0.wav").read_bytes())
    options = [f"--{name}={value}" for name, value in SIZES.items()]
    assert main.main(["listen", str(saved), "-", *options]) == 0
    stream = tdt.Stream(random_recogniser, **SIZES)
    stream.push(soundfile.read(folder / "0.wav", dtype="float32")[0])
    stream.finish()
    assert capsys.readouterr().out.split() == stream.text.split() != []


def test_other_input_is_refused(loads, capsys, pipe, calls):
    pipe(b"fLaC" * 99)
    assert main.main(["listen", "MODEL", "-"]) == 2
    assert "must be PCM or WAV, got FLAC" in capsys.readouterr().err
    assert main.main(["listen", "MODEL", "a.wav"]) == 2
    assert "standard input if the source is -, got 'a.wav'" in capsys.readouterr().err
