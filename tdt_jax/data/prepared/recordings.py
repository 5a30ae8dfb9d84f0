"""Any recordings with their texts, as a dataset."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Protocol

from tdt_jax.audio.encoded import flac
from tdt_jax.audio.reading import as_samples
from tdt_jax.data.manifest import Entry
from tdt_jax.data.prepared.builder import ENCODED, TEXT, Recording, Source, SpeechBuilder
from tdt_jax.data.utterance import StoredUtterance

SAMPLE_RATE = 16000  # Hz, of recordings that are encoded anew
SEGMENT_BYTES = 20_000  # of a second of FLAC, approximately
KEPT = (b"fLaC", b"RIFF", b"OggS")  # the first bytes of files that every libsndfile decodes


class StoredFile(StoredUtterance, Protocol):
    """An utterance of an audio file, such as an entry of a manifest."""

    def encoded(self) -> bytes | None:
        """Returns the bytes of the file, or None if the utterance is only a part of it."""
        ...


class Speech(SpeechBuilder, skip_registration=True):
    """Speech with text."""

    name = "speech"
    features: ClassVar = {"speech": ENCODED, "text": TEXT, "id": TEXT}


def scan(split: str, items: Sequence[StoredFile]) -> Source:
    """Returns the recordings of a manifest, a table or a folder."""
    by_id = {item.id: item for item in items}
    recordings = [Recording(item.id, _size(item), {"text": item.text}) for item in items]

    def read(wanted: Sequence[Recording]) -> Iterator[Callable[[], bytes]]:
        for recording in wanted:
            yield functools.partial(_encoded, by_id[recording.id])

    return Source(split, recordings, read)


def _size(item: StoredFile) -> int:
    """Returns the approximate bytes of a recording, 0 if they are not known."""
    if not isinstance(item, Entry):
        return round(item.seconds * SEGMENT_BYTES)
    size = item.path.stat().st_size if item.path.is_file() else 0
    is_part = item.offset is not None and item.seconds > 0
    return min(size, round(item.seconds * SEGMENT_BYTES)) if is_part else size


def _encoded(item: StoredFile) -> bytes:
    """Returns the file as it is if it can be kept whole, and otherwise its audio as FLAC."""
    samples = as_samples(item.audio, SAMPLE_RATE)
    data = item.encoded()
    return data if data is not None and data[:4] in KEPT else flac(samples, SAMPLE_RATE)
