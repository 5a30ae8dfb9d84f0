"""A recogniser: a model with its tokenizer, and variants of it with the same parameters."""

import dataclasses
from dataclasses import dataclass

import jax

from tdt_jax.config import ModelConfig
from tdt_jax.models.transducer import Transducer, abstract_model
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves
from tdt_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class Recogniser:
    """A model with its tokenizer: all that transcription needs.

    Raises:
      ValueError: if the tokenizer has not as many pieces as the model has labels.
    """

    model: Transducer
    tokenizer: Tokenizer

    def __post_init__(self):
        check_vocabulary(self.tokenizer, self.config)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def check_decoder(self, decoder: str) -> None:
        """Raises ValueError unless `decoder` is empty or one of the model's."""
        if decoder and decoder not in self.config.decoders:
            raise ValueError(
                f"there is no decoder {decoder!r} in this model; it has "
                + " and ".join(self.config.decoders)
            )


def check_vocabulary(tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Raises ValueError unless the tokenizer has as many pieces as the model has labels."""
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, the model {config.vocab_size}"
        )


def with_attention_context(recogniser: Recogniser, context: tuple[int, int] | None) -> Recogniser:
    """Returns the recogniser with attention limited to `context` (left, right) frames.

    None means attention over all frames. With a limit, memory grows with the length of the audio
    instead of its square. A model that was trained with full attention loses hardly any accuracy
    with (128, 128) or (256, 256) frames of 80 ms (Rekesh et al., 2023, arXiv 2305.05084, section
    3).
    """
    config = recogniser.config
    encoder = dataclasses.replace(config.encoder, attention_context=context)
    return _with_config(recogniser, dataclasses.replace(config, encoder=encoder))


def with_precision(recogniser: Recogniser, precision: str) -> Recogniser:
    """Returns the recogniser with the encoder's float32 products in another precision.

    Args:
      recogniser: any.
      precision: "default" or "highest", as of `EncoderConfig.precision`.
    """
    config = recogniser.config
    encoder = dataclasses.replace(config.encoder, precision=precision)
    return _with_config(recogniser, dataclasses.replace(config, encoder=encoder))


def with_lookahead(recogniser: Recogniser, seconds: float) -> Recogniser:
    """Returns the recogniser with another of the look-aheads that a causal model was trained with.

    A frame attends to the rest of its chunk: to the frames up to `seconds` later, or fewer.

    Args:
      recogniser: of a model with `encoder.chunked_contexts`.
      seconds: one of `recogniser.config.lookaheads`, rounded to whole frames.

    Raises:
      ValueError: naming the look-aheads of the model, if this is none of them.
    """
    config, lookaheads = recogniser.config, recogniser.config.lookaheads
    if not lookaheads:
        raise ValueError(
            "a look-ahead can be chosen for models that were trained with several "
            "(encoder.chunked_contexts), and this one encodes audio as a whole"
        )
    contexts = config.encoder.chunked_contexts
    frames = seconds / config.seconds_per_frame
    chosen = [each for each in contexts if seconds >= 0 and abs(frames - each[1]) < 0.5]
    if not chosen:
        known = ", ".join(f"{each:g}" for each in lookaheads)
        raise ValueError(f"no look-ahead of {seconds:g} s in this model; it has {known} s")
    others = [context for context in contexts if context != chosen[0]]
    encoder = dataclasses.replace(config.encoder, chunked_contexts=(chosen[0], *others))
    return _with_config(recogniser, dataclasses.replace(config, encoder=encoder))


def with_language(recogniser: Recogniser, language: str | int) -> Recogniser:
    """Returns the recogniser with the prompt of a language as its default.

    Args:
      recogniser: of a model with a language prompt, such as nemotron-3.5-asr-streaming.
      language: a name in `recogniser.config.prompt.languages`, or a slot.

    Raises:
      ValueError: if the model has no language prompt, or not this language; the message names those
        it has.
    """
    config = recogniser.config
    if config.prompt is None:
        raise ValueError("the model has no language prompt (model.prompt is none)")
    prompt = dataclasses.replace(config.prompt, default=config.prompt.slot(language))
    return _with_config(recogniser, dataclasses.replace(config, prompt=prompt))


def _with_config(recogniser: Recogniser, config: ModelConfig) -> Recogniser:
    """Returns the recogniser with the same parameters in another configuration."""
    structure = jax.tree.structure(abstract_model(config))
    model = jax.tree.unflatten(structure, jax.tree.leaves(recogniser.model))
    return dataclasses.replace(recogniser, model=model)


def without_ctc(recogniser: Recogniser) -> Recogniser:
    """Returns the recogniser without the CTC head beside its transducer.

    Raises:
      ValueError: if the model has no transducer.
    """
    config = recogniser.config
    if config.predictor is None:
        raise ValueError("this is a CTC model: without its CTC head nothing is left to decode with")
    leaves = {
        name: leaf
        for name, leaf in named_leaves(recogniser.model).items()
        if not name.startswith("ctc.")
    }
    model = from_named_leaves(leaves, abstract_model(dataclasses.replace(config, ctc=False)))
    return dataclasses.replace(recogniser, model=model)
