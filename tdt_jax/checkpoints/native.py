"""This package's own folders: a recogniser that was saved, or a training run.

folder/config.json              the whole Config of the run that trained it
folder/tokenizer.model          (or characters.json)
folder/checkpoints/             orbax checkpoints, by step
folder/parameters.safetensors   parameters by name instead, of models without a training state
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tdt_jax import config as configs
from tdt_jax import tokenizer as tokenizers
from tdt_jax.checkpoints.store import Checkpoints
from tdt_jax.config import Config
from tdt_jax.models.transducer import MismatchError, Placement, Transducer, abstract_model
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime.files import write_atomically
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves
from tdt_jax.tokenizer import Tokenizer

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"
PARAMETERS = "parameters.safetensors"


def load_native(
    folder: Path, which: str, dtype: str | None, sharding: Placement | None
) -> Recogniser:
    """Returns the recogniser in a folder.

    Args:
      folder: of a recogniser or a run.
      which: "best", a step, or "" for the newest checkpoint.
      dtype: see `loading.load`.
      sharding: see `loading.load`.

    Raises:
      ValueError: if the folder is incomplete or damaged, or has no such checkpoint.
    """
    config = read_config(folder)
    tokenizer = tokenizers.load(folder)
    piece_seconds = config.model.piece_seconds
    if config.data.train or config.data.telephone:  # a run, not a recogniser that was saved
        piece_seconds = piece_seconds or config.data.buckets[-1].seconds
    model = dataclasses.replace(
        config.model, dtype=dtype or config.model.dtype, piece_seconds=piece_seconds
    )
    like = abstract_model(model, dtype, sharding)
    if (folder / PARAMETERS).is_file():
        return Recogniser(_read_parameters(folder / PARAMETERS, like), tokenizer)
    return Recogniser(restore_item(folder, which, like), tokenizer)


def read_config(folder: Path) -> Config:
    """Returns the configuration in a folder; raises ValueError if there is none."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{folder} is not a tdt_jax checkpoint: it has no {CONFIG_FILE}")
    try:
        return configs.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a configuration: {error}") from None


def restore_item(folder: Path, which: str, like: Any) -> Any:
    """Returns what a checkpoint of a run holds of its parameters: averages, if it has them.

    Args:
      folder: of the run.
      which: "best", a step, or "" for the newest checkpoint.
      like: arrays, concrete or abstract, of the names, shapes and placement that are wanted.

    Raises:
      ValueError: if there is no such checkpoint, it is damaged or of another model.
    """
    if not (folder / CHECKPOINTS).is_dir():
        raise ValueError(f"{folder} has no {CHECKPOINTS} yet")
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        step = _find_step(checkpoints, which)
        name = "average" if checkpoints.has(step, "average") else "model"
        newest = None if which else checkpoints.restore_newest(**{name: like})  # that can be read
        items = newest[1] if newest else checkpoints.restore(step, **{name: like})
    return items[name]


def save_native(recogniser: Recogniser, folder: Path, config: Config | None) -> None:
    """Writes a recogniser to a folder, with the configuration of the run that trained it."""
    save_setup(folder, config or Config(model=recogniser.config), recogniser.tokenizer)
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        checkpoints.save(0, model=recogniser.model)


def save_setup(folder: str | Path, config: Config, tokenizer: Tokenizer) -> None:
    """Writes the parts of a run that training does not change: configuration and tokenizer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    write_atomically(folder / CONFIG_FILE, configs.to_json(config))


def _read_parameters(path: Path, like: Transducer) -> Transducer:
    """Returns the parameters of a safetensors file with the dtypes and placement of `like`."""
    from tdt_jax.checkpoints.formats.safetensors import read_safetensors

    leaves, tensors = named_leaves(like), read_safetensors(path)
    wanted = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if different := sorted(name for name, _ in wanted.items() ^ found.items()):
        raise MismatchError(f"{path} does not fit its {CONFIG_FILE}: {', '.join(different)}")
    arrays = {
        name: jax.device_put(np.asarray(tensors[name].read(), leaf.dtype), leaf.sharding)
        for name, leaf in leaves.items()
    }
    return from_named_leaves(arrays, like)


def _find_step(checkpoints: Checkpoints, which: str) -> int:
    """Returns the step that "best", a number or "" (the newest) stands for."""
    steps = checkpoints.steps()
    if not steps:
        raise ValueError(f"{checkpoints.folder} holds no complete checkpoint")
    if not which:
        return steps[-1]
    if which == "best":
        if (best := checkpoints.best()) is None:
            raise ValueError(f"no checkpoint of {checkpoints.folder} has been evaluated")
        return best
    if not which.isdigit() or int(which) not in steps:
        raise ValueError(
            f"{checkpoints.folder} has no checkpoint {which!r}; there are best, "
            + ", ".join(map(str, steps))
        )
    return int(which)
