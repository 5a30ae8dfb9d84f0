"""The command line: exit codes, mistakes, and how little it loads before a command runs."""

import ast
import io

import pytest
from paths import ROOT

from tdt_jax.cli import main

LIGHT = ("tdt_jax.cli.", "tdt_jax.runtime.streams")
IN_FUNCTIONS = {"job.py", "terminal.py", "check_page.py"}  # which commands import when they run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "{}/nothing", "{}/0.wav"], "no file, folder or repository"),
        (["evaluate", "MODEL", "{}/broken.jsonl"], "broken.jsonl:1"),
        (["evaluate", "MODEL", "{}/none.jsonl"], "none.jsonl"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, arguments, message):
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


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokenPipeError(), MemoryError("58 TiB")])
def test_exit_codes(loads, folder, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tdt_jax.cli.job.run", fail)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    code = main.main(["transcribe", "MODEL", str(folder / "0.wav")])
    assert code == {KeyboardInterrupt: 130, BrokenPipeError: 141, MemoryError: 2}[type(error)]


def test_help_loads_only_the_command_line():
    """A command's file imports nothing else of the package at its top."""
    for path in (ROOT / "tdt_jax" / "cli").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            module = getattr(node, "module", None) or ""
            if isinstance(node, ast.ImportFrom) and path.name not in IN_FUNCTIONS:
                is_light = module.startswith(LIGHT) or [x.name for x in node.names] in (
                    ["__version__"], ["streams"],
                )  # fmt: skip
                assert is_light or not module.startswith("tdt_jax"), f"{path.name}:{node.lineno}"
                assert not {"job", "terminal"} & {x.name for x in node.names}, path.name
