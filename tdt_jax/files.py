"""Small files that are there whole or not at all."""

import os
import uuid
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file (UTF-8) so that nobody ever sees a part of it."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
