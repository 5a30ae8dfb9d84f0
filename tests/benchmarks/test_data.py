"""The benchmark of batches: what it counts."""

import json

import pytest
import soundfile
from models import noise
from paths import ROOT

from tdt_jax import config
from tdt_jax.benchmarks import data


def test_batches_are_counted(tmp_path):
    lines = []
    for i, seconds in enumerate((1.0, 2.0, 1.5)):
        soundfile.write(tmp_path / f"{i}.wav", noise(seconds, i), 16000)
        lines.append({"audio_filepath": f"{i}.wav", "duration": seconds, "text": "one two"})
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    manifest = config.override(
        config.load(str(ROOT / "configs" / "manifest.py")),
        f"data.train={tmp_path}/all.jsonl", "tokenizer.kind=characters",
    )  # fmt: skip
    (report,) = data.data_reports(manifest, threads=[2], seconds=0.01)
    (row,) = map(json.loads, report.as_json().splitlines())
    assert row["threads"] == 2 and row["num_batches"] >= 1 and row["failed"] == 0
    assert 0 < row["audio_seconds"] < row["padded_seconds"]
    assert row["bytes"] == pytest.approx(row["padded_seconds"] * 16000 * 4)
    assert str(report).startswith("2 threads")
