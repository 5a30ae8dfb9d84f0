"""Sources of every form give the same utterances."""

import csv
import json

import numpy as np
import pyarrow
import pytest
import soundfile
from pyarrow import parquet

from tdt_jax.audio.reading import as_samples
from tdt_jax.cli import main
from tdt_jax.data.parquet import MAX_GROUPS
from tdt_jax.data.sources import measured, read_source

TEXTS = {"a.wav": "grün, sagte sie", "b.flac": 'a "b" c'}


@pytest.fixture
def speech(tmp_path):
    """Two recordings, of 1 and 2 s, in a folder."""
    folder = tmp_path / "speech"
    folder.mkdir()
    for seconds, name in enumerate(TEXTS, start=1):
        soundfile.write(folder / name, np.sin(np.arange(16000 * seconds) / 9) / seconds, 16000)
    return folder


def write_csv(folder, name="metadata.csv", header=("file_name", "text"), **options):
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, **options).writerows([header, *TEXTS.items()])


def write_parquet(folder, name, *, with_bytes=True):
    def audio(name):
        if with_bytes is False:
            return name
        return {"bytes": (folder / name).read_bytes() if with_bytes else None, "path": name}

    columns = {
        "audio": [audio(name) for name in TEXTS],
        "sentence": list(TEXTS.values()),
    }
    path = folder.parent / "rows" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path, row_group_size=1)
    return path


def check(items, folder):
    """The two utterances, with audio and length."""
    items = measured(items)
    assert [item.text for item in items] == list(TEXTS.values())
    assert [item.seconds for item in items] == [1.0, 2.0]
    assert len({item.id for item in items}) == 2 and all(item.exists() for item in items)
    for item, name in zip(items, TEXTS, strict=True):
        np.testing.assert_array_equal(as_samples(item.audio), as_samples(folder / name))


def test_tables(speech):
    for options in ({}, {"lineterminator": "\n"}):
        write_csv(speech, **options)
        check(read_source(str(speech)), speech)
        check(read_source("metadata.csv", folder=str(speech)), speech)
    (speech / "metadata.csv").unlink()
    lines = [json.dumps({"file_name": name, "transcription": t}) for name, t in TEXTS.items()]
    (speech / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    check(read_source(str(speech)), speech)


def test_columns_of_ones_own(speech):
    write_csv(speech, "list.csv", ("wav", "norwegian"))
    with pytest.raises(
        ValueError,
        match=r"list.csv has no column of audio \(file_name or .*\) and "
        r"text \(.*\); it has wav, norwegian",
    ):
        read_source(str(speech / "list.csv"))
    check(read_source(str(speech / "list.csv"), keys=("wav", "norwegian")), speech)


def test_common_voice(speech, tmp_path):
    """Clips lie in clips/, their milliseconds in a table; quotation marks are doubled."""
    corpus = speech.parent / "de"
    corpus.mkdir()
    speech.rename(corpus / "clips")
    lines = ["client_id\tpath\tsentence_id\tsentence\tup_votes"]
    lines += ["x\t{}\t1\t{}\t2".format(n, t.replace('"', '""')) for n, t in TEXTS.items()]
    (corpus / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    check(read_source(str(corpus / "train.tsv")), corpus / "clips")
    (corpus / "clip_durations.tsv").write_text("clip\tduration[ms]\na.wav\t1500\nb.flac\t2500\n")
    items = read_source(str(corpus / "train.tsv"))
    assert [item.seconds for item in items] == [1.5, 2.5]
    for wrong in ("long", "nan", "-1"):
        (corpus / "clip_durations.tsv").write_text(f"clip\tduration[ms]\na.wav\t{wrong}\n")
        with pytest.raises(ValueError, match=r"clip_durations.tsv must have a name and millis"):
            read_source(str(corpus / "train.tsv"))


def test_texts_beside_recordings(speech):
    for name, text in TEXTS.items():
        (speech / name).with_suffix(".txt").write_text(text.replace(" ", "\n"), encoding="utf-8")
    soundfile.write(speech / "no_text.wav", np.zeros(100), 16000)
    (speech / "README.txt").write_text("about")
    check(read_source(str(speech)), speech)
    soundfile.write(speech / "a.flac", np.zeros(100), 16000)
    with pytest.raises(ValueError, match=r"a.txt belongs to a.flac and a.wav"):
        read_source(str(speech))


def test_parquet(speech):
    for with_bytes in (True, False, None):  # None: structs without bytes
        file = write_parquet(speech, "all.parquet", with_bytes=with_bytes)
        if not with_bytes:
            file = file.rename(speech / "all.parquet")
        check(read_source(str(file)), speech)
        file.unlink()
    folder = speech.parent / "rows"
    write_parquet(speech, "data/train-00000-of-00001.parquet")
    check(read_source(str(folder)), speech)
    write_parquet(speech, "data/test-00000-of-00001.parquet")
    check(read_source(f"{folder}:train"), speech)
    assert len(read_source(f"{folder}:train+test")) == 4
    with pytest.raises(ValueError, match=r"has the splits test, train; name one, such as .*:test"):
        read_source(str(folder))
    write_parquet(speech, "dev/0000.parquet")
    check(read_source(f"{folder}:dev"), speech)


def test_few_row_groups_are_in_memory(speech):
    audio = [{"bytes": (speech / "a.wav").read_bytes(), "path": f"{i}.wav"} for i in range(5)]
    table = pyarrow.table({"audio": audio, "text": ["a"] * 5})
    parquet.write_table(table, speech / "a.parquet", row_group_size=1)
    items = read_source(str(speech / "a.parquet"))
    for item in items:
        assert item.encoded() == audio[0]["bytes"]
    assert len(items[0].file._groups) == MAX_GROUPS < 5


def test_bad_parquet(speech):
    path = speech / "bad.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"bad.parquet is no Parquet file"):
        read_source(str(path))
    parquet.write_table(pyarrow.table({"audio": [1], "text": ["a"]}), path)
    with pytest.raises(ValueError, match="column audio is int64; it must be a struct with bytes"):
        read_source(str(path))
    rows = pyarrow.table({"audio": [{"bytes": b"", "path": "gone.wav"}], "text": ["a"]})
    parquet.write_table(rows, path)
    (item,) = measured(read_source(str(path)))
    assert item.seconds == 0.0
    with pytest.raises(
        ValueError, match=r"bad.parquet:gone.wav: the row has no audio \(.*gone.wav\)"
    ):
        as_samples(item.audio)
    parquet.write_table(
        pyarrow.table({"path": ["a.wav"], "text": pyarrow.array([None], "string")}), path
    )
    with pytest.raises(ValueError, match="text of row 0 is None, not text"):
        read_source(str(path))
    for column, value, message in (
        ("path", None, "path of row 1 is None, not text"),
        ("duration", float("nan"), "row 1: duration must be finite and >= 0, got nan"),
        ("duration", -1.0, "row 1: duration must be finite and >= 0, got -1.0"),
    ):
        columns = {"path": ["a.wav", "b.flac"], "text": ["a", "b"], "duration": [1.0, 2.0]}
        columns[column][1] = value
        parquet.write_table(pyarrow.table(columns), path)
        with pytest.raises(ValueError, match=rf"bad.parquet: {message}"):
            read_source(str(path))


def test_rows_of_the_same_name_are_apart(speech, tmp_path):
    """In one file and in files of one name; a prepared dataset has the audio of each."""
    audio = [{"bytes": (speech / name).read_bytes(), "path": "audio"} for name in TEXTS]
    table = pyarrow.table({"audio": audio, "text": list(TEXTS.values())})
    for split in ("train", "dev"):
        (tmp_path / "rows" / split).mkdir(parents=True)
        parquet.write_table(table, tmp_path / "rows" / split / "0000.parquet")
    assert len({item.id for item in read_source(f"{tmp_path / 'rows'}:train+dev")}) == 4
    source = str(tmp_path / "rows" / "train")
    command = ["prepare", "manifest", source, str(tmp_path / "data"), "--split", "train"]
    assert main.main(command) == 0
    check(read_source(f"{tmp_path / 'data'}:train"), speech)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,text\na.wav,one,two\n", ":2: has more fields than the first line"),
        ("file_name,text\na.wav\n", ":2: has no text"),
        ("file_name,text\n,one\n", ":2: file_name is empty"),
        ("file_name,text,duration\na.wav,one,soon\n", ":2: duration must be a number of seconds"),
        ("file_name,text,duration\na.wav,one,-1\n", ":2: duration must be finite and >= 0"),
        ("file_name,text\n", "is empty"),
        ("", "is empty"),
        ("text\none\n", r"has no column of audio \(file_name or .*\); it has text"),
    ],
)
def test_bad_tables(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=f"t.csv.*{message}"):
        read_source(str(tmp_path / "t.csv"))


def test_other_faults(tmp_path):
    with pytest.raises(ValueError, match="no table at"):
        read_source(str(tmp_path / "t.tsv"))
    with pytest.raises(ValueError, match=r"no recording with a text beside it .* name a split"):
        read_source(str(tmp_path))
    (tmp_path / "t.csv").write_bytes("file_name,text\na,ü".encode("latin1"))
    with pytest.raises(ValueError, match="not in UTF-8"):
        read_source(str(tmp_path / "t.csv"))
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"has metadata.csv and metadata.jsonl; name one"):
        read_source(str(tmp_path))
    with pytest.raises(ValueError, match=r"metadata.jsonl:1: needs a JSON object, got 'x'"):
        read_source(str(tmp_path / "metadata.jsonl"))


def test_any_source_becomes_a_prepared_dataset(speech, tmp_path, capsys):
    file = write_parquet(speech, "all.parquet")
    command = ["prepare", "manifest", str(file), str(tmp_path / "data"), "--split", "train"]
    assert main.main(command) == 0
    records = read_source(f"{tmp_path / 'data'}:train")
    check(records, speech)
    command[2] = f"{tmp_path / 'data'}:train"
    assert main.main(command) == 2
    assert "is a prepared dataset already" in capsys.readouterr().err
