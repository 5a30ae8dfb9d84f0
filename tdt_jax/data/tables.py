"""Utterances listed in tables, as `datasets` and Common Voice write them, and folders of texts.

metadata.csv     file_name,text            clips/ and train.tsv     path<TAB>sentence
metadata.jsonl   {"file_name", "text"}     a.wav and a.txt          the text of a.wav
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tdt_jax.audio.inputs import SUFFIXES
from tdt_jax.data.manifest import LONGEST, Entry, parse_entries
from tdt_jax.orthography import nfc

AUDIO_COLUMNS = ("file_name", "audio_filepath", "audio", "path", "file")
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.tsv")
CLIPS, CLIP_DURATIONS = "clips", "clip_durations.tsv"  # of Common Voice


def read_table(path: str | os.PathLike, columns: tuple[str, str] | None = None) -> list[Entry]:
    """Returns the rows of a table: CSV with commas, TSV with tabs, or JSON lines.

    Names of audio files are relative to the table or, as in Common Voice, those of a column `path`
    in TSV to the folder clips/ beside it; clip_durations.tsv has their lengths. Elsewhere a column
    `duration` may have them in seconds. Other columns are ignored. Text is converted to Unicode's
    form NFC, with single spaces.

    Args:
      path: ends with .csv, .tsv or .jsonl. The first line of CSV and TSV names the columns. In TSV
        quotation marks are text, and doubled ones stand for one, as Common Voice writes them.
      columns: of the audio and of the text; None: the first that there is of file_name,
        audio_filepath, audio, path and file, and of text, sentence, transcription and transcript.

    Raises:
      ValueError: naming path:line, for up to ten bad lines at once; for a table that has no such
        column (the message lists its columns), no row, or is no text.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no table at {path}")
    rows = list(_rows(path))
    if not rows:
        raise ValueError(f"{path} is empty: a table needs at least one row")
    audio, text = choose_columns(list(rows[0][1]), columns, str(path))
    folder, lengths = path.parent, {}
    if path.suffix == ".tsv" and audio == "path" and (folder / CLIPS).is_dir():
        lengths, folder = _clip_seconds(folder / CLIP_DURATIONS), folder / CLIPS
    return parse_entries(path, rows, lambda row: _entry(row, audio, text, folder, lengths))


def read_folder(path: str | os.PathLike) -> list[Entry]:
    """Returns the recordings of a folder, and of those in it, that have a text: a.wav with a.txt.

    Line breaks in a text become spaces. Recordings without a text, and other files, are left out.

    Raises:
      ValueError: if no recording has a text, two have the same one, or a text is not in UTF-8.
    """
    path, entries, owners = Path(path), [], {}
    for file in sorted(path.rglob("*")):
        text = file.with_suffix(".txt")
        if file.name.startswith(".") or file.suffix.lower() not in SUFFIXES or not text.is_file():
            continue
        if text in owners:
            raise ValueError(f"{text} belongs to {owners[text].name} and {file.name}; remove one")
        owners[text] = file
        try:
            words = text.read_text(encoding="utf-8-sig").split()
        except UnicodeDecodeError:
            raise ValueError(f"{text} is not in UTF-8") from None
        id = file.relative_to(path).as_posix()
        entries.append(Entry(id, file, 0.0, nfc(" ".join(words))))
    if not entries:
        raise ValueError(
            f"{path} has no recording with a text beside it (a.wav with a.txt), no "
            f"{', no '.join(METADATA)}, and no Parquet file; of a prepared dataset name a split: "
            f"{path}:SPLIT"
        )
    return entries


def choose_columns(
    names: Sequence[str], wanted: tuple[str, str] | None, table: str
) -> tuple[str, str]:
    """Returns the columns of the audio and of the text, as of `read_table`."""
    choices = (AUDIO_COLUMNS, TEXT_COLUMNS) if wanted is None else tuple((w,) for w in wanted)
    found = [next((name for name in each if name in names), "") for each in choices]
    if not all(found):
        lacking = " and ".join(
            f"{kind} ({' or '.join(each)})"
            for kind, each, name in zip(("audio", "text"), choices, found, strict=True)
            if not name
        )
        raise ValueError(f"{table} has no column of {lacking}; it has {', '.join(names) or 'none'}")
    return found[0], found[1]


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields each row with the number of its last line."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not in UTF-8") from None
    if path.suffix == ".jsonl":
        for number, line in enumerate(content.split("\n"), start=1):
            if line.strip():
                yield number, _object(line, f"{path}:{number}")
        return
    lines = io.StringIO(content, newline="")
    if path.suffix == ".tsv":
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.DictReader(lines)
    try:
        for row in reader:
            if path.suffix == ".tsv":
                row = {k: v.replace('""', '"') if isinstance(v, str) else v for k, v in row.items()}
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _object(line: str, place: str) -> dict:
    try:
        item = json.loads(line)
    except json.JSONDecodeError:
        item = None
    if not isinstance(item, dict):
        raise ValueError(f"{place}: needs a JSON object, got {line!r:.80}")
    return item


def _entry(
    row: Mapping[str, Any], audio: str, text: str, folder: Path, lengths: Mapping[str, float]
) -> Entry:
    for key in (audio, text):
        if not isinstance(row.get(key), str):
            raise ValueError(f"has no {key}")
    if None in row:
        raise ValueError("has more fields than the first line")
    name = row[audio]
    if not name:
        raise ValueError(f"{audio} is empty")
    seconds = lengths.get(name) or parse_seconds(row.get("duration"))
    return Entry(name, folder / name, seconds, nfc(" ".join(row[text].split())))


def parse_seconds(value: Any) -> float:
    """Returns the number of a column `duration`, 0 if it is empty.

    Raises:
      ValueError: if it is no number, negative, infinite or NaN.
    """
    if value is None or value == "":
        return 0.0
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"duration must be a number of seconds, got {value!r}") from None
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"duration must be finite and >= 0, got {value}")
    return seconds


def _clip_seconds(path: Path) -> dict[str, float]:
    """Returns the lengths of Common Voice's clips by name; {} if there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    try:
        return {name: parse_seconds(milliseconds) / 1000 for name, milliseconds, *_ in rows}
    except ValueError:
        raise ValueError(f"{path} must have a name and milliseconds on each line") from None
