"""What every format of checkpoint comes down to."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from tdt_jax.config import ModelConfig
from tdt_jax.pretrained import tables
from tdt_jax.pretrained.convert import StoredTensor
from tdt_jax.tokenizer import SentencePiece


class Opened(NamedTuple):
    """A checkpoint that has been opened."""

    config: ModelConfig
    tokenizer: SentencePiece
    stored: Mapping[str, StoredTensor]
    name: Callable[[str], str]  # from NeMo's name of a tensor to the one in `stored`
    ignored: tuple[str, ...]  # names in `stored` that are not the model's
    file: BinaryIO | None = None  # that is open while tensors are read

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def blank_embedding(
    config: ModelConfig, stored: Mapping[str, StoredTensor], name: Callable[[str], str]
) -> ModelConfig:
    """The configuration, told whether the predictor has learned an embedding of blank."""
    embedding = stored.get(name(tables.EMBEDDING))
    if config.predictor is None or embedding is None:
        return config
    if tuple(embedding.shape) != (config.vocab_size + 1, config.predictor.width):
        return config  # `assemble` says so
    if not np.any(embedding.read()[-1]):
        return config
    predictor = dataclasses.replace(config.predictor, blank_embedding=True)
    return dataclasses.replace(config, predictor=predictor)
