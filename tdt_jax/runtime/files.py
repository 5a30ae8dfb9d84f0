"""Small files that are there whole or not at all, and the folder for what can be made again."""

import os
import uuid
from pathlib import Path


def cache_folder() -> Path | None:
    """The folder tdt_jax in the user's cache folder; None where none can be found or written to."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "tdt_jax"
    return folder if folder.is_absolute() and is_writable(folder) else None


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file (UTF-8) so that nobody ever sees a part of it."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
