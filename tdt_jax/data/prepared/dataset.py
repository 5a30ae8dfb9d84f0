"""Reads datasets in tensorflow-datasets' ArrayRecord format record by record, without TensorFlow.

A folder holds dataset_info.json (the splits and the lengths of their shards), features.json and
NAME-SPLIT.array_record-00000-of-00012 and so on; a record is a tf.train.Example. The library's own
`builder_from_directory` builds every feature of features.json, and imports TensorFlow for the Audio
feature of the library's LibriSpeech; so records are parsed here, and only the features that are
needed are decoded.

Each split has an index, a JSON line of id, seconds and text for every record, so that buckets can
be chosen without decoding audio. `tdt-jax prepare` writes it; for a dataset that was prepared
elsewhere it is built when it is first needed.
"""

import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tdt_jax.audio.encoded import decode
from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.waveform import resample
from tdt_jax.orthography import nfc
from tdt_jax.runtime.files import cache_folder, write_atomically

INFO, FEATURES = "dataset_info.json", "features.json"
KEYS = ("speech", "text")  # of audio and transcript
RATE = 16000  # Hz, of arrays of samples if features.json has no rate


class Record(NamedTuple):
    """One record of a dataset, whose audio is read when it is needed."""

    id: str
    dataset: "Dataset"
    position: int
    seconds: float
    text: str

    @property
    def audio(self) -> Callable[[int], np.ndarray]:
        """Returns a function of the sample rate, which `tdt_jax.audio.reading.as_samples` calls.

        It returns [S] float32, and raises AudioError if the audio cannot be decoded.
        """
        return functools.partial(self.dataset.samples, self.position)

    def exists(self) -> bool:
        """Returns True: a dataset with missing shards is refused when it is opened."""
        return True

    def measured(self) -> "Record":
        """Returns itself: the index has the lengths."""
        return self


class Serialized(Protocol):
    """Random access to serialized records, for any number of threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> bytes: ...


@dataclass(frozen=True)
class Dataset:
    """One split: `dataset[position]` has the features of a record. Threads may share it."""

    folder: Path
    name: str
    split: str
    source: Serialized
    keys: tuple[str, str] = KEYS
    rate: int = RATE  # Hz, of arrays of samples
    modified: float = 0.0  # time in seconds since 1970: an older index is not used

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, position: int) -> Any:
        """Returns the features of a record by key, as the tf.train.Example has them.

        Raises:
          AudioError: if this part of the file is damaged.
        """
        try:
            return _example().FromString(self.source[position]).features.feature
        except Exception as error:  # array_record and protobuf have no common one
            raise AudioError(f"{self._name(position)} is damaged: {error}") from None

    def samples(self, position: int, sample_rate: int) -> np.ndarray:
        """Returns the audio of a record, [S] float32: an encoded file, or an array of samples."""
        return self._decode(self[position], self._name(position), sample_rate)

    def records(self) -> list[Record]:
        """Returns all records as the index describes them; builds the index if there is none.

        Raises:
          ValueError: for an index that is damaged or of another dataset.
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

    def _decode(self, features: Any, name: str, sample_rate: int) -> np.ndarray:
        value = _value(features, self.keys[0], name)
        if isinstance(value, bytes):
            return decode(value, name, sample_rate)
        if value.dtype == np.int64:
            if value.size and not -(1 << 15) <= value.min() <= value.max() < 1 << 15:
                raise AudioError(f"{name} has samples beyond 16 bits")
            value = value.astype(np.int16)
        try:
            samples = as_samples(value, sample_rate)
        except AudioError as error:
            raise AudioError(f"{name}: {error}") from None
        return resample(samples, self.rate, sample_rate)

    def _is_index(self, path: Path) -> bool:
        return path.is_file() and path.stat().st_mtime >= self.modified

    def _index_paths(self) -> list[Path]:
        """Returns where the index may be: beside the split, or else in the user's cache folder."""
        digest = hashlib.sha256(f"{self.folder.resolve()}\n{len(self)}".encode()).hexdigest()
        name = f"index-{self.split}-{'-'.join(self.keys)}-{digest[:16]}.jsonl"
        cache = cache_folder()
        beside = index_path(self.folder, self.name, self.split, self.keys)
        return [beside] if cache is None else [beside, cache / name]

    def _build_index(self) -> list[str]:
        from tqdm import tqdm

        title = f"index of {self.name} {self.split}"
        positions = tqdm(range(len(self)), title, disable=not sys.stderr.isatty())
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
        """Returns a line of the index; 0 seconds for damaged audio, so that training skips it."""
        name, key, seconds = self._name(position), f"{self.split}/{position}", 0.0
        try:
            features = self[position]
        except AudioError:
            return index_line(key, seconds, "")
        with contextlib.suppress(AudioError):
            seconds = len(self._decode(features, name, self.rate)) / self.rate
        if "id" in features and features["id"].WhichOneof("kind") == "bytes_list":
            key = _text(features, "id", name)
        return index_line(key, seconds, _text(features, self.keys[1], name))


def open_dataset(
    folder: str | os.PathLike, splits: str, *, keys: tuple[str, str] = KEYS
) -> list[Dataset]:
    """Returns splits of a dataset.

    Args:
      folder: has dataset_info.json, directly or in VERSION, NAME/VERSION or NAME/CONFIG/VERSION.
      splits: names joined by "+".
      keys: of the audio and of the transcript in a record.

    Raises:
      ValueError: if the folder is no dataset, is not in ArrayRecord format, or lacks a split (the
        message lists those that it has) or a shard; or if a package is not installed.
    """
    folder = _find(Path(folder))
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        descriptions = {split["name"]: split for split in info.get("splits", [])}
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
        if split not in descriptions:
            names = ", ".join(descriptions) or "none"
            raise ValueError(f"{folder} has no split {split!r}; there are {names}")
        lengths = [int(length) for length in descriptions[split].get("shardLengths", [])]
        template = descriptions[split].get("filepathTemplate") or (
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
                (keys[0], keys[1]),
                _sample_rate(folder, keys[0]),
                max((shard.stat().st_mtime for shard in shards), default=0.0),
            )
        )
    return datasets


def index_path(folder: Path, name: str, split: str, keys: tuple[str, str] = KEYS) -> Path:
    """Returns the path of the index of a split, in the dataset's folder."""
    other = "" if tuple(keys) == KEYS else "-" + "-".join(keys)
    return folder / f"{name}-{split}{other}.index.jsonl"


def index_line(id: str, seconds: float, text: str) -> str:
    """Returns the line of the index for one record."""
    return json.dumps({"id": id, "seconds": round(seconds, 6), "text": text}, ensure_ascii=False)


def _find(folder: Path) -> Path:
    """Returns the folder with dataset_info.json: `folder`, or one below it."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    for pattern in (INFO, f"*/{INFO}", f"*/*/{INFO}", f"*/*/*/{INFO}"):
        folders = sorted(path.parent for path in folder.glob(pattern))
        if len(folders) > 1:
            raise ValueError(
                f"{folder} holds {len(folders)} datasets; name one of: "
                f"{', '.join(map(str, folders))}"
            )
        if folders:
            return folders[0]
    raise ValueError(f"{folder} is no prepared dataset: it has no {INFO}")


def _sample_rate(folder: Path, key: str) -> int:
    """Returns the rate of the audio in features.json, or RATE if it has none."""
    try:
        text = (folder / FEATURES).read_text(encoding="utf-8")
        feature = json.loads(text)["featuresDict"]["features"].get(key, {})
        return int(feature.get("audio", {}).get("sampleRate") or RATE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return RATE


def _value(features: Any, key: str, name: str) -> bytes | np.ndarray:
    """Returns bytes, or an array [n] of int64 or float32."""
    if key not in features:
        raise ValueError(f"{name} has no {key!r}; there are {', '.join(sorted(features))}")
    feature = features[key]
    if feature.WhichOneof("kind") == "bytes_list":
        return feature.bytes_list.value[0] if feature.bytes_list.value else b""
    if feature.WhichOneof("kind") == "float_list":
        return np.array(feature.float_list.value, np.float32)
    return np.array(feature.int64_list.value, np.int64)


def _text(features: Any, key: str, name: str) -> str:
    value = _value(features, key, name)
    if not isinstance(value, bytes):
        raise ValueError(f"{key!r} of {name} is not text")
    return value.decode("utf-8", "replace")


@functools.cache
def _example() -> Any:
    """Returns the class tf.train.Example."""
    with needing_packages():
        from tensorflow_datasets.proto import tf_example_pb2
    return tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]  # made by protobuf


def _open(shards: Sequence[Path], num_records: int) -> Serialized:
    with needing_packages():
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    if not shards:
        return []
    try:
        source = ArrayRecordDataSource([str(path) for path in shards])
    except Exception as error:  # array_record raises exceptions of many types
        raise ValueError(f"the shards {shards[0].parent}/{shards[0].name} ...: {error}") from None
    if len(source) != num_records:
        raise ValueError(
            f"{shards[0].parent}: {INFO} counts {num_records} records, the shards {len(source)}"
        )
    return source


@contextlib.contextmanager
def needing_packages() -> Iterator[None]:
    """Within this context an ImportError becomes a ValueError that says what to install."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"prepared datasets need packages ({error}): pip install 'tdt-jax[data]'"
        ) from None
