"""The compilation cache, and devices that are missing."""

import jax
import pytest
from without_jax import without_home

from tdt_jax.runtime import process


@pytest.fixture
def compilation_cache():
    """Restores the settings of jax that `process.set_up` changes."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_without_a_cache_folder_nothing_is_kept(monkeypatch, tmp_path, caplog, compilation_cache):
    without_home(monkeypatch)
    process.set_up()
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", "/proc/self/x")
    process.set_up()
    assert jax.config.jax_compilation_cache_dir is None
    assert [message.split(":")[0] for message in caplog.messages] == [
        "compiled programs are not kept for the next time"
    ] * 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    process.set_up()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "tdt_jax")
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("error", [RuntimeError("Unable (set JAX_PLATFORMS='')"), AssertionError()])
def test_missing_devices_are_named(monkeypatch, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(ValueError) as raised:
        process.require_devices()
    assert str(raised.value) == (
        "JAX has no device for JAX_PLATFORMS=cpu"
        + (": Unable" if str(error) else "")
        + "; without that variable it uses any device"
    )
