"""Runs what was exported, without this package: with jax and numpy, or ONNX Runtime."""

import json
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file


class Exported:
    """The programs of an export by file name, the parameters and the description."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.description = json.loads((folder / "export.json").read_text("utf-8"))
        self.parameters = load_file(folder / "parameters.safetensors")

    def run(self, kind: str, *arguments, rows=None, samples=None):
        """Calls the first program of a kind, of this shape if it is given."""
        entry = next(
            each
            for each in self.description["programs"]
            if each["kind"] == kind
            and rows in (None, each["rows"])
            and samples in (None, each["samples"])
        )
        data = bytearray((self.folder / entry["file"]).read_bytes())
        exported = jax.export.deserialize(data)
        return jax.device_get(jax.jit(exported.call)(self.parameters, *arguments))


def onnx_session(model):
    """Returns a session of an ONNX model or its file, in one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options)


def padded(recordings, width: int, rows: int):
    """Returns samples [rows, width] and their numbers [rows]."""
    samples, num_samples = np.zeros((rows, width), np.float32), np.zeros(rows, np.int32)
    for row, recording in enumerate(recordings):
        samples[row, : len(recording)], num_samples[row] = recording, len(recording)
    return samples, num_samples
