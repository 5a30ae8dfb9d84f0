"""The notebooks run from a fresh copy of the repository, and show what they promise."""

import re
import shutil

import models
import nbformat
import pytest
from nbclient import NotebookClient
from paths import GOLDEN, ROOT

import tdt_jax as tdt

NOTEBOOKS = sorted(path.stem for path in (ROOT / "colab").glob("*.ipynb"))
MAX_LINES = 10


def read(name: str):
    return nbformat.read(ROOT / "colab" / f"{name}.ipynb", as_version=4)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in a copy of colab/, train.py and configs/; returns what it printed."""
    for folder in ("colab", "configs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "train.py", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.delenv("XLA_FLAGS")  # a kernel has one device and optimised programs

    def run(name: str, **parameters) -> tuple[str, int]:
        notebook = read(name)
        for parameter, value in parameters.items():
            pattern = re.compile(rf"^{parameter} = .*?(?=  #@param)", re.M)
            changed = [len(pattern.findall(cell.source)) for cell in notebook.cells]
            assert sum(changed) == 1, f"{name} has no parameter {parameter}"
            for cell in notebook.cells:
                cell.source = pattern.sub(f"{parameter} = {value!r}", cell.source)
        resources = {"metadata": {"path": str(tmp_path / "colab")}}
        client = NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources)
        client.execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
        images = sum("image/png" in output.get("data", {}) for output in outputs)
        return printed, images

    return run


@pytest.fixture
def recogniser(tmp_path):
    """A folder with a recogniser of random parameters that emits different labels all along."""
    tdt.save(models.make_recogniser(piece_seconds=15.0), tmp_path / "recogniser")
    return tmp_path / "recogniser"


def test_there_are_notebooks():
    assert NOTEBOOKS == [
        "finetune_parakeet", "functional_api", "train_quickstart", "transcribe", "understand_tdt",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_tidy(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        assert not cell.outputs and cell.execution_count is None, f"{cell.id} has outputs"
        assert len(cell.source.splitlines()) <= MAX_LINES, f"{cell.id} is too long"
        assert not re.search(r"^(async def|def|class)\b", cell.source, re.M), f"{cell.id} defines"


def test_fine_tuning_takes_ten_short_cells():
    cells = [cell for cell in read("finetune_parakeet").cells if cell.cell_type == "code"]
    assert len(cells) <= 10


@pytest.mark.slow
def test_finetune_parakeet(execute):
    """With a tiny checkpoint in place of the download, and few steps."""
    printed, _ = execute("finetune_parakeet", MODEL=str(GOLDEN / "parakeet_hybrid.nemo"), STEPS=4)
    assert "trained, 64 tokens" in printed and "step 4  dev, ctc: WER" in printed
    assert re.search(r"WER before \S+ %, after \S+ %", printed)
    assert float(re.search(r"^(\S+) MB$", printed, re.M)[1]) < 1


@pytest.mark.slow
def test_functional_api(execute):
    printed, _ = execute("functional_api")
    before = float(re.search(r"(\S+) per label before", printed)[1])
    for name in ("plain JAX", "Flax", "Equinox"):
        assert float(re.search(rf"^{name} +(\S+)$", printed, re.M)[1]) < 0.1 * before
    assert float(re.search(r"devices differs by (\S+)", printed)[1]) < 1e-5
    assert float(re.search(r"(\S+) % of the labels are aligned", printed)[1]) > 50


@pytest.mark.slow
def test_transcribe(execute, recogniser):
    printed, images = execute("transcribe", MODEL=str(recogniser))
    assert " --> " in printed and images == 1


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
