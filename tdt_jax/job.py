"""A batch job of transcription: which files, where their transcripts go, and what is left to do.

A transcript is written whole or not at all, so that a job that was interrupted and is started again
does only what is missing.
"""

import glob
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tdt_jax.audio import AudioError, header_seconds
from tdt_jax.formats import DEFAULT_RULES, FORMATS, SubtitleRules, render
from tdt_jax.recogniser import Recogniser
from tdt_jax.transcribe import Heard, transcribe_each
from tdt_jax.transcript import Transcript

# What is taken from a folder; a file that is named is tried whatever its name.
SUFFIXES = set(
    ".wav .wave .w64 .flac .ogg .oga .opus .mp3 .mp2 .m4a .m4b .mp4 .aac .aif .aiff .aifc .au .snd "
    ".caf .wma .webm .mkv .mov .avi .amr .3gp .sph .rf64".split()
)
STANDARD_INPUT = "-"
DEFAULT_NAME = "{parent}/{stem}"


@dataclass(frozen=True)
class Source:
    """A recording to transcribe."""

    path: Path
    parent: str = "."  # its folder, relative to the folder that was asked for

    @property
    def name(self) -> str:
        return STANDARD_INPUT if self.parent == STANDARD_INPUT else str(self.path)


@dataclass(frozen=True)
class Output:
    """Where transcripts go, and how they look."""

    formats: tuple[str, ...] = ("txt",)
    folder: Path | None = None  # None: standard output
    name: str = DEFAULT_NAME  # of {parent}, {stem} and {suffix}; the format is appended
    rules: SubtitleRules = DEFAULT_RULES
    highlight_words: bool = False

    def __post_init__(self):
        if unknown := [each for each in self.formats if each not in FORMATS]:
            raise ValueError(f"there is no format {unknown[0]!r}; there are {', '.join(FORMATS)}")
        try:
            self.name.format(parent="", stem="", suffix="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"the template {self.name!r} may hold {{parent}}, {{stem}} and {{suffix}}, "
                f"not {error}"
            ) from None

    def paths(self, source: Source) -> dict[str, Path]:
        """The files of one recording, by format."""
        name = self.name.format(
            parent=source.parent if source.name != STANDARD_INPUT else ".",
            stem=source.path.stem if source.name != STANDARD_INPUT else "stdin",
            suffix=source.path.suffix[1:],
        )
        return {each: self.folder / f"{name}.{each}" for each in self.formats}

    def texts(self, source: Source, transcript: Transcript) -> dict[str, str]:
        """The transcript in every format."""
        options = dict(rules=self.rules, highlight_words=self.highlight_words)
        return {
            each: render(transcript, each, name=_shown(source, each), **options)
            for each in self.formats
        }


def _shown(source: Source, format: str) -> str:
    """A CTM knows recordings by their stems."""
    return source.path.stem if format == "ctm" and source.name != STANDARD_INPUT else source.name


def find(paths: Sequence[str]) -> list[Source]:
    """The recordings that paths mean, each once: files, folders (all below them), glob patterns.

    Raises: ValueError for a folder or pattern without audio. A file that isn't there is for the
    job to report.
    """
    found: dict[Path, Source] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            sources = [
                Source(each, os.path.relpath(each.parent, path))
                for each in sorted(path.rglob("*"))
                if each.suffix.lower() in SUFFIXES and each.is_file()
            ]
            if not sources:
                raise ValueError(f"there is no audio in the folder {path}")
        elif not path.exists() and glob.has_magic(text):
            sources = [Source(Path(each)) for each in sorted(glob.glob(text, recursive=True))]
            sources = [source for source in sources if source.path.is_file()]
            if not sources:
                raise ValueError(f"no file matches {text!r}")
        else:
            sources = [Source(path)]
        for source in sources:
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def spooled(file) -> Source:
    """A recording that comes as a file through a pipe, put where it can be read."""
    with tempfile.NamedTemporaryFile(prefix="tdt_jax_", delete=False) as spool:
        while block := file.read(1 << 20):
            spool.write(block)
    return Source(Path(spool.name), STANDARD_INPUT)


def missing(sources: Sequence[Source], output: Output) -> list[Source]:
    """Those that have not all their transcripts yet.

    Raises: ValueError if two recordings would have one transcript.
    """
    owners: dict[Path, Source] = {}
    for source in sources:
        for path in output.paths(source).values():
            if path in owners:
                raise ValueError(
                    f"{owners[path].name} and {source.name} would both be written to {path}; "
                    "--name '{parent}/{stem}.{suffix}' would keep them apart"
                )
            owners[path] = source
    return [s for s in sources if not all(path.is_file() for path in output.paths(s).values())]


def write(output: Output, source: Source, transcript: Transcript) -> None:
    """Write a transcript's files, each whole or not at all."""
    paths = output.paths(source)
    for format, text in output.texts(source, transcript).items():
        path = paths[format]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def total_seconds(sources: Sequence[Source]) -> float:
    """Seconds of audio by the files' headers; what they don't say is taken as the others' mean."""
    known = []
    for source in sources:
        try:
            known.append(header_seconds(source.path))
        except (AudioError, OSError):
            known.append(0.0)
    said = [seconds for seconds in known if seconds is not None]
    mean = sum(said) / len(said) if said else 0.0
    return sum(mean if seconds is None else seconds for seconds in known)


def run(
    recogniser: Recogniser,
    sources: Sequence[Source],
    output: Output,
    *,
    report: Callable[[Source, str], object],
    progress: Callable[[float], object] = lambda seconds: None,
    **options,
) -> int:
    """Transcribe recordings and write what was heard; returns how many failed.

    Args:
      report: takes a recording and why it failed.
      progress, options: as of `tdt_jax.transcribe.transcribe_each`.
    """
    failed = 0
    paths = (source.path for source in sources)
    heard = transcribe_each(recogniser, paths, progress=progress, **options)
    for position, result in heard if output.folder else _in_order(heard):
        source = sources[position]
        if not isinstance(result, Heard):
            failed += 1
            report(source, str(result))
        elif output.folder:
            write(output, source, result.transcript)
        else:
            _show(output, source, result.transcript, is_one=len(sources) == 1)
    return failed


def _in_order(items: Iterable[tuple[int, object]]) -> Iterator[tuple[int, object]]:
    waiting, following = {}, 0
    for position, item in items:
        waiting[position] = item
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def _show(output: Output, source: Source, transcript: Transcript, *, is_one: bool) -> None:
    for format, text in output.texts(source, transcript).items():
        named = format == "txt" and not is_one
        sys.stdout.write(f"{source.name}\t{text}" if named else text)
    sys.stdout.flush()


def check_standard_output(output: Output, number: int) -> None:
    """Raise ValueError unless several transcripts in a row can be told apart."""
    apart = {"txt", "json", "ctm"}
    if output.folder is None and (
        len(output.formats) > 1 or (number > 1 and not set(output.formats) <= apart)
    ):
        raise ValueError(
            f"{number} recordings as {', '.join(output.formats)} need --output-dir FOLDER"
        )
