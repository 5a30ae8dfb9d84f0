"""tdt-jax lm writes an ARPA file over a model's labels."""

import pytest

from tdt_jax.advice.arpa import arpa_graph
from tdt_jax.advice.ngrams import write_arpa
from tdt_jax.cli import main
from tdt_jax.tokenizer import Characters

TOKENIZER = Characters("ab ")


@pytest.fixture
def folder(tmp_path):
    TOKENIZER.save(tmp_path)
    (tmp_path / "text.txt").write_text("ab a\nba\nabc\n", encoding="utf-8")
    return tmp_path


def test_lines_become_a_language_model(folder, capsys):
    out = folder / "model.arpa"
    command = ["lm", str(folder / "text.txt"), str(out), "--tokenizer", str(folder)]
    assert main.main([*command, "--order", "2"]) == 0
    assert "left out 1 lines with characters that the model has no labels for" in (
        capsys.readouterr().err
    )
    with open(folder / "expected.arpa", "w", encoding="utf-8") as file:
        write_arpa(["ab a", "ba"], TOKENIZER, 2, file)
    assert out.read_text("utf-8") == (folder / "expected.arpa").read_text("utf-8")
    assert len(arpa_graph(out, 1.0, TOKENIZER).labels) > 3


def test_a_text_without_labels_writes_nothing(folder, capsys):
    (folder / "text.txt").write_text("xyz\n", encoding="utf-8")
    out = folder / "model.arpa"
    command = ["lm", str(folder / "text.txt"), str(out), "--tokenizer", str(folder)]
    assert main.main(command) == 2
    assert "no text that the model's labels can spell" in capsys.readouterr().err
    assert not out.exists()
