"""Datasets in tensorflow-datasets' ArrayRecord format, read record by record without TensorFlow.

A folder holds dataset_info.json (the splits and the lengths of their shards), features.json and
NAME-SPLIT.array_record-00000-of-00012 and so on; a record is a tf.train.Example. The library's own
`builder_from_directory` builds every feature of features.json, and its Audio, which the stock
LibriSpeech has, imports TensorFlow; so records are parsed here, and only what is asked for is
decoded.

An index of each split, a JSON line of id, seconds and text for every record, lets buckets be chosen
without decoding anything. `tdt-jax prepare` writes it; for a dataset prepared elsewhere it is built
when it is first needed.
"""

import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tdt_jax.audio.encoded import decode
from tdt_jax.audio.reading import AudioError, as_samples
from tdt_jax.orthography import nfc
from tdt_jax.runtime.files import cache_folder, write_atomically

INFO, FEATURES = "dataset_info.json", "features.json"
KEYS = ("speech", "text")  # of audio and transcript
RATE = 16000  # Hz of arrays of samples whose rate features.json does not say


class Record(NamedTuple):
    """One record of a dataset; like a manifest's Entry, but `audio` reads when it is called."""

    id: str
    dataset: "Dataset"
    position: int
    seconds: float
    text: str

    @property
    def audio(self) -> Callable[[int], np.ndarray]:
        """Takes a sample rate and returns [S] float32; AudioError if it cannot be decoded."""
        return functools.partial(self.dataset.samples, self.position)

    def exists(self) -> bool:
        """Always: a dataset with missing shards is refused when it is opened."""
        return True


@dataclass(frozen=True)
class Dataset:
    """One split: `dataset[position]` is a record's features, for any thread at any time."""

    folder: Path
    name: str
    split: str
    source: Sequence[bytes]  # serialised records
    keys: tuple[str, str] = KEYS
    rate: int = RATE  # Hz, of arrays of samples
    modified: float = 0.0  # when, in seconds since 1970: no index that is older counts

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, position: int):
        """The record's features, by key: what the protocol buffer tf.train.Example holds.

        Raises: AudioError if its part of the file is damaged.
        """
        try:
            return _example().FromString(self.source[position]).features.feature
        except Exception as error:  # of array_record or protobuf, which have no common one
            raise AudioError(f"{self._name(position)} is damaged: {error}") from None

    def samples(self, position: int, sample_rate: int = 16000) -> np.ndarray:
        """[S] float32 of a record: of an encoded file's bytes, or of an array of samples."""
        return self._decoded(self[position], self._name(position), sample_rate)

    def records(self) -> list[Record]:
        """All records with what the index knows of them; builds it where there is none.

        Raises: ValueError for an index that is damaged or of another dataset.
        """
        path = next((path for path in self._index_paths() if self._is_index(path)), None)
        try:
            lines = self._build_index() if path is None else path.read_bytes().splitlines()
            items = [json.loads(line) for line in lines]
            records = [
                Record(item["id"], self, position, item["seconds"], nfc(item["text"]))
                for position, item in enumerate(items)
            ]
        except (KeyError, TypeError, json.JSONDecodeError):
            raise ValueError(f"{path} is no index of records; remove it") from None
        if len(records) != len(self):
            raise ValueError(f"{path} has {len(records)} records, {self.split} {len(self)}")
        return records

    def _name(self, position: int) -> str:
        return f"record {position} of {self.folder}:{self.split}"

    def _decoded(self, features, name: str, sample_rate: int) -> np.ndarray:
        value = _value(features, self.keys[0], name)
        if isinstance(value, bytes):
            return decode(value, name, sample_rate)
        if value.dtype == np.int64:
            if value.size and not -(1 << 15) <= value.min() <= value.max() < 1 << 15:
                raise AudioError(f"{name} holds samples beyond 16 bits")
            value = value.astype(np.int16)
        try:
            samples = as_samples(value, sample_rate)
        except AudioError as error:
            raise AudioError(f"{name}: {error}") from None
        if self.rate != sample_rate:
            import soxr

            samples = soxr.resample(samples, self.rate, sample_rate)
        return samples

    def _is_index(self, path: Path) -> bool:
        return path.is_file() and path.stat().st_mtime >= self.modified

    def _index_paths(self) -> list[Path]:
        """Beside the split, or in the user's cache folder if that cannot be written."""
        named = hashlib.sha256(f"{self.folder.resolve()}\n{len(self)}".encode())
        name = f"index-{self.split}-{'-'.join(self.keys)}-{named.hexdigest()[:16]}.jsonl"
        cache = cache_folder()
        beside = index_path(self.folder, self.name, self.split, self.keys)
        return [beside] if cache is None else [beside, cache / name]

    def _build_index(self) -> list[str]:
        from tqdm import tqdm

        what = f"index of {self.name} {self.split}"
        positions = tqdm(range(len(self)), what, disable=not sys.stderr.isatty())
        lines = [self._index_line(position) for position in positions]
        for path in self._index_paths():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, "\n".join(lines))
                break
            except OSError:
                continue
        return lines

    def _index_line(self, position: int) -> str:
        """What is damaged has no seconds, as in a manifest: training skips it, with a count."""
        name, key, seconds = self._name(position), f"{self.split}/{position}", 0.0
        try:
            features = self[position]
        except AudioError:
            return index_line(key, seconds, "")
        with contextlib.suppress(AudioError):
            seconds = len(self._decoded(features, name, self.rate)) / self.rate
        if "id" in features and features["id"].WhichOneof("kind") == "bytes_list":
            key = _text(features, "id", name)
        return index_line(key, seconds, _text(features, self.keys[1], name))


def open_dataset(folder: str | os.PathLike, splits: str, *, keys=KEYS) -> list[Dataset]:
    """Open a dataset's splits, "a+b" being two.

    Args:
      folder: holds dataset_info.json, itself or in VERSION, NAME/VERSION or NAME/CONFIG/VERSION.
      splits: names joined by "+".
      keys: of the audio and of the transcript in a record.

    Raises: ValueError for what is no dataset, no ArrayRecord, or lacks a split or a shard, naming
    the splits that there are; and without the packages.
    """
    folder = _find(Path(folder))
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        found = {split["name"]: split for split in info.get("splits", [])}
        name, format = info["name"], info.get("fileFormat", "tfrecord")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder / INFO} is damaged") from None
    if format != "array_record":
        raise ValueError(
            f"{folder} is in the format {format}; prepare it with file_format='array_record'"
        )
    _example()  # without the packages nothing can be read
    datasets = []
    for split in splits.split("+"):
        if split not in found:
            there = ", ".join(found) or "none"
            raise ValueError(f"{folder} has no split {split!r}; there are {there}")
        lengths = [int(length) for length in found[split].get("shardLengths", [])]
        template = found[split].get("filepathTemplate") or (
            "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        )
        shards = []
        for shard in range(len(lengths)):
            values = dict(DATASET=name, SPLIT=split, FILEFORMAT=format)
            values["SHARD_X_OF_Y"] = f"{shard:05d}-of-{len(lengths):05d}"
            values |= dict(SHARD_INDEX=f"{shard:05d}", NUM_SHARDS=f"{len(lengths):05d}")
            shards.append(folder / template.format(**values))
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise ValueError(f"{folder} lacks {len(missing)} shards, such as {missing[0]}")
        source = _open(shards, sum(lengths))
        datasets.append(
            Dataset(
                folder,
                name,
                split,
                source,
                tuple(keys),
                _sample_rate(folder, keys[0]),
                max((shard.stat().st_mtime for shard in shards), default=0.0),
            )
        )
    return datasets


def index_path(folder: Path, name: str, split: str, keys=KEYS) -> Path:
    """Where the index of a split is kept, beside it."""
    other = "" if tuple(keys) == KEYS else "-" + "-".join(keys)
    return folder / f"{name}-{split}{other}.index.jsonl"


def index_line(id: str, seconds: float, text: str) -> str:
    """What the index says of one record."""
    return json.dumps({"id": id, "seconds": round(seconds, 6), "text": text}, ensure_ascii=False)


def _find(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    for pattern in (INFO, f"*/{INFO}", f"*/*/{INFO}", f"*/*/*/{INFO}"):
        found = sorted(path.parent for path in folder.glob(pattern))
        if len(found) > 1:
            raise ValueError(
                f"{folder} holds {len(found)} datasets; name one of: {', '.join(map(str, found))}"
            )
        if found:
            return found[0]
    raise ValueError(f"{folder} is no prepared dataset: it has no {INFO}")


def _sample_rate(folder: Path, key: str) -> int:
    """The rate that features.json gives the audio; RATE where it says nothing."""
    try:
        text = (folder / FEATURES).read_text(encoding="utf-8")
        feature = json.loads(text)["featuresDict"]["features"].get(key, {})
        return int(feature.get("audio", {}).get("sampleRate") or RATE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return RATE


def _value(features, key: str, name: str):
    """bytes, or [n] int64 or float32."""
    if key not in features:
        raise ValueError(f"{name} has no {key!r}; there are {', '.join(sorted(features))}")
    feature = features[key]
    if feature.WhichOneof("kind") == "bytes_list":
        return feature.bytes_list.value[0] if feature.bytes_list.value else b""
    if feature.WhichOneof("kind") == "float_list":
        return np.array(feature.float_list.value, np.float32)
    return np.array(feature.int64_list.value, np.int64)


def _text(features, key: str, name: str) -> str:
    value = _value(features, key, name)
    if not isinstance(value, bytes):
        raise ValueError(f"{key!r} of {name} is not text")
    return value.decode("utf-8", "replace")


@functools.cache
def _example():
    with needing_packages():
        from tensorflow_datasets.proto import tf_example_pb2
    return tf_example_pb2.Example


def _open(shards: list[Path], num_records: int) -> Sequence[bytes]:
    """Random access over shards, for any number of threads."""
    with needing_packages():
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    if not shards:
        return []
    try:
        source = ArrayRecordDataSource([str(path) for path in shards])
    except Exception as error:  # array_record's readers raise what they like
        raise ValueError(f"the shards {shards[0].parent}/{shards[0].name} ...: {error}") from None
    if len(source) != num_records:
        raise ValueError(
            f"{shards[0].parent}: {INFO} counts {num_records} records, the shards {len(source)}"
        )
    return source


@contextlib.contextmanager
def needing_packages():
    """A context that turns an ImportError into advice."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"prepared datasets need packages ({error}): pip install 'tdt-jax[data]'"
        ) from None
