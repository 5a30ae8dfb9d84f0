"""Commands without devices, or without an output."""

import io
import sys

import jax
import pytest

from tdt_jax.cli import main, transcribe


def test_closed_output(monkeypatch, capsys, tmp_path):
    """Closed output is refused where the result goes to it, and only there."""
    (tmp_path / "a.wav").touch()
    monkeypatch.setattr(transcribe, "load", lambda *_, **__: None)
    monkeypatch.setattr("tdt_jax.cli.job.run", lambda *_, **__: 0)
    for options, code, message in (
        ([], 2, "tdt-jax: standard output is closed, where the result would go\n"),
        (["-o", str(tmp_path)], 0, ""),
    ):
        monkeypatch.setattr(sys, "stdout", None)
        assert main.main(["transcribe", "MODEL", str(tmp_path / "a.wav"), *options]) == code
        assert capsys.readouterr().err == message


@pytest.mark.parametrize("error", [RuntimeError("Unable (set JAX_PLATFORMS='')"), AssertionError()])
def test_devices_that_are_not_there(tmp_path, monkeypatch, capsys, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr("tdt_jax.runtime.process.set_up", lambda: None)
    model, manifest, audio = "model", str(tmp_path / "all.jsonl"), str(tmp_path / "a.wav")
    (tmp_path / "a.wav").touch()
    (tmp_path / "all.jsonl").write_text('{"audio_filepath": "a.wav", "text": ""}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    for command in (
        ["transcribe", model, audio],
        ["evaluate", model, manifest],
        ["listen", model, "-"],
        ["warmup", model],
        ["convert", model, str(tmp_path / "new.nemo"), "--to", "nemo"],
        ["benchmark", "loss"],
    ):
        assert main.main(command) == 2
        message = capsys.readouterr().err
        assert "JAX has no device for JAX_PLATFORMS=cpu" in message and message.count("\n") == 1
