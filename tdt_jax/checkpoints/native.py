"""Folders of our own: a recogniser that was saved, or a run.

folder/config.json      the whole Config of the run that trained it
folder/tokenizer.model  (or characters.json)
folder/checkpoints/     orbax, by step
"""

import dataclasses
from pathlib import Path

from tdt_jax import config as configs
from tdt_jax.config import Config
from tdt_jax.models.transducer import Placement, abstract_model
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime.files import write_atomically

CONFIG_FILE = "config.json"


CHECKPOINTS = "checkpoints"


def load_native(
    folder: Path, which: str, dtype: str | None, sharding: Placement | None
) -> Recogniser:
    from tdt_jax import tokenizer as tokenizers
    from tdt_jax.checkpoints.store import Checkpoints

    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{folder} is not a tdt_jax checkpoint: it has no {CONFIG_FILE}")
    try:
        whole = configs.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a configuration: {error}") from None
    tokenizer = tokenizers.load(folder)
    if not (folder / CHECKPOINTS).is_dir():
        raise ValueError(f"{folder} has no {CHECKPOINTS} yet")
    config = whole.model
    seconds = config.piece_seconds
    if whole.data.train or whole.data.telephone:  # a run, not a recogniser that was saved
        seconds = seconds or whole.data.buckets[-1].seconds
    config = dataclasses.replace(config, dtype=dtype or config.dtype, piece_seconds=seconds)
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise ValueError(f"{folder / CHECKPOINTS} holds no whole checkpoint")
        name = "average" if checkpoints.has(steps[-1], "average") else "model"
        model = {name: abstract_model(config, dtype, sharding)}
        if which:
            items = checkpoints.restore(_chosen(checkpoints, which), **model)
        else:
            _, items = checkpoints.restore_newest(**model)
    return Recogniser(items[name], tokenizer)


def _chosen(checkpoints, which: str) -> int:
    """The step of "best" or of a number."""
    steps = checkpoints.steps()
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


def save_native(recogniser: Recogniser, folder: Path, config: Config | None) -> None:
    from tdt_jax.checkpoints.store import Checkpoints

    save_setup(folder, config or Config(model=recogniser.config), recogniser.tokenizer)
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        checkpoints.save(0, model=recogniser.model)


def save_setup(folder: str | Path, config: Config, tokenizer) -> None:
    """Write the configuration and the tokenizer, the parts that don't change in training."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    write_atomically(folder / CONFIG_FILE, configs.to_json(config))
