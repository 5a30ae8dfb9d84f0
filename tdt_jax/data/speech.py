"""Any recordings with a manifest as a tensorflow-datasets dataset."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tdt_jax.audio.encoded import flac
from tdt_jax.audio.reading import read_audio
from tdt_jax.data.builder import ENCODED, TEXT, Recording, Source, SpeechBuilder
from tdt_jax.data.manifest import Entry

SAMPLE_RATE = 16000  # Hz, of what has to be encoded anew
KEPT = (b"fLaC", b"RIFF", b"OggS")  # how files begin that any libsndfile decodes whole


class Speech(SpeechBuilder, skip_registration=True):
    """Speech with text."""

    name = "speech"
    features: ClassVar = {"speech": ENCODED, "text": TEXT, "id": TEXT}


def scan(split: str, entries: Sequence[Entry]) -> Source:
    """The recordings of a manifest."""
    paths = {entry.id: entry.path for entry in entries}
    recordings = [
        Recording(entry.id, _file_size(entry.path), {"text": entry.text}) for entry in entries
    ]

    def read(wanted):
        for recording in wanted:
            yield functools.partial(_file, paths[recording.id])

    return Source(split, recordings, read)


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0  # what is missing is found out later


def _file(path: Path) -> bytes:
    """A file as it is, or what it sounds like as FLAC."""
    samples = read_audio(path, SAMPLE_RATE)
    data = path.read_bytes()
    return data if data[:4] in KEPT else flac(samples, SAMPLE_RATE)
