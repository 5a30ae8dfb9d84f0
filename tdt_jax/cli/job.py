"""A job of many recordings: which files it reads, and where their transcripts go.

A transcript is written whole or not at all, so that a job that was interrupted continues where it
stopped.
"""

import contextlib
import errno
import glob
import os
import shutil
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tdt_jax.audio.errors import AudioError, warn
from tdt_jax.audio.inputs import SUFFIXES
from tdt_jax.audio.reading import header_seconds
from tdt_jax.inference.formats import DEFAULT_RULES, FORMATS, SubtitleRules, render
from tdt_jax.inference.transcript import Transcript
from tdt_jax.inference.transcription import RecordingResult, transcribe_each
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime.files import write_atomically
from tdt_jax.runtime.streams import printable

MAX_NAMED = 5  # of the files that are left out
STANDARD_INPUT = "-"
DEFAULT_NAME = "{parent}/{stem}"
FIELDS = ("folder", "parent", "stem", "suffix")
OWN_FAULTS = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR}  # of one name, not of the disk


@dataclass(frozen=True)
class Source:
    """A recording to transcribe."""

    path: Path
    parent: str = "."  # its folder, relative to the folder that was asked for
    folder: str = ""  # the name of the folder that was asked for, or else of the file's own
    is_stdin: bool = False

    @property
    def name(self) -> str:
        """The path in printable characters, whatever bytes it is made of."""
        return STANDARD_INPUT if self.is_stdin else printable(str(self.path))

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a template."""
        stem, suffix = ("stdin", "") if self.is_stdin else (self.path.stem, self.path.suffix[1:])
        return dict(folder=self.folder, parent=self.parent, stem=stem, suffix=suffix)


@dataclass(frozen=True)
class Output:
    """Where transcripts go, and how they look."""

    formats: tuple[str, ...] = ("txt",)
    folder: Path | None = None  # None: standard output
    name: str = DEFAULT_NAME  # a template of FIELDS, to which the format is appended
    rules: SubtitleRules = DEFAULT_RULES
    highlight_words: bool = False

    def __post_init__(self):
        if unknown := [each for each in self.formats if each not in FORMATS]:
            raise ValueError(f"there is no format {unknown[0]!r}; there are {', '.join(FORMATS)}")
        try:
            parts = list(string.Formatter().parse(self.name))
            is_valid = all(
                field in (None, *FIELDS) and not spec and not conversion
                for _, field, spec, conversion in parts
            )
        except ValueError:
            is_valid = False
        example = self.name.format(**dict.fromkeys(FIELDS, "x")).split("/") if is_valid else [""]
        if not (example[0] and example[-1]) or ".." in example:
            raise ValueError(
                f"the template {self.name!r} must be a name below the output folder that may hold "
                + ", ".join(f"{{{field}}}" for field in FIELDS)
            )

    def paths(self, source: Source) -> dict[str, Path]:
        """Returns the files of one recording, by format; none on standard output."""
        if self.folder is None:
            return {}
        name = self.name.format(**source.fields)
        return {each: self.folder / f"{name}.{each}" for each in self.formats}

    def texts(self, source: Source, transcript: Transcript) -> dict[str, str]:
        """Returns the transcript in every format; in a CTM recordings are named by their stems."""
        stem = printable(source.fields["stem"])
        return {
            each: render(
                transcript,
                each,
                name=stem if each == "ctm" else source.name,
                rules=self.rules,
                highlight_words=self.highlight_words,
            )
            for each in self.formats
        }


def find_sources(
    paths: Sequence[str], *, report: Callable[[str], object] = lambda text: None
) -> list[Source]:
    """Returns the recordings that files, folders and glob patterns name, each path once.

    A folder stands for all recordings below it, but for hidden files and those behind links to
    folders. A link to a recording is another recording.

    Args:
      paths: of files and folders, or patterns.
      report: takes how many files of a folder are left out for their names, and some of them.

    Raises: ValueError for a folder or pattern without audio. A missing file is left to `run`, which
    reports it.
    """
    found: dict[str, Source] = {}
    for text in paths:
        if os.path.isdir(text):
            sources = _in_folder(Path(text), report)
        elif not os.path.exists(text) and glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))
            sources = [_single(each) for each in matches if os.path.isfile(each)]
            if not sources:
                raise ValueError(f"no file matches {printable(text)!r}")
        else:
            sources = [_single(text)]
        for source in sources:
            found.setdefault(os.path.abspath(source.path), source)
    return list(found.values())


def _single(text: str) -> Source:
    return Source(Path(text), folder=Path(os.path.abspath(text)).parent.name)


def _in_folder(folder: Path, report: Callable[[str], object]) -> list[Source]:
    os.listdir(folder)  # raises OSError if it cannot be read
    name = Path(os.path.abspath(folder)).name
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith(".") and not path.is_dir()
    ]
    taken = [path for path in files if path.suffix.lower() in SUFFIXES]
    left_out = [path for path in files if path.suffix.lower() not in SUFFIXES]
    if left_out:
        named = ", ".join(printable(str(path.relative_to(folder))) for path in left_out[:MAX_NAMED])
        more = f" and {len(left_out) - MAX_NAMED} more" if len(left_out) > MAX_NAMED else ""
        report(
            f"{len(left_out)} of {len(files)} files in {printable(str(folder))} are left out, as "
            f"their names are not of audio: {named}{more}"
        )
    if not taken:
        raise ValueError(f"there is no audio in the folder {printable(str(folder))}")
    return [Source(path, os.path.relpath(path.parent, folder), name) for path in taken]


@contextlib.contextmanager
def spooled(file: BinaryIO | None) -> Iterator[Source]:
    """Yields a recording that comes through a pipe, as a temporary file."""
    if file is None:
        raise ValueError("standard input is closed")
    descriptor, path = tempfile.mkstemp(prefix="tdt_jax_")
    try:
        with open(descriptor, "wb") as spool:
            shutil.copyfileobj(file, spool)
        yield Source(Path(path), is_stdin=True)
    finally:
        os.unlink(path)


def check_names(sources: Sequence[Source], output: Output) -> None:
    """Raises ValueError if two transcripts would have one path or name, or would run together."""
    if output.folder is None:
        joinable = {"txt", "json", "ctm"}  # formats of which several can follow each other
        several = len(sources) > 1
        if len(output.formats) > 1 or (several and not set(output.formats) <= joinable):
            formats = ", ".join(output.formats)
            raise ValueError(f"{len(sources)} recordings as {formats} need --output-dir FOLDER")
        stems = Counter(source.fields["stem"] for source in sources)
        stem, count = stems.most_common(1)[0] if stems else ("", 0)
        if "ctm" in output.formats and count > 1:
            raise ValueError(f"{count} recordings would be {stem!r} in one CTM")
        return
    owners: dict[Path, Source] = {}
    for source in sources:
        for path in output.paths(source).values():
            if path in owners:
                raise ValueError(
                    f"{owners[path].name} and {source.name} would both be written to "
                    f"{printable(str(path))}; give them different names by --name, a template of "
                    + ", ".join(f"{{{field}}}" for field in FIELDS)
                )
            owners[path] = source


def part(sources: Sequence[Source], number: int, count: int) -> list[Source]:
    """Returns the `number`-th, from 1, of `count` parts of the recordings.

    It depends on the list alone, and not on the transcripts that there are already: jobs that run
    or continue at different times have the same parts.
    """
    return list(sources[number - 1 :: count])


def check_folder(folder: Path) -> None:
    """Creates the output folder; raises OSError if it cannot be written to."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def without_transcripts(sources: Sequence[Source], output: Output) -> list[Source]:
    """Returns the recordings that lack any of their transcripts."""
    return [
        source
        for source in sources
        if not all(os.path.isfile(path) for path in output.paths(source).values())
    ]


def write(output: Output, source: Source, transcript: Transcript) -> None:
    """Writes a transcript's files, each whole or not at all."""
    paths = output.paths(source)
    for format, text in output.texts(source, transcript).items():
        paths[format].parent.mkdir(parents=True, exist_ok=True)
        write_atomically(paths[format], text)


def total_seconds(sources: Sequence[Source]) -> float:
    """Returns the seconds of all audio, from the headers of the files.

    A file whose header does not give its length counts as much as the others on average; one that
    cannot be read counts nothing.
    """
    lengths = []
    for source in sources:
        try:
            lengths.append(header_seconds(source.path))
        except (AudioError, OSError):
            lengths.append(0.0)
    known = [seconds for seconds in lengths if seconds is not None]
    mean = sum(known) / len(known) if known else 0.0
    return sum(mean if seconds is None else seconds for seconds in lengths)


def run(
    recogniser: Recogniser,
    sources: Sequence[Source],
    output: Output,
    *,
    report: Callable[[str], object],
    warn: Callable[[str], object] = warn,
    progress: Callable[[float], object] = lambda seconds: None,
    **options,
) -> int:
    """Transcribes recordings and writes the transcripts; returns how many recordings failed.

    Args:
      recogniser: the one to transcribe with.
      sources: the recordings.
      output: where the transcripts go.
      report: takes the name of a recording that failed, and the reason.
      warn: takes a warning about a recording, which it names.
      progress, options: as of `tdt_jax.inference.transcription.transcribe_each`.

    Raises: OSError if transcripts cannot be written for another reason than a recording's name.
    """
    failed = 0
    paths = (source.path for source in sources)
    temporary = [source for source in sources if source.is_stdin]

    def warn_by_name(text: str) -> None:
        for source in temporary:
            text = text.replace(str(source.path), source.name)
        warn(printable(text))

    results = transcribe_each(recogniser, paths, progress=progress, warn=warn_by_name, **options)
    for position, result in results if output.folder else _in_order(results):
        source = sources[position]
        if not isinstance(result, RecordingResult):
            failed += 1
            report(str(result).replace(str(source.path), source.name))
        elif output.folder is None:
            _print(output, source, result.transcript, is_one=len(sources) == 1)
        else:
            try:
                write(output, source, result.transcript)
            except OSError as error:
                if error.errno not in OWN_FAULTS:
                    raise
                failed += 1
                report(f"{source.name}: {error}")
    return failed


def _in_order(items: Iterable[tuple[int, object]]) -> Iterator[tuple[int, object]]:
    """Yields items of (position, value) in the order of their positions."""
    waiting, following = {}, 0
    for position, item in items:
        waiting[position] = item
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def _print(output: Output, source: Source, transcript: Transcript, *, is_one: bool) -> None:
    for format, text in output.texts(source, transcript).items():
        if format == "txt" and not is_one:
            text = source.name.translate({ord("\t"): " ", ord("\n"): " "}) + "\t" + text
        sys.stdout.write(text)
    sys.stdout.flush()
