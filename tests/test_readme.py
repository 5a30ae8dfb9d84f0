"""README, documentation and notebooks: Python blocks run, commands exist, links lead somewhere."""

import argparse
import importlib.util
import io
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import jax
import models
import numpy as np
import pytest
import soundfile
from flax import nnx
from IPython.core.inputtransformer2 import TransformerManager
from parakeet_files import NEMOTRON
from paths import ROOT
from tuned import make_adapter

import tdt_jax as tdt
from tdt_jax import config as configs
from tdt_jax import tokenizer as tokenizers
from tdt_jax.checkpoints.adapter import write_adapter
from tdt_jax.cli.main import make_parser
from tdt_jax.models.features import log_mel

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON_PAGES = [
    "README.md",
    "docs/api.md",
    "docs/finetuning.md",
    "docs/parakeet.md",
    "docs/streaming.md",
    "docs/transcribing.md",
]
RECORDINGS = ["a.wav", "b.m4a", "talk.mp3"]
RECOGNISERS = ["runs/quickstart", "nvidia/parakeet-tdt-0.6b-v3"]
ADAPTERS = ["runs/finetune", "legal"]  # of the last of these
PLACEHOLDERS = {"CONFIG": "configs/manifest.py", "I": "1", "N": "2"}
OTHER_PROGRAMS = {"cd", "ffmpeg", "mkdocs", "pre-commit", "."}
LANGUAGES = {"bash", "python", "json", "text"}  # of fenced blocks; the first two are checked
LONGEST_README = 150


def blocks(path: Path, language: str) -> list[tuple[int, str]]:
    """Returns (line, text) of each fenced block of a page that is of a language."""
    text = path.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    return [(text[: match.start(1)].count("\n") + 1, match[1]) for match in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_has_a_known_language(page):
    """No command or program escapes the tests below: none is fenced otherwise, none indented."""
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"^```(.*)\n(?:.*\n)*?```$", text, re.M)) <= LANGUAGES
    outside = re.sub(r"^```.*\n(?:.*\n)*?```$", "", text, flags=re.M)
    assert not re.findall(r"^(?: {4}|\t| *~~~| +```)", outside, re.M)


# Python


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the recordings and the (untrained) recognisers that the pages name."""
    path = tmp_path_factory.mktemp("pages")
    tokenizer = tokenizers.train_sentencepiece(["one two three", "four five six"], 24)
    encoder = models.encoder_config(convolution_norm="affine")
    config = models.config(encoder=encoder, vocab_size=tokenizer.vocab_size, ctc=True)
    recogniser = tdt.Recogniser(models.transducer(config), tokenizer)
    for name in RECOGNISERS:
        tdt.save(recogniser, path / name)
    tdt.save(recogniser, path / "model.nemo", format="nemo")
    for seed, name in enumerate(ADAPTERS):
        write_adapter(make_adapter(recogniser, path / RECOGNISERS[1], seed), path / name)
    tdt.save(models.causal_recogniser(), path / "runs/quickstart_streaming")
    shutil.copytree(NEMOTRON, path / "nvidia/nemotron-3.5-asr-streaming-0.6b")
    samples = (0.1 * np.random.default_rng(0).normal(size=16000)).astype(np.float32)
    wav = io.BytesIO()
    soundfile.write(wav, samples, 16000, format="WAV")
    for name in RECORDINGS:
        (path / name).write_bytes(wav.getvalue())
    return path


def built_quickly(config, *, rngs, transducer=tdt.Transducer):
    """A `tdt.Transducer` whose initialisation compiles nothing."""
    assert isinstance(rngs, nnx.Rngs)
    return models.build(lambda: transducer(config, rngs=nnx.Rngs(0)))


def test_the_recognisers_that_pages_name_load(folder):
    for name in [*RECOGNISERS, "model.nemo"]:
        assert tdt.load(folder / name).tokenizer.vocab_size == 24


def test_pages_with_python_are_known():
    found = [str(path.relative_to(ROOT)) for path in PAGES if blocks(path, "python")]
    assert sorted(found) == PYTHON_PAGES


@pytest.fixture(scope="module")
def namespaces():
    """For each page, the names that its blocks have defined, and how many have run."""
    return {page: ({}, 0) for page in PYTHON_PAGES}


@pytest.mark.parametrize(
    ("page", "index"),
    [
        pytest.param(page, i, marks=[pytest.mark.slow] if page.startswith("docs/") else [])
        for page in PYTHON_PAGES
        for i in range(len(blocks(ROOT / page, "python")))
    ],
)
@pytest.mark.filterwarnings("ignore:no sound in the array")
def test_python_runs(page, index, folder, namespaces, monkeypatch):
    """A block runs after those above it on its page, as a reader pastes them."""
    monkeypatch.chdir(folder)
    predictor, encoder = tdt.PredictorConfig(width=8), models.encoder_config(num_layers=1)
    tiny = models.config((0, 1, 2, 3, 4), encoder, predictor=predictor)
    monkeypatch.setattr(tdt.presets, "MICRO", tiny)
    monkeypatch.setattr(tdt, "Transducer", built_quickly)
    monkeypatch.setattr(tdt, "log_mel", jax.jit(log_mel, static_argnums=2))  # one program
    names, done = namespaces[page]
    for line, text in blocks(ROOT / page, "python")[done : index + 1]:
        code = "\n" * (line - 1) + text  # so that a traceback names the page's line
        exec(compile(code, page, "exec"), names)
    namespaces[page] = names, index + 1


# Commands


class Parsed(Exception):
    """What a program's parser made of its arguments."""


def commands(text: str) -> list[list[str]]:
    """Returns the simple commands of shell text, each as words, without redirections."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words, skipped = [], False
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;"):
                found += [words] if words else []
                words = []
            elif set(word) <= set("<>"):
                skipped = True
            elif skipped:
                skipped = False
            else:
                words.append(PLACEHOLDERS.get(word, word))
    return found


def check(words: list[str]) -> None:
    """Raises or fails unless a command is one that its program takes."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program = words[0]
    if program == "tdt-jax":
        check_tdt_jax(words[1:])
    elif words[:2] == ["python", "train.py"]:
        check_train(words[2:])
    elif program == "python" and words[1].startswith("examples/"):
        parsed_by(ROOT / words[1], words[2:])
    elif program in ("python", "pip"):
        check_set_up(words)
    elif program == "srun":
        check(words[words.index("python") :])
    elif program == "gcloud":
        for each in commands(words[words.index("--command") + 1]):
            check(each)
    else:
        assert program in OTHER_PROGRAMS, words


def check_tdt_jax(arguments: list[str]) -> None:
    try:
        options = make_parser().parse_args(arguments)
    except SystemExit:
        pytest.fail(f"tdt-jax does not take {shlex.join(arguments)}")
    if "overrides" in options:
        load_config(options)
    for each in arguments:
        if each.startswith("configs/"):
            configs.load(ROOT / each)


def check_train(arguments: list[str]) -> None:
    load_config(parsed_by(ROOT / "train.py", arguments))


def parsed_by(path: Path, arguments: list[str]) -> argparse.Namespace:
    """Returns what the parser of a program makes of its arguments, without running it."""
    if path.stem == "pipecat_stt":
        pytest.importorskip("pipecat", reason="needs Pipecat, as its docstring says")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    parse = argparse.ArgumentParser.parse_args

    def parsed(self, args=None, namespace=None):
        raise Parsed(parse(self, args, namespace))

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Parsed) as stopped:
        patched.setattr(argparse.ArgumentParser, "parse_args", parsed)
        program.main(arguments)
    return stopped.value.args[0]


def load_config(options) -> None:
    """Loads the configuration that a command names, with its overrides."""
    if options.config in (None, "large.py"):  # the reader's own, described on the page
        return
    configs.override(configs.load(f"{ROOT}/{options.config}"), *options.overrides)


def check_set_up(words: list[str]) -> None:
    """What installs the package, or runs its tests."""
    if words[0] == "pip":
        assert words[1] == "install", words
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for each in words[2:]:
            if match := re.fullmatch(r"\.\[(.*)\]", each):
                extras = set(match[1].split(","))
                assert extras <= set(project["optional-dependencies"]), each
    else:
        assert words[1] == "-m" and words[2] in ("pytest", "venv"), words


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(text, id=f"{path.relative_to(ROOT)}:{line}")
        for path in PAGES
        for line, text in blocks(path, "bash")
    ],
)
def test_commands_exist(block):
    found = commands(block)
    assert found
    for words in found:
        check(words)


@pytest.mark.parametrize(
    "line",
    [
        "tdt-jax transcribe",
        "tdt-jax transcribe MODEL a.wav --frmt srt > a.srt",
        "tdt-jax evaluate MODEL a.jsonl | tdt-jax hear MODEL",
        "tdt-jax prepare telephone configs/gone.py data",
        "tdt-jax benchmark data --config configs/manifest.py --set data.trian=a.jsonl",
        "python train.py --config configs/gone.py",
        "python train.py --config CONFIG --set model.duration=none",
        "python train.py --config CONFIG --stop",
        "srun python train.py --config CONFIG --coordinate auto",
        "python examples/align.py MODEL",
        "python examples/gone.py MODEL",
        "gcloud ssh --command 'cd tdt_jax && python train.py'",
        "pip install -e '.[tset]' && python -m pytest",
        "tdtjax transcribe MODEL a.wav",
    ],
)
def test_a_wrong_command_is_found(line):
    with pytest.raises((Exception, SystemExit, pytest.fail.Exception)):
        for words in commands(line):
            check(words)


def test_commands_are_taken_apart():
    text = "A=1 tdt-jax x 'a b' > out.srt  # said\npip install x && python \\\n  y | z -\n"
    assert commands(text) == [
        ["A=1", "tdt-jax", "x", "a b"], ["pip", "install", "x"], ["python", "y"], ["z", "-"]
    ]  # fmt: skip


# The front door


def test_readme_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_README
    assert not [line for line in lines if len(line) > 100 and line[0] != "|"]


def test_set_up_takes_two_commands():
    text = README.read_text(encoding="utf-8")
    assert "\npip install -e . && python train.py --config configs/quickstart.py\n" in text
    assert "\npip install -e '.[test]' && python -m pytest -n 2\n" in text


def numbers(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", text))


def test_results_are_those_of_the_benchmarks():
    section = README.read_text(encoding="utf-8").partition("## Results")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) == 8
    measured = numbers((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    assert len(numbers("".join(rows))) > 20
    assert numbers("".join(rows)) <= measured


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            path = (page.parent / name) if name else page
            assert path.exists(), f"{page.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings}
                assert anchor in slugs, f"{page.name} links to {target}"


def test_contributing_names_files_that_exist():
    """In the table of where things go, but for what is marked as to come."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Where things go")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    kept = [row for row in rows if " * |" not in row]
    assert len(kept) > 10 and len(kept) < len(rows)
    named = set(re.findall(r"`([\w/]+(?:/|\.py|\.md))`", "".join(kept)))
    assert len(named) > 20
    for name in named:
        if not re.search("NAME|FAMILY", name):
            assert any((ROOT / base / name).exists() for base in ("", "tdt_jax")), name


# Notebooks


@pytest.mark.parametrize("name", ["understand_tdt", "train_quickstart"])
@pytest.mark.parametrize("source", ["", "https://example.org/me/tdt_jax", "/drive/tdt_jax"])
@pytest.mark.parametrize("is_installed", [False, True])
def test_notebook_installs_the_reader_s_copy(name, source, is_installed, tmp_path, monkeypatch):
    """Nothing if the package is there; else from SOURCE, and from nowhere else."""
    notebook = json.loads((ROOT / "colab" / f"{name}.ipynb").read_text(encoding="utf-8"))
    cell = next("".join(c["source"]) for c in notebook["cells"] if c["id"] == "install")
    first, rest = cell.split("\n", 1)
    assert first == 'SOURCE = ""  #@param {type: "string"}'
    assert not re.search(r"://\w", rest)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: is_installed or None)
    done = []
    shell = SimpleNamespace(
        run_line_magic=lambda magic, line: done.append(f"{magic} {line}"), system=done.append
    )
    names = {"SOURCE": source, "get_ipython": lambda: shell}
    needs_files = name == "train_quickstart"
    if not source and (needs_files or not is_installed):
        with pytest.raises(AssertionError, match="git address"):
            exec(TransformerManager().transform_cell(rest), names)
        return
    exec(TransformerManager().transform_cell(rest), names)
    assert any(step.startswith("pip install") for step in done) == (not is_installed)
    if needs_files:
        assert done[:2] == ["git clone -q {SOURCE} tdt_jax", "cd -q tdt_jax"]
    elif not is_installed:
        is_address = source.startswith("https://")
        wanted = f"tdt-jax[notebook] @ git+{source}" if is_address else f"{source}[notebook]"
        assert names["package"] == wanted
