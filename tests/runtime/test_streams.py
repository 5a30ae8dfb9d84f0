"""Standard output that is a file, a terminal, closed or full."""

import io
import subprocess
import sys

import pytest
from without_jax import python

from tdt_jax.runtime import streams


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


def test_a_full_disk_is_reported_once():
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
