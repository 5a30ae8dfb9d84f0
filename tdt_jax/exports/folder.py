"""A folder that is written whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def check_is_free(folder: Path) -> None:
    """Raises ValueError if something exists at `folder` but an empty folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists already")


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yields a folder to write into, which takes the place of `folder` if no exception is raised.

    Raises:
      ValueError: as `check_is_free`.
    """
    check_is_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".tdt_jax_", dir=folder.parent))
    try:
        yield part
        part.chmod(0o755)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
