"""Prepared datasets: read record by record, also those of other tools; bad ones are refused."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from paths import ROOT

from tdt_jax import config as configs
from tdt_jax.audio.encoded import decode, flac
from tdt_jax.audio.reading import AudioError, read_audio
from tdt_jax.config import Bucket
from tdt_jax.data.prepared import dataset as datasets
from tdt_jax.data.prepared.dataset import open_dataset
from tdt_jax.data.sources import read_source
from tdt_jax.data.task import make_task
from tdt_jax.data.telephone.compose import prompts_folder

AUDIO = {  # as features.json of the stock LibriSpeech has it
    "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
    "audio": {
        "shape": {"dimensions": ["-1"]},
        "dtype": "int16",
        "encoding": "none",
        "sampleRate": "16000",
    },
}


def pcm(number):
    samples = read_audio(prompts_folder() / f"digits__{number}.opus", 16000)
    return np.round(samples * 32767).astype(np.int64)


def elsewhere(folder, examples, *, key="speech", features=None, rate="16000"):
    """A dataset as others prepare it: samples as integers, shuffled, without our index."""
    described = features or {
        key: tfds.features.Tensor(shape=(None,), dtype=np.int64),
        "text": tfds.features.Text(),
        "id": tfds.features.Text(),
    }

    class Elsewhere(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.1.1")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(described)
            )

        def _split_generators(self, download_manager):
            return {"train_clean100": iter(examples.items()), "dev_clean": iter(examples.items())}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Elsewhere(data_dir=folder, file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=min(2, len(examples)))
    )
    path = Path(builder.data_dir) / "features.json"
    described = json.loads(path.read_text())
    stock = json.loads(json.dumps(AUDIO))
    stock["audio"]["sampleRate"] = rate
    described["featuresDict"]["features"][key] = stock
    path.write_text(json.dumps(described))
    return path.parent


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


EXAMPLES = {
    f"84-1-{number:04d}": {"speech": pcm(number), "text": f"DIGIT {number}", "id": f"84-1-{number}"}
    for number in range(6)
}


def test_the_stock_builders_arrays_of_samples(tmp_path):
    folder = elsewhere(tmp_path, EXAMPLES)
    (dataset,) = open_dataset(tmp_path, "dev_clean")
    records = dataset.records()
    assert len(dataset) == len(records) == 6
    for record in records:
        number = int(record.id[-1])
        samples = record.audio(16000)
        assert samples.dtype == np.float32 and record.text == f"DIGIT {number}"
        np.testing.assert_array_equal(samples * 32768, pcm(number).astype(np.float32))
        assert record.seconds == pytest.approx(len(samples) / 16000, abs=1e-6)
        assert len(record.audio(8000)) == pytest.approx(len(samples) / 2, abs=1)
    both = read_source(f"{folder}:dev_clean+train_clean100")
    assert len(both) == 12 and {record.dataset.split for record in both[6:]} == {"train_clean100"}
    assert "tensorflow" not in sys.modules


def test_the_index_is_built_once(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path, EXAMPLES)
    records = open_dataset(folder, "dev_clean")[0].records()
    index = folder / "elsewhere-dev_clean.index.jsonl"
    assert len(index.read_text().splitlines()) == 6

    def never(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(datasets.Dataset, "__getitem__", never)
    again = open_dataset(folder, "dev_clean")[0].records()
    assert [each[::3] for each in again] == [each[::3] for each in records]
    index.write_text(index.read_text().splitlines()[0])
    with pytest.raises(ValueError, match=r"index.jsonl has 1 records, dev_clean 6"):
        open_dataset(folder, "dev_clean")[0].records()
    index.write_text('{"id": 3')
    with pytest.raises(ValueError, match="is no index of records; remove it"):
        open_dataset(folder, "dev_clean")[0].records()


def test_an_index_of_other_shards_does_not_count(tmp_path):
    folder = elsewhere(tmp_path, EXAMPLES)
    records = open_dataset(folder, "dev_clean")[0].records()
    index = folder / "elsewhere-dev_clean.index.jsonl"
    index.write_text(index.read_text().replace(records[0].text, "another"))
    assert open_dataset(folder, "dev_clean")[0].records()[0].text == "another"
    for shard in folder.glob("*.array_record-*"):  # written anew, with as many records
        os.utime(shard, (index.stat().st_mtime + 1,) * 2)
    assert open_dataset(folder, "dev_clean")[0].records()[0].text == records[0].text


def test_an_index_that_cannot_be_beside_goes_to_the_cache(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path, EXAMPLES)
    write = datasets.write_atomically

    def refuse(path, text):
        if path.parent == folder:
            raise PermissionError
        write(path, text)

    monkeypatch.setattr(datasets, "write_atomically", refuse)
    records = open_dataset(folder, "dev_clean")[0].records()
    (kept,) = (tmp_path / "cache" / "tdt_jax").iterdir()
    monkeypatch.setattr(datasets.Dataset, "_build_index", None)
    assert open_dataset(folder, "dev_clean")[0].records()[5].text == records[5].text
    assert kept.suffix == ".jsonl"


def test_other_keys_rates_and_ways_to_hold_audio(tmp_path):
    samples = pcm(3)[::2]
    folder = elsewhere(
        tmp_path / "a",
        {"x": {"audio": samples, "text": "", "id": "x"}},
        key="audio",
        rate="8000",
    )
    (record,) = open_dataset(folder, "dev_clean", keys=("audio", "text"))[0].records()
    assert record.seconds == pytest.approx(len(samples) / 8000, abs=1e-6)
    assert len(record.audio(16000)) == 2 * len(samples)
    features = {
        "sound": tfds.features.Tensor(shape=(None,), dtype=np.float32),
        "file": tfds.features.Tensor(shape=(), dtype=np.object_),
        "words": tfds.features.Text(),
    }
    floats = np.sin(np.arange(1600, dtype=np.float32))
    example = {"sound": floats, "file": flac(floats, 16000), "words": "a sine"}
    folder = elsewhere(tmp_path / "b", {"x": example}, key="none", features=features)
    (record,) = open_dataset(folder, "dev_clean", keys=("sound", "words"))[0].records()
    np.testing.assert_array_equal(record.audio(16000), floats)
    assert (record.id, record.text) == ("dev_clean/0", "a sine")
    (record,) = open_dataset(folder, "dev_clean", keys=("file", "words"))[0].records()
    np.testing.assert_allclose(record.audio(16000), floats, atol=2**-14)
    with pytest.raises(ValueError, match="has no 'speech'; there are file, sound, words"):
        open_dataset(folder, "dev_clean")[0].records()
    with pytest.raises(ValueError, match=r"'sound' of record 0 of .*:dev_clean is not text"):
        open_dataset(folder, "dev_clean", keys=("file", "sound"))[0].records()


def test_what_is_no_dataset(tmp_path):
    def refused(name, message):
        with pytest.raises(ValueError, match=message):
            read_source(name)

    refused(f"{tmp_path}/gone:dev", "there is no folder .*gone$")
    refused(f"{tmp_path}/gone", "no manifest at .*gone$")
    refused(f"{tmp_path}:dev", r"is no prepared dataset: it has no dataset_info\.json")
    refused(
        str(tmp_path), r"no recording with a text .* of a prepared dataset name a split: .*:SPLIT"
    )
    folder = elsewhere(tmp_path / "a", EXAMPLES)
    refused(
        f"{folder}:dev_clean+test", "has no split 'test'; there are train_clean100, dev_clean|dev"
    )
    elsewhere(tmp_path / "b", EXAMPLES)
    (tmp_path / "both").mkdir()
    for name in "ab":
        (tmp_path / name / "elsewhere").rename(tmp_path / "both" / name)
    refused(f"{tmp_path}/both:dev_clean", "holds 2 datasets; name one of: .*a/2.1.1, .*b/2.1.1")
    folder = tmp_path / "both" / "a" / "2.1.1"
    first, second = sorted(folder.glob("*dev_clean.array*"))
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    refused(f"{folder}:dev_clean", r"the shards .*dev_clean.array_record-00000-of-00002")
    first.write_bytes(second.read_bytes())
    if len(whole) != second.stat().st_size:
        refused(f"{folder}:dev_clean", r"dataset_info\.json counts 6 records, the shards")
    first.unlink()
    refused(f"{folder}:dev_clean", "lacks 1 shards, such as elsewhere-dev_clean.array_record-00000")
    (folder / "dataset_info.json").write_text("[")
    refused(f"{folder}:dev_clean", r"dataset_info\.json is damaged")
    (folder / "dataset_info.json").write_text(
        '{"name": "x", "splits": [], "fileFormat": "riegeli"}'
    )
    refused(f"{folder}:dev_clean", "is in the format riegeli")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    elsewhere(tmp_path, EXAMPLES)
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_data_source", None)
    with pytest.raises(ValueError, match=r"pip install 'tdt-jax\[data\]'"):
        open_dataset(tmp_path, "dev_clean")


def test_damaged_bytes_are_audio_errors():
    data = flac(pcm(1).astype(np.int16), 16000)
    np.testing.assert_array_equal(decode(data, "x", 16000) * 32768, pcm(1).astype(np.float32))
    assert len(decode(data, "x", 8000)) == pytest.approx(len(pcm(1)) / 2, abs=1)
    for bad, message in (
        (b"", "x is damaged or not audio"),
        (b"fLaC and nothing else", "x is damaged or not audio"),
        (data[: len(data) // 2], "x is "),
        (flac(pcm(1)[:0].astype(np.int16), 16000), "x"),
    ):
        with pytest.raises(AudioError, match=message):
            decode(bad, "x", 16000)


def test_training_from_a_dataset(tmp_path, caplog):
    """Bad records are counted, replaced and logged; the text is lower case when asked for."""
    spoiled = {key: dict(example) for key, example in EXAMPLES.items()}
    for number in range(6, 10):
        spoiled[f"84-1-{number:04d}"] = {"speech": pcm(number), "text": "NINE", "id": f"n{number}"}
    spoiled["84-1-0002"]["speech"] = np.full(20000, 1 << 20)  # no 16-bit samples
    folder = elsewhere(tmp_path, spoiled)
    config = configs.override(
        configs.load(ROOT / "configs" / "manifest.py"),
        f"data.folder={tmp_path}",
        f"data.train=elsewhere/2.1.1:train_clean100,{folder}:dev_clean",
        "data.dev=elsewhere/2.1.1:dev_clean",
        "data.test=elsewhere/2.1.1:dev_clean,elsewhere/2.1.1:train_clean100",
        "data.lowercase=true",
        "tokenizer.kind=characters",
    )
    buckets = (Bucket(2.0, 20, 4),)
    config = replace(config, data=replace(config.data, buckets=buckets))
    task = make_task(config)
    assert "skipped 2: 2 without a positive duration" in task.report[0]
    assert list(task.test) == ["dev", *config.data.test] and len(task.dev) == 10
    texts = {text for step in range(5) for text in task.batches[step].texts}
    assert texts == {"nine"} | {f"digit {number}" for number in (0, 1, 3, 4, 5)}
    index = folder / "elsewhere-train_clean100.index.jsonl"  # as if it had been readable once
    index.write_text(index.read_text().replace('"seconds": 0.0', '"seconds": 1.0'))
    task = make_task(config)
    for step in range(5):
        assert "84-1-2" not in task.batches[step].ids
    assert list(task.batches.failed) == ["84-1-2"]
    assert [record.message for record in caplog.records] == [
        "replaced 84-1-2: " + task.batches.failed["84-1-2"]
    ]
    assert "beyond 16 bits" in caplog.text
