"""A recogniser is a model with its tokenizer, and what else can be made of one."""

import dataclasses
from dataclasses import dataclass

import jax

from tdt_jax.config import ModelConfig
from tdt_jax.models.transducer import Transducer, abstract_model
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

PIECE_SECONDS = 30.72  # of long audio heard at once, where the model's config says nothing


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

    def check_decoder(self, decoder: str) -> None:
        """Raise ValueError unless `decoder` is empty or one that the model has."""
        if decoder and decoder not in self.config.decoders:
            raise ValueError(
                f"there is no decoder {decoder!r} in this model; it has "
                + " and ".join(self.config.decoders)
            )


def with_attention_context(recogniser: Recogniser, context: tuple[int, int] | None) -> Recogniser:
    """The same recogniser with attention over `context` (left, right) frames; None: over all.

    Memory then grows with the length of the audio, not with its square. A model that was trained
    with full attention hardly suffers from (128, 128) or (256, 256) frames of 80 ms (Rekesh et al.,
    2023, arXiv 2305.05084, section 3).
    """
    config = recogniser.config
    encoder = dataclasses.replace(config.encoder, attention_context=context)
    structure = jax.tree.structure(abstract_model(dataclasses.replace(config, encoder=encoder)))
    model = jax.tree.unflatten(structure, jax.tree.leaves(recogniser.model))
    return dataclasses.replace(recogniser, model=model)


def without_ctc(recogniser: Recogniser) -> Recogniser:
    """The same recogniser without the CTC head beside its transducer."""
    config = recogniser.config
    if config.predictor is None:
        raise ValueError("this is a CTC model: without its CTC head nothing is left to decode with")
    leaves = {key: x for key, x in named_leaves(recogniser.model).items() if key[:4] != "ctc."}
    model = from_named_leaves(leaves, abstract_model(dataclasses.replace(config, ctc=False)))
    return dataclasses.replace(recogniser, model=model)
