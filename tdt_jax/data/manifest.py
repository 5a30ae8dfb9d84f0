"""Manifests: one JSON object a line with audio_filepath, duration and text, as NeMo writes them."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tdt_jax.audio.segment import Segment
from tdt_jax.orthography import nfc
from tdt_jax.runtime.files import write_atomically

MAX_PROBLEMS = 10  # reported at once
LONGEST = 1e9  # seconds


class Entry(NamedTuple):
    """One line of a manifest."""

    id: str  # audio_filepath as written, or FILE@OFFSET; a repeated one ends with "#" and its line
    path: Path
    seconds: float  # 0.0: the manifest does not say
    text: str
    offset: float | None = None  # seconds; None: the whole file

    @property
    def audio(self) -> Segment:
        """What `tdt_jax.audio.reading.as_samples` reads."""
        return Segment(self.path, self.offset, self.seconds if self.seconds > 0 else None)

    def exists(self) -> bool:
        """Whether there is a file to read."""
        return self.path.is_file()


def read_manifest(path: str | os.PathLike) -> list[Entry]:
    """Read a JSONL manifest: audio_filepath (absolute, or relative to it), duration (s), text.

    With an `offset` (s) an utterance is the part of its file that begins there and lasts for
    `duration`. Without, it is the file, and `duration` its nominal length; see
    `tdt_jax.audio.segment`. The text is in Unicode's form NFC. Blank lines and other keys are
    ignored.

    Raises: ValueError naming path:line, for up to ten bad lines at once, and for an empty file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no manifest at {path}")
    entries, problems, seen = [], [], set()
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = _parse(line, path.parent)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            if len(problems) == MAX_PROBLEMS:
                problems.append("(and perhaps more)")
                break
            continue
        entries.append(entry._replace(id=f"{entry.id}#{number}") if entry.id in seen else entry)
        seen.add(entry.id)
    if problems:
        raise ValueError("\n".join(problems))
    if not entries:
        raise ValueError(f"{path} is empty: a manifest needs at least one utterance")
    return entries


def write_manifest(path: str | os.PathLike, utterances: Iterable, sample_rate: int):
    """Write utterances as FLAC files of 16 bits and, last, their manifest.

    Args:
      path: of the manifest; the files go into a folder beside it, of its name.
      utterances: with unique `id`s, which name the files, `samples` [S] and `text`.
      sample_rate: in Hz.
    """
    import soundfile

    path = Path(path)
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for utterance in utterances:
        name = f"{folder.name}/{utterance.id}.flac"
        soundfile.write(path.parent / name, utterance.samples, sample_rate, subtype="PCM_16")
        seconds = len(utterance.samples) / sample_rate
        line = {"audio_filepath": name, "duration": seconds, "text": utterance.text}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines))


def _parse(line: bytes, folder: Path) -> Entry:
    item = json.loads(line.decode("utf-8-sig"))
    if not isinstance(item, dict):
        raise ValueError(f"needs a JSON object, got {type(item).__name__}")
    if missing := [key for key in ("audio_filepath", "text") if key not in item]:
        raise ValueError(f"lacks {' and '.join(missing)}")
    for key in ("audio_filepath", "text"):
        if not isinstance(item[key], str):
            raise ValueError(f"{key} must be a string, got {item[key]!r}")
    if not item["audio_filepath"]:
        raise ValueError("audio_filepath is empty")
    if re.search("[\ud800-\udfff]", item["text"]):
        raise ValueError(f"text holds half a character: {item['text']!r}")
    seconds, offset = _seconds(item, "duration"), _seconds(item, "offset")
    if offset is not None and offset < 0:
        raise ValueError(f"offset must not be negative, got {offset:g}")
    # A name is bytes: what the manifest spells in UTF-8, whatever encoding the system prefers.
    name = item["audio_filepath"].encode("utf-8", "surrogateescape")
    path, shown = folder / os.fsdecode(name), name.decode("utf-8", "backslashreplace")
    id = f"{shown}@{offset}" if offset else shown
    return Entry(id, path, seconds or 0.0, nfc(item["text"]), offset)


def _seconds(item: dict, key: str) -> float | None:
    value = item.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} must be a number of seconds, got {value!r}")
    if not -LONGEST <= value <= LONGEST:
        raise ValueError(f"{key} must be finite, and no more than years, got {value}")
    return float(value)
