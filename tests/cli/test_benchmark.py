"""tdt-jax benchmark: its options and output; tests/benchmarks has what is measured."""

import json
import types

import pytest
from paths import ROOT

import tdt_jax as tdt
from tdt_jax.benchmarks import cases, device
from tdt_jax.benchmarks.report import Report
from tdt_jax.cli import main

REPORT = Report([{"seconds": 1.5}, {"seconds": 2.5}], "a table")


@pytest.fixture
def calls(monkeypatch):
    """The arguments of every benchmark, none of which measures anything."""
    calls = []

    def replace(name, result):
        def benchmark(*arguments, **options):
            calls.append((name, arguments, options))
            return result

        monkeypatch.setattr(f"tdt_jax.benchmarks.{name}", benchmark)

    for name in ("loss.loss_reports", "encoder.encoder_reports", "decoder.decoder_reports",
                 "data.data_reports", "encoder_aot.encoder_aot_reports",
                 "decoder_aot.decoder_aot_reports", "long_form.long_form_reports"):  # fmt: skip
        replace(name, [REPORT])
    for name in ("loss_aot.loss_aot_report", "parity.parity_report", "train_step.train_report",
                 "silence.compare"):  # fmt: skip
        replace(name, REPORT)
    replace("peers.require_peers", None)
    return calls


def run(*arguments):
    return main.main(["benchmark", *map(str, arguments)])


def test_a_report_is_a_table_or_a_json_object_for_each_row(calls, capsys):
    assert run("loss", "--case", "small") == 0
    assert capsys.readouterr().out == "a table\n"
    assert run("loss", "--case", "small", "--json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == REPORT.rows


def test_options_of_the_loss_arrive(calls, capsys):
    assert run("loss", "--case", "v2", "--batch", 3, "--repeats", 2, "--peers") == 0
    assert run("loss", "--dtype", "bfloat16") == 0
    assert run("loss", "--case", "v3", "--aot", "v5e:2x2") == 0
    one, several, estimates = calls
    assert one[1:] == (
        ([cases.CASES["v2"]._replace(batch=3)],),
        dict(dtype="float32", repeats=2, peers=True),
    )
    assert several[1:] == (
        ([*cases.CASES.values()],),
        dict(dtype="bfloat16", repeats=5, peers=False),
    )
    assert estimates[1:] == ((cases.CASES["v3"],), dict(dtype="float32", target="v5e:2x2"))
    assert run("loss", "--aot", "v5e:2x2", "--peers") == 2
    assert "--aot runs nothing: it does not go with --peers" in capsys.readouterr().err


def test_options_of_the_encoder_arrive(calls):
    assert run("encoder") == 0
    options = "--seconds 2 --batch 3 --dtype bfloat16 --repeats 4 --local-attention 5,6 --peers"
    assert run("encoder", "--case", "110m", "--case", "1.1b", *options.split()) == 0
    assert run("encoder", "--aot", "h100", "--seconds", 2) == 0
    default, chosen, estimates = calls
    assert estimates[1:] == (
        (["0.6b"],),
        dict(seconds=2.0, batch=1, dtype="float32", attention_context=None, target="h100"),
    )
    assert default[1:] == (
        (["0.6b"],),
        dict(seconds=30.0, batch=1, dtype="float32", repeats=5, attention_context=None,
             peers=False),
    )  # fmt: skip
    assert chosen[1:] == (
        (["110m", "1.1b"],),
        dict(seconds=2.0, batch=3, dtype="bfloat16", repeats=4, attention_context=(5, 6),
             peers=True),
    )  # fmt: skip


def test_options_of_the_decoder_arrive(calls, capsys):
    assert run("decode") == 0
    options = "--case 0.6b --batch 2 --batch 3 --seconds 4 --repeats 6 --peers"
    assert run("decode", *options.split()) == 0
    assert run("decode", "--case", "0.6b", "--batch", 2, "--aot", "h100") == 0
    default, chosen, estimates = calls
    assert estimates[1:] == (
        (["0.6b"],), dict(batches=[2], seconds=60.0, dtype="bfloat16", target="h100")
    )  # fmt: skip
    assert run("decode", "--dtype", "bfloat16") == 2
    assert "--dtype is an option of --aot" in capsys.readouterr().err
    assert default[1:] == (
        (["0.6b", "0.6b-v2", "rnnt-0.6b"],),
        dict(batches=(1, 4, 32), seconds=60.0, repeats=5, peers=False),
    )
    expected = dict(batches=[2, 3], seconds=4.0, repeats=6, peers=True)
    assert chosen[1:] == ((["0.6b"],), expected)


def test_two_checkpoints_are_compared_and_drawn(calls, loads, folder, tmp_path, monkeypatch):
    drawn, plot = [], tmp_path / "decode.png"

    def draw(rows):
        drawn.append(rows)
        save = types.SimpleNamespace(savefig=lambda path, dpi: drawn.append(path))
        return [types.SimpleNamespace(figure=save)]

    monkeypatch.setattr("tdt_jax.benchmarks.silence.plot", draw)
    options = "--silence 0,0.5 --repeats 1 --batch 2 --json --plot".split()
    assert run("decode", "TDT", "RNNT", folder / "all.jsonl", *options, plot) == 0
    ((_, (_, _, items), options),) = calls
    assert [source for source, _ in loads.calls] == ["TDT", "RNNT"]
    assert [item.text for item in items] == ["one two"] * 3
    assert options == dict(shares=(0.0, 0.5), batch_size=2, repeats=1, failed={})
    assert drawn == [REPORT.rows, str(plot)]


def test_what_cannot_be_compared_is_named(loads, folder, tmp_path, capsys):
    manifest = str(folder / "all.jsonl")
    for wrong, message in (
        (["TDT", "TDT", manifest], "the second an RNN-T, got a TDT and a TDT model"),
        (["TDT", "RNNT"], "takes TDT RNNT MANIFEST, or none of them"),
        (["TDT", "RNNT", manifest, "--peers"], "go with neither --case nor --peers"),
        (["TDT", "RNNT", manifest, "--aot", "h100"], "nor --aot, and with one --batch"),
        (["TDT", "RNNT", manifest, "--plot", tmp_path / "no" / "x.png"], "there is no folder for"),
        (["--case", "9b"], "no case '9b'"),
    ):
        assert run("decode", *wrong) == 2
        assert message in capsys.readouterr().err


def test_options_of_long_audio_arrive(calls, loads, folder):
    options = "--minutes 1,2 --gap 3 --lead 4 --near-silence 5 --right 6 --piece-seconds 7"
    assert run("long", "MODEL", folder / "all.jsonl", *options.split(), "--normaliser=whisper") == 0
    assert run("long", "MODEL", folder / "all.jsonl", "--right", "", "--normalizer=whisper") == 0
    chosen, default = (options for _, _, options in calls)
    assert chosen == dict(
        minutes=(1.0, 2.0), gaps=(3.0,), leads=(4.0,), near_silence=(5.0,), rights=(6.0,),
        piece_seconds=7.0, normalizer="whisper", failed={},
    )  # fmt: skip
    assert default == dict(
        minutes=(1.0, 10.0, 60.0), gaps=(0.0, 0.5), leads=(0.5, 1.0, 2.0), near_silence=(2.0,),
        rights=(), piece_seconds=None, normalizer="whisper", failed={},
    )  # fmt: skip


def test_options_of_parity_arrive(calls):
    assert run("parity", "--case", "110m", "--utterances", 3) == 0
    assert calls[1][1:] == (("110m", cases.MODELS["110m"]), dict(num_utterances=3))


def test_options_of_data_arrive(calls):
    config = str(ROOT / "configs" / "manifest.py")
    options = "--set data.train=x.jsonl --threads 2 --threads 3 --seconds 4".split()
    assert run("data", "--config", config, *options) == 0
    ((_, (config,), options),) = calls
    assert config.data.train == ("x.jsonl",)
    assert options == dict(threads=[2, 3], seconds=4.0)


def test_options_of_training_arrive(calls, capsys):
    assert run("train") == 0
    config = str(ROOT / "tests" / "support" / "run_config.py")
    assert run("train", "--config", config, "--set", "model.joint.width=20", "--repeats", 2) == 0
    assert run("train", "--case", "micro", "--batch", "1.5,2,3") == 0
    small, medium, own, micro = (arguments + tuple(x.values()) for _, arguments, x in calls)
    assert small == ("small", tdt.Config(model=tdt.presets.SMALL), (15.0, 60, 4), 3)
    assert medium[0] == "medium" and micro[2:] == ((1.5, 2, 3), 3)
    assert own[0] == config and own[1].model.joint.width == 20 and own[2:] == (None, 2)
    assert run("train", "--case", "huge") == 2
    assert "no case 'huge'; there are micro" in capsys.readouterr().err
    assert run("train", "--batch", "1,2") == 2
    assert "a batch must be SECONDS,TOKENS,ROWS" in capsys.readouterr().err


def test_missing_peers_are_named(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in (["encoder", "--peers"], ["decode", "--peers"], ["loss", "--peers"], ["parity"]):
        assert run(*command) == 2
        assert "--peers needs torch and transformers (pip install)" in capsys.readouterr().err


def test_unknown_cases_are_named(capsys, monkeypatch):
    monkeypatch.setattr("tdt_jax.benchmarks.peers.require_peers", lambda: None)
    for kind, names in (("loss", "small, v2"), ("encoder", "110m, 0.6b"), ("parity", "110m")):
        assert run(kind, "--case", "huge") == 2
        assert f"no case 'huge'; there are {names}" in capsys.readouterr().err


def test_an_unknown_chip_is_named(capsys):
    assert run("loss", "--case", "small", "--aot", "v99:2x2") == 2
    assert "'v99:2x2' is none of v4, v5e" in capsys.readouterr().err


def test_stages_of_a_device_that_failed_are_named(monkeypatch, capsys):
    ends = [
        {"stage": stage, "case": device.END, "how": how}
        for stage, how in (("loss", device.COMPLETED), ("encoder", "cut off after 75 s"))
    ]
    monkeypatch.setattr(device, "run_stages", lambda *_, **__: Report(ends, "a table"))
    assert run("device") == 1
    captured = capsys.readouterr()
    assert captured.out == "a table\n" and "encoder: cut off after 75 s" in captured.err
    assert "loss" not in captured.err
    ends.pop()
    assert run("device", "--tiny") == 0
