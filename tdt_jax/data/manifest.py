"""Manifests in the format of NeMo: JSON lines with audio_filepath, duration and text."""

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tdt_jax.audio.encoded import flac
from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import audio_seconds
from tdt_jax.audio.segment import Segment
from tdt_jax.data.utterance import SpokenWord, Utterance
from tdt_jax.orthography import nfc
from tdt_jax.runtime.files import write_atomically

MAX_PROBLEMS = 10  # in one error message
LONGEST = 1e9  # seconds

T = TypeVar("T")


class Entry(NamedTuple):
    """One line of a manifest."""

    id: str  # audio_filepath as written, or FILE@OFFSET; a repeated one has "#" and its line added
    path: Path
    seconds: float  # 0.0: unknown, because the manifest has no duration
    text: str
    offset: float | None = None  # seconds; None: the whole file
    words: tuple[SpokenWord, ...] = ()  # from the start of this part; () if not known

    @property
    def audio(self) -> Segment:
        """Returns the part of the file, which `tdt_jax.audio.reading.as_samples` reads."""
        return Segment(self.path, self.offset, self.seconds if self.seconds > 0 else None)

    def exists(self) -> bool:
        """Returns whether there is a file to read."""
        return self.path.is_file()

    def encoded(self) -> bytes | None:
        """Returns the bytes of the file, or None if this is only a part of it.

        Raises: AudioError for a file that cannot be read.
        """
        return self.path.read_bytes() if self.audio.is_whole() else None

    def measured(self) -> "Entry":
        """Returns itself with the length of its audio, if that is unknown and can be read."""
        if self.seconds:
            return self
        try:
            return self._replace(seconds=max(0.0, audio_seconds(self.path) - (self.offset or 0.0)))
        except AudioError:
            return self


def read_manifest(path: str | os.PathLike) -> list[Entry]:
    """Returns the entries of a JSONL manifest: audio_filepath, duration (s) and text.

    A relative audio_filepath is relative to the manifest. With an `offset` (s) an entry is the part
    of its file that begins there and lasts for `duration`; without, it is the whole file, and
    `duration` its nominal length (see `tdt_jax.audio.segment`). The text is converted to Unicode's
    form NFC. `words` may say when each word is spoken, in seconds from the start of the entry:
    [{"word": "hello", "start": 0.3, "end": 0.7}, ...]. Blank lines and other keys are ignored, and
    so are `words` of another form.

    Raises:
      ValueError: naming path:line, for up to ten bad lines at once, and for an empty file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no manifest at {path}")
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path} is not a text file; a manifest has a JSON object on each line")
    lines = ((n, line) for n, line in enumerate(data.splitlines(), start=1) if line.strip())
    entries = parse_entries(path, lines, lambda line: _parse(line, path.parent))
    if not entries:
        raise ValueError(f"{path} is empty: a manifest needs at least one utterance")
    return entries


def parse_entries(
    path: Path, lines: Iterable[tuple[int, T]], parse: Callable[[T], Entry]
) -> list[Entry]:
    """Returns the entries of a file's numbered lines; a repeated id gets its line's number.

    Raises:
      ValueError: naming path:line, for up to ten lines that `parse` refuses.
    """
    entries, problems, seen = [], [], set()
    for number, line in lines:
        try:
            entry = parse(line)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            if len(problems) == MAX_PROBLEMS:
                problems.append("(there may be more)")
                break
            continue
        entries.append(entry._replace(id=f"{entry.id}#{number}") if entry.id in seen else entry)
        seen.add(entry.id)
    if problems:
        raise ValueError("\n".join(problems))
    return entries


def write_manifest(
    path: str | os.PathLike, utterances: Iterable[Utterance], sample_rate: int
) -> None:
    """Writes utterances as FLAC files of 16 bits and, when all are written, their manifest.

    Args:
      path: of the manifest; the files go into a folder beside it, of its name.
      utterances: their `id`s must be unique and name the files.
      sample_rate: in Hz.
    """
    path = Path(path)
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for utterance in utterances:
        name = f"{folder.name}/{utterance.id}.flac"
        (path.parent / name).write_bytes(flac(utterance.samples, sample_rate))
        seconds = len(utterance.samples) / sample_rate
        line = {"audio_filepath": name, "duration": seconds, "text": utterance.text}
        if utterance.words:
            line["words"] = [
                {"word": word.text, "start": round(word.start, 4), "end": round(word.end, 4)}
                for word in utterance.words
            ]
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines))


def _parse(line: bytes, folder: Path) -> Entry:
    try:
        item = json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError:
        raise ValueError(
            f"needs a JSON object, got {line.decode('utf-8', 'replace')!r:.80}"
        ) from None
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
        raise ValueError(f"text has half of a surrogate pair: {item['text']!r}")
    seconds, offset = _seconds(item, "duration"), _seconds(item, "offset")
    if offset is not None and offset < 0:
        raise ValueError(f"offset must not be negative, got {offset:g}")
    # The file's name is the bytes of the manifest's UTF-8, whatever the system's encoding.
    name = item["audio_filepath"].encode("utf-8", "surrogateescape")
    path, shown = folder / os.fsdecode(name), name.decode("utf-8", "backslashreplace")
    id = f"{shown}@{offset}" if offset else shown
    return Entry(id, path, seconds or 0.0, nfc(item["text"]), offset, _words(item.get("words")))


def _words(items: Any) -> tuple[SpokenWord, ...]:
    """Returns the words of an entry; () if they are not in the manifest, or in another form."""
    try:
        words = [SpokenWord(nfc(each["word"]), each["start"], each["end"]) for each in items]
        last = 0.0
        for word in words:
            if not last <= word.start <= word.end <= LONGEST:
                return ()
            last = word.start
    except (KeyError, TypeError):
        return ()
    return tuple(words)


def _seconds(item: dict, key: str) -> float | None:
    value = item.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} must be a number of seconds, got {value!r}")
    if not -LONGEST <= value <= LONGEST:
        raise ValueError(f"{key} must be finite, and no more than years, got {value}")
    return float(value)
