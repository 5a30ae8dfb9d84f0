"""What a run logs: lines and scalars of steps and of evaluations, and its end at a NaN."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tdt_jax.config import Config, OptimizerConfig, TrainingConfig
from tdt_jax.runtime import sharding
from tdt_jax.training import progress as progresses
from tdt_jax.training.step import Metrics

METRICS = Metrics(
    loss=np.float32(2.0),
    transducer=np.float32([20.0, 10.0]),
    ctc=np.float32([0.0, 0.0]),
    gradient_norm=np.float32(0.5),
    num_impossible=np.int32(1),
    num_labels=np.int32(15),
    audio_seconds=np.float32(8.0),
)
BATCH = SimpleNamespace(samples=np.zeros((2, 100), np.float32), ids=("a", "b"))


class Writer:
    """Collects scalars as {name: [(step, value)]}."""

    def __init__(self, folder):
        self.folder, self.scalars = folder, {}

    def add_scalar(self, name, value, step):
        self.scalars.setdefault(name, []).append((step, value))


@pytest.fixture
def progress(monkeypatch):
    """The progress of a run of 10 steps from step 2, with a clock that counts its readings."""
    seconds = iter(range(1000))
    clock = SimpleNamespace(perf_counter=lambda: float(next(seconds)))
    monkeypatch.setattr(progresses, "time", clock)
    monkeypatch.setattr(progresses, "SummaryWriter", Writer)
    config = Config(
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=8, schedule="noam"),
        training=TrainingConfig(num_steps=10, folder="run"),
    )
    return progresses.Progress(config, 2, sharding.make_mesh(jax.devices()[:2]))


def test_a_report_is_a_line_and_scalars(progress, capsys):
    """The first step compiles: its second does not count in the speed or in the time left."""
    for step in range(2, 6):
        progress.add(step, BATCH, METRICS)
    with progress.paused():
        pass
    progress.add(6, BATCH, METRICS._replace(loss=np.float32(1.0)))
    progress.report(7, failed={"c": "c.wav is empty"})
    assert capsys.readouterr().out == (
        "step 7  loss 1.800  gradient 0.50  rate 1.00e-03  8x real time  6 s, 3 s left"
        "  5 utterances without an alignment  1 unreadable files, such as c.wav is empty\n"
    )
    assert (progress.seconds, progress.compile_seconds) == (6.0, 1.0)
    progress.report(8, failed={})
    assert capsys.readouterr().out == ""  # nothing to report since
    (writer,) = [each for each in vars(progress).values() if isinstance(each, Writer)]
    assert writer.scalars == {
        "train/loss": [(7, pytest.approx(1.8))],
        "train/gradient_norm": [(7, 0.5)],
        "train/audio_speed": [(7, 8.0)],
        "train/learning_rate": [(7, pytest.approx(1e-3))],
        "train/skipped": [(7, 6)],
    }


def test_an_evaluation_shows_in_later_reports(progress, capsys):
    evaluation = SimpleNamespace(
        words=SimpleNamespace(rate=0.25), bleu=None, steps_per_second=9.0, summary=lambda: "WER 25"
    )
    progress.evaluated(2, evaluation)
    progress.add(2, BATCH, METRICS._replace(num_impossible=np.int32(0)))
    progress.report(3, failed={})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "step 2  dev WER 25" and second.endswith(" left  WER 25.0 %")


def test_a_head_beside_the_decoder_has_a_line_of_its_own(progress, capsys):
    """The decoder's error rate stays that of the reports."""
    words, ctc = (
        SimpleNamespace(
            words=SimpleNamespace(rate=rate), bleu=None, steps_per_second=9.0, summary=lambda: "WER"
        )
        for rate in (0.25, 0.5)
    )
    progress.evaluated(2, words)
    progress.evaluated(2, ctc, head="ctc")
    progress.add(2, BATCH, METRICS)
    progress.report(3, failed={})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "step 2  dev, ctc: WER" and "  WER 25.0 %" in lines[2]
    assert progress._writer.scalars["dev/wer_ctc"] == [(2, 0.5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(loss=np.float32(np.nan), transducer=np.float32([np.nan, 1.0])),
            "step 2: loss nan, gradient norm 0.5; utterances: a",
        ),
        (
            dict(gradient_norm=np.float32(np.inf)),
            "step 2: loss 2.0, gradient norm inf; utterances: a, b",
        ),
    ],
)
def test_a_nan_ends_the_run_and_names_utterances(progress, changes, message):
    with pytest.raises(SystemExit) as exit:
        progress.add(2, BATCH, METRICS._replace(**changes))
    assert exit.value.code == message
