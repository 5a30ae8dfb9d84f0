"""The cache folder, and files that are written atomically."""

import pytest
from without_jax import without_home

from tdt_jax.runtime import files


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert files.cache_folder() == tmp_path / "cache" / "tdt_jax"
    (tmp_path / "file").touch()
    for name in (str(tmp_path / "file" / "x"), "relative", "/proc/self/x"):
        monkeypatch.setenv("XDG_CACHE_HOME", name)
        assert files.cache_folder() is None
    without_home(monkeypatch)
    assert files.cache_folder() is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "tdt_jax"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    files.write_atomically(path, "ł\n")
    assert path.read_bytes() == "ł\n".encode()
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "half \ud800")
    assert path.read_text() == "ł\n" and list(tmp_path.iterdir()) == [path]
