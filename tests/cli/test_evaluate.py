"""tdt-jax evaluate and warmup: rates, tables, JSON, and what is not counted."""

import io
import json
import sys

import numpy as np
import pytest
import soundfile
from models import make_recogniser, noise

from tdt_jax.cli import main
from tdt_jax.data.utterance import Utterance
from tdt_jax.inference.evaluation import evaluate


def test_errors_steps_and_speed_are_reported(loads, folder, capsys):
    arguments = ["evaluate", "MODEL", str(folder / "all.jsonl")]
    assert main.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["audio_seconds"] == 4.5 and len(result["utterances"]) == 3
    assert result["words"]["reference_length"] == 6
    steps = sum(each["decoder_steps"] for each in result["utterances"])
    assert result["decoder_steps_per_second"] == pytest.approx(steps / 4.5)
    assert result["rtfx"] > 0 and result["compile_seconds"] >= 0
    assert main.main(arguments) == 0
    assert f"WER {100 * result['wer']:.2f} %" in capsys.readouterr().out


def test_a_dataset_and_bleu(loads, folder, tmp_path, capsys):
    data = tmp_path / "data"
    assert main.main(["prepare", "manifest", f"{folder}/all.jsonl", str(data), "--split", "a"]) == 0
    capsys.readouterr()
    rows = []
    for source in (f"{data}:a", str(folder / "all.jsonl")):
        assert main.main(["evaluate", "MODEL", source, "--bleu", "--json"]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    assert rows[0]["utterances"] == rows[1]["utterances"] and len(rows[0]["utterances"]) == 3
    assert rows[0]["bleu"] == rows[1]["bleu"] >= 0 and "tok:13a" in rows[0]["bleu_signature"]
    assert main.main(["evaluate", "MODEL", f"{data}:a", "--bleu"]) == 0
    assert capsys.readouterr().out.startswith("BLEU 0.00 (")
    assert main.main(["evaluate", "MODEL", f"{data}:a", "--json", "--keys", "speech,id"]) == 0
    utterances = json.loads(capsys.readouterr().out)["utterances"]
    assert [each["reference"] for each in utterances] == [each["id"] for each in utterances]
    assert main.main(["evaluate", "MODEL", f"{data}:a", "--keys", "speech,words"]) == 2
    assert "'words'" in capsys.readouterr().err
    assert main.main(["evaluate", "MODEL", f"{data}:b"]) == 2
    assert "has no split 'b'; there are a" in capsys.readouterr().err
    items = [Utterance("a", noise(1.0, 0), "one two")]
    assert evaluate(loads.recogniser, items).bleu is None


def test_a_result_is_not_lost_to_an_encoding(loads, folder, monkeypatch, capsysbinary):
    """Of the terminal, of a text in another form of Unicode, or of a file name's odd bytes."""
    lines = [
        {"audio_filepath": "0.wav", "duration": 1.0, "text": "gru\u0308n łódź"},
        {"audio_filepath": "\udcff.wav", "duration": 1.0, "text": "one"},
    ]
    (folder / "odd.jsonl").write_text("\n".join(map(json.dumps, lines)))
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", output)
    assert main.main(["evaluate", "MODEL", str(folder / "odd.jsonl"), "--json"]) == 1
    result = json.loads(output.buffer.getvalue().decode("utf-8"))
    assert [each["reference"] for each in result["utterances"]] == ["grün łódź"]
    (why,) = result["failed"].values()
    assert why.endswith("\ufffd.wav")
    assert b"\xff.wav" in capsysbinary.readouterr().err


def test_what_could_not_be_read_is_counted(loads, folder, capsys):
    assert main.main(["evaluate", "MODEL", str(folder / "bad.jsonl")]) == 1
    captured = capsys.readouterr()
    assert "gone.wav" in captured.err and "2 utterances" in captured.out


def test_warnings_about_a_recording_are_shown(loads, folder, capsys):
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    line = {"audio_filepath": "silent.wav", "duration": 1.0, "text": ""}
    (folder / "silent.jsonl").write_text(json.dumps(line))
    assert main.main(["evaluate", "MODEL", str(folder / "silent.jsonl")]) == 0
    assert capsys.readouterr().err == f"tdt-jax: no sound in {folder}/silent.wav\n"


def test_texts_are_normalized(loads, folder, capsys):
    text = (folder / "all.jsonl").read_text().replace("one two", "Um.", 1)
    (folder / "um.jsonl").write_text(text.replace("one two", "It's one."))
    arguments = ["evaluate", "MODEL", str(folder / "um.jsonl"), "--json"]
    assert main.main([*arguments, "--normalizer", "whisper"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["not_scored"] == 1
    each = result["utterances"]
    assert sorted(e["reference_words"] or 0 for e in each) == [0, 3, 3]
    assert sum(e["errors"] or 0 for e in each) == result["words"]["errors"]
    low, high = result["wer_interval"]
    assert low <= result["wer"] <= high


def test_several_manifests(loads, folder, capsys):
    """Each by itself, their mean and all words together, in three forms."""
    text = (folder / "all.jsonl").read_text().replace("one two", "three")
    (folder / "three.jsonl").write_text(text)
    sources = [str(folder / "all.jsonl"), str(folder / "three.jsonl")]
    arguments = ["evaluate", "MODEL", *sources]
    assert main.main([*arguments, "--json", "--errors", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    first, second = result["sets"]
    assert [first["source"], second["source"]] == sources
    assert result["wer_mean"] == pytest.approx((first["wer"] + second["wer"]) / 2)
    wrong = first["words"]["errors"] + second["words"]["errors"]
    assert result["wer_pooled"] == wrong / 9 and result["audio_seconds"] == 9.0
    assert len(first["errors"]["worst"]) == 2 and len(first["utterances"]) == 3
    worst = first["errors"]["worst"][0]
    assert worst["errors"] == max(each["errors"] for each in first["utterances"])
    assert " ".join(word for word, _ in worst["words"] if word) == "one two"

    assert main.main([*arguments, "--errors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, source in zip(lines[:2], sources, strict=True):
        assert line.startswith(f"{source}: WER ")
    expected = f"all 2: WER {100 * result['wer_mean']:.2f} % as the mean of the sets, "
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


def test_the_leaderboards_rules(loads, folder, capsys, monkeypatch):
    arguments = ["evaluate", "MODEL", str(folder / "um.jsonl"), "--json"]
    text = (folder / "all.jsonl").read_text().replace("one two", "uh-huh.", 1)
    (folder / "um.jsonl").write_text(text.replace("one two", "It's the B B C"))
    assert main.main([*arguments, "--normaliser", "leaderboard"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["not_scored"] == 1 and "errors" not in result
    assert [each["reference_words"] for each in result["utterances"]] == [None, 4, 4]
    monkeypatch.setitem(sys.modules, "kaldialign", None)
    assert main.main([*arguments, "--normalizer", "leaderboard"]) == 2
    assert "pip install whisper-normalizer kaldialign" in capsys.readouterr().err


def test_a_model_is_evaluated(saved, random_recogniser, folder, capsys):
    """With the model itself."""
    assert main.main(["evaluate", str(saved), str(folder / "one.jsonl"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (expected,) = evaluate(
        random_recogniser, [Utterance("0.wav", noise(1.0, 0), "one two")]
    ).results
    (each,) = result["utterances"]
    assert each["text"] == expected.transcript.text and each["text"]
    assert each["decoder_steps"] == expected.num_steps > 0


@pytest.mark.slow
def test_an_rnnt_takes_a_step_for_each_frame_and_label():
    items = [Utterance(str(i), noise(1 + i / 2, i), "one") for i in range(3)]
    items.append(Utterance("bad", np.full(100, np.nan), "one"))
    # with a bias that makes it emit few labels, and never 10 at a frame
    recogniser = make_recogniser(durations=None, blank_bias=13.0, piece_seconds=2.56)
    result = evaluate(recogniser, items)
    for each in result.results:
        assert each.num_steps == each.num_frames + each.num_labels
    assert any(each.num_labels for each in result.results)
    assert result.steps_per_second == result.rnnt_steps_per_second
    assert result.failed.keys() == {"bad"} and len(result.results) == 3
    assert np.isfinite(result.rtfx) and "WER" in result.summary()


def test_nothing_evaluated_is_no_perfect_score(loads, folder, capsys):
    text = (folder / "all.jsonl").read_text().replace(".wav", ".gone")
    (folder / "gone.jsonl").write_text(text)
    assert main.main(["evaluate", "MODEL", str(folder / "gone.jsonl")]) == 1
    assert "nothing was evaluated: 3 utt" in capsys.readouterr().out
    assert main.main(["evaluate", "MODEL", str(folder / "gone.jsonl"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["wer"] is None


WARMUP = ["1", "2", "1", "1", "1", "1"]  # rows of the shapes, for batches of 6 s


def test_warmup_names_each_shape(loads, capsys):
    assert main.main(["warmup", "MODEL", "--batch-seconds", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == WARMUP
    assert "compiled in" in lines[-1]


@pytest.mark.slow
def test_warmup_compiles(saved, capsys):
    assert main.main(["warmup", str(saved), "--batch-seconds", "6"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]] == WARMUP
