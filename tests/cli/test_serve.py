"""tdt-jax serve: its options become settings."""

import pytest

from tdt_jax.cli import main
from tdt_jax.serving import server


@pytest.fixture
def served(loads, monkeypatch):
    """The settings that are served with, instead of serving."""
    found = []
    monkeypatch.setattr(server, "serve", lambda engine, settings: found.append(settings) or 0)
    return found


def test_loopback_without_keys_by_default(served, monkeypatch):
    monkeypatch.delenv("TDT_JAX_API_KEYS", raising=False)
    assert main.main(["serve", "runs/quick"]) == 0
    (settings,) = served
    assert (settings.host, settings.keys, settings.name) == ("127.0.0.1", (), "quick")
    assert settings.origins == () and settings.certificate is None


def test_options_arrive(served, tmp_path, monkeypatch):
    (tmp_path / "keys").write_text("one\n\ntwo\n")
    monkeypatch.setenv("TDT_JAX_API_KEYS", "three,")
    options = f"--api-key-file {tmp_path}/keys --max-mb 1 --streams 3 --language en --language de"
    assert main.main(["serve", "MODEL", *options.split()]) == 0
    (settings,) = served
    assert settings.keys == ("one", "two", "three")
    assert (settings.max_bytes, settings.streams) == (1_000_000, 3)
    assert settings.languages == ("en", "de")


def test_a_mistake_is_one_line(served, tmp_path, capsys):
    (tmp_path / "keys").write_text("\n")
    for option in (f"--api-key-file={tmp_path}/keys", "--port=70000", "--idle-seconds=0"):
        assert main.main(["serve", "MODEL", option]) == 2
        assert capsys.readouterr().err.startswith("tdt-jax: ")
