"""A batch job of transcription: which files, where their transcripts go, and what is left to do.

A transcript is written whole or not at all, so that a job that was interrupted and is started again
does only what is missing.
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

from tdt_jax.audio.errors import AudioError, warn
from tdt_jax.audio.reading import header_seconds
from tdt_jax.inference.formats import DEFAULT_RULES, FORMATS, SubtitleRules, render
from tdt_jax.inference.transcript import Transcript
from tdt_jax.inference.transcription import RecordingResult, transcribe_each
from tdt_jax.recogniser import Recogniser

# What is taken from a folder; a file that is named is tried whatever its name.
SUFFIXES = set(
    # sound
    ".wav .wave .w64 .rf64 .bwf .flac .ogg .oga .opus .spx .mp1 .mp2 .mp3 .mpa .m4a .m4b .m4r .aac "
    ".adts .ac3 .eac3 .ec3 .dts .aif .aiff .aifc .au .snd .caf .wma .mka .weba .amr .awb .3ga .dss "
    ".gsm .g722 .qcp .sph .nist .ape .tta .wv .tak .mpc .shn .ra .voc .dsf .dff .oma "
    # film
    ".mp4 .m4v .mov .qt .mkv .mk3d .webm .avi .divx .wmv .asf .ts .m2ts .mts .m2t .mpg .mpeg .vob "
    ".flv .f4v .f4a .ogv .ogm .3gp .3g2 .rm .rmvb .mxf .dv .wtv".split()
)
MAX_NAMED = 5  # of the files that were left out
STANDARD_INPUT = "-"
DEFAULT_NAME = "{parent}/{stem}"
FIELDS = ("folder", "parent", "stem", "suffix")
OWN_FAULTS = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR}  # of one name, not of the disk


@dataclass(frozen=True)
class Source:
    """A recording to transcribe."""

    path: Path
    parent: str = "."  # its folder, relative to the folder that was asked for
    folder: str = ""  # the name of that folder, or of the file's own
    is_stdin: bool = False

    @property
    def name(self) -> str:
        """To show, whatever bytes the name is made of."""
        return STANDARD_INPUT if self.is_stdin else _shown(self.path)

    @property
    def fields(self) -> dict[str, str]:
        """What a template may hold."""
        stem, suffix = ("stdin", "") if self.is_stdin else (self.path.stem, self.path.suffix[1:])
        return dict(folder=self.folder, parent=self.parent, stem=stem, suffix=suffix)


def _shown(path: str | os.PathLike) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


@dataclass(frozen=True)
class Output:
    """Where transcripts go, and how they look."""

    formats: tuple[str, ...] = ("txt",)
    folder: Path | None = None  # None: standard output
    name: str = DEFAULT_NAME  # a template of FIELDS; the format is appended
    rules: SubtitleRules = DEFAULT_RULES
    highlight_words: bool = False

    def __post_init__(self):
        if unknown := [each for each in self.formats if each not in FORMATS]:
            raise ValueError(f"there is no format {unknown[0]!r}; there are {', '.join(FORMATS)}")
        try:
            parts = list(string.Formatter().parse(self.name))
            fine = all(
                field in (None, *FIELDS) and not spec and not conversion
                for _, field, spec, conversion in parts
            )
        except ValueError:
            fine = False
        example = self.name.format(**dict.fromkeys(FIELDS, "x")).split("/") if fine else [""]
        if not (example[0] and example[-1]) or ".." in example:
            raise ValueError(
                f"the template {self.name!r} must be a name below the output folder that may hold "
                + ", ".join(f"{{{field}}}" for field in FIELDS)
            )

    def paths(self, source: Source) -> dict[str, Path]:
        """The files of one recording, by format."""
        name = self.name.format(**source.fields)
        return {each: self.folder / f"{name}.{each}" for each in self.formats}

    def texts(self, source: Source, transcript: Transcript) -> dict[str, str]:
        """The transcript in every format; a CTM knows recordings by their stems."""
        options = dict(rules=self.rules, highlight_words=self.highlight_words)
        stem = _shown(source.fields["stem"])
        return {
            each: render(transcript, each, name=stem if each == "ctm" else source.name, **options)
            for each in self.formats
        }


def find(
    paths: Sequence[str], *, report: Callable[[str], object] = lambda text: None
) -> list[Source]:
    """The recordings that paths mean, each name once: files, folders (all below them), patterns.

    Hidden files, and folders that are links, are not looked into. Links to one recording are
    several.

    Args:
      report: takes how many files of a folder were left out for their names, and some of them.

    Raises: ValueError for a folder or pattern without audio. A file that isn't there is for the
    job to report.
    """
    found: dict[str, Source] = {}
    for text in paths:
        if os.path.isdir(text):
            sources = _below(Path(text), report)
        elif not os.path.exists(text) and glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))
            sources = [_single(each) for each in matches if os.path.isfile(each)]
            if not sources:
                raise ValueError(f"no file matches {_shown(text)!r}")
        else:
            sources = [_single(text)]
        for source in sources:
            found.setdefault(os.path.abspath(source.path), source)
    return list(found.values())


def _single(text: str) -> Source:
    return Source(Path(text), folder=Path(os.path.abspath(text)).parent.name)


def _below(folder: Path, report: Callable[[str], object]) -> list[Source]:
    os.listdir(folder)  # an error says why it cannot be read
    name = Path(os.path.abspath(folder)).name
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith(".") and not path.is_dir()
    ]
    taken = [path for path in files if path.suffix.lower() in SUFFIXES]
    left_out = [path for path in files if path.suffix.lower() not in SUFFIXES]
    if left_out:
        named = ", ".join(_shown(path.relative_to(folder)) for path in left_out[:MAX_NAMED])
        more = f" and {len(left_out) - MAX_NAMED} more" if len(left_out) > MAX_NAMED else ""
        report(
            f"{len(left_out)} of {len(files)} files in {_shown(folder)} are left out, their names "
            f"being none of audio: {named}{more}"
        )
    if not taken:
        raise ValueError(f"there is no audio in the folder {_shown(folder)}")
    return [Source(path, os.path.relpath(path.parent, folder), name) for path in taken]


@contextlib.contextmanager
def spooled(file) -> Iterator[Source]:
    """A recording that comes as a file through a pipe, put where it can be read for a while."""
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
    """Raise ValueError if two recordings would have one transcript, or could not be told apart."""
    if output.folder is None:
        apart = {"txt", "json", "ctm"}
        several = len(sources) > 1
        if len(output.formats) > 1 or (several and not set(output.formats) <= apart):
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
                    f"{_shown(path)}; with --name a template of "
                    + ", ".join(f"{{{field}}}" for field in FIELDS)
                    + " can keep them apart"
                )
            owners[path] = source


def check_folder(folder: Path) -> None:
    """Make the output folder; OSError if it cannot be written to."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def missing(sources: Sequence[Source], output: Output) -> list[Source]:
    """Those that have not all their transcripts yet."""
    return [
        source
        for source in sources
        if not all(os.path.isfile(path) for path in output.paths(source).values())
    ]


def write(output: Output, source: Source, transcript: Transcript) -> None:
    """Write a transcript's files, each whole or not at all."""
    paths = output.paths(source)
    for format, text in output.texts(source, transcript).items():
        path = paths[format]
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=".tdt_jax_", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(part, 0o666 & ~_umask())
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise


def _umask() -> int:
    """That of the process, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


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
    report: Callable[[str], object],
    warn: Callable[[str], object] = warn,
    progress: Callable[[float], object] = lambda seconds: None,
    **options,
) -> int:
    """Transcribe recordings and write what was heard; returns how many failed.

    Args:
      report: takes what went wrong with a recording, which it names.
      warn: takes what should be known of one.
      progress, options: as of `tdt_jax.inference.transcription.transcribe_each`.
    """
    failed = 0
    paths = (source.path for source in sources)
    spools = [source for source in sources if source.is_stdin]

    def warn_by_name(text: str) -> None:
        for source in spools:
            text = text.replace(str(source.path), source.name)
        warn(_shown(text))

    heard = transcribe_each(recogniser, paths, progress=progress, warn=warn_by_name, **options)
    for position, result in heard if output.folder else _in_order(heard):
        source = sources[position]
        if not isinstance(result, RecordingResult):
            failed += 1
            report(str(result).replace(str(source.path), source.name))
        elif output.folder is None:
            _show(output, source, result.transcript, is_one=len(sources) == 1)
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
    waiting, following = {}, 0
    for position, item in items:
        waiting[position] = item
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def _show(output: Output, source: Source, transcript: Transcript, *, is_one: bool) -> None:
    for format, text in output.texts(source, transcript).items():
        named = format == "txt" and not is_one
        name = source.name.translate({ord("\t"): " ", ord("\n"): " "})
        sys.stdout.write(f"{name}\t{text}" if named else text)
    sys.stdout.flush()
