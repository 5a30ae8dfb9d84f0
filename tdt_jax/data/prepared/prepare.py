"""Writes recordings into a dataset in tensorflow-datasets' ArrayRecord format, without TensorFlow.

A split is written in shards, each by a builder of its own. A finished shard is kept, so that a
process that was killed can be resumed. When all shards are in their places, the split is added to
dataset_info.json; only then does it belong to the dataset.

    DATA_DIR/librispeech/1.0.0/dataset_info.json, features.json
                               librispeech-dev_clean.array_record-00000-of-00002, ...
                               librispeech-dev_clean.index.jsonl
                               .dev_clean/         while it is being written
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tdt_jax.audio.encoded import length
from tdt_jax.audio.errors import AudioError
from tdt_jax.data.prepared.builder import Recording, Source, SpeechBuilder
from tdt_jax.data.prepared.dataset import FEATURES, INFO, index_line, index_path
from tdt_jax.runtime.files import write_atomically
from tdt_jax.runtime.lock import locked

SHARD_BYTES = 1 << 28
NUM_THREADS = 4  # that read and check recordings

T = TypeVar("T")


class Prepared(NamedTuple):
    """The contents of a split."""

    num_records: int
    seconds: float
    num_shards: int
    problems: list[str]  # recordings that were left out, and why


def prepare(
    builder: type[SpeechBuilder],
    source: Source,
    data_dir: str | os.PathLike,
    *,
    sample_rate: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], object] = lambda size: None,
) -> Prepared:
    """Writes a split of a dataset, or what is missing of it, and returns its contents.

    Every recording is decoded. One that cannot be decoded is left out and named in `problems`.

    Args:
      builder: has the name of the dataset and its features.
      source: the recordings of the split.
      data_dir: the folder that contains the dataset.
      sample_rate: that every recording must have, in Hz; None: any.
      shard_bytes: bytes of audio in a shard, at most (a single larger file is a shard).
      progress: is called with the bytes of audio that have been written since the last call.

    Raises:
      ValueError: if no recording is left, or if the split exists with other recordings.
    """
    folder = Path(data_dir) / builder.name / str(builder.VERSION)
    work = folder / f".{source.split}"
    made_of = _digest(source.recordings)
    if source.split in _info(folder):
        shutil.rmtree(work, ignore_errors=True)  # if it was killed at the very end
        problems = _problems(folder, builder.name, source.split, made_of)
        return _result(folder, builder.name, source.split, [*source.problems, *problems])
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / "lock"):
        problems = _prepare(builder, source, folder, work, sample_rate, shard_bytes, progress)
    return _result(folder, builder.name, source.split, [*source.problems, *problems])


def is_prepared(builder: type[SpeechBuilder], split: str, data_dir: str | os.PathLike) -> bool:
    """Returns whether `prepare` has nothing left to do for a split."""
    return split in _info(Path(data_dir) / builder.name / str(builder.VERSION))


def _prepare(
    builder: type[SpeechBuilder],
    source: Source,
    folder: Path,
    work: Path,
    sample_rate: int | None,
    shard_bytes: int,
    progress: Callable[[int], object],
) -> list[str]:
    """Writes what is missing of a split, while `work` is locked; returns problems."""
    parts = _parts(source.recordings, shard_bytes)
    _start(work, parts)
    remaining = [n for n in range(len(parts)) if not (work / f"{n}.json").is_file()]
    progress(sum(_size(part) for n, part in enumerate(parts) if n not in remaining))
    wanted = [recording for n in remaining for recording in parts[n]]
    pairs = zip(wanted, source.read(wanted), strict=True)
    checked = _in_threads(functools.partial(_check, *pair, sample_rate) for pair in pairs)
    for n in remaining:
        _write_part(builder, source.split, work, n, itertools.islice(checked, len(parts[n])))
        progress(_size(parts[n]))
    made_of = _digest(source.recordings)
    return _finish(builder.name, source.split, folder, work, len(parts), made_of)


def _info(folder: Path) -> dict[str, dict]:
    """Returns the splits that belong to the dataset, by name."""
    path = folder / INFO
    if not path.is_file():
        return {}
    try:
        splits = json.loads(path.read_text("utf-8")).get("splits", [])
        return {split["name"]: split for split in splits}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged") from None


def _result(folder: Path, name: str, split: str, problems: list[str]) -> Prepared:
    lines = index_path(folder, name, split).read_bytes().splitlines()
    seconds = sum(json.loads(line)["seconds"] for line in lines)
    return Prepared(len(lines), seconds, len(_info(folder)[split]["shardLengths"]), problems)


def _size(recordings: Iterable[Recording]) -> int:
    return sum(recording.size for recording in recordings)


def _parts(recordings: Sequence[Recording], shard_bytes: int) -> list[list[Recording]]:
    """Returns the recordings of each shard."""
    parts, size = [], math.inf
    for recording in recordings:
        if size + recording.size > shard_bytes:
            parts.append([])
            size = 0
        parts[-1].append(recording)
        size += recording.size
    return parts


def _digest(recordings: Sequence) -> str:
    return hashlib.sha256(json.dumps(recordings).encode()).hexdigest()


def _problems(folder: Path, name: str, split: str, made_of: str) -> list[str]:
    """Returns the problems of an existing split; ValueError if it has other recordings."""
    path = _made_path(folder, name, split)
    made = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if made.get("made_of", made_of) != made_of:
        raise ValueError(
            f"{folder} has a split {split} of other recordings; choose another folder or name, or "
            f"remove it with {path.name}"
        )
    return made.get("problems", [])


def _made_path(folder: Path, name: str, split: str) -> Path:
    """Returns the file with a digest of a split's recordings, and with its problems."""
    return folder / f"{name}-{split}.made.json"


def _start(work: Path, parts: list[list[Recording]]) -> None:
    """Empties the folder of unfinished shards if they are of other recordings."""
    plan = _digest(parts)
    path = work / "plan"
    if not path.is_file() or path.read_text("utf-8") != plan:
        for other in work.iterdir():
            if other.name.startswith("tmp"):
                shutil.rmtree(other)
            elif other.name != "lock":
                other.unlink()
        write_atomically(path, plan)
    for unfinished in work.glob("tmp*"):  # of a process that was killed within a shard
        shutil.rmtree(unfinished)


def _check(
    recording: Recording, load: Callable[[], bytes], sample_rate: int | None
) -> tuple[Recording, bytes, float | str]:
    """Returns the recording, its bytes, and its seconds or a message if it is unusable."""
    try:
        data = load()
        rate, num_samples = length(data, recording.id)
    except AudioError as error:
        return recording, b"", str(error)
    except OSError as error:
        return recording, b"", f"{recording.id} cannot be read: {error.strerror or error}"
    if sample_rate not in (None, rate):
        return recording, b"", f"{recording.id} has {rate} Hz, not {sample_rate}"
    return recording, data, num_samples / rate


def _in_threads(calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yields the results of the calls in order, while threads make the next calls."""
    with concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        pending = deque()
        for call in calls:
            pending.append(pool.submit(call))
            if len(pending) > 2 * NUM_THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _write_part(
    builder: type[SpeechBuilder],
    split: str,
    work: Path,
    n: int,
    checked: Iterable[tuple[Recording, bytes, float | str]],
) -> None:
    """Writes shard `n` and then, as a sign that it is complete, its description."""
    lines, problems = [], []

    import tensorflow_datasets as tfds

    def examples():
        for recording, data, seconds in checked:
            if isinstance(seconds, str):
                problems.append(seconds)
                continue
            lines.append(index_line(recording.id, seconds, str(recording.fields["text"])))
            yield len(lines), {"id": recording.id, "speech": data} | recording.fields

    good = examples()
    first = next(good, None)
    num_bytes = 0
    if first is not None:
        tfds.disable_progress_bar()
        with tempfile.TemporaryDirectory(dir=work) as temporary:
            made = builder(
                data_dir=temporary,
                file_format="array_record",
                examples={split: itertools.chain([first], good)},
            )
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    made.download_and_prepare(
                        download_config=tfds.download.DownloadConfig(num_shards=1)
                    )
            except RuntimeError as error:  # array_record's, of a full disk
                raise OSError(f"a shard of {split} cannot be written: {error}") from error
            num_bytes = made.info.splits[split].num_bytes
            (shard,) = Path(made.data_dir).glob("*.array_record-*")
            for path, name in (
                (FEATURES, "features"),
                (INFO, "info"),  # under another name, so that an unfinished folder is no dataset
                (shard, f"{n}.array_record"),
            ):
                os.replace(Path(made.data_dir) / path, work / name)
    known = {"lines": lines, "problems": problems, "bytes": num_bytes}
    write_atomically(work / f"{n}.json", json.dumps(known))


def _finish(
    name: str, split: str, folder: Path, work: Path, num_parts: int, made_of: str
) -> list[str]:
    """Moves the shards to their places, then adds the split to dataset_info.json; returns problems.

    If it is killed at any point, it can be repeated.
    """
    known = [json.loads((work / f"{n}.json").read_text("utf-8")) for n in range(num_parts)]
    problems = [problem for part in known for problem in part["problems"]]
    shards = [n for n, part in enumerate(known) if part["lines"]]
    if not shards:
        shutil.rmtree(work)  # so that the next attempt reads everything again
        raise ValueError("\n".join([*problems[:10], f"nothing is left of the split {split}"]))
    start = f"{name}-{split}.array_record-"
    places = [f"{start}{n:05d}-of-{len(shards):05d}" for n in range(len(shards))]
    for path in folder.glob(f"{start}*"):  # of an earlier attempt with other recordings
        if path.name not in places:
            path.unlink()
    for n, place in zip(shards, places, strict=True):
        if (part := work / f"{n}.array_record").is_file():
            os.replace(part, folder / place)
    lines = [line for n in shards for line in known[n]["lines"]]
    write_atomically(index_path(folder, name, split), "\n".join(lines))
    write_atomically(folder / FEATURES, (work / "features").read_text("utf-8"))
    about = json.dumps({"made_of": made_of, "problems": problems}, indent=2)
    write_atomically(_made_path(folder, name, split), about)
    info = json.loads((work / "info").read_text("utf-8"))
    made = {
        "name": split,
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": str(sum(part["bytes"] for part in known)),
        "shardLengths": [str(len(known[n]["lines"])) for n in shards],
    }
    with locked(folder / ".lock", wait=True):  # other processes may finish other splits
        info["splits"] = [*_info(folder).values(), made]
        write_atomically(folder / INFO, json.dumps(info, indent=2))
    shutil.rmtree(work, ignore_errors=True)
    return problems
