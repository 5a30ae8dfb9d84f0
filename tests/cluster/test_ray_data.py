"""Ray Data: transcripts are those of transcribe; an actor that dies loses nothing."""

import os
import signal
from pathlib import Path

import pytest
from clients import AUDIO, wav_of
from models import make_recogniser, speech
from paths import ROOT

import tdt_jax as tdt
from tdt_jax.checkpoints import loading

pytest.importorskip("ray.data", reason="needs the extra ray")
pa = pytest.importorskip("pyarrow")

import stub  # noqa: E402

from tdt_jax.cluster import ray_data  # noqa: E402
from tdt_jax.inference import transcription  # noqa: E402


@pytest.fixture(scope="module")
def recogniser():
    return make_recogniser(piece_seconds=2.56)


@pytest.fixture
def actor(recogniser, monkeypatch):
    """Makes actors in this process; no model is run."""
    monkeypatch.setattr(transcription, "decode_samples_on_mesh", stub.decode)
    monkeypatch.setattr(loading, "load", lambda model, **options: recogniser)

    def make(column, **options):
        return ray_data.TranscribingActor("MODEL", column, None, {}, options)

    return make


def test_paths(actor, recogniser, tmp_path):
    paths = [str(tmp_path / f"{i}.wav") for i in range(3)]
    for path, samples in zip(paths, AUDIO, strict=True):
        with open(path, "wb") as file:
            file.write(wav_of(samples))
    paths.insert(1, str(tmp_path / "none.wav"))
    table = actor("path")(pa.table({"path": paths, "number": [3, 1, 2, 0]}))
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == paths and [row["number"] for row in rows] == [
        3,
        1,
        2,
        0,
    ]
    bad = rows.pop(1)
    assert "none.wav" in bad["error"] and bad["text"] is bad["words"] is bad["duration"] is None
    for row, one in zip(rows, tdt.transcribe(recogniser, [paths[0], *paths[2:]]), strict=True):
        assert row["text"] == one.text and row["duration"] == one.duration and not row["error"]
        assert row["words"] == [vars(word) for word in one.words]


def test_bytes_are_dropped(actor, recogniser):
    files = [wav_of(samples) for samples in AUDIO]
    table = actor("bytes")(pa.table({"bytes": files, "id": ["a", "b", "c"]}))
    assert table.column_names == ["id", *ray_data.COLUMNS]
    assert table["text"].to_pylist() == [one.text for one in tdt.transcribe(recogniser, files)]


def test_a_batch_without_words_has_the_same_types(actor):
    bad = actor("bytes")(pa.table({"bytes": [b"no audio"], "id": ["a"]}))
    good = actor("bytes")(pa.table({"bytes": [wav_of(AUDIO[0])], "id": ["a"]}))
    assert bad.schema == good.schema


def test_options_reach_ray_and_the_actor():
    class Dataset:
        def columns(self):
            return ["audio"]

        def map_batches(self, fn, **options):
            return fn, options

    fn, options = ray_data.transcribe_dataset(
        Dataset(), "MODEL", column="audio", hosts=(1, 4), num_gpus=8
    )
    assert fn is ray_data.TranscribingActor
    assert options["concurrency"] == (1, 4) and options["num_gpus"] == 8
    assert options["fn_constructor_kwargs"]["column"] == "audio"
    with pytest.raises(ValueError, match="no column 'path'; it has audio"):
        ray_data.transcribe_dataset(Dataset(), "MODEL")
    with pytest.raises(ValueError, match=r"cannot have boost; there are batch_seconds, .*track"):
        ray_data.transcribe_dataset(
            Dataset(), "MODEL", column="audio", transcribing_options={"boost": ["a"], "track": 1}
        )
    Dataset.columns = lambda self: ["path", "text"]
    with pytest.raises(ValueError, match="text"):
        ray_data.transcribe_dataset(Dataset(), "MODEL")


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    """On a cluster of two hosts; what is transcribed has the words of `transcribe`."""
    import ray
    from ray.cluster_utils import Cluster

    recogniser = make_recogniser(piece_seconds=2.56)
    loading.save(recogniser, tmp_path / "model")
    paths = []
    for i in range(40):
        paths.append(str(tmp_path / f"{i}.wav"))
        Path(paths[-1]).write_bytes(wav_of(speech(0.5 + 0.05 * i, i)))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2, resources={"accelerator": 1})
        ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
        dataset = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=20)
        dataset = ray_data.transcribe_dataset(
            dataset,
            str(tmp_path / "model"),
            hosts=2,
            batch_size=2,
            resources={"accelerator": 1},
            num_cpus=1,
        )
        rows, killed = [], 0
        for row in dataset.iter_rows():
            rows.append(row)
            if not killed:
                killed = next(actor for actor in Path("/proc").iterdir() if is_actor(actor))
                os.kill(int(killed.name), signal.SIGKILL)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert sorted(row["path"] for row in rows) == sorted(paths)
    texts = {
        path: one.text for path, one in zip(paths, tdt.transcribe(recogniser, paths), strict=True)
    }
    assert {row["path"]: row["text"] for row in rows} == texts


def is_actor(process) -> bool:
    try:
        return process.joinpath("cmdline").read_bytes().startswith(b"ray::MapWorker")
    except OSError:
        return False
