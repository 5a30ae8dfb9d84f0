"""Transcribes WAV files with a program that `tdt-jax export` wrote.

    python examples/run_stablehlo.py EXPORT a.wav b.wav

It needs jax and flatbuffers, not tdt_jax. The files are mono, of 16 bits, at the model's rate.
"""

import argparse
import json
import struct
import wave
from pathlib import Path

import jax
import numpy as np


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("wav", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    export = json.loads((options.export / "export.json").read_text("utf-8"))
    recordings = [samples_of(path, export["sample_rate"]) for path in options.wav]
    program = fitting(export["programs"], len(recordings), max(map(len, recordings)))
    samples, num_samples = padded(recordings, program, export["sample_multiple"])
    data = bytearray((options.export / program["file"]).read_bytes())
    run = jax.jit(jax.export.deserialize(data).call)
    result = run(parameters_of(options.export), samples, num_samples)
    for row, path in enumerate(options.wav):
        labels = result["labels"][row, : result["num_labels"][row]].tolist()
        pieces = [export["vocabulary"][n] for n in labels if n not in export["tags"]]
        print(f"{path}: {''.join(pieces).replace('▁', ' ').strip()}")


def parameters_of(folder):
    """Returns the arrays of a safetensors file by name."""
    data = (folder / "parameters.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    arrays = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            dtype = {"F32": np.float32, "BF16": jax.numpy.bfloat16}[entry["dtype"]]
            first, last = entry["data_offsets"]
            array = np.frombuffer(data[start + first : start + last], dtype)
            arrays[name] = array.reshape(entry["shape"])
    return arrays


def samples_of(path, rate):
    with wave.open(str(path)) as file:
        if file.getparams()[:3] != (1, 2, rate):
            raise SystemExit(f"{path} is not mono, of 16 bits, at {rate} Hz")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def fitting(programs, rows, longest):
    """Returns the smallest program that takes so many recordings of such a length."""
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    fits = [
        each
        for each in programs
        if (each["kind"], each["platform"]) == ("transcribe", platform)
        and (each["rows"] is None or (each["rows"] >= rows and each["samples"] >= longest))
    ]
    if not fits:
        raise SystemExit(f"no program for {platform} takes {rows} recordings of {longest} samples")
    return min(fits, key=lambda each: (each["samples"] or 0, each["rows"] or 0))


def padded(recordings, program, multiple):
    """Returns samples [B, S] and their numbers [B]."""
    width = program["samples"] or max(4, -(-max(map(len, recordings)) // multiple)) * multiple
    samples = np.zeros((program["rows"] or len(recordings), width), np.float32)
    num_samples = np.zeros(len(samples), np.int32)
    for row, recording in enumerate(recordings):
        samples[row, : len(recording)], num_samples[row] = recording, len(recording)
    return samples, num_samples


if __name__ == "__main__":
    main()
