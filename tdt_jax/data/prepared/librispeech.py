"""LibriSpeech (Panayotov et al., 2015; openslr.org/12), as a dataset.

Keys and splits are those of the LibriSpeech of tensorflow-datasets, which needs TensorFlow. The
audio is the FLAC of OpenSLR, byte for byte, as in its configuration "lazy_decode"; the text is as
written there, in upper case.
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
    """Returns the subsets in a folder: split -> its folder, or its archive SUBSET.tar.gz.

    Args:
      folder: has the folders or archives of the subsets, or a folder LibriSpeech with them.
      subsets: names of OpenSLR ("train-clean-100") or of splits ("train_clean100"); None: all that
        are in the folder.

    Raises:
      ValueError: for unknown names, and for subsets that are not in `folder`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    names = SUBSETS | {split: split for split in SUBSETS.values()}
    if unknown := [subset for subset in subsets or () if subset not in names]:
        raise ValueError(f"no subset {unknown[0]!r}; there are {', '.join(SUBSETS)}")
    paths: dict[str, Path] = {}
    for subset, split in SUBSETS.items():
        for path in (folder / "LibriSpeech" / subset, folder / subset):
            if path.is_dir():
                paths.setdefault(split, path)
        for path in (folder / f"{subset}.tar.gz", folder / "LibriSpeech" / f"{subset}.tar.gz"):
            if path.is_file():
                paths.setdefault(split, path)
    wanted = list(paths) if subsets is None else dict.fromkeys(names[subset] for subset in subsets)
    if missing := [split for split in wanted if split not in paths]:
        raise ValueError(f"{folder} holds no folder or archive of {', '.join(missing)}")
    if not wanted:
        raise ValueError(
            f"{folder} holds nothing of LibriSpeech: neither folders such as "
            "LibriSpeech/dev-clean nor archives such as dev-clean.tar.gz"
        )
    return {split: paths[split] for split in wanted}


def scan(split: str, path: Path) -> Source:
    """Returns the recordings of a subset; those without a transcript or a file are problems.

    An archive is read once to its end, and is not unpacked to disk.

    Raises:
      ValueError: for an archive that is damaged.
    """
    sizes: dict[str, int] = {}  # of the FLAC files, by id, in the order of reading
    texts: dict[str, str] = {}
    problems: list[str] = []
    for place, size, load in (_members if path.is_file() else _files)(path):
        if place.name.endswith(TRANSCRIPTS):
            _add_transcripts(place, load(), texts, problems)
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
            for place, _, load in _members(path):
                if place.stem in ids and place.suffix == ".flac":
                    ids.remove(place.stem)  # an archive may have a name twice
                    data = load()
                    yield lambda data=data: data

    return Source(split, recordings, read, problems)


def _add_transcripts(
    place: PurePosixPath, data: bytes, texts: dict[str, str], problems: list[str]
) -> None:
    """Adds the lines "ID TEXT" of a chapter to `texts`."""
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
    """Yields (SPEAKER/CHAPTER/NAME, bytes, a function that reads it) for files of a subset."""
    for path in sorted(folder.glob("*/*/*")):
        place = PurePosixPath(path.relative_to(folder).as_posix())
        if PLACE.fullmatch(str(place)) and path.is_file():
            yield place, path.stat().st_size, path.read_bytes


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, int, Callable[[], bytes]]]:
    """Yields the same for an archive, in its order; a member must be read before the next one."""
    try:
        with tarfile.open(archive, "r|gz") as file:
            for member in file:
                place = "/".join(member.name.split("/")[-3:])
                if not member.isfile() or not PLACE.fullmatch(place):
                    continue
                if (content := file.extractfile(member)) is not None:
                    yield PurePosixPath(place), member.size, content.read
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive} is damaged or no archive: {error}") from None
