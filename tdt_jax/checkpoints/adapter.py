"""Adapters: what fine-tuning changed of a base, without the base.

folder/config.json              the configuration of the run that trained it
folder/tokenizer.model          (or characters.json)
folder/base.json                the base: where it was found, and a fingerprint of its parameters
folder/checkpoints/             of a run: what it trains, by step
folder/parameters.safetensors   of a folder that `save_adapter` wrote: the same, of one step

A run that trains all parameters has no base.json.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from tdt_jax import tokenizer as tokenizers
from tdt_jax.checkpoints.formats.safetensors import read_safetensors, write_safetensors
from tdt_jax.checkpoints.native import (
    CONFIG_FILE,
    PARAMETERS,
    read_config,
    restore_item,
    save_setup,
)
from tdt_jax.config import Config
from tdt_jax.models.adapters import adapter_shapes, fingerprint, merged_model, trained_names
from tdt_jax.models.transducer import MismatchError, abstract_model
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime.files import write_atomically
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.tokenizer import Tokenizer
from tdt_jax.vocabulary import with_vocabulary

BASE_FILE = "base.json"


@dataclasses.dataclass(frozen=True)
class Adapter:
    """What fine-tuning changed of a base."""

    leaves: dict[str, np.ndarray]  # parameters and low-rank adapters, by name
    config: Config  # of the run
    tokenizer: Tokenizer
    source: str  # of the base, as `load` takes it
    fingerprint: str  # of the base


def is_adapter(folder: Path) -> bool:
    """Returns whether a folder holds an adapter, or a run that trains one."""
    return (folder / BASE_FILE).is_file()


def write_base(folder: str | Path, source: str, mark: str) -> None:
    """Writes base.json: where the base of an adapter was found, and its fingerprint.

    The folder is made if need be.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    text = json.dumps({"source": source, "fingerprint": mark}, indent=2)
    write_atomically(Path(folder) / BASE_FILE, text)


def read_base(folder: str | Path) -> tuple[str, str]:
    """Returns source and fingerprint of an adapter's base.

    Raises:
      ValueError: if the folder holds no adapter, or a damaged one.
    """
    path = Path(folder) / BASE_FILE
    if not path.is_file():
        raise ValueError(f"{folder} is not an adapter: it has no {BASE_FILE}")
    try:
        base = json.loads(path.read_text(encoding="utf-8"))
        return base["source"], base["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}") from None


def read_adapter(folder: Path, which: str = "") -> Adapter:
    """Returns the adapter in a folder.

    Args:
      folder: of an adapter, or of a run that trains one.
      which: checkpoint of a run: "best", a step, or "" for the newest.

    Raises:
      ValueError: if the folder holds none, or it is incomplete or damaged.
    """
    source, mark = read_base(folder)
    config = read_config(folder)
    leaves = named_leaves(abstract_model(config.model))
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    trained = trained_names(config.tuning, shapes)
    kernels = {name: shapes[name] for name in trained.adapted}
    wanted = {name: shapes[name] for name in trained.full}
    wanted |= adapter_shapes(kernels, config.tuning.rank)
    if (folder / PARAMETERS).is_file():
        tensors = read_safetensors(folder / PARAMETERS)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if different := sorted(name for name, _ in wanted.items() ^ found.items()):
            raise MismatchError(
                f"{folder / PARAMETERS} does not fit {CONFIG_FILE}: {', '.join(different)}"
            )
        arrays = {name: tensor.read() for name, tensor in tensors.items()}
    else:
        placed = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = {
            name: jax.ShapeDtypeStruct(shape, np.float32, sharding=placed)
            for name, shape in wanted.items()
        }
        arrays = jax.device_get(restore_item(folder, which, like))
    return Adapter(arrays, config, tokenizers.load(folder), source, mark)


def apply_adapter(recogniser: Recogniser, adapter: Adapter, name: str) -> Recogniser:
    """Returns the recogniser with an adapter merged; `name` is the adapter's, for errors.

    Raises:
      ValueError: if it was trained on another base.
    """
    mark = fingerprint(recogniser.model)
    if mark != adapter.fingerprint:
        raise ValueError(
            f"{name} is an adapter of another base: of {adapter.source} with the fingerprint "
            f"{adapter.fingerprint}, and this one has {mark}"
        )
    recogniser = with_vocabulary(recogniser, adapter.tokenizer)
    model = merged_model(recogniser.model, adapter.leaves, adapter.config.tuning.scale)
    return dataclasses.replace(recogniser, model=model)


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Writes an adapter to a folder.

    Raises:
      ValueError: if the folder holds something already.
    """
    if (folder / CONFIG_FILE).exists() or folder.is_file():
        raise ValueError(f"{folder} holds something already")
    save_setup(folder, adapter.config, adapter.tokenizer)
    write_safetensors(folder / PARAMETERS, adapter.leaves)
    write_base(folder, adapter.source, adapter.fingerprint)
