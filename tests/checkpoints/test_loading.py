"""load and save tell the kinds of checkpoints apart, on the disk and on the Hub."""

import shutil
import sys
import types

import jax
import numpy as np
import pytest
from parakeet_files import ARCHIVE, FOLDERS, UNIFIED, assert_same_leaves

import tdt_jax as tdt
from tdt_jax.profiling.flops import inner_jaxprs


def test_each_format_is_read_as_it_was_saved(tmp_path):
    recogniser = tdt.load(FOLDERS["tdt"])
    for name in ("jax", "hf", "nemo"):
        tdt.save(recogniser, tmp_path / name, format=name)
        assert_same_leaves(tdt.load(tmp_path / name).model, recogniser.model)
        with pytest.raises(ValueError, match="already"):
            tdt.save(recogniser, tmp_path / name, format=name)
    with pytest.raises(ValueError, match="format"):
        tdt.save(recogniser, tmp_path / "x", format="onnx")


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="dtype"):
        tdt.load(FOLDERS["tdt"], dtype="float8")


def test_exact_products():
    """All products from features to labels are in float32 precision, on every device."""
    samples, num_samples = np.zeros((2, 4000), np.float32), np.array([4000, 3000])

    def run(model, samples, num_samples):
        features = tdt.log_mel(samples, num_samples, model.config.features)
        frames, num_frames = tdt.encode(model, *features)
        decoders = tdt.ctc_decode, tdt.greedy_decode
        return [decode(model, frames, num_frames) for decode in decoders]

    def precisions(**options):
        model = tdt.load(ARCHIVE, **options).model
        return product_precisions(jax.make_jaxpr(run)(model, samples, num_samples).jaxpr)

    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert precisions(exact=True) == {highest}
    assert precisions() == {highest, None}
    with pytest.raises(ValueError, match="'bfloat16'"):
        tdt.load(FOLDERS["tdt"], exact=True, dtype="bfloat16")


def product_precisions(jaxpr) -> set:
    """Returns the precisions of all matrix products and convolutions of a jaxpr."""
    found = {
        equation.params["precision"]
        for equation in jaxpr.eqns
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    }
    inner = [each for equation in jaxpr.eqns for each in inner_jaxprs(equation.params)]
    return found.union(*map(product_precisions, inner))


def test_a_folder_of_archives(tmp_path):
    shutil.copy(ARCHIVE, tmp_path)
    assert tdt.load(tmp_path).config == tdt.load(ARCHIVE).config
    (tmp_path / "config.json").write_text("{}")  # of a repository: there to count downloads
    assert tdt.load(tmp_path).config == tdt.load(ARCHIVE).config
    shutil.copy(UNIFIED, tmp_path)
    with pytest.raises(ValueError, match=f"2 .nemo files; name one of them: {tmp_path}/"):
        tdt.load(tmp_path)
    assert tdt.load(tmp_path / UNIFIED.name).config.kind == "RNN-T"


REPOSITORIES = {
    "nvidia/tdt": [*FOLDERS["tdt"].iterdir(), ARCHIVE],
    "nvidia/hybrid": [ARCHIVE],
    "nvidia/two": [ARCHIVE, UNIFIED],
    "nvidia/nothing": [],
}


class Hub(types.ModuleType):
    """huggingface_hub, with REPOSITORIES on the Hub."""

    class NotThereError(ValueError):
        pass

    def __init__(self, folder):
        super().__init__("huggingface_hub")
        self.folder, self.is_reachable = folder, True
        self.errors = types.SimpleNamespace(HfHubHTTPError=self.NotThereError)

    def snapshot_download(self, name, allow_patterns, dry_run=False):
        if name not in REPOSITORIES or (dry_run and not self.is_reachable):
            raise self.NotThereError("404")
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        files = [
            file
            for file in REPOSITORIES[name]
            if any(file.match(pattern) for pattern in allow_patterns)
        ]
        if dry_run:
            return [types.SimpleNamespace(filename=file.name) for file in files]
        if self.is_reachable:
            for file in files:
                shutil.copy(file, folder)
        return str(folder)


def test_the_hub_is_asked_for_what_is_not_here(monkeypatch, tmp_path):
    """Its transformers files if there are, else its .nemo archive; the one that is named."""
    hub = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    hybrid = tdt.load(ARCHIVE).config
    assert tdt.load("nvidia/tdt").config == tdt.load(FOLDERS["tdt"]).config
    assert tdt.load("nvidia/hybrid").config == hybrid
    assert tdt.load(f"nvidia/tdt/{ARCHIVE.name}").config == hybrid
    with pytest.raises(ValueError, match="neither"):
        tdt.load("nvidia/nothing")
    choices = f"nvidia/two/{ARCHIVE.name}, nvidia/two/{UNIFIED.name}"
    with pytest.raises(ValueError, match=f"2 .nemo files; name one of them: {choices}"):
        tdt.load("nvidia/two")
    assert not any((tmp_path / "nvidia" / "two").iterdir())  # nothing large was fetched
    with pytest.raises(ValueError, match=f"no c.nemo; .*: {ARCHIVE.name}, {UNIFIED.name}"):
        tdt.load("nvidia/two/c.nemo")
    assert tdt.load(f"nvidia/two/{UNIFIED.name}").config == tdt.load(UNIFIED).config
    with pytest.raises(ValueError, match="404"):
        tdt.load("nvidia/unheard")
    for name in ("missing.nemo", "nvidia/missing.nemo", "nvidia/two/../x.nemo", "nvidia/two/x"):
        with pytest.raises(ValueError, match="no file, folder or repository"):
            tdt.load(name)
    hub.is_reachable = False
    assert tdt.load("nvidia/hybrid").config == hybrid
    with pytest.raises(ValueError, match="404"):
        tdt.load("nvidia/nothing")


def test_the_hub_needs_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"tdt-jax\[hub\]"):
        tdt.load("nvidia/tdt")
