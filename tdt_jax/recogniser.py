"""A recogniser is a model, its tokenizer and its configuration; it is loaded and saved as a folder.

folder/config.json      the whole Config of the run that trained it
folder/tokenizer.model  (or characters.json)
folder/checkpoints/     orbax, by step
"""

from dataclasses import dataclass
from pathlib import Path

import jax

from tdt_jax import config as configs
from tdt_jax.config import Config, ModelConfig
from tdt_jax.model import Transducer

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Recogniser:
    """All it takes to turn audio into text."""

    model: Transducer
    tokenizer: object  # a tokenizer of tdt_jax.tokenizer

    def __post_init__(self):
        if self.tokenizer.vocab_size != self.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {self.tokenizer.vocab_size} pieces, the model "
                f"{self.config.vocab_size}"
            )

    @property
    def config(self) -> ModelConfig:
        return self.model.config


def load(folder: str | Path) -> Recogniser:
    """Load what `save` or a training run wrote; of a run the newest checkpoint.

    Where the run kept an average of its parameters, that is what is loaded.

    Raises:
      ValueError: if the folder is missing, incomplete, damaged, or of another configuration.
    """
    from tdt_jax import tokenizer as tokenizers
    from tdt_jax.checkpoint import Checkpoints

    folder = Path(folder)
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{folder} is not a tdt_jax checkpoint: it has no {CONFIG_FILE}")
    try:
        config = configs.from_json(path.read_text())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a configuration: {error}") from None
    tokenizer = tokenizers.load(folder)
    if not (folder / CHECKPOINTS).is_dir():
        raise ValueError(f"{folder} has no {CHECKPOINTS} yet")
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise ValueError(f"{folder / CHECKPOINTS} holds no whole checkpoint")
        name = "average" if checkpoints.has(steps[-1], "average") else "model"
        _, items = checkpoints.restore_newest(**{name: abstract_model(config.model)})
    return Recogniser(items[name], tokenizer)


def save(recogniser: Recogniser, folder: str | Path, *, config: Config | None = None) -> None:
    """Write a recogniser as a folder that `load` reads.

    Raises:
      ValueError: if the folder holds a recogniser already.
    """
    from tdt_jax.checkpoint import Checkpoints

    folder = Path(folder)
    if (folder / CONFIG_FILE).exists():
        raise ValueError(f"{folder} holds a recogniser already")
    save_setup(folder, config or Config(model=recogniser.config), recogniser.tokenizer)
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        checkpoints.save(0, model=recogniser.model)


def save_setup(folder: str | Path, config: Config, tokenizer) -> None:
    """Write the configuration and the tokenizer, the parts that don't change in training."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    (folder / CONFIG_FILE).write_text(configs.to_json(config))


def abstract_model(config: ModelConfig):
    """The shapes of a model's parameters, on the default device."""
    from flax import nnx

    shapes = jax.eval_shape(lambda: Transducer(config, rngs=nnx.Rngs(0)))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
