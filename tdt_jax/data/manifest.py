"""Manifests: one JSON object a line with audio_filepath, duration and text, as NeMo writes them."""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tdt_jax.config import Bucket
from tdt_jax.data.buckets import fit
from tdt_jax.data.dataset import Record
from tdt_jax.files import write_whole
from tdt_jax.tokenizer import UnknownTextError

MAX_PROBLEMS = 10  # reported at once


class Entry(NamedTuple):
    """One line of a manifest."""

    id: str  # audio_filepath as written; a repeated one ends with "#" and its line
    path: Path
    seconds: float  # 0.0: the manifest does not say
    text: str

    @property
    def audio(self) -> Path:
        """What `tdt_jax.audio.reading.as_samples` reads."""
        return self.path

    def exists(self) -> bool:
        """Whether there is a file to read."""
        return self.path.is_file()


class Selection(NamedTuple):
    """The utterances that can be trained on, and what became of the others."""

    entries: list[Entry | Record]
    labels: list[list[int]]
    bucket_index: np.ndarray  # [entries] of the first bucket that each fits
    skipped: dict[str, list[str]]  # reason -> ids

    def report(self) -> str:
        """One line for the log: what was kept, and what was skipped for which reason."""
        hours = sum(entry.seconds for entry in self.entries) / 3600
        line = f"{len(self.entries)} utterances, {hours:.2f} h"
        if self.skipped:
            reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in self.skipped.items())
            line += f"; skipped {sum(map(len, self.skipped.values()))}: {reasons}"
        return line


def read_manifest(path: str | os.PathLike) -> list[Entry]:
    """Read a JSONL manifest: audio_filepath (absolute, or relative to it), duration (s), text.

    Blank lines and other keys are ignored, but an `offset` into a longer file is refused rather
    than trained on wrongly.

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
    write_whole(path, "".join(lines))


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
    seconds = item.get("duration")
    seconds = 0.0 if seconds is None else seconds
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ValueError(f"duration must be a number of seconds, got {seconds!r}")
    if not math.isfinite(seconds):
        raise ValueError(f"duration must be finite, got {seconds}")
    if item.get("offset"):
        raise ValueError(f"offset {item['offset']!r} is not supported: cut the audio into files")
    name = item["audio_filepath"]
    return Entry(name, folder / name, float(seconds), item["text"])


def select(
    entries: Sequence[Entry | Record],
    tokenizer,
    buckets: Sequence[Bucket],
    *,
    seconds_per_frame: float = 0.08,
    label_limit: Callable[[int], int] | None = None,
    allow_empty: bool = False,
) -> Selection:
    """Encode the texts, give every utterance a bucket, and drop with a reason what has none.

    `label_limit(num_frames)` is the most labels that so many encoder frames can align to (None: any
    number, as with a duration of 0); `allow_empty` keeps utterances without text.
    """
    kept: list[tuple[Entry | Record, list[int], int]] = []
    skipped: dict[str, list[str]] = {}
    for entry in entries:
        reason, labels, bucket = None, [], None
        try:
            labels = tokenizer.encode(entry.text)
        except UnknownTextError:
            reason = "with unknown characters"
        bucket = fit(entry.seconds, len(labels), buckets)
        num_frames = math.floor(entry.seconds / seconds_per_frame + 1e-6)
        if not entry.exists():
            reason = "without a file"
        elif entry.seconds <= 0:
            reason = "without a positive duration"
        elif reason is None and not labels and not allow_empty:
            reason = "without text"
        elif reason is None and bucket is None:
            longest = fit(entry.seconds, 0, buckets) is None
            reason = f"longer than the largest bucket ({'seconds' if longest else 'tokens'})"
        elif reason is None and label_limit is not None and len(labels) > label_limit(num_frames):
            reason = "with more labels than frames allow"
        if reason is None:
            kept.append((entry, labels, bucket))
        else:
            skipped.setdefault(reason, []).append(entry.id)
    return Selection(
        entries=[entry for entry, _, _ in kept],
        labels=[labels for _, labels, _ in kept],
        bucket_index=np.array([bucket for _, _, bucket in kept], dtype=np.int64),
        skipped=skipped,
    )
