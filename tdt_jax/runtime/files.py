"""The user's cache folder, and text files that are written atomically."""

import os
import uuid
from pathlib import Path


def cache_folder() -> Path | None:
    """Returns the folder tdt_jax in the user's cache folder, or None if it cannot be written to."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "tdt_jax"
    return folder if folder.is_absolute() and is_writable(folder) else None


def is_writable(folder: Path) -> bool:
    """Creates a folder if it does not exist; returns whether files can be created in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file (UTF-8) so that no reader ever sees a part of it."""
    part = path.with_name(f".tdt_jax_{uuid.uuid4().hex}")  # not longer than names may be
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
