"""Writes a recogniser for programs that are not this package."""

import os
from typing import Any

from tdt_jax.recogniser import Recogniser

FORMATS = ("stablehlo",)


def export(
    recogniser: Recogniser, folder: str | os.PathLike, *, format: str = "stablehlo", **options: Any
) -> list[str]:
    """Writes a recogniser for programs that are not this package; returns the files' names.

    Args:
      recogniser: from `tdt_jax.load`.
      folder: must not exist, or be empty; it is written whole or not at all.
      format: "stablehlo": samples to labels and times, a program that JAX alone runs.
      options: of `tdt_jax.exports.stablehlo.export_stablehlo`: platforms, seconds, rows, decoder.

    Raises:
      ValueError: for another format, a folder that holds something, and what the format cannot
        hold; nothing is written then.
    """
    if format == "stablehlo":
        from tdt_jax.exports.stablehlo import export_stablehlo

        return [program.file for program in export_stablehlo(recogniser, folder, **options)]
    raise ValueError(f"format must be of {', '.join(FORMATS)}, got {format!r}")
