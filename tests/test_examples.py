"""The programs in examples/ do what they say."""

import asyncio
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
import types

import jax
import models
import numpy as np
import pytest
import soundfile
from paths import ROOT

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers

PROGRAMS = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
NEEDS = {"pipecat_stt": "pipecat", "ray_serve": "ray"}
TEXTS = ["one two three", "two", "three one"]
SECONDS = [1.5, 0.5, 1.0]


def program(name: str):
    """Returns a program of examples/ as a module."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"needs {NEEDS[name]}, as its docstring says")
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def promotion():
    """JAX promotes types and ranks as in a user's program, not as in the other tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved recogniser (untrained) and a manifest of three recordings."""
    path = tmp_path_factory.mktemp("examples")
    tokenizer = tokenizers.Characters("".join(sorted(set("".join(TEXTS)))))
    predictor = tdt.PredictorConfig(width=8)
    config = models.config(vocab_size=tokenizer.vocab_size, max_symbols=2, predictor=predictor)
    tdt.save(tdt.Recogniser(models.transducer(config), tokenizer), path / "model")
    rng, lines = np.random.default_rng(0), []
    for i, (seconds, text) in enumerate(zip(SECONDS, TEXTS, strict=True)):
        samples = 0.1 * rng.normal(size=round(16000 * seconds))
        soundfile.write(path / f"{i}.wav", samples, 16000)
        lines.append({"audio_filepath": f"{i}.wav", "duration": seconds, "text": text})
    (path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def recogniser(folder):
    return tdt.load(folder / "model")


def test_all_programs_are_tested():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(PROGRAMS) - {"pipecat_stt"} < tested  # which tests/programs/test_pipecat.py tests


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_says_how_to_run_it(name, capsys):
    module = program(name)
    assert f"\n    python examples/{name}.py " in module.__doc__
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.count(module.__doc__.partition("\n")[0][:40]) == 1
    used = set(re.findall(r" (--[a-z]+)", module.__doc__))
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert all(f'"{option}"' in source for option in used - {"--config", "--below"})


@pytest.mark.parametrize("name", ["align", "stream", "check_transcripts"])
def test_a_missing_file_is_named_in_a_line(name, folder, monkeypatch):
    path = str(ROOT / "examples" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, str(folder / "model"), str(folder / "nothing.wav")])
    with pytest.raises(SystemExit, match=r"^error: no (audio file|manifest) at .*nothing\.wav$"):
        runpy.run_path(path, run_name="__main__")


def test_transcribe_words(folder, recogniser, capsys):
    files = [str(folder / "0.wav"), str(folder / "gone.wav"), str(folder / "2.wav")]
    assert program("transcribe_words").main([str(folder / "model"), *files]) == 1
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()[1:]]
    expected = [each.words for each in tdt.transcribe(recogniser, files[::2])]
    assert [row[0] for row in rows] == [files[0]] * len(expected[0]) + [files[2]] * len(expected[1])
    assert [row[4] for row in rows] == [word.text for words in expected for word in words] != []
    assert "gone.wav" in captured.err


def test_stream(folder, capsys):
    arguments = [str(folder / "model"), str(folder / "0.wav"), "--fast", "--right", "0.4"]
    program("stream").main(arguments)
    *words, text = capsys.readouterr().out.splitlines()
    assert words and text
    assert "".join(line.split(maxsplit=4)[4] for line in words) == text.replace(" ", "")


@pytest.mark.slow
def test_run_stablehlo(folder, recogniser, tmp_path):
    """In a process that finds no tdt_jax; it prints what `transcribe` returns."""
    tdt.export(recogniser, tmp_path / "out")
    (tmp_path / "tdt_jax.py").write_text("raise ImportError('no tdt_jax here')")
    files = [str(folder / f"{n}.wav") for n in (0, 2)]
    command = [sys.executable, "examples/run_stablehlo.py", str(tmp_path / "out"), *files]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    output = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    transcripts = tdt.transcribe(recogniser, files)
    assert output.splitlines() == [
        f"{path}: {each.text}" for path, each in zip(files, transcripts, strict=True)
    ]
    assert all(each.text for each in transcripts)


def test_align(folder, capsys):
    assert program("align").main([str(folder / "model"), str(folder / "all.jsonl")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[4] for row in rows] == " ".join(TEXTS).split()
    for row in rows:
        start, length, probability = float(row[2]), float(row[3]), float(row[5])
        assert start >= 0 and length > 0 and 0 < probability <= 1
        assert start + length <= max(SECONDS) + 0.08
    assert float(rows[0][2]) < float(rows[1][2]) < float(rows[2][2])


def test_check_transcripts(folder, capsys):
    options = ["--num", "2", "--batch", "2", "--seconds", "2"]
    program("check_transcripts").main([str(folder / "model"), str(folder / "all.jsonl"), *options])
    *rows, summary = capsys.readouterr().out.splitlines()
    losses = [float(row.split("\t")[0]) for row in rows]
    assert len(rows) == 2 and losses == sorted(losses, reverse=True)
    assert summary.startswith("checked 3 of 3 utterances; mean ")
    assert losses[0] >= float(summary.split()[-1]) > 0


def test_ray_serve(folder, monkeypatch):
    """What Ray is given; a replica is ready when all is compiled, and fails with its device."""
    module = program("ray_serve")
    found = {}
    monkeypatch.setattr(module, "Engine", lambda *arguments: arguments)
    monkeypatch.setattr(module, "create_app", lambda engine, settings: (engine, settings))

    def ingress(make_app):
        found["app"] = make_app()
        return lambda cls: cls

    def deployment(**options):
        found.update(options)
        return lambda cls: types.SimpleNamespace(bind=lambda: cls)

    monkeypatch.setattr(module.serve, "ingress", ingress)
    monkeypatch.setattr(module.serve, "deployment", deployment)
    settings = module.Settings(streams=3, max_requests=5)
    model = str(folder / "model")
    replica = module.application(model, settings, replicas=(2, 3), num_gpus=1)()
    assert found["app"][1] is settings and found["max_ongoing_requests"] == 8
    assert found["autoscaling_config"]["min_replicas"] == 2
    assert found["ray_actor_options"]["num_gpus"] == 1
    engine = types.SimpleNamespace(is_ready=True, failure="")
    service = types.SimpleNamespace(engine=engine)
    replica.app = types.SimpleNamespace(state=types.SimpleNamespace(service=service))
    asyncio.run(replica.check_health())
    engine.is_ready, engine.failure = False, "RuntimeError"
    with pytest.raises(RuntimeError, match="the device has failed"):
        asyncio.run(replica.check_health())


def losses_of(output: str) -> list[float]:
    """Returns the losses that a training program reports."""
    return [float(value) for value in re.findall(r"loss (\S+) per label", output)]


@pytest.mark.slow
def test_fine_tune(folder, recogniser, tmp_path, capsys):
    options = ["--steps", "3", "--batch", "2", "--rate", "0.01", "--seconds", "2"]
    arguments = [str(folder / "model"), str(folder / "all.jsonl"), str(tmp_path / "new"), *options]
    program("fine_tune").main(arguments)
    first, last = losses_of(capsys.readouterr().out)
    assert last < first
    before, after = recogniser.model, tdt.load(tmp_path / "new").model
    for part, is_fixed in (("encoder", True), ("predictor", False), ("joint", False)):
        leaves = [jax.tree.leaves(getattr(model, part)) for model in (before, after)]
        assert all(map(np.array_equal, *leaves)) == is_fixed, part


@pytest.mark.slow
def test_own_network(folder, capsys):
    options = ["--steps", "4", "--batch", "2", "--width", "8", "--blocks", "1", "--seconds", "2"]
    program("own_network").main([str(folder / "all.jsonl"), *options])
    output = capsys.readouterr().out
    first, last = losses_of(output)
    assert last < first
    assert re.findall(r"^reference   (.*)$", output, re.M) == TEXTS
    assert len(re.findall(r"^transcript ", output, re.M)) == 3


@pytest.fixture
def box(monkeypatch):
    """Returns a program of examples/box/ as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "box"))
    yield importlib.import_module
    for name in ("texts", "evaluate"):
        sys.modules.pop(name, None)


def test_texts_of_the_corpus(box):
    texts = box("texts")

    def draws(seed):
        rng = np.random.default_rng(seed)
        return [texts.draw(rng) for _ in range(300)]

    assert draws(1) == draws(1) != draws(2)
    kinds, words = zip(*draws(1), strict=True)
    assert set(kinds) == set(texts.KINDS)
    assert all(re.fullmatch(r"[a-z']+", word) for each in words for word in each)
    assert max(map(len, words)) <= texts.MAX_WORDS and len({*map(tuple, words)}) > 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Twenty fifteen.", "2 0 1 5"),
        ("2015", "2 0 1 5"),
        ("double three", "3 3"),
        ("$3.50", "3 dollar 5 0 cent"),
        ("three dollars and fifty cents", "3 dollar 5 0 cent"),
        ("KV 7", "k v 7"),
        ("the 21st", "the 2 1 th"),
        ("twenty first", "2 1 th"),
        ("two thousand one hundred five", "2 1 0 5"),
        ("2,105", "2 1 0 5"),
        ("eight hundred five five five", "8 0 0 5 5 5"),
    ],
)
def test_systems_that_write_numbers_differently_are_compared(box, text, expected):
    assert box("evaluate").normalized(text) == expected
