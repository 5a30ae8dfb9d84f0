"""Writes a trained model to a folder: configuration, tokenizer, parameters in bfloat16.

python examples/box/pack.py runs/box runs/box_packed
"""

import dataclasses
import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

from tdt_jax import config as configs

PIECE_SECONDS = 20.0


def main(run: str, target: str) -> None:
    source, folder = Path(run), Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    config = configs.from_json((source / "config.json").read_text("utf-8"))
    model = dataclasses.replace(
        config.model,
        piece_seconds=PIECE_SECONDS,
        encoder=dataclasses.replace(config.model.encoder, unroll=config.model.encoder.num_layers),
    )
    config = dataclasses.replace(config, model=model)
    (folder / "config.json").write_text(configs.to_json(config), "utf-8")
    shutil.copy(source / "tokenizer.model", folder)
    arrays = load_file(source / "average.safetensors")
    arrays = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
    for name, array in arrays.items():
        assert np.isfinite(array.astype(np.float32)).all(), name
    save_file(arrays, folder / "parameters.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
