"""Reads the utterances of a source, whatever form it has."""

import concurrent.futures
from collections.abc import Sequence
from pathlib import Path

from tdt_jax.data.manifest import Entry, read_manifest
from tdt_jax.data.parquet import Row, find_parquet, read_parquet
from tdt_jax.data.prepared.dataset import KEYS, Record, open_dataset
from tdt_jax.data.tables import METADATA, read_folder, read_table
from tdt_jax.data.utterance import StoredUtterance

NUM_THREADS = 8  # that read headers of audio files


def read_source(
    name: str, *, folder: str = "", keys: tuple[str, str] = KEYS, lowercase: bool = False
) -> list[StoredUtterance]:
    """Returns the utterances of a source, without reading their audio.

    Args:
      name: a JSONL manifest; a table in CSV, TSV, Parquet or, of the name metadata.jsonl, JSON
        lines (`tdt_jax.data.tables`, `tdt_jax.data.parquet`); a folder that holds one table
        metadata.*, or Parquet files of one split, or recordings with a text beside each; or
        "FOLDER:SPLIT" or "FOLDER:SPLIT+SPLIT" of Parquet files or of a prepared dataset
        (`tdt_jax.data.prepared.dataset`).
      folder: that a relative name is relative to.
      keys: of the audio and the text in a dataset's records, or the columns of a table, which are
        found by their usual names unless given.
      lowercase: whether to convert the text to lower case.

    Raises:
      ValueError: for a source that cannot be read.
    """
    items = _read(Path(folder) / name, keys)
    return [item._replace(text=item.text.lower()) if lowercase else item for item in items]


def measured(items: Sequence[StoredUtterance]) -> list[StoredUtterance]:
    """Returns the utterances with the lengths that were unknown, mostly read from headers."""
    with concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(lambda item: item.measured(), items))


def _read(path: Path, keys: tuple[str, str]) -> Sequence[Entry | Record | Row]:
    columns = None if tuple(keys) == KEYS else keys
    if path.is_dir():
        return _read_folder(path, columns)
    if path.suffix == ".parquet":
        return _read_rows([path], columns)
    if path.suffix in (".csv", ".tsv") or path.name in METADATA:
        return read_table(path, columns)
    inner, colon, splits = str(path).rpartition(":")
    if path.is_file() or not colon:
        return read_manifest(path)
    if Path(inner).is_dir() and (files := _parquet_splits(Path(inner), splits)):
        return _read_rows(files, columns)
    datasets = open_dataset(inner, splits, keys=keys)
    return [record for dataset in datasets for record in dataset.records()]


def _read_folder(path: Path, columns: tuple[str, str] | None) -> Sequence[Entry | Row]:
    tables = [path / name for name in METADATA if (path / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{path} has {' and '.join(table.name for table in tables)}; name one")
    if tables:
        return read_table(tables[0], columns)
    if files := find_parquet(path):
        return _read_rows(files, columns)
    return read_folder(path)


def _read_rows(files: Sequence[Path], columns: tuple[str, str] | None) -> list[Entry | Row]:
    """Returns the rows of Parquet files; an id that occurred before gets the row's number."""
    items: list[Entry | Row] = []
    seen: set[str] = set()
    for item in (item for file in files for item in read_parquet(file, columns)):
        items.append(item._replace(id=f"{item.id}#{len(items)}") if item.id in seen else item)
        seen.add(item.id)
    return items


def _parquet_splits(folder: Path, splits: str) -> list[Path]:
    """Returns the Parquet files of all these splits; [] if there is not one for each."""
    found = [find_parquet(folder, split) for split in splits.split("+")]
    return [file for files in found for file in files] if all(found) else []
