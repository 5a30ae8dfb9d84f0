"""The command line as a user types it."""

import io
import json
import sys
import types

import jax
import numpy as np
import pytest
import soundfile
from media import encode
from models import make_recogniser, noise
from paths import GOLDEN, ROOT

import tdt_jax as tdt
from tdt_jax.cli import main
from tdt_jax.data.telephone.compose import prompts_folder
from tdt_jax.data.utterance import Utterance
from tdt_jax.inference.evaluation import evaluate
from tdt_jax.inference.formats import FORMATS, SubtitleRules


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved recogniser, three recordings and a manifest of them."""
    path = tmp_path_factory.mktemp("cli")
    tdt.save(make_recogniser(), path / "model")
    lines = []
    for i, seconds in enumerate((1.0, 2.0, 1.5)):
        soundfile.write(path / f"{i}.wav", noise(seconds, i), 16000)
        line = {"audio_filepath": f"{i}.wav", "duration": seconds, "text": "one two"}
        lines.append(json.dumps(line) + "\n")
    (path / "all.jsonl").write_text("".join(lines))
    (path / "bad.jsonl").write_text("".join(lines).replace("1.wav", "gone.wav"))
    (path / "broken.jsonl").write_text("{")
    (path / "text.wav").write_text("not audio")
    return path


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """No test writes to the user's cache."""
    monkeypatch.setattr("tdt_jax.runtime.process.set_up", lambda: None)


def test_one_file_is_just_text(folder, capsys):
    assert main.main(["transcribe", str(folder / "model"), str(folder / "0.wav")]) == 0
    (expected,) = tdt.transcribe(make_recogniser(), [folder / "0.wav"])
    assert capsys.readouterr().out == expected.text + "\n"


def test_bad_files_are_named_and_skipped(folder, capsys):
    files = [str(folder / name) for name in ("0.wav", "text.wav", "missing.wav", "2.wav")]
    assert main.main(["transcribe", str(folder / "model"), *files]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == [files[0], files[3]]
    assert "text.wav" in captured.err and "missing.wav" in captured.err


def test_damaged_files_and_tracks(folder, tmp_path, capsys):
    """Skipped, or transcribed with a word about what is missing."""
    data = (folder / "1.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: 44 + 48000])
    soundfile.write(tmp_path / "whole.wav", noise(2.0, 1)[:24000], 16000)
    soundfile.write(tmp_path / "none.wav", np.zeros(16000), 16000)
    model, cut = str(folder / "model"), str(tmp_path / "cut.wav")
    assert main.main(["transcribe", model, cut]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "skipped" in captured.err and "truncated" in captured.err
    assert main.main(["transcribe", model, cut, "--allow-damaged"]) == 0
    captured = capsys.readouterr()
    assert "0.50 s of 2.00 s are missing" in captured.err and "skipped" not in captured.err
    assert main.main(["transcribe", model, str(tmp_path / "whole.wav")]) == 0
    assert capsys.readouterr().out == captured.out != "\n"
    encode(tmp_path / "film.mkv", [[(0, noise(1.0, i))] for i in range(2)], 16000, "pcm_s16le")
    texts = []
    for options in ([], ["--track", "1"], ["--track", "2"]):
        assert main.main(["transcribe", model, str(tmp_path / "film.mkv"), *options]) == 0
        captured = capsys.readouterr()
        texts.append(captured.out)
        assert ("has 2 audio tracks; read is 1" in captured.err) == (not options)
    assert texts[0] == texts[1] != texts[2]
    assert main.main(["transcribe", model, str(tmp_path / "film.mkv"), "--track", "3"]) == 1
    assert "has no audio track 3; it has 2" in capsys.readouterr().err
    assert main.main(["transcribe", model, str(tmp_path / "none.wav")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "\n" and f"no sound in {tmp_path / 'none.wav'}" in captured.err


def test_json_has_word_times(folder, capsys):
    assert (
        main.main(["transcribe", "--format", "json", str(folder / "model"), str(folder / "1.wav")])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["duration"] == 2.0 and found["words"]
    assert {"text", "start", "end", "confidence", "probability"} == found["words"][0].keys()
    assert " ".join(word["text"] for word in found["words"]) == found["text"]


def test_a_real_recording_goes_through(folder, capsys):
    file = prompts_folder() / "vm-youhave.opus"
    assert main.main(["transcribe", str(folder / "model"), str(file)]) == 0


def test_evaluate_reports_errors_steps_and_speed(folder, capsys):
    arguments = ["evaluate", str(folder / "model"), str(folder / "all.jsonl")]
    assert main.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["audio_seconds"] == 4.5 and len(found["utterances"]) == 3
    assert found["words"]["reference_length"] == 6
    steps = sum(each["decoder_steps"] for each in found["utterances"])
    assert found["decoder_steps_per_second"] == pytest.approx(steps / 4.5)
    assert found["rtfx"] > 0 and found["compile_seconds"] >= 0
    assert main.main(arguments) == 0
    assert f"WER {100 * found['wer']:.2f} %" in capsys.readouterr().out


def test_evaluate_takes_a_dataset_and_gives_bleu(folder, tmp_path, capsys):
    model, data = str(folder / "model"), tmp_path / "data"
    assert main.main(["prepare", "manifest", f"{folder}/all.jsonl", str(data), "--split", "a"]) == 0
    capsys.readouterr()
    rows = []
    for source in (f"{data}:a", str(folder / "all.jsonl")):
        assert main.main(["evaluate", model, source, "--bleu", "--json"]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    assert rows[0]["utterances"] == rows[1]["utterances"] and len(rows[0]["utterances"]) == 3
    assert rows[0]["bleu"] == rows[1]["bleu"] >= 0 and "tok:13a" in rows[0]["bleu_signature"]
    assert main.main(["evaluate", model, f"{data}:a", "--bleu"]) == 0
    assert capsys.readouterr().out.startswith("BLEU 0.00 (")
    assert main.main(["evaluate", model, f"{data}:a", "--json", "--keys", "speech,id"]) == 0
    found = json.loads(capsys.readouterr().out)["utterances"]
    assert [each["reference"] for each in found] == [each["id"] for each in found]
    assert main.main(["evaluate", model, f"{data}:a", "--keys", "speech,words"]) == 2
    assert "'words'" in capsys.readouterr().err
    assert main.main(["evaluate", model, f"{data}:b"]) == 2
    assert "has no split 'b'; there are a" in capsys.readouterr().err
    items = [Utterance("a", noise(1.0, 0), "one two")]
    assert evaluate(make_recogniser(), items).bleu is None


def test_a_result_is_not_lost_to_an_encoding(folder, monkeypatch, capsysbinary):
    """Of the terminal, of a text in another form of Unicode, or of a file name's odd bytes."""
    lines = [
        {"audio_filepath": "0.wav", "duration": 1.0, "text": "gru\u0308n łódź"},
        {"audio_filepath": "\udcff.wav", "duration": 1.0, "text": "one"},
    ]
    (folder / "odd.jsonl").write_text("\n".join(map(json.dumps, lines)))
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", output)
    assert main.main(["evaluate", str(folder / "model"), str(folder / "odd.jsonl"), "--json"]) == 1
    found = json.loads(output.buffer.getvalue().decode("utf-8"))
    assert [each["reference"] for each in found["utterances"]] == ["grün łódź"]
    (why,) = found["failed"].values()
    assert why.endswith("\ufffd.wav")
    assert b"\xff.wav" in capsysbinary.readouterr().err


def test_benchmark_data(folder, capsys):
    config = str(ROOT / "configs" / "manifest.py")
    arguments = ["--config", config, "--set", f"data.train={folder}/all.jsonl"]
    arguments += ["--set", "tokenizer.kind=characters", "--threads", "2", "--seconds", "0.01"]
    assert main.main(["benchmark", "data", *arguments, "--json"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["threads"] == 2 and row["num_batches"] >= 1 and row["failed"] == 0
    assert 0 < row["audio_seconds"] < row["padded_seconds"]
    assert row["bytes"] == pytest.approx(row["padded_seconds"] * 16000 * 4)
    assert main.main(["benchmark", "data", *arguments]) == 0
    assert "2 threads" in capsys.readouterr().out


def test_evaluate_counts_what_it_could_not_read(folder, capsys):
    arguments = ["evaluate", str(folder / "model"), str(folder / "bad.jsonl")]
    assert main.main(arguments) == 1
    captured = capsys.readouterr()
    assert "gone.wav" in captured.err and "2 utterances" in captured.out


def test_evaluate_says_what_is_known_of_a_recording(folder, capsys):
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    line = {"audio_filepath": "silent.wav", "duration": 1.0, "text": ""}
    (folder / "silent.jsonl").write_text(json.dumps(line))
    assert main.main(["evaluate", str(folder / "model"), str(folder / "silent.jsonl")]) == 0
    assert capsys.readouterr().err == f"tdt-jax: no sound in {folder}/silent.wav\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "{}/nothing", "{}/0.wav"], "no file, folder or repository"),
        (["evaluate", "{}/model", "{}/broken.jsonl"], "broken.jsonl:1"),
        (["evaluate", "{}/model", "{}/none.jsonl"], "none.jsonl"),
    ],
)
def test_a_mistake_is_told_in_a_line(folder, capsys, arguments, message):
    assert main.main([argument.format(folder) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "arguments", [[], ["sing"], ["transcribe", "--max-chars", "0", "a", "b"], ["benchmark"]]
)
def test_misuse_shows_usage(capsys, arguments):
    with pytest.raises(SystemExit) as exit:
        main.main(arguments)
    assert exit.value.code == 2 and "usage: tdt-jax" in capsys.readouterr().err


def test_evaluate_normalises(folder, capsys):
    text = (folder / "all.jsonl").read_text().replace("one two", "Um.", 1)
    (folder / "um.jsonl").write_text(text.replace("one two", "It's one."))
    arguments = ["evaluate", str(folder / "model"), str(folder / "um.jsonl"), "--json"]
    assert main.main([*arguments, "--normalizer", "whisper"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["not_scored"] == 1
    each = found["utterances"]
    assert sorted(e["reference_words"] or 0 for e in each) == [0, 3, 3]
    assert sum(e["errors"] or 0 for e in each) == found["words"]["errors"]
    low, high = found["wer_interval"]
    assert low <= found["wer"] <= high


def test_evaluate_takes_several_manifests(folder, capsys):
    """Each by itself, their mean and all words together, in three forms."""
    text = (folder / "all.jsonl").read_text().replace("one two", "three")
    (folder / "three.jsonl").write_text(text)
    sources = [str(folder / "all.jsonl"), str(folder / "three.jsonl")]
    arguments = ["evaluate", str(folder / "model"), *sources]
    assert main.main([*arguments, "--json", "--errors", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["sets"]
    assert [first["source"], second["source"]] == sources
    assert found["wer_mean"] == pytest.approx((first["wer"] + second["wer"]) / 2)
    wrong = first["words"]["errors"] + second["words"]["errors"]
    assert found["wer_pooled"] == wrong / 9 and found["audio_seconds"] == 9.0
    assert len(first["errors"]["worst"]) == 2 and len(first["utterances"]) == 3
    worst = first["errors"]["worst"][0]
    assert worst["errors"] == max(each["errors"] for each in first["utterances"])
    assert " ".join(said for said, _ in worst["words"] if said) == "one two"

    assert main.main([*arguments, "--errors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, source in zip(lines[:2], sources, strict=True):
        assert line.startswith(f"{source}: WER ")
    expected = f"all 2: WER {100 * found['wer_mean']:.2f} % as the mean of the sets, "
    assert lines[2].startswith(expected)
    assert sum(line.startswith("  transcript ") for line in lines) >= 6
    assert "commonest substitutions" in lines or "commonest deletions" in lines

    assert main.main([*arguments, "--format", "markdown"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        f"| {sources[0]}", f"| {sources[1]}", "| mean of the sets", "| all words",
    ]  # fmt: skip
    assert main.main([*arguments, str(folder / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_evaluate_by_the_leaderboards_rules(folder, capsys, monkeypatch):
    arguments = ["evaluate", str(folder / "model"), str(folder / "um.jsonl"), "--json"]
    text = (folder / "all.jsonl").read_text().replace("one two", "uh-huh.", 1)
    (folder / "um.jsonl").write_text(text.replace("one two", "It's the B B C"))
    assert main.main([*arguments, "--normaliser", "leaderboard"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["not_scored"] == 1 and "errors" not in found
    assert [each["reference_words"] for each in found["utterances"]] == [None, 4, 4]
    monkeypatch.setitem(sys.modules, "kaldialign", None)
    assert main.main([*arguments, "--normalizer", "leaderboard"]) == 2
    assert "pip install whisper-normalizer kaldialign" in capsys.readouterr().err


def test_evaluation_of_an_rnnt_takes_frames_and_labels():
    items = [Utterance(str(i), noise(1 + i / 2, i), "one") for i in range(3)]
    items.append(Utterance("bad", np.full(100, np.nan), "one"))
    recogniser = make_recogniser(durations=None, blank_bias=6.5)  # never 10 labels at a frame
    result = evaluate(recogniser, items)
    for each in result.results:
        assert each.num_steps == each.num_frames + each.num_labels
    assert any(each.num_labels for each in result.results)
    assert result.steps_per_second == result.rnnt_steps_per_second
    assert result.failed.keys() == {"bad"} and len(result.results) == 3
    assert np.isfinite(result.rtfx) and "WER" in result.summary()


def test_a_folder_goes_into_a_folder_and_goes_on_where_it_stopped(folder, tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    for i, name in enumerate(("a.wav", "b.flac", "deep/a.wav")):
        soundfile.write(source / name, noise(1.0 + i, i), 16000)
    (source / "notes.txt").write_text("not audio")
    (source / "bad.wav").write_text("not audio")
    arguments = ["transcribe", str(folder / "model"), str(source), "-o", str(target), "-f", "all"]
    assert main.main(arguments) == 1
    captured = capsys.readouterr()
    assert "bad.wav" in captured.err and "1 of 4" in captured.err and captured.out == ""
    made = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert made == {f"{n}.{f}" for n in ("a", "b", "deep/a") for f in FORMATS}
    (expected,) = tdt.transcribe(make_recogniser(), [source / "b.flac"])
    assert (target / "b.txt").read_text() == expected.text + "\n"
    before = {path: path.stat().st_mtime_ns for path in target.rglob("a.*")}
    (target / "b.srt").unlink()
    (source / "bad.wav").unlink()
    assert main.main(arguments) == 0
    assert "2 of 3 are there already" in capsys.readouterr().err
    assert (target / "b.srt").exists()
    assert before == {path: path.stat().st_mtime_ns for path in target.rglob("a.*")}
    assert main.main(arguments) == 0 and main.main([*arguments, "--overwrite"]) == 0
    assert before != {path: path.stat().st_mtime_ns for path in target.rglob("a.*")}


def test_standard_input_is_a_file(folder, capsys, monkeypatch):
    data = io.BytesIO((folder / "0.wav").read_bytes())
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=data))
    assert main.main(["transcribe", str(folder / "model"), "-"]) == 0
    assert main.main(["transcribe", str(folder / "model"), str(folder / "0.wav")]) == 0
    piped, named = capsys.readouterr().out.splitlines()
    assert piped == named


def test_listen_takes_a_pipe(folder, capsys, monkeypatch):
    data = io.BytesIO((folder / "0.wav").read_bytes())
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=data))
    assert main.main(["listen", str(folder / "model"), "-", "--chunk", "0.8"]) == 0
    stream = tdt.Stream(make_recogniser(), chunk=0.8)
    stream.push(soundfile.read(folder / "0.wav", dtype="float32")[0])
    stream.finish()
    assert capsys.readouterr().out.split() == stream.text.split() != []
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(b"fLaC" * 99)))
    assert main.main(["listen", str(folder / "model"), "-"]) == 2
    assert main.main(["listen", str(folder / "model"), "a.wav"]) == 2
    assert "the source is - " in capsys.readouterr().err


def test_options_arrive(folder, monkeypatch):
    """Every option of transcribe and listen is passed on."""
    calls = {}

    def catch(name):
        return lambda *arguments, **options: calls.__setitem__(name, (arguments, options)) or 0

    monkeypatch.setattr("tdt_jax.cli.job.run", catch("run"))
    monkeypatch.setattr("tdt_jax.cli.listen.listen", catch("listen"))
    arguments = "--max-chars 30 --max-lines 1 --max-seconds 5 --max-gap 0.5 --highlight-words "
    arguments += "--batch-seconds 7 --piece-seconds 9 --decoder transducer --format srt "
    arguments += "--max-wide-chars 12 --keep-tags"
    model, file = str(folder / "model"), str(folder / "0.wav")
    out = ["-o", str(folder / "named"), "--name", "{stem}.{suffix}"]
    assert main.main(["transcribe", model, file, *arguments.split(), *out]) == 0
    (_, sources, output), options = calls["run"]
    assert [source.name for source in sources] == [file]
    assert output.rules == SubtitleRules(
        max_chars=30, max_lines=1, max_seconds=5, max_gap=0.5, max_wide_chars=12
    )
    assert output.highlight_words and output.formats == ("srt",)
    assert output.paths(sources[0])["srt"] == folder / "named" / "0.wav.srt"
    names = "batch_seconds", "piece_seconds", "decoder", "keep_tags"
    passed = {key: options[key] for key in names}
    assert passed == dict(batch_seconds=7, piece_seconds=9, decoder="transducer", keep_tags=True)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(b"")))
    sizes = ["--chunk", "0.8", "--left", "3", "--right", "0.4", "--keep-tags"]
    assert main.main(["listen", model, "-", *sizes]) == 0
    assert calls["listen"][1] == dict(columns=0, chunk=0.8, left=3.0, right=0.4, keep_tags=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokenPipeError(), MemoryError("58 TiB")])
def test_exit_codes(folder, monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tdt_jax.cli.job.run", fail)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    code = main.main(["transcribe", str(folder / "model"), str(folder / "0.wav")])
    assert code == {KeyboardInterrupt: 130, BrokenPipeError: 141, MemoryError: 2}[type(error)]


def test_nothing_evaluated_is_no_perfect_score(folder, capsys):
    text = (folder / "all.jsonl").read_text().replace(".wav", ".gone")
    (folder / "gone.jsonl").write_text(text)
    assert main.main(["evaluate", str(folder / "model"), str(folder / "gone.jsonl")]) == 1
    assert "nothing was evaluated: 3 utt" in capsys.readouterr().out
    assert main.main(["evaluate", str(folder / "model"), str(folder / "gone.jsonl"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["wer"] is None


def test_warmup_names_each_shape(folder, capsys):
    assert main.main(["warmup", str(folder / "model"), "--batch-seconds", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["1", "2", "1", "1", "1", "1"]
    assert "compiled in" in lines[-1]


def test_benchmark_decode_compares_and_draws(folder, tmp_path, capsys):
    tdt.save(make_recogniser(durations=None), tmp_path / "rnnt")
    models, manifest = [str(folder / "model"), str(tmp_path / "rnnt")], str(folder / "all.jsonl")
    plot = tmp_path / "decode.png"
    arguments = ["--silence", "0,0.5", "--repeats", "1", "--plot", str(plot), "--json"]
    assert main.main(["benchmark", "decode", *models, manifest, *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["share"] for row in rows] == [0.0, 0.5]
    assert rows[1]["audio_seconds"] == pytest.approx(2 * rows[0]["audio_seconds"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    for wrong, message in (
        ([*models[::-1], manifest], "the first model must be a TDT"),
        (models, "takes TDT RNNT MANIFEST, or none of them"),
        (["--case", "9b"], "no case '9b'"),
    ):
        assert main.main(["benchmark", "decode", *wrong]) == 2
        assert message in capsys.readouterr().err


def test_convert_there_and_back(folder, tmp_path, capsys):
    """A hybrid to NeMo and back; to transformers only without its CTC head."""
    source, archive, native = str(folder / "model"), tmp_path / "a" / "m.nemo", tmp_path / "native"
    assert main.main(["convert", source, str(archive), "--to", "nemo"]) == 0
    assert main.main(["convert", str(archive), str(native), "--to", "jax"]) == 0
    one, other = tdt.load(source), tdt.load(native)
    assert one.config.durations == other.config.durations and other.config.ctc
    for left, right in zip(jax.tree.leaves(one.model), jax.tree.leaves(other.model), strict=True):
        np.testing.assert_array_equal(left, right)
    capsys.readouterr()
    for arguments, message in (
        ([source, str(native), "--to", "nemo"], "exists already"),
        ([source, str(tmp_path / "hf"), "--to", "hf"], "CTC head"),
        ([source, str(tmp_path), "--to", "nemo"], "exists already"),
        (["nowhere", str(tmp_path / "x"), "--to", "hf"], "no file, folder or repository"),
    ):
        assert main.main(["convert", *arguments]) == 2
        assert message in capsys.readouterr().err
    hybrid = str(GOLDEN / "parakeet_hybrid.nemo")
    assert main.main(["convert", hybrid, str(tmp_path / "hf"), "--to", "hf", "--drop-ctc"]) == 2
    assert "another width" in capsys.readouterr().err and not (tmp_path / "hf").exists()


def test_a_parakeet_transcribes_with_either_decoder(folder, capsys):
    model = str(GOLDEN / "parakeet_hybrid.nemo")
    said = []
    for options in ([], ["--decoder", "ctc"], ["--dtype", "bfloat16"],
                    ["--local-attention", "2,2"]):  # fmt: skip
        assert main.main(["transcribe", *options, model, str(folder / "0.wav")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] != said[1] != said[3] != said[0]
    assert said[2].strip()
    assert main.main(["transcribe", "--decoder", "ctc", str(folder / "model"), "x.wav"]) == 1
    for options in (["--local-attention", "2"], ["--decoder", "beam"]):
        with pytest.raises(SystemExit):
            main.main(["transcribe", *options, model, str(folder / "0.wav")])
    rnnt = str(GOLDEN / "parakeet_rnnt")
    capsys.readouterr()
    assert main.main(["transcribe", "--decoder", "ctc", rnnt, str(folder / "0.wav")]) == 2
    assert "it has transducer" in capsys.readouterr().err
