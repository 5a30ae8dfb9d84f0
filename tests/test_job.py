"""A batch job: what it finds, where it writes, and what it leaves alone."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tdt_jax import job
from tdt_jax.job import Output, Source
from tdt_jax.transcript import Transcript

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
    found = job.find([str(tree)])
    assert names(found, tree) == ["a.flac", "b.wav", "deep/a.WAV", "deep/er/c.mp3"]
    assert [source.parent for source in found] == [".", ".", "deep", "deep/er"]
    assert names(job.find([f"{tree}/*.*"]), tree) == ["a.flac", "b.wav", "read.me"]
    assert names(job.find([f"{tree}/**/*.mp3"]), tree) == ["deep/er/c.mp3"]
    twice = job.find([str(tree / "b.wav"), f"{tree}/deep/../b.wav", str(tree)])
    assert len(twice) == 4 and names(twice[:1], tree) == ["b.wav"]
    assert job.find(["gone.wav"]) == [Source(Path("gone.wav"))]  # the job reports it
    odd = tree / "what[1].wav"  # a pattern, if there were no such file
    odd.touch()
    assert names(job.find([str(odd)]), tree) == ["what[1].wav"]
    for paths, message in (([str(tree / "empty")], "no audio in"), (["*.nothing"], "no file")):
        with pytest.raises(ValueError, match=message):
            job.find(paths)


def test_names_follow_the_template(tmp_path):
    source = Source(Path("x/y/talk.one.mp3"), "y")
    output = Output(("txt", "srt"), tmp_path)
    assert output.paths(source)["srt"] == tmp_path / "y" / "talk.one.srt"
    flat = Output(("txt",), tmp_path, "{stem}-{suffix}")
    assert flat.paths(source) == {"txt": tmp_path / "talk.one-mp3.txt"}
    assert flat.paths(Source(Path("/tmp/tdt_jax_x"), "-")) == {"txt": tmp_path / "stdin-.txt"}
    for template in ("{number}", "{", "{stem[0]!q}", "{}"):
        with pytest.raises(ValueError, match=r"may hold .parent., .stem. and .suffix"):
            Output(("txt",), tmp_path, template)
    with pytest.raises(ValueError, match="no format 'doc'"):
        Output(("doc",))


def test_two_recordings_never_share_a_transcript(tmp_path):
    sources = [Source(Path("a.wav")), Source(Path("a.mp3"))]
    with pytest.raises(ValueError, match=r"a\.wav and a\.mp3 would both be written to .*a\.txt"):
        job.missing(sources, Output(("txt",), tmp_path))
    apart = Output(("txt",), tmp_path, "{parent}/{stem}.{suffix}")
    assert job.missing(sources, apart) == sources


def test_a_transcript_is_whole_or_not_there(tmp_path, monkeypatch):
    source, output = Source(Path("a.wav"), "deep"), Output(("txt", "vtt"), tmp_path)
    job.write(output, source, NOTHING)
    assert (tmp_path / "deep" / "a.txt").read_text() == "\n"
    assert job.missing([source], output) == []
    (tmp_path / "deep" / "a.vtt").unlink()
    assert job.missing([source], output) == [source]

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        job.write(output, source, NOTHING)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_hours_are_added_up_from_headers(tmp_path):
    for seconds in (1, 3):
        soundfile.write(tmp_path / f"{seconds}.wav", np.zeros(8000 * seconds), 8000)
    (tmp_path / "bad.wav").write_bytes(b"bad")  # not known: as long as the others' mean
    sources = job.find([str(tmp_path), "gone.wav"])
    assert job.total_seconds(sources) == pytest.approx(4 + 4 / 3)


def test_standard_input_is_spooled():
    source = job.spooled(io.BytesIO(b"x" * (1 << 21)))
    try:
        assert source.path.stat().st_size == 1 << 21 and source.name == "-"
    finally:
        source.path.unlink()


@pytest.mark.parametrize(
    ("formats", "number", "fine"),
    [
        (("txt",), 5, True), (("json",), 5, True), (("ctm",), 5, True), (("srt",), 1, True),
        (("srt",), 2, False), (("tsv",), 2, False), (("txt", "srt"), 1, False),
    ],
)  # fmt: skip
def test_standard_output_takes_what_can_be_told_apart(formats, number, fine):
    if fine:
        job.check_standard_output(Output(formats), number)
    else:
        with pytest.raises(ValueError, match="need --output-dir"):
            job.check_standard_output(Output(formats), number)
