"""Any recordings with a manifest, as a dataset."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from tdt_jax.audio.encoded import flac
from tdt_jax.audio.reading import as_samples
from tdt_jax.data.manifest import Entry
from tdt_jax.data.prepared.builder import ENCODED, TEXT, Recording, Source, SpeechBuilder

SAMPLE_RATE = 16000  # Hz, of recordings that are encoded anew
SEGMENT_BYTES = 20_000  # of a second of FLAC, approximately
KEPT = (b"fLaC", b"RIFF", b"OggS")  # the first bytes of files that every libsndfile decodes


class Speech(SpeechBuilder, skip_registration=True):
    """Speech with text."""

    name = "speech"
    features: ClassVar = {"speech": ENCODED, "text": TEXT, "id": TEXT}


def scan(split: str, entries: Sequence[Entry]) -> Source:
    """Returns the recordings of a manifest."""
    by_id = {entry.id: entry for entry in entries}
    recordings = [Recording(entry.id, _size(entry), {"text": entry.text}) for entry in entries]

    def read(wanted: Sequence[Recording]) -> Iterator[Callable[[], bytes]]:
        for recording in wanted:
            yield functools.partial(_encoded, by_id[recording.id])

    return Source(split, recordings, read)


def _size(entry: Entry) -> int:
    """Returns the approximate bytes of a recording, 0 if its file is missing."""
    size = entry.path.stat().st_size if entry.path.is_file() else 0
    is_part = entry.offset is not None and entry.seconds > 0
    return min(size, round(entry.seconds * SEGMENT_BYTES)) if is_part else size


def _encoded(entry: Entry) -> bytes:
    """Returns the file as it is if it can be kept whole, and otherwise its audio as FLAC."""
    samples = as_samples(entry.audio, SAMPLE_RATE)
    if entry.audio.is_whole():
        data = entry.path.read_bytes()
        if data[:4] in KEPT:
            return data
    return flac(samples, SAMPLE_RATE)
