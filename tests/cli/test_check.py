"""tdt-jax prepare check: what is printed, the page, the exit code."""

import json

import numpy as np
import pytest
from models import make_recogniser

import tdt_jax as tdt
from tdt_jax.cli import main


def run(*arguments):
    return main.main(["prepare", "check", *map(str, arguments), "--no-progress"])


def test_without_a_model(folder, capsys):
    assert run(folder / "one.jsonl") == 0
    assert capsys.readouterr().out == (
        "training: 1 utterances, 0.00 h, 1.0 to 1.0 s (median 1.0), 2 words, 7 characters\n"
        "nothing found that may spoil a training\n"
    )
    assert run(folder / "bad.jsonl", "--dev", folder / "one.jsonl") == 1
    out = capsys.readouterr().out
    assert "FAULT: 1 of 4 utterances have no file\n    gone.wav\n" in out
    assert "FAULT: 1 of 1 utterances of the development set are audio of training" in out
    assert run(folder / "one.jsonl", "--html", "page.html") == 2
    assert "--html needs --model" in capsys.readouterr().err


def test_the_worst_pairs(folder, loads, tmp_path, monkeypatch, capsys):
    """Ordered by loss; the page holds their audio, and escapes what a text holds."""
    lines = [json.loads(line) for line in (folder / "all.jsonl").read_text().splitlines()]
    lines[1]["text"] = "one <b> & two"
    for line in lines:
        line["audio_filepath"] = str(folder / line["audio_filepath"])
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    losses = np.array([0.5, 7.0, np.nan], np.float32)
    monkeypatch.setattr("tdt_jax.training.pair_losses.pair_losses", lambda *a, **k: losses)
    page = tmp_path / "page.html"
    run(tmp_path / "m.jsonl", "--model", "m", "--worst", 2, "--html", page)
    out = capsys.readouterr().out
    assert "loss per label: median 3.75" in out
    assert out.index("    7.00    2.00 s") < out.index("    0.50    1.00 s")
    html = page.read_text()
    assert html.count("<article>") == html.count("data:audio/flac;base64,") == 2
    assert "&lt;b&gt;" in html and "<b> &" not in html and "&amp;" in html
    assert html.count("<mark>one</mark> <mark>two</mark>") == 1  # heard is something else


def test_texts_in_another_style_than_the_models(folder, loads, monkeypatch, capsys):
    """Of 3 texts none has digits; all that the model writes has."""
    written = tdt.Transcript("1 2", [], [], [], 1.0)
    losses = np.ones(3, np.float32)
    monkeypatch.setattr("tdt_jax.training.pair_losses.pair_losses", lambda *a, **k: losses)
    monkeypatch.setattr("tdt_jax.inference.transcription.transcribe", lambda *a, **k: [written] * 3)
    run(folder / "all.jsonl", "--model", "m")
    line = "look: 0% of 3 texts have digits, 100% of what the model writes for them\n"
    out = capsys.readouterr().out
    assert line in out and out.count("the model writes for") == 1


def test_more_labels_than_the_model_has_frames_for(folder, loads, tmp_path, capsys):
    """A CTC model has 13 frames in a second, and as many labels."""
    loads.recogniser = make_recogniser(durations=None, predictor=None, joint=None)
    tokenizer = loads.recogniser.tokenizer
    lines = []
    for text in ("one two three four", "one two three four five six seven eight nine"):
        lines.append({"audio_filepath": str(folder / "0.wav"), "duration": 1.0, "text": text})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    few, many = (len(tokenizer.encode(line["text"])) for line in lines)
    assert few <= 13 < many
    run(tmp_path / "m.jsonl", "--model", "m")
    out = capsys.readouterr().out
    assert "FAULT: 1 of 2 utterances have more labels than the model has frames for\n" in out
    assert f"0.wav#2: {many} labels in 1.00 s" in out


def test_no_pair(folder, loads, monkeypatch, capsys):
    nothing = np.full(1, np.nan, np.float32)
    monkeypatch.setattr("tdt_jax.training.pair_losses.pair_losses", lambda *a, **k: nothing)
    run(folder / "one.jsonl", "--model", "m")
    assert "no pair has a loss" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model(folder, saved, tmp_path, capsys):
    page = tmp_path / "page.html"
    run(folder / "all.jsonl", "--model", saved, "--html", page)
    assert "loss per label: median" in capsys.readouterr().out and page.exists()
