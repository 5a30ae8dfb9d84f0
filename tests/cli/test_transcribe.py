"""tdt-jax transcribe: files to text, and what becomes of its options."""

import io
import json
import types

import numpy as np
import pytest
import soundfile
from media import encode
from models import noise
from paths import GOLDEN

import tdt_jax as tdt
from tdt_jax.cli import main
from tdt_jax.data.telephone.compose import prompts_folder
from tdt_jax.inference.formats import FORMATS, SubtitleRules


def test_bad_files_are_named_and_skipped(loads, folder, capsys):
    files = [str(folder / name) for name in ("0.wav", "text.wav", "missing.wav", "2.wav")]
    assert main.main(["transcribe", "MODEL", *files]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == [files[0], files[3]]
    assert "text.wav" in captured.err and "missing.wav" in captured.err


def test_damaged_files_and_tracks(loads, folder, tmp_path, capsys):
    """Skipped, or transcribed with a message about what is missing."""
    data = (folder / "1.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: 44 + 48000])
    soundfile.write(tmp_path / "whole.wav", noise(2.0, 1)[:24000], 16000)
    soundfile.write(tmp_path / "none.wav", np.zeros(16000), 16000)
    cut = str(tmp_path / "cut.wav")
    assert main.main(["transcribe", "MODEL", cut]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "skipped" in captured.err and "truncated" in captured.err
    assert main.main(["transcribe", "MODEL", cut, "--allow-damaged"]) == 0
    captured = capsys.readouterr()
    assert "0.50 s of 2.00 s are missing" in captured.err and "skipped" not in captured.err
    assert main.main(["transcribe", "MODEL", str(tmp_path / "whole.wav")]) == 0
    assert capsys.readouterr().out == captured.out != "\n"
    encode(tmp_path / "film.mkv", [[(0, noise(1.0, i))] for i in range(2)], 16000, "pcm_s16le")
    texts = []
    for options in ([], ["--track", "1"], ["--track", "2"]):
        assert main.main(["transcribe", "MODEL", str(tmp_path / "film.mkv"), *options]) == 0
        captured = capsys.readouterr()
        texts.append(captured.out)
        assert ("has 2 audio tracks; read is 1" in captured.err) == (not options)
    assert texts[0] == texts[1] != texts[2]
    assert main.main(["transcribe", "MODEL", str(tmp_path / "film.mkv"), "--track", "3"]) == 1
    assert "has no audio track 3; it has 2" in capsys.readouterr().err
    assert main.main(["transcribe", "MODEL", str(tmp_path / "none.wav")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "\n" and f"no sound in {tmp_path / 'none.wav'}" in captured.err


def test_json_has_word_times(loads, folder, capsys):
    command = ["transcribe", "--format", "json", "MODEL", str(folder / "1.wav")]
    assert main.main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["duration"] == 2.0 and result["words"]
    assert {"text", "start", "end", "confidence", "probability"} == result["words"][0].keys()
    assert " ".join(word["text"] for word in result["words"]) == result["text"]


def test_a_real_recording_goes_through(loads, capsys):
    file = prompts_folder() / "vm-youhave.opus"
    assert main.main(["transcribe", "MODEL", str(file)]) == 0
    assert capsys.readouterr().out.strip()


def test_an_interrupted_job_continues(loads, random_recogniser, tmp_path, capsys):
    """From a folder into a folder: only missing transcripts are written."""
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    for i, name in enumerate(("a.wav", "b.flac", "deep/a.wav")):
        soundfile.write(source / name, noise(1.0 + i, i), 16000)
    (source / "notes.txt").write_text("not audio")
    (source / "bad.wav").write_text("not audio")
    arguments = ["transcribe", "MODEL", str(source), "-o", str(target), "-f", "all"]
    assert main.main(arguments) == 1
    captured = capsys.readouterr()
    assert "bad.wav" in captured.err and "1 of 4" in captured.err and captured.out == ""
    made = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert made == {f"{n}.{f}" for n in ("a", "b", "deep/a") for f in FORMATS}
    (expected,) = tdt.transcribe(random_recogniser, [source / "b.flac"])
    assert (target / "b.txt").read_text() == expected.text + "\n"
    before = {path: path.stat().st_mtime_ns for path in target.rglob("a.*")}
    (target / "b.srt").unlink()
    (source / "bad.wav").unlink()
    assert main.main(arguments) == 0
    assert "2 of 3 have transcripts already" in capsys.readouterr().err
    assert (target / "b.srt").exists()
    assert before == {path: path.stat().st_mtime_ns for path in target.rglob("a.*")}
    assert main.main(arguments) == 0 and main.main([*arguments, "--overwrite"]) == 0
    assert before != {path: path.stat().st_mtime_ns for path in target.rglob("a.*")}


def test_standard_input_is_a_file(loads, folder, capsys, monkeypatch):
    data = io.BytesIO((folder / "0.wav").read_bytes())
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=data))
    assert main.main(["transcribe", "MODEL", "-"]) == 0
    assert main.main(["transcribe", "MODEL", str(folder / "0.wav")]) == 0
    piped, named = capsys.readouterr().out.splitlines()
    assert piped == named


def test_one_file_is_just_text(saved, random_recogniser, folder, capsys):
    """With the model itself."""
    assert main.main(["transcribe", str(saved), str(folder / "0.wav")]) == 0
    (expected,) = tdt.transcribe(random_recogniser, [folder / "0.wav"])
    assert capsys.readouterr().out == expected.text + "\n"


def test_options_arrive(loads, folder, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "tdt_jax.cli.job.run", lambda *args, **options: calls.append((args, options))
    )
    arguments = "--max-chars 30 --max-lines 1 --max-seconds 5 --max-gap 0.5 --highlight-words "
    arguments += "--batch-seconds 7 --piece-seconds 9 --decoder transducer --format srt "
    arguments += "--max-wide-chars 12 --keep-tags --dtype bfloat16 --local-attention 2,3"
    file = str(folder / "0.wav")
    out = ["-o", str(folder / "named"), "--name", "{stem}.{suffix}"]
    assert main.main(["transcribe", "MODEL", file, *arguments.split(), *out]) == 0
    ((_, sources, output), options) = calls[0]
    assert [source.name for source in sources] == [file]
    assert output.rules == SubtitleRules(
        max_chars=30, max_lines=1, max_seconds=5, max_gap=0.5, max_wide_chars=12
    )
    assert output.highlight_words and output.formats == ("srt",)
    assert output.paths(sources[0])["srt"] == folder / "named" / "0.wav.srt"
    names = "batch_seconds", "piece_seconds", "decoder", "keep_tags"
    passed = {key: options[key] for key in names}
    assert passed == dict(batch_seconds=7, piece_seconds=9, decoder="transducer", keep_tags=True)
    expected = dict(dtype="bfloat16", attention_context=(2, 3), sharding=None)
    assert loads.calls == [("MODEL", expected)]


def test_the_decoder_is_chosen(loads, folder, capsys):
    texts = []
    for options in ([], ["--decoder", "transducer"], ["--decoder", "ctc"]):
        assert main.main(["transcribe", *options, "MODEL", str(folder / "0.wav")]) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 3  # the stub's labels depend on the name
    assert main.main(["transcribe", "--decoder", "ctc", "MODEL", "x.wav"]) == 1
    for options in (["--local-attention", "2"], ["--decoder", "beam"]):
        with pytest.raises(SystemExit):
            main.main(["transcribe", *options, "MODEL", str(folder / "0.wav")])


@pytest.mark.slow
def test_a_parakeet_transcribes_with_either_decoder(folder, capsys):
    model = str(GOLDEN / "parakeet_hybrid.nemo")
    texts = []
    for options in ([], ["--decoder", "ctc"], ["--dtype", "bfloat16"],
                    ["--local-attention", "2,2"]):  # fmt: skip
        assert main.main(["transcribe", *options, model, str(folder / "0.wav")]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] != texts[1] != texts[3] != texts[0]
    assert texts[2].strip()


def test_a_decoder_that_the_model_lacks_is_named(folder, capsys):
    command = ["transcribe", "--decoder", "ctc", str(GOLDEN / "parakeet_rnnt")]
    assert main.main([*command, str(folder / "0.wav")]) == 2
    assert "it has transducer" in capsys.readouterr().err


def test_shards_share_a_job(loads, folder, tmp_path, capsys):
    """Each recording is transcribed once, whether or not another shard has begun."""
    paths = [str(folder / f"{number}.wav") for number in range(3)]
    command = ["transcribe", "MODEL", *paths, "--output-dir", str(tmp_path), "--name", "{stem}"]
    for shard, names in (("2/2", ["1.txt"]), ("1/2", ["0.txt", "1.txt", "2.txt"])):
        assert main.main([*command, "--shard", shard]) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == names
    for shard in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(SystemExit):
            main.main([*command, "--shard", shard])
        assert "I/N" in capsys.readouterr().err
