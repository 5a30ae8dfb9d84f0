"""A job of many recordings: which files it reads, where it writes, and what it leaves alone."""

import errno
import io
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tdt_jax.audio.errors import AudioError
from tdt_jax.cli import job
from tdt_jax.cli.job import Output, Source
from tdt_jax.inference.transcript import Transcript
from tdt_jax.inference.transcription import RecordingResult

NOTHING = Transcript("", [], [], [], 1.0)


@pytest.fixture
def tree(tmp_path):
    for name in ("b.wav", "a.flac", "deep/er/c.mp3", "deep/a.WAV", "read.me"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(sources, folder):
    return [str(source.path.relative_to(folder)) for source in sources]


def test_folders_patterns_and_files(tree):
    found = job.find_sources([str(tree)])
    assert names(found, tree) == ["a.flac", "b.wav", "deep/a.WAV", "deep/er/c.mp3"]
    assert [source.parent for source in found] == [".", ".", "deep", "deep/er"]
    assert names(job.find_sources([f"{tree}/*.*"]), tree) == ["a.flac", "b.wav", "read.me"]
    assert names(job.find_sources([f"{tree}/**/*.mp3"]), tree) == ["deep/er/c.mp3"]
    twice = job.find_sources([str(tree / "b.wav"), f"{tree}/deep/../b.wav", str(tree)])
    assert len(twice) == 4 and names(twice[:1], tree) == ["b.wav"]
    (tree / "._a.wav").touch()  # what a Mac leaves beside a file
    assert len(job.find_sources([str(tree)])) == 4
    assert job.find_sources(["gone.wav"])[0].path == Path("gone.wav")  # the job reports it
    assert len(job.find_sources(["x" * 5000])) == 1  # likewise
    for name in ("link.wav", "broken.wav"):
        (tree / "deep" / name).symlink_to(tree / ("b.wav" if name == "link.wav" else "nowhere"))
    linked = job.find_sources(
        [str(tree)]
    )  # a link is a name of its own; one to nothing is for the job
    assert names(linked, tree)[2:5] == ["deep/a.WAV", "deep/broken.wav", "deep/er/c.mp3"]
    assert len(linked) == 6
    for name in ("link.wav", "broken.wav"):
        (tree / "deep" / name).unlink()
    odd = tree / "what[1].wav"  # a pattern, if there were no such file
    odd.touch()
    assert names(job.find_sources([str(odd)]), tree) == ["what[1].wav"]
    for paths, message in (([str(tree / "empty")], "no audio in"), (["*.nothing"], "no file")):
        with pytest.raises(ValueError, match=message):
            job.find_sources(paths)


def test_parts_are_disjoint_and_complete(tree):
    sources = job.find_sources([str(tree)])
    for count in (1, 2, 3, 7):
        parts = [job.part(sources, number, count) for number in range(1, count + 1)]
        assert sorted(itertools.chain(*parts), key=sources.index) == sources
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_other_files_of_a_folder_are_counted_and_named(tree):
    messages = []
    job.find_sources([str(tree)], report=messages.append)
    assert messages == [
        f"1 of 5 files in {tree} are left out, as their names are not of audio: read.me"
    ]
    for name in "abcdef":
        (tree / "deep" / f"{name}.pdf").touch()
    (tree / ".hidden").touch()
    job.find_sources([str(tree), str(tree / "b.wav")], report=messages.append)
    assert messages[1].startswith(f"7 of 11 files in {tree} are left out")
    five = ", ".join(f"deep/{name}.pdf" for name in "abcde")
    assert messages[1].endswith(f"as their names are not of audio: {five} and 2 more")


def test_usual_names_are_taken(tmp_path):
    usual = """wav mp3 m4a flac opus ogg aac mp4 mkv mov avi webm ts m2ts mts mpg mpeg flv f4v vob
    wmv wma asf ogv mka amr awb 3gp 3g2 qt ac3 eac3 dts mp1 mp2 dss caf au aiff w64""".split()
    for name in usual:
        (tmp_path / f"a.{name.upper()}").touch()
    assert len(job.find_sources([str(tmp_path)], report=pytest.fail)) == len(usual)


def test_names_follow_the_template(tmp_path):
    source = Source(Path("x/y/talk.one.mp3"), "y", "x")
    output = Output(("txt", "srt"), tmp_path)
    assert output.paths(source)["srt"] == tmp_path / "y" / "talk.one.srt"
    flat = Output(("txt",), tmp_path, "{folder}-{stem}-{suffix}")
    assert flat.paths(source) == {"txt": tmp_path / "x-talk.one-mp3.txt"}
    stdin = Source(Path("/tmp/x"), is_stdin=True)
    assert output.paths(stdin)["txt"] == tmp_path / "stdin.txt" and stdin.name == "-"
    for template in ("{number}", "{", "{stem[0]}", "{stem.x}", "{stem!r}", "{}", "", "../{stem}",
                     "/{stem}"):  # fmt: skip
        with pytest.raises(ValueError, match=r"must be a name below the output folder that may"):
            Output(("txt",), tmp_path, template)
    with pytest.raises(ValueError, match="no format 'doc'"):
        Output(("doc",))


def test_two_recordings_never_share_a_transcript(tmp_path):
    sources = [Source(Path("a.wav")), Source(Path("a.mp3"))]
    with pytest.raises(ValueError, match=r"a\.wav and a\.mp3 would both be written to .*a\.txt"):
        job.check_names(sources, Output(("txt",), tmp_path))
    apart = Output(("txt",), tmp_path, "{parent}/{stem}.{suffix}")
    job.check_names(sources, apart)
    assert job.without_transcripts(sources, apart) == sources


def test_one_bad_name_does_not_end_a_job(tmp_path, monkeypatch):
    """A transcript that cannot be written is reported; where none could be, the job ends."""
    names = ["a", "x" * 255, "b"]
    sources = [Source(Path(f"{name}.wav")) for name in names]
    results = [(i, RecordingResult(NOTHING, 0, 0, 0)) for i in range(3)]
    monkeypatch.setattr("tdt_jax.cli.job.transcribe_each", lambda *_, **__: iter(results))
    reports = []
    assert job.run(None, sources, Output(("txt",), tmp_path), report=reports.append) == 1
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.txt", "b.txt"]
    assert len(reports) == 1 and "too long" in reports[0]

    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        job.run(None, sources[:1], Output(("json",), tmp_path), report=reports.append)
    assert len(list(tmp_path.iterdir())) == 2


def test_standard_output_is_in_order_and_names_are_shown(monkeypatch, capsys):
    odd = Path(os.fsdecode(b"caf\xe9\t1.wav"))
    result = RecordingResult(NOTHING, 0, 0, 0)
    results = [(1, AudioError(f"{odd} is empty")), (2, result), (0, result)]
    monkeypatch.setattr("tdt_jax.cli.job.transcribe_each", lambda *_, **__: iter(results))
    reports = []
    sources = [Source(Path("z.wav")), Source(odd), Source(odd)]
    assert job.run(None, sources, Output(), report=reports.append) == 1
    assert capsys.readouterr().out == "z.wav\t\ncaf\ufffd 1.wav\t\n"
    assert reports == ["caf\ufffd\t1.wav is empty"]


def test_a_transcript_is_whole_or_not_there(tmp_path, monkeypatch):
    source, output = Source(Path("a.wav"), "deep"), Output(("txt", "vtt"), tmp_path)
    job.write(output, source, NOTHING)
    assert (tmp_path / "deep" / "a.txt").read_text() == "\n"
    assert job.without_transcripts([source], output) == []
    (tmp_path / "deep" / "a.vtt").unlink()
    assert job.without_transcripts([source], output) == [source]

    def fail(*_):
        raise OSError("the disk is full")

    longest = Source(Path("x" * 251 + ".wav"), "deep")  # with .txt as long as names may be
    job.write(Output(("txt",), tmp_path), longest, NOTHING)
    assert job.without_transcripts([longest], Output(("txt",), tmp_path)) == []
    os.unlink(tmp_path / "deep" / ("x" * 251 + ".txt"))
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        job.write(output, source, NOTHING)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_hours_are_added_up_from_headers(tmp_path):
    for seconds in (1, 3):
        soundfile.write(tmp_path / f"{seconds}.wav", np.zeros(8000 * seconds), 8000)
    (tmp_path / "bad.wav").write_bytes(b"bad")  # not known: as long as the others' mean
    sources = job.find_sources([str(tmp_path), "gone.wav"])
    assert job.total_seconds(sources) == pytest.approx(4 + 4 / 3)


def test_standard_input_is_spooled_and_gone_afterwards():
    with job.spooled(io.BytesIO(b"x" * (1 << 21))) as source:
        assert source.path.stat().st_size == 1 << 21 and source.name == "-"
    assert not source.path.exists()
    with pytest.raises(ValueError, match="standard input is closed"), job.spooled(None):
        pass


@pytest.mark.parametrize(
    ("formats", "number", "message"),
    [
        (("txt",), 5, ""), (("json",), 5, ""), (("ctm",), 5, ""), (("srt",), 1, ""),
        (("srt",), 2, "2 recordings as srt need --output-dir"), (("tsv",), 2, "need --output-dir"),
        (("txt", "srt"), 1, "need --output-dir"),
    ],
)  # fmt: skip
def test_standard_output_takes_what_can_follow_each_other(formats, number, message):
    sources = [Source(Path(f"{i}.wav")) for i in range(number)]
    if not message:
        job.check_names(sources, Output(formats))
        return
    with pytest.raises(ValueError, match=message):
        job.check_names(sources, Output(formats))


def test_warnings_name_recordings_as_they_are_shown(tmp_path, monkeypatch):
    odd = Path(os.fsdecode(b"caf\xe9.wav"))
    stdin = Source(tmp_path / "spool", is_stdin=True)

    def transcribe_each(recogniser, paths, *, warn, **options):
        for path in paths:
            warn(f"no sound in {path}")
        return iter([])

    monkeypatch.setattr("tdt_jax.cli.job.transcribe_each", transcribe_each)
    messages = []
    job.run(None, [Source(odd), stdin], Output(), report=pytest.fail, warn=messages.append)
    assert messages == ["no sound in caf\ufffd.wav", "no sound in -"]


def test_one_ctm_has_every_recording_once():
    sources = [Source(Path("x/a.wav")), Source(Path("y/a.wav"))]
    with pytest.raises(ValueError, match="2 recordings would be 'a' in one CTM"):
        job.check_names(sources, Output(("ctm",)))
