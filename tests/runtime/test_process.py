"""Whatever surrounds a program: its streams, its folders, its devices, other programs, Ctrl-C.

What needs a process of its own takes the module alone, without jax.
"""

import io
import os
import pwd
import signal
import subprocess
import sys

import jax
import pytest
from paths import ROOT

import tdt_jax as tdt
import train
from tdt_jax import config
from tdt_jax.cli import main, transcribe
from tdt_jax.runtime import distributed, files, streams
from tdt_jax.runtime import process as runtime_process
from tdt_jax.runtime.lock import locked


def python(program: str, **options) -> subprocess.Popen:
    """A program without jax; `module(NAME)` gives it a module's names."""
    path = f"{ROOT}/tdt_jax/runtime/{{name}}.py"
    start = f"import runpy\nmodule = lambda name: runpy.run_path(f'{path}')\n"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", start + program]
    return subprocess.Popen(command, text=True, env=environment, **options)


class Output(io.TextIOWrapper):
    """A standard output of another encoding, on a terminal or not."""

    def __init__(self, encoding: str, is_terminal: bool):
        super().__init__(io.BytesIO(), encoding=encoding)
        self.isatty = lambda: is_terminal

    def written(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_files_get_utf8_and_terminals_what_they_can_show(monkeypatch, encoding):
    """A "\\udcff" is byte 255 of a file's name."""
    for is_terminal in (False, True):
        output = Output(encoding, is_terminal)
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", Output(encoding, is_terminal))
        streams.set_up()
        print("grün ł \udcff", end="")
        if is_terminal:
            assert output.written() == "grün ł \udcff".encode(encoding, "replace")
        else:
            assert output.written() == "grün ł ".encode() + b"\xff"
    assert streams.printable("ł\udcff") == "ł\ufffd"


def test_closed_streams_are_taken_by_no_file(tmp_path):
    """With standard output and error closed, the next file would be what C prints into."""
    program = (
        "import os, sys\n"
        "for number in range(3): os.close(number)\n"
        "sys.stdout = sys.stderr = None\n"
        "module('streams')['set_up']()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "print('lost'); print('lost', file=sys.stderr)\n"
        "os.write(1, b'lost'); os.write(2, b'lost')\n"
        "file.write(str(file.fileno() > 2)); file.close()\n"
    )
    assert python(program).wait(10) == 0
    assert (tmp_path / "file").read_text() == "True"


def test_a_full_disk_is_told_once():
    program = (
        "import sys\n"
        "streams = module('streams')\n"
        "print('text')\n"
        "try: streams['flush']()\n"
        "except OSError as error: sys.exit(error.strerror)\n"
    )
    with open("/dev/full", "w") as full:
        process = python(program, stdout=full, stderr=subprocess.PIPE)
    assert process.communicate(timeout=10)[1] == "standard output: No space left on device\n"
    assert process.returncode == 1


def test_closed_output(monkeypatch, capsys, tmp_path):
    """Refused where it is what the result goes to, and only there."""
    (tmp_path / "a.wav").touch()
    monkeypatch.setattr(transcribe, "load", lambda *_, **__: None)
    monkeypatch.setattr("tdt_jax.cli.job.run", lambda *_, **__: 0)
    for options, code, message in (
        ([], 2, "tdt-jax: standard output is closed, where the result would go\n"),
        (["-o", str(tmp_path)], 0, ""),
    ):
        monkeypatch.setattr(sys, "stdout", None)
        assert main.main(["transcribe", "MODEL", str(tmp_path / "a.wav"), *options]) == code
        assert capsys.readouterr().err == message


def no_home(monkeypatch):
    """As in a container whose user is but a number."""

    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "LOGNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert files.cache_folder() == tmp_path / "cache" / "tdt_jax"
    (tmp_path / "file").touch()
    for name in (str(tmp_path / "file" / "x"), "relative", "/proc/self/x"):
        monkeypatch.setenv("XDG_CACHE_HOME", name)
        assert files.cache_folder() is None
    no_home(monkeypatch)
    assert files.cache_folder() is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "tdt_jax"


@pytest.fixture
def compilation_cache():
    """Puts the settings of jax back that `runtime.set_up` changes."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_without_a_cache_folder_nothing_is_kept(monkeypatch, tmp_path, caplog, compilation_cache):
    no_home(monkeypatch)
    runtime_process.set_up()
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", "/proc/self/x")
    runtime_process.set_up()
    assert jax.config.jax_compilation_cache_dir is None
    assert [message.split(":")[0] for message in caplog.messages] == [
        "compiled programs are not kept for the next time"
    ] * 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime_process.set_up()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "tdt_jax")
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("error", [RuntimeError("Unable (set JAX_PLATFORMS='')"), AssertionError()])
def test_devices_that_are_not_there(tmp_path, monkeypatch, capsys, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(runtime_process, "set_up", lambda: None)
    model, manifest, audio = "model", str(tmp_path / "all.jsonl"), str(tmp_path / "a.wav")
    (tmp_path / "a.wav").touch()
    (tmp_path / "all.jsonl").write_text('{"audio_filepath": "a.wav", "text": ""}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    for command in (
        ["transcribe", model, audio],
        ["evaluate", model, manifest],
        ["listen", model, "-"],
        ["warmup", model],
        ["convert", model, str(tmp_path / "new.nemo"), "--to", "nemo"],
        ["benchmark", "loss"],
    ):
        assert main.main(command) == 2
        message = capsys.readouterr().err
        assert "JAX has no device here of JAX_PLATFORMS=cpu" in message and message.count("\n") == 1
    monkeypatch.setattr(jax, "process_count", devices)
    with pytest.raises(SystemExit, match="error: no device"):
        distributed.exit_with(ValueError("no device"))


def test_exit_codes_of_training(monkeypatch, capsys):
    for error, code in ((KeyboardInterrupt(), 130), (BrokenPipeError(), 141)):
        with pytest.raises(SystemExit) as exit:
            distributed.exit_with(error)
        assert exit.value.code == code and capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        distributed.exit_with(ZeroDivisionError())


def test_a_lock_says_who_has_it_and_dies_with_him(tmp_path):
    path = tmp_path / "run" / ".lock"
    mine = rf"run is in use by process {os.getpid()} on "
    with distributed.alone_in(path.parent), pytest.raises(ValueError, match=mine), locked(path):
        pass
    program = (
        f"import pathlib, time\nwith module('lock')['locked'](pathlib.Path({str(path)!r})):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = python(program, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ValueError) as error, distributed.alone_in(path.parent):
            pass
        assert str(error.value).startswith(
            f"{path.parent} is in use by process {process.pid} on {os.uname().nodename}, since 2"
        )
    finally:
        process.kill()
        process.communicate()
    with distributed.alone_in(path.parent):
        pass
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="Is a directory"), distributed.alone_in(path.parent):
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "lock"):
        assert "nothing keeps a second process away (Function not implemented)" in caplog.text


@pytest.mark.parametrize(
    "start", ["tdt_jax_start.main()", "runpy.run_path({train!r}, run_name={main!r})"]
)
def test_interrupted_while_jax_is_imported(tmp_path, start):
    """A jax that takes long: Ctrl-C ends with a line and the exit code, and no traceback."""
    (tmp_path / "tdt_jax").mkdir()
    slow = "import time; print('importing', flush=True); time.sleep(60)"
    for path in ("tdt_jax/__init__.py", "jax.py"):
        (tmp_path / path).write_text(slow)
    start = start.format(train=str(ROOT / "train.py"), main="__main__")
    # A shell that starts this in the background has it ignore Ctrl-C.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{heard}import runpy, tdt_jax_start\n{start}"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == "interrupted\n"
    assert process.returncode == 130


def test_another_model_or_tokenizer_is_refused_in_a_line(tmp_path):
    before = config.Config(tokenizer=config.TokenizerConfig(vocab_size=40))
    tokenizer = tdt.tokenizer.Characters("abc")
    for assignment, message in (
        ("tokenizer.vocab_size=64", "tokenizer.vocab_size is 40 there and 64 here"),
        ("tokenizer.kind=characters", "tokenizer.kind is sentencepiece there and characters here"),
    ):
        now = config.override(before, assignment)
        with pytest.raises(ValueError) as error:
            train.check_tokenizer(now, before, tokenizer)
        assert str(error.value) == (
            "runs/default holds a run with another tokenizer; give this one its own "
            f"training.folder: {message}"
        )
    train.check_tokenizer(before, before, tokenizer)
    tdt.tokenizer.Characters("abcd").save(tmp_path / "other")
    tokenizer.save(tmp_path / "same")
    for then in (before, None):
        train.check_tokenizer(
            config.override(before, f"tokenizer.model={tmp_path / 'same'}"), then, tokenizer
        )
        with pytest.raises(ValueError, match=r"has another tokenizer, of 3 tokens, than .*, of 4"):
            train.check_tokenizer(
                config.override(before, f"tokenizer.model={tmp_path / 'other'}"), then, tokenizer
            )
    other = config.override(
        config.override(before, "model.durations=0,1"), "model.encoder.width=16"
    )
    with pytest.raises(ValueError) as error:
        train.check_model(before, other)
    assert str(error.value) == (
        "runs/default holds a run of another model; give this one its own training.folder: "
        "model.durations is (0, 1, 2, 3, 4) there and (0, 1) here, model.encoder.width is 512 "
        "there and 16 here"
    )
    train.check_model(before, config.override(before, "model.encoder.unroll=2"))
