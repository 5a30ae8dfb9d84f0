"""The notebooks run from a fresh copy of the repository, and show what they promise."""

import re
import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from paths import ROOT

NOTEBOOKS = sorted(path.stem for path in (ROOT / "colab").glob("*.ipynb"))
MAX_LINES = 10


def read(name: str):
    return nbformat.read(ROOT / "colab" / f"{name}.ipynb", as_version=4)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in a copy of colab/, train.py and configs/; returns what it printed."""
    for folder in ("colab", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "train.py", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.delenv("XLA_FLAGS")  # a kernel has one device and optimised programs

    def run(name: str) -> tuple[str, int]:
        notebook = read(name)
        resources = {"metadata": {"path": str(tmp_path / "colab")}}
        client = NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources)
        client.execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
        images = sum("image/png" in output.get("data", {}) for output in outputs)
        return printed, images

    return run


def test_there_are_notebooks():
    assert NOTEBOOKS == ["train_quickstart", "understand_tdt"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_tidy(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        assert not cell.outputs and cell.execution_count is None, f"{cell.id} has outputs"
        assert len(cell.source.splitlines()) <= MAX_LINES, f"{cell.id} is too long"
        assert not re.search(r"^(async def|def|class)\b", cell.source, re.M), f"{cell.id} defines"


@pytest.mark.slow
def test_understand_tdt(execute):
    printed, images = execute("understand_tdt")
    assert "TDT    4.155739" in printed
    assert "RNN-T  4.446565" in printed
    assert float(re.search(r"the formula differ by (\S+)", printed)[1]) < 1e-5
    assert re.search(r"heard: +seven three zero one nine\n", printed)
    steps = int(re.search(r"TDT: +(\d+) steps", printed)[1])
    rnnt_steps = int(re.search(r"an RNN-T: +(\d+) steps", printed)[1])
    assert 0 < steps < rnnt_steps / 2
    decoded, aligned = (
        [
            int(time)
            for time in re.search(rf"^{name} frames: +\[([\d\s]+)\]", printed, re.M)[1].split()
        ]
        for name in ("at", "aligned at")
    )
    assert len(decoded) == len(aligned) and abs(decoded[0] - aligned[0]) <= 2
    whole, lean = map(float, re.search(r"logits (\S+), without them (\S+)", printed).groups())
    assert abs(whole - lean) < 1e-3
    assert images == 5


@pytest.mark.slow
def test_train_quickstart(execute):
    printed, images = execute("train_quickstart")
    table = printed[printed.index("WER   decoder steps per second") :]
    (wer, steps), (rnnt_wer, rnnt_steps) = (
        map(float, re.search(rf"^{name} +(\S+) % +(\S+)$", table, re.M).groups())
        for name in ("tdt", "rnnt")
    )
    assert wer < 15 and rnnt_wer < 25
    assert steps < rnnt_steps / 2 and rnnt_steps > 12.5
    assert images == 1
