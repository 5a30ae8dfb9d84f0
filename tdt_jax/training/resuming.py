"""What a run that is started again may not change, as its checkpoints would mean something else."""

import dataclasses

from tdt_jax import config as configs
from tdt_jax import tokenizer as tokenizers
from tdt_jax.config import Config, TuningConfig
from tdt_jax.models.adapters import is_partial
from tdt_jax.tokenizer import Tokenizer

# Of the tuning, what may change.
SETTINGS = "frozen_steps", "layer_decay", "rates", "base_dtype", "same_model"


def check_tokenizer(config: Config, before: Config | None, tokenizer: Tokenizer | None) -> None:
    """Raises ValueError if `config` asks for another tokenizer than the one that is given.

    Args:
      config: the run's.
      before: what the run was started with, if it is resumed.
      tokenizer: of the run, if it is resumed, or of `training.init_from`; None: of neither.
    """
    folder, asked = config.training.folder, config.tokenizer
    if before is not None and not asked.model:
        then, now = dataclasses.replace(before.tokenizer, model=""), asked
        if asked.kind == "characters":  # whose number is that of the text's characters
            now = dataclasses.replace(asked, vocab_size=then.vocab_size)
        if different := _differences(then, now, "tokenizer"):
            raise ValueError(
                f"{folder} holds a run with another tokenizer; give this one its own "
                f"training.folder: {', '.join(different)}"
            )
    elif tokenizer is not None and asked.model and config.tuning.vocabulary == "kept":
        pieces = tokenizers.load(asked.model).pieces
        if pieces != tokenizer.pieces:
            source = config.training.init_from if before is None else folder
            raise ValueError(
                f"{source} has another tokenizer, of {tokenizer.vocab_size} tokens, than "
                f"tokenizer.model={asked.model}, of {len(pieces)}; to train with these: "
                "--set tuning.vocabulary=replaced, or extended"
            )


def check_model(before: Config, now: Config) -> None:
    """Raises ValueError if a run is resumed with another model; all else may change."""

    def meaning(config: Config):
        speed = dict(remat=None, remat_policy=configs.REMAT_POLICIES[0], unroll=1)
        encoder = dataclasses.replace(config.model.encoder, precision="default", **speed)
        return dataclasses.replace(config.model, encoder=encoder, dtype="float32")

    if different := _differences(meaning(before), meaning(now), "model"):
        raise ValueError(
            f"{now.training.folder} holds a run of another model; give this one its own "
            f"training.folder: {', '.join(different)}"
        )


def check_tuning(before: Config, now: Config) -> None:
    """Raises ValueError if a run is resumed that trains other parameters or adapters."""

    def meaning(config: Config):
        unset = {name: getattr(TuningConfig, name) for name in SETTINGS}
        return dataclasses.replace(config.tuning, **unset)

    if not is_partial(before.tuning) and not is_partial(now.tuning):
        return
    if different := _differences(meaning(before), meaning(now), "tuning"):
        raise ValueError(
            f"{now.training.folder} holds a run that trains other parameters; give this one its "
            f"own training.folder: {', '.join(different)}"
        )


def _differences(before, now, name: str) -> list[str]:
    """Returns the fields in which two configurations differ, each as a sentence."""
    if not dataclasses.is_dataclass(before) or type(before) is not type(now):
        return [] if before == now else [f"{name} is {before} there and {now} here"]
    return [
        difference
        for field in dataclasses.fields(before)
        for difference in _differences(
            getattr(before, field.name), getattr(now, field.name), f"{name}.{field.name}"
        )
    ]
