"""LibriSpeech (Panayotov et al., 2015; openslr.org/12) as a tensorflow-datasets dataset.

Keys and splits are those of the library's own LibriSpeech, which imports TensorFlow. The audio is
OpenSLR's FLAC, byte for byte, as in that one's configuration "lazy_decode"; the text is as written,
in upper case.
"""

import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from tdt_jax.data.prepared.builder import ENCODED, TEXT, Recording, Source, SpeechBuilder

SUBSETS = {
    "dev-clean": "dev_clean",
    "dev-other": "dev_other",
    "test-clean": "test_clean",
    "test-other": "test_other",
    "train-clean-100": "train_clean100",
    "train-clean-360": "train_clean360",
    "train-other-500": "train_other500",
}
SAMPLE_RATE = 16000  # Hz
# SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac, and SPEAKER-CHAPTER.trans.txt beside it
PLACE = re.compile(r"(\d+)/(\d+)/(\1-\2-\d+\.flac|\1-\2\.trans\.txt)")
TRANSCRIPTS = ".trans.txt"


class LibriSpeech(SpeechBuilder, skip_registration=True):
    """1000 h of read English."""

    name = "librispeech"
    features: ClassVar = {
        "speech": ENCODED,
        "text": TEXT,
        "speaker_id": np.int64,
        "chapter_id": np.int64,
        "id": TEXT,
    }


def find(folder: str | os.PathLike, subsets: Sequence[str] | None = None) -> dict[str, Path]:
    """Where each subset is: split -> its folder, or its archive SUBSET.tar.gz.

    Args:
      folder: holds the subsets' folders or archives, or the folder LibriSpeech with them.
      subsets: by OpenSLR's names ("train-clean-100") or the splits' ("train_clean100"); None: all
        that there are.

    Raises: ValueError for names that there aren't, and for subsets that aren't in `folder`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    names = SUBSETS | {split: split for split in SUBSETS.values()}
    if unknown := [subset for subset in subsets or () if subset not in names]:
        raise ValueError(f"no subset {unknown[0]!r}; there are {', '.join(SUBSETS)}")
    found = {}
    for subset, split in SUBSETS.items():
        for path in (folder / "LibriSpeech" / subset, folder / subset):
            if path.is_dir():
                found.setdefault(split, path)
        for path in (folder / f"{subset}.tar.gz", folder / "LibriSpeech" / f"{subset}.tar.gz"):
            if path.is_file():
                found.setdefault(split, path)
    asked = found if subsets is None else list(dict.fromkeys(names[subset] for subset in subsets))
    if missing := [split for split in asked if split not in found]:
        raise ValueError(f"{folder} holds no folder or archive of {', '.join(missing)}")
    if not asked:
        raise ValueError(
            f"{folder} holds nothing of LibriSpeech: neither folders such as "
            "LibriSpeech/dev-clean nor archives such as dev-clean.tar.gz"
        )
    return {split: found[split] for split in asked}


def scan(split: str, path: Path) -> Source:
    """The recordings of a subset, with what lacks a transcript or a file among the problems.

    An archive is read once to its end, and nothing of it is unpacked to disk.

    Raises: ValueError for an archive that is damaged.
    """
    sizes: dict[str, int] = {}  # of the FLAC files, by id, in the order of reading
    texts: dict[str, str] = {}
    problems: list[str] = []
    for place, size, read in (_members if path.is_file() else _files)(path):
        if place.name.endswith(TRANSCRIPTS):
            _transcripts(place, read(), texts, problems)
        else:
            sizes[place.stem] = size
    recordings = []
    for id, size in sizes.items():
        if not texts.get(id):
            problems.append(f"{id} has no transcript")
            continue
        speaker, chapter, _ = map(int, id.split("-"))
        fields = {"text": texts[id], "speaker_id": speaker, "chapter_id": chapter}
        recordings.append(Recording(id, size, fields))
    problems += [f"{id} has a transcript and no FLAC file" for id in texts if id not in sizes]
    if not recordings:
        raise ValueError(f"{path} holds no recordings of LibriSpeech with their transcripts")

    def read(wanted: Sequence[Recording]) -> Iterator[Callable[[], bytes]]:
        if path.is_dir():
            for recording in wanted:
                speaker, chapter, _ = recording.id.split("-")
                yield (path / speaker / chapter / f"{recording.id}.flac").read_bytes
        elif wanted:
            ids = {recording.id for recording in wanted}
            for place, _, read in _members(path):
                if place.stem in ids and place.suffix == ".flac":
                    ids.remove(place.stem)  # an archive may hold a name twice
                    data = read()
                    yield lambda data=data: data

    return Source(split, recordings, read, problems)


def _transcripts(place: PurePosixPath, data: bytes, texts: dict, problems: list[str]) -> None:
    """Add the lines "ID TEXT" of a chapter."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        problems.append(f"{place} is not UTF-8")
        return
    for line in filter(None, map(str.strip, lines)):
        id, _, text = line.partition(" ")
        if re.fullmatch(re.escape(place.name.removesuffix(TRANSCRIPTS)) + r"-\d+", id):
            texts[id] = text.strip()
        else:
            problems.append(f"{place} has a line of another chapter: {line[:40]!r}")


def _files(folder: Path) -> Iterator[tuple[PurePosixPath, int, Callable[[], bytes]]]:
    """What there is in a subset's folder: (SPEAKER/CHAPTER/NAME, bytes, its reading)."""
    for path in sorted(folder.glob("*/*/*")):
        place = PurePosixPath(path.relative_to(folder).as_posix())
        if PLACE.fullmatch(str(place)) and path.is_file():
            yield place, path.stat().st_size, path.read_bytes


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, int, Callable[[], bytes]]]:
    """The same of an archive, in its order; what is read must be read before the next comes."""
    try:
        with tarfile.open(archive, "r|gz") as file:
            for member in file:
                place = "/".join(member.name.split("/")[-3:])
                if member.isfile() and PLACE.fullmatch(place):
                    yield (
                        PurePosixPath(place),
                        member.size,
                        lambda member=member: file.extractfile(member).read(),
                    )
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive} is damaged or no archive: {error}") from None
