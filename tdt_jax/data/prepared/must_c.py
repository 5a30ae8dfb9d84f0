"""MuST-C (Di Gangi et al., 2019): TED talks with translations, cut into a dataset of segments.

    en-de/data/SPLIT/wav/TALK.wav
    en-de/data/SPLIT/txt/SPLIT.yaml    a segment an item: {duration, offset, speaker_id, wav}
    en-de/data/SPLIT/txt/SPLIT.de      a segment a line, in the same order; SPLIT.en likewise

A record's `text` is the translation, with case and punctuation; `source_text` is the transcript.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from tdt_jax.audio.encoded import flac_segment
from tdt_jax.data.prepared.builder import ENCODED, TEXT, Recording, Source, SpeechBuilder

SPLITS = {"train": "train", "dev": "dev", "tst-COMMON": "tst_common", "tst-HE": "tst_he"}
SEGMENT_BYTES = 20_000  # of a second of FLAC, approximately


class MustC(SpeechBuilder, skip_registration=True):
    """English speech with text in another language."""

    name = "must_c"
    features: ClassVar = {
        "speech": ENCODED,
        "text": TEXT,
        "source_text": TEXT,
        "speaker_id": TEXT,
        "id": TEXT,
    }


def find(folder: str | os.PathLike) -> dict[str, Path]:
    """Returns the splits in the folder of a language pair (en-de): split -> its folder.

    Raises:
      ValueError: if there is none.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[a-z]{2}-[a-z]{2}", folder.resolve().name):
        raise ValueError(f"{folder} must be named for its two languages, as en-de")
    folders = {split: folder / "data" / name for name, split in SPLITS.items()}
    folders = {split: path for split, path in folders.items() if path.is_dir()}
    if not folders:
        raise ValueError(f"{folder} is no folder of MuST-C: it has no data/train")
    return folders


def scan(split: str, folder: Path) -> Source:
    """Returns the segments of a split in the order of its list.

    Raises:
      ValueError: if the list of segments is damaged, or has another length than the texts.
    """
    import yaml

    source, target = folder.resolve().parent.parent.name.split("-")
    base = folder / "txt" / folder.name
    try:
        text = base.with_suffix(".yaml").read_text("utf-8")
        segments = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        segments = [
            (each["wav"], float(each["offset"]), float(each["duration"]), str(each["speaker_id"]))
            for each in segments
        ]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{base}.yaml is no list of segments: {error!r}") from None
    texts, translations = (
        base.with_suffix(f".{language}").read_text("utf-8").removesuffix("\n").split("\n")
        for language in (source, target)
    )
    if not len(segments) == len(texts) == len(translations):
        raise ValueError(
            f"{base} has {len(segments)} segments, {len(texts)} lines of {source} and "
            f"{len(translations)} of {target}"
        )
    recordings, places = [], {}
    for number, ((name, offset, seconds, speaker), text, translation) in enumerate(
        zip(segments, texts, translations, strict=True)
    ):
        id = f"{Path(name).stem}_{number}"
        fields: dict[str, str | int] = {
            "text": translation.strip(),
            "source_text": text.strip(),
            "speaker_id": speaker,
        }
        recordings.append(Recording(id, round(seconds * SEGMENT_BYTES), fields))
        places[id] = (folder / "wav" / name, offset, seconds)

    def read(wanted: Sequence[Recording]) -> Iterator[Callable[[], bytes]]:
        for recording in wanted:
            yield functools.partial(flac_segment, *places[recording.id])

    return Source(split, recordings, read)
