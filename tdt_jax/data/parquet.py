"""Utterances in Parquet files, as `datasets` writes them and the Hugging Face Hub stores them.

The audio is a column of structs {bytes, path}, where one of the two may be missing, or of paths
relative to the file.
"""

import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import as_samples, audio_seconds
from tdt_jax.data.manifest import Entry
from tdt_jax.data.tables import choose_columns, parse_seconds
from tdt_jax.orthography import nfc

MAX_GROUPS = 2  # row groups of a file that are kept in memory: `datasets` writes 100 rows into each


@dataclass
class File:
    """One Parquet file, whose audio is read a row group at a time. Threads may share it."""

    path: Path
    column: str  # of the audio
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _groups: dict[int, Any] = field(default_factory=dict)

    def encoded(self, group: int, row: int) -> bytes:
        """Returns the bytes of the audio file in a row of a row group, b"" if there are none.

        Raises: AudioError if the Parquet file is damaged.
        """
        with self._lock:
            if group not in self._groups:
                while len(self._groups) >= MAX_GROUPS:
                    del self._groups[next(iter(self._groups))]
                try:
                    table = self._opened.read_row_group(group, columns=[f"{self.column}.bytes"])
                except Exception as error:  # pyarrow's errors have no common class
                    raise AudioError(f"{self.path} is damaged: {error}") from None
                self._groups[group] = table.column(self.column)
            value = self._groups[group][row].as_py()
        return (value and value["bytes"]) or b""

    @functools.cached_property
    def _opened(self) -> Any:
        return _open(self.path)


class Row(NamedTuple):
    """One row of a Parquet file, whose audio is read when it is needed."""

    id: str
    file: File
    group: int
    row: int  # in its row group
    path: Path | None  # of the audio file, if its bytes are not in the row
    seconds: float  # 0.0: unknown
    text: str

    @property
    def audio(self) -> Callable[[int], np.ndarray]:
        """Returns a function of the sample rate, which `tdt_jax.audio.reading.as_samples` calls.

        It returns [S] float32, and raises AudioError if the audio cannot be decoded.
        """
        return self._samples

    def exists(self) -> bool:
        """Returns True."""
        return True

    def encoded(self) -> bytes:
        """Returns the bytes of the audio file; raises AudioError if there are none."""
        data = self.file.encoded(self.group, self.row)
        if not data and self.path is not None and self.path.is_file():
            data = self.path.read_bytes()
        if not data:
            raise AudioError("the row has no audio" + (f" ({self.path})" if self.path else ""))
        return data

    def measured(self) -> "Row":
        """Returns itself with the length of its audio, if that is unknown and can be read."""
        if self.seconds:
            return self
        try:
            return self._replace(seconds=audio_seconds(self.encoded()))
        except AudioError:
            return self

    def _samples(self, sample_rate: int) -> np.ndarray:
        try:
            return as_samples(self.encoded(), sample_rate)
        except AudioError as error:
            raise AudioError(f"{self.id}: {error}") from None


def read_parquet(
    path: str | os.PathLike, columns: tuple[str, str] | None = None
) -> list[Row | Entry]:
    """Returns the rows of a Parquet file, without reading their audio.

    A column `duration` may have the lengths in seconds.

    Args:
      columns: of the audio and of the text, as of `tdt_jax.data.tables.read_table`.

    Raises:
      ValueError: for a file that is not Parquet, has no such columns, or columns of another type;
        for a row without a text or path, or with a length that is none; or if pyarrow is not
        installed.
    """
    path = Path(path)
    opened = _open(path)
    schema = opened.schema_arrow
    audio, text = choose_columns(schema.names, columns, str(path))
    kind = schema.field(audio).type
    is_struct = "bytes" in [part.name for part in kind.fields] if kind.num_fields else False
    if not is_struct and str(kind) not in ("string", "large_string"):
        raise ValueError(
            f"{path}: the column {audio} is {kind}; it must be a struct with bytes, or paths"
        )
    file, items = File(path, audio), []
    wanted = [text, f"{audio}.path" if is_struct else audio]
    if "duration" in schema.names:
        wanted.append("duration")
    for group in range(opened.num_row_groups):
        rows = opened.read_row_group(group, columns=wanted).to_pylist()
        for number, row in enumerate(rows):
            for column in (text,) if is_struct else (text, audio):
                if not isinstance(row[column], str):
                    raise ValueError(
                        f"{path}: {column} of row {len(items)} is {row[column]!r}, not text"
                    )
            words = nfc(" ".join(row[text].split()))
            try:
                seconds = parse_seconds(row.get("duration"))
            except ValueError as error:
                raise ValueError(f"{path}: row {len(items)}: {error}") from None
            if is_struct:
                name = (row.get(audio) or {}).get("path")
                id = f"{path.name}:{name or f'row {len(items)}'}"
                place = path.parent / name if name else None
                items.append(Row(id, file, group, number, place, seconds, words))
            else:
                items.append(Entry(row[audio], path.parent / row[audio], seconds, words))
    return items


def find_parquet(folder: Path, split: str = "") -> list[Path]:
    """Returns the Parquet files of a split in a folder, in order; [] if there are none.

    They are SPLIT.parquet or SPLIT-*.parquet, in the folder or in data/ below it, as the Hub has
    them, or *.parquet in the folder SPLIT. Without a split: all, of a folder with one split.

    Raises:
      ValueError: without a split, for a folder that has several.
    """
    by_split: dict[str, list[Path]] = {}
    for file in sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")]):
        name, dash, _ = file.stem.partition("-")
        is_inner = file.parent not in (folder, folder / "data") and not dash
        by_split.setdefault(file.parent.name if is_inner else name, []).append(file)
    if split:
        return by_split.get(split, [])
    if len(by_split) > 1:
        raise ValueError(
            f"{folder} has the splits {', '.join(by_split)}; name one, such as "
            f"{folder}:{next(iter(by_split))}"
        )
    return [file for files in by_split.values() for file in files]


def _open(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError("Parquet files need pyarrow: pip install 'tdt-jax[data]'") from None
    if not path.is_file():
        raise ValueError(f"no Parquet file at {path}")
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # pyarrow's errors have no common class
        raise ValueError(f"{path} is no Parquet file: {error}") from None
