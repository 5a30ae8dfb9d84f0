"""tdt-jax convert: there and back, and what is refused."""

import jax
import numpy as np
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax.cli import main


def test_there_and_back(saved, tmp_path, capsys):
    """A hybrid to NeMo and back; to transformers only without its CTC head."""
    source, archive, native = str(saved), tmp_path / "a" / "m.nemo", tmp_path / "native"
    assert main.main(["convert", source, str(archive), "--to", "nemo"]) == 0
    assert main.main(["convert", str(archive), str(native), "--to", "jax"]) == 0
    one, other = tdt.load(source), tdt.load(native)
    assert one.config.durations == other.config.durations and other.config.ctc
    for left, right in zip(jax.tree.leaves(one.model), jax.tree.leaves(other.model), strict=True):
        np.testing.assert_array_equal(left, right)
    capsys.readouterr()
    for arguments, message in (
        ([source, str(native), "--to", "nemo"], "exists already"),
        ([source, str(tmp_path / "hf"), "--to", "hf"], "CTC head"),
        ([source, str(tmp_path), "--to", "nemo"], "exists already"),
        (["nowhere", str(tmp_path / "x"), "--to", "hf"], "no file, folder or repository"),
    ):
        assert main.main(["convert", *arguments]) == 2
        assert message in capsys.readouterr().err
    hybrid = str(GOLDEN / "parakeet_hybrid.nemo")
    assert main.main(["convert", hybrid, str(tmp_path / "hf"), "--to", "hf", "--drop-ctc"]) == 2
    assert "another width" in capsys.readouterr().err and not (tmp_path / "hf").exists()
