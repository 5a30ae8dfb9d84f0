"""tdt-jax prepare: its options; tests/data/prepared has its datasets."""

import pytest

from tdt_jax.cli import main
from tdt_jax.data.sources import read_source


def test_a_manifest_becomes_a_split(folder, tmp_path, capsys):
    """What cannot be read is left out; a second time there is nothing to do."""
    command = ["prepare", "manifest", str(folder / "bad.jsonl"), str(tmp_path), "--split", "dev"]
    assert main.main(command) == 1
    captured = capsys.readouterr()
    assert "left out: " in captured.err and "gone.wav" in captured.err
    assert captured.out.startswith("dev: 2 utterances, ") and "1 left out" in captured.out
    assert [each.text for each in read_source(f"{tmp_path}:dev")] == ["one two"] * 2
    assert main.main(command) == 1
    assert "(was there already)" in capsys.readouterr().out


def test_mistakes_are_named(folder, tmp_path, capsys):
    command = ["prepare", "manifest", str(folder / "all.jsonl"), str(tmp_path)]
    assert main.main([*command, "--split", "a b"]) == 2
    assert "the split 'a b' must be of letters" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.main(["prepare", "librispeech", "in", "out", "--subsets", " , "])
    assert "names no subset" in capsys.readouterr().err
