"""LibriSpeech into a dataset: bit for bit, whole or not at all; bad recordings are left out."""

import importlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import soundfile

from tdt_jax.audio.reading import read_audio
from tdt_jax.cli import main
from tdt_jax.data.prepared import librispeech
from tdt_jax.data.prepared.dataset import open_dataset
from tdt_jax.data.prepared.prepare import prepare
from tdt_jax.data.sources import read_source
from tdt_jax.data.telephone.compose import prompts_folder

WORDS = "zero one two three four five six seven eight nine".split()


def digit(number):
    return prompts_folder() / f"digits__{number}.opus"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """LibriSpeech's layout: dev-clean of two chapters with 5 utterances each, test-clean of one."""
    folder = tmp_path_factory.mktemp("openslr") / "LibriSpeech"
    for subset, speaker, chapter, some in (
        ("dev-clean", 84, 121123, WORDS[:5]),
        ("dev-clean", 1272, 128104, WORDS[5:]),
        ("test-clean", 61, 70968, WORDS[:3]),
    ):
        place = folder / subset / str(speaker) / str(chapter)
        place.mkdir(parents=True)
        lines = []
        for number, word in enumerate(some):
            id = f"{speaker}-{chapter}-{number:04d}"
            samples = read_audio(digit(WORDS.index(word)), 16000)
            soundfile.write(place / f"{id}.flac", samples, 16000, subtype="PCM_16")
            lines.append(f"{id} {word.upper()} IT'S\n")
        (place / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    (folder / "SPEAKERS.TXT").write_text(";ID |SEX|\n84 | F |\n")
    return folder


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus to spoil."""
    return shutil.copytree(corpus, tmp_path / "LibriSpeech")


def flac_files(folder):
    return {path.stem: path for path in sorted(folder.glob("*/*/*/*.flac"))}


def stored(records):
    return {
        record.id: record.dataset[record.position]["speech"].bytes_list.value[0]
        for record in records
    }


def archive(folder, subset, path, members=None):
    """An archive of a subset as OpenSLR's, in the order of `members`."""
    with tarfile.open(path, "w:gz") as file:
        for member in members or sorted((folder / subset).rglob("*")):
            file.add(member, f"LibriSpeech/{member.relative_to(folder)}", recursive=False)


def run(*arguments):
    return main.main(["prepare", *map(str, arguments)])


def test_round_trip(corpus, tmp_path, capsys):
    assert run("librispeech", corpus.parent, tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "dev_clean: 10 utterances, 0.00 h, 1 shards",
        "test_clean: 3 utterances, 0.00 h, 1 shards",
    ]
    records = read_source(f"{tmp_path}:dev_clean+test_clean")
    files = flac_files(corpus)
    assert stored(records) == {id: path.read_bytes() for id, path in files.items()}
    for record in records:
        samples, rate = soundfile.read(files[record.id], dtype="float32")
        np.testing.assert_array_equal(record.audio(16000), samples)
        assert record.seconds == pytest.approx(len(samples) / rate, abs=1e-6)
        speaker, chapter, number = map(int, record.id.split("-"))
        features = record.dataset[record.position]
        assert features["speaker_id"].int64_list.value == [speaker]
        assert features["chapter_id"].int64_list.value == [chapter]
        words = {84: WORDS[:5], 1272: WORDS[5:], 61: WORDS}
        assert record.text == f"{words[speaker][number]} it's".upper()
    lower = read_source("librispeech:dev_clean", folder=str(tmp_path), lowercase=True)
    assert [record.text for record in lower] == [each.text.lower() for each in records[:10]]
    assert "tensorflow" not in sys.modules


def test_the_library_reads_it_too(corpus, tmp_path):
    import tensorflow_datasets as tfds

    run("librispeech", corpus, tmp_path, "--subsets", "test-clean")
    builder = tfds.builder_from_directory(tmp_path / "librispeech" / "1.0.0")
    source = builder.as_data_source("test_clean")
    assert builder.info.splits["test_clean"].num_examples == len(source) == 3
    assert set(source[0]) == {"speech", "text", "speaker_id", "chapter_id", "id"}
    assert source[1]["speech"] == flac_files(corpus)[source[1]["id"].decode()].read_bytes()
    assert "tensorflow" not in sys.modules


def test_archives_hold_the_same(corpus, tmp_path):
    """Whatever their order: here transcripts come last; and two members are there twice."""
    members = sorted((corpus / "dev-clean").rglob("*"), key=lambda path: (path.suffix, path.stem))
    archive(corpus, "dev-clean", tmp_path / "dev-clean.tar.gz", members + members[:2])
    ((split, path),) = librispeech.find(tmp_path).items()
    done = prepare(librispeech.LibriSpeech, librispeech.scan(split, path), tmp_path / "a")
    assert (done.num_records, done.problems) == (10, [])
    expected = {id: path.read_bytes() for id, path in flac_files(corpus).items() if id[:2] != "61"}
    assert stored(read_source(f"{tmp_path / 'a'}:dev_clean")) == expected
    assert not (tmp_path / "LibriSpeech").exists()


def test_hostile_and_damaged_archives(corpus, tmp_path):
    path = tmp_path / "dev-clean.tar.gz"
    archive(corpus, "dev-clean", path)
    with tarfile.open(tmp_path / "test-clean.tar.gz", "w:gz") as file:
        for name in ("../../61/70968/61-70968-0000.flac", "/61/70968/61-70968.trans.txt"):
            data = b"61-70968-0000 OUTSIDE\n"
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("LibriSpeech/test-clean/61/70968/61-70968-0001.flac")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    source = librispeech.scan("test_clean", tmp_path / "test-clean.tar.gz")
    assert [recording.id for recording in source.recordings] == ["61-70968-0000"]
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"not audio.*\n.*nothing is left"):
        prepare(librispeech.LibriSpeech, source, tmp_path / "out")
    assert {each for each in tmp_path.rglob("*") if "out" not in each.parts} == before
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(ValueError, match=r"dev-clean\.tar\.gz is damaged"):
        librispeech.scan("dev_clean", path)
    path.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"dev-clean\.tar\.gz is damaged"):
        librispeech.scan("dev_clean", path)


def test_bad_recordings_are_named_and_left_out(copy, tmp_path, capsys):
    files = flac_files(copy)
    files["84-121123-0000"].write_bytes(files["84-121123-0000"].read_bytes()[:-2000])
    files["84-121123-0001"].write_bytes(b"")
    samples = np.zeros(8000, np.int16)
    soundfile.write(files["84-121123-0002"], samples, 8000, format="FLAC")
    soundfile.write(files["84-121123-0003"], samples[:0], 16000, format="FLAC")
    files["1272-128104-0000"].unlink()
    transcripts = copy / "dev-clean/1272/128104/1272-128104.trans.txt"
    text = transcripts.read_text().replace("1272-128104-0001 SIX IT'S\n", "1272-128104-0001 \n")
    transcripts.write_text(text + "1-2-3 OF ANOTHER CHAPTER\n")
    assert run("librispeech", copy, tmp_path / "out", "--subsets", "dev_clean") == 1
    captured = capsys.readouterr()
    assert "dev_clean: 4 utterances" in captured.out and "; 7 left out" in captured.out
    for named in (
        "84-121123-0000 is ",
        "84-121123-0001 is damaged or not audio",
        "84-121123-0002 has 8000 Hz, not 16000",
        "84-121123-0003",
        "1272-128104-0000 has a transcript and no FLAC file",
        "1272-128104-0001 has no transcript",
        "a line of another chapter: '1-2-3 OF",
    ):
        assert named in captured.err
    kept = {record.id for record in read_source(f"{tmp_path / 'out'}:dev_clean")}
    assert kept == {"84-121123-0004", *(f"1272-128104-000{number}" for number in (2, 3, 4))}


PROGRAM = """
import os, signal, sys
from tdt_jax.data.prepared import librispeech
from tdt_jax.data.prepared.prepare import prepare

source = librispeech.scan("dev_clean", librispeech.find(sys.argv[1])["dev_clean"])

def progress(size, calls=[]):
    calls.append(size)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

prepare(librispeech.LibriSpeech, source, sys.argv[2], shard_bytes=1, progress=progress)
"""


def test_what_was_killed_goes_on(corpus, tmp_path, capsys):
    command = [sys.executable, "-c", PROGRAM, corpus, tmp_path]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    work = tmp_path / "librispeech/1.0.0/.dev_clean"
    finished = sorted(work.glob("[0-9].json"))
    assert [path.name for path in finished] == ["0.json", "1.json", "2.json"]
    times = [path.stat().st_mtime_ns for path in finished]
    with pytest.raises(ValueError, match=r"no prepared dataset"):
        open_dataset(tmp_path, "dev_clean")
    # as if it had been killed in the middle of the next shard as well
    (work / "tmpabc").mkdir()
    (work / "tmpabc" / "half").write_bytes(b"half")
    (work / "3.array_record").write_bytes(b"half")

    source = librispeech.scan("dev_clean", corpus / "dev-clean")
    read = []
    watched = source._replace(read=lambda wanted: read.extend(wanted) or source.read(wanted))
    kept = []

    def progress(size):
        if not kept:
            kept.extend(path.stat().st_mtime_ns for path in finished)

    done = prepare(librispeech.LibriSpeech, watched, tmp_path, shard_bytes=1, progress=progress)
    assert (done.num_records, done.num_shards, len(read)) == (10, 10, 7) and kept == times
    expected = {id: path.read_bytes() for id, path in flac_files(corpus).items() if id[:2] != "61"}
    assert stored(read_source(f"{tmp_path}:dev_clean")) == expected
    assert not work.exists()
    # and what is done is not done again
    assert run("librispeech", corpus, tmp_path, "--subsets", "dev-clean") == 0
    expected = "dev_clean: 10 utterances, 0.00 h, 10 shards (was there already)\n"
    assert capsys.readouterr().out == expected


@pytest.mark.slow
def test_killed_at_any_file_it_goes_on(corpus, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    source = librispeech.scan("test_clean", corpus / "test-clean")
    files = flac_files(corpus)
    expected = {each.id: files[each.id].read_bytes() for each in source.recordings}
    replace, is_killed = os.replace, True
    for last in range(100):
        done = []

        def replace_until(*paths, done=done, last=last):
            done.append(paths)
            if len(done) > last:
                raise Killed
            replace(*paths)

        folder = tmp_path / str(last)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_until)
            try:
                prepare(librispeech.LibriSpeech, source, folder, shard_bytes=1)
                is_killed = False
            except Killed:
                with pytest.raises(ValueError, match="is no prepared dataset"):
                    open_dataset(folder, "test_clean")
        assert prepare(librispeech.LibriSpeech, source, folder, shard_bytes=1).num_shards == 3
        assert stored(read_source(f"{folder}:test_clean")) == expected
        assert not (folder / "librispeech/1.0.0/.test_clean").exists()
        if not is_killed:
            break
    assert 10 < last < 100


def test_one_process_at_a_time_makes_a_split(corpus, tmp_path):
    source = librispeech.scan("dev_clean", corpus / "dev-clean")
    again = []

    def progress(size):
        with pytest.raises(ValueError, match=r"/\.dev_clean is in use by process \d+ on "):
            prepare(librispeech.LibriSpeech, source, tmp_path)
        other = librispeech.scan("test_clean", corpus / "test-clean")
        again.append(prepare(librispeech.LibriSpeech, other, tmp_path).num_records)

    prepare(librispeech.LibriSpeech, source, tmp_path, progress=progress)
    assert again == [3, 3]
    assert len(read_source(f"{tmp_path}:dev_clean+test_clean")) == 13


def test_other_recordings_start_anew(copy, tmp_path):
    source = librispeech.scan("dev_clean", copy / "dev-clean")

    calls = iter(range(4))
    with pytest.raises(StopIteration):  # in the middle
        prepare(
            librispeech.LibriSpeech,
            source,
            tmp_path,
            shard_bytes=1,
            progress=lambda size: next(calls),
        )
    assert (tmp_path / "librispeech/1.0.0/.dev_clean/2.json").is_file()
    transcripts = copy / "dev-clean/84/121123/84-121123.trans.txt"
    transcripts.write_text(transcripts.read_text().replace("IT'S", "IT WAS"))
    source = librispeech.scan("dev_clean", copy / "dev-clean")
    prepare(librispeech.LibriSpeech, source, tmp_path, shard_bytes=1)
    texts = [record.text for record in read_source(f"{tmp_path}:dev_clean")]
    assert sum("IT WAS" in text for text in texts) == 5


def test_a_users_mistakes(corpus, tmp_path, capsys):
    for arguments, message in (
        (("librispeech", tmp_path / "gone", tmp_path), "there is no folder"),
        (("librispeech", tmp_path, tmp_path), "holds nothing of LibriSpeech"),
        (("librispeech", corpus, tmp_path, "--subsets", "dev"), "no subset 'dev'; there are dev-c"),
        (
            ("librispeech", corpus, tmp_path, "--subsets", "dev-other"),
            "no folder or archive of dev",
        ),
        (("manifest", tmp_path / "gone", tmp_path, "--split", "a"), "no manifest at"),
        (("must_c", tmp_path, tmp_path), "must be named for its two languages"),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
    empty = tmp_path / "dev-clean"
    empty.mkdir()
    assert run("librispeech", tmp_path, tmp_path) == 2
    assert "holds no recordings of LibriSpeech" in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch):
    for name in ("tdt_jax.data.prepared.builder", "tensorflow_datasets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'tdt-jax\[data\]'"):
        importlib.import_module("tdt_jax.data.prepared.builder")
