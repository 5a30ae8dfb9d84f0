"""MuST-C (Di Gangi et al., 2019): TED talks with translations, cut into a dataset of segments.

    en-de/data/SPLIT/wav/TALK.wav
    en-de/data/SPLIT/txt/SPLIT.yaml    a segment an item: {duration, offset, speaker_id, wav}
    en-de/data/SPLIT/txt/SPLIT.de      a segment a line, in the same order; SPLIT.en likewise

A record's text is the translation, with its case and punctuation; what was said is `source_text`.
"""

import functools
import os
import re
from pathlib import Path
from typing import ClassVar

from tdt_jax.audio.encoded import flac
from tdt_jax.audio.reading import AudioError
from tdt_jax.data.prepared.builder import ENCODED, TEXT, Recording, Source, SpeechBuilder

SPLITS = {"train": "train", "dev": "dev", "tst-COMMON": "tst_common", "tst-HE": "tst_he"}


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
    """The splits that a language pair's folder (en-de) has: split -> its folder.

    Raises: ValueError if there is none.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[a-z]{2}-[a-z]{2}", folder.resolve().name):
        raise ValueError(f"{folder} must be named for its two languages, as en-de")
    there = {split: folder / "data" / name for name, split in SPLITS.items()}
    found = {split: path for split, path in there.items() if path.is_dir()}
    if not found:
        raise ValueError(f"{folder} is no folder of MuST-C: it has no data/train")
    return found


def scan(split: str, folder: Path) -> Source:
    """The segments of a split, those of a talk together.

    Raises: ValueError for a list of segments that is damaged, or of another length than the texts.
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
    for number, ((name, offset, seconds, speaker), said, translated) in enumerate(
        zip(segments, texts, translations, strict=True)
    ):
        id = f"{Path(name).stem}_{number}"
        fields = {"text": translated.strip(), "source_text": said.strip(), "speaker_id": speaker}
        recordings.append(Recording(id, round(seconds * 20_000), fields))
        places[id] = (folder / "wav" / name, offset, seconds)

    def read(wanted):
        for recording in wanted:
            yield functools.partial(_cut, *places[recording.id])

    return Source(split, recordings, read)


def _cut(path: Path, offset: float, seconds: float) -> bytes:
    """A part of a file as FLAC, from `offset`."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            file.seek(round(offset * file.samplerate))
            samples = file.read(round(seconds * file.samplerate), dtype="int16")
            rate = file.samplerate
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path} cannot be read at {offset} s: {error}") from None
    if len(samples) < (seconds - 0.1) * rate:
        raise AudioError(f"{path} ends before {offset} s + {seconds} s")
    return flac(samples, rate)
