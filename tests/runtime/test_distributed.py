"""What several processes do together, in one."""

import signal

import jax
import pytest

from tdt_jax.runtime import distributed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 0, 2), "need --coordinator"),
        (("localhost:1", None, 2), "needs --process and --num-processes"),
        (("localhost:1", 2, 2), r"must be in 0\.\.1, got 2"),
    ],
)
def test_incomplete_instructions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        distributed.start(*arguments)


def test_one_process_is_simple():
    distributed.start()
    distributed.barrier("here")
    assert distributed.is_main_process() and distributed.all_gather({"a": 1}) == [{"a": 1}]


def test_a_signal_is_noticed_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with distributed.Stop() as stop:
        stop.check()
        assert not stop.requested(1)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested(1) and stop.signal == signal.SIGTERM
        with pytest.raises(distributed.Stopped):
            stop.check()
        assert signal.getsignal(signal.SIGTERM) == before  # a second one ends at once
    assert signal.getsignal(signal.SIGTERM) == before


def test_exit_codes(monkeypatch, capsys):
    for error, code in ((KeyboardInterrupt(), 130), (BrokenPipeError(), 141)):
        with pytest.raises(SystemExit) as exit:
            distributed.exit_with(error)
        assert exit.value.code == code and capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        distributed.exit_with(ZeroDivisionError())


def test_an_error_before_there_are_devices(monkeypatch):
    def process_count():
        raise RuntimeError("no device")

    monkeypatch.setattr(jax, "process_count", process_count)
    with pytest.raises(SystemExit, match="error: no device"):
        distributed.exit_with(ValueError("no device"))
