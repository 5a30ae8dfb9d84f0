"""Writes a recogniser for programs that are not this package."""

import os
from typing import Any

from tdt_jax.recogniser import Recogniser

FORMATS = ("stablehlo", "onnx", "onnx-whole")


def export(
    recogniser: Recogniser, folder: str | os.PathLike, *, format: str = "stablehlo", **options: Any
) -> list[str]:
    """Writes a recogniser for programs that are not this package; returns the files' names.

    Args:
      recogniser: from `tdt_jax.load`.
      folder: must not exist, or be empty; it is written whole or not at all.
      format: "stablehlo": samples to labels and times, a program that JAX alone runs.
        "onnx": the graphs that onnx-asr or sherpa-onnx loads. "onnx-whole": samples to labels and
        times in one graph, for ONNX Runtime.
      options: platforms, seconds, rows, decoder of `tdt_jax.exports.stablehlo.export_stablehlo`;
        consumer, decoder, weights of `tdt_jax.exports.onnx.export_onnx`; decoder, weights of
        `tdt_jax.exports.onnx_whole.export_whole`.

    Raises:
      ValueError: for another format, a folder that holds something, and what the format cannot
        hold; nothing is written then.
    """
    if format == "stablehlo":
        from tdt_jax.exports.stablehlo import export_stablehlo as write
    elif format == "onnx":
        from tdt_jax.exports.onnx import export_onnx as write
    elif format == "onnx-whole":
        from tdt_jax.exports.onnx_whole import export_whole as write
    else:
        raise ValueError(f"format must be of {', '.join(FORMATS)}, got {format!r}")
    write(recogniser, folder, **options)
    return sorted(os.listdir(folder))
