"""A run folder of an earlier version is read, transcribes as it did then, and resumes.

golden/run.tar.gz was written by train.py of the version before the package was divided into rooms,
on support/run_config.py with training.keep=1. The transcripts are that version's.
"""

import dataclasses
import importlib.resources
import shutil
import tarfile

import numpy as np
import pytest
from parakeet_files import assert_same_leaves
from paths import GOLDEN
from program import Program, finish
from run_config import get_config

import tdt_jax as tdt
from tdt_jax.config import from_json

RECORDING = importlib.resources.files("tdt_jax.data.telephone") / "asterisk_en" / "calling.opus"
EMITTED = {  # the text; of each token its text, start and end in seconds, and probability
    "transducer": (
        "gh s sghghghwohrwo",
        [
            ("gh", 0.0, 0.08, 0.08288), ("▁s", 0.08, 0.16, 0.06311), ("▁s", 0.16, 0.32, 0.06688),
            ("gh", 0.32, 0.4, 0.10398), ("gh", 0.4, 0.48, 0.08865), ("gh", 0.48, 0.56, 0.08868),
            ("wo", 0.56, 0.64, 0.08591), ("hr", 0.64, 0.72, 0.07478),
            ("wo", 0.72, 0.7475, 0.06753),
        ],
    ),
    "ctc": ("uv", [("u", 0.0, 0.72, 0.11482), ("v", 0.72, 0.7475, 0.13735)]),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with tarfile.open(GOLDEN / "run.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "run"


def test_its_configuration_is_read(run):
    config = from_json((run / "config.json").read_text())
    encoder = dataclasses.replace(get_config().model.encoder, remat=True)  # the default then
    assert config.model == dataclasses.replace(get_config().model, encoder=encoder)
    assert config.data == get_config().data
    assert config.loss == get_config().loss and config.optimizer == get_config().optimizer


@pytest.mark.parametrize("decoder", EMITTED)
def test_it_transcribes_as_before(run, decoder):
    (transcript,) = tdt.transcribe(tdt.load(run), [RECORDING], decoder=decoder)
    text, tokens = EMITTED[decoder]
    assert transcript.text == text and transcript.duration == 0.7475
    texts, *numbers = zip(*tokens, strict=True)
    assert tuple(token.text for token in transcript.tokens) == texts
    for name, expected in zip(("start", "end", "probability"), numbers, strict=True):
        values = [getattr(token, name) for token in transcript.tokens]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


def test_its_checkpoints_are_found_by_name(run):
    newest = tdt.load(run)
    assert newest.config.piece_seconds == 8.96  # the longest bucket of its training
    for which in ("best", "12"):
        other = tdt.load(f"{run}@{which}")
        assert other.config == newest.config
        assert_same_leaves(other.model, newest.model)


@pytest.mark.slow
def test_training_resumes(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    train = Program(tmp_path / "cache")
    output = finish(train(folder, "training.num_steps=14", "training.keep=1"))
    assert f"going on from step 12 of {folder}" in output
    assert "\nstep 13 " in output and "\nstep 14 " in output and "\nstep 12 " not in output
    assert tdt.load(f"{folder}@14").config == tdt.load(run).config
