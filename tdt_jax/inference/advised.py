"""The advice of a batch, from the guides of its rows."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tdt_jax.advice.guide import KINDS, Guide, make_guide, neutral
from tdt_jax.decoding.advice import Advice
from tdt_jax.decoding.automaton import Automaton, stack
from tdt_jax.recogniser import Recogniser, with_language


def with_prompt(
    recogniser: Recogniser, language: str | Sequence[str] | None
) -> tuple[Recogniser, str | Sequence[str] | None]:
    """Returns a model that has a language prompt with that of `language`, and no language.

    Any other model is returned as it is, with the language for `make_guide`.

    Raises: ValueError for a language that the prompt does not have, or several.
    """
    if language is None or recogniser.config.prompt is None:
        return recogniser, language
    if not isinstance(language, str):
        raise ValueError(f"a model with a language prompt takes one language, got {language!r}")
    return with_language(recogniser, language), None


def guide_for(recogniser: Recogniser, decoder: str = "", **options: Any) -> Guide | None:
    """Returns `make_guide` of the options for a decoder of a recogniser.

    Raises: ValueError as `make_guide`, and if the decoder takes no advice.
    """
    guide = make_guide(recogniser.tokenizer, **options)
    if guide is not None and (decoder or recogniser.config.decoders[0]) != "transducer":
        raise ValueError(
            f"only a transducer takes advice ({', '.join(guide.kinds)}), and this is a CTC decoder"
        )
    return guide


def batch_advice(guides: Sequence[Guide | None], vocab_size: int) -> Advice | None:
    """Returns the advice of the rows of a batch, None if no row has any.

    Rows of the same guide share its automata; otherwise each row has its own, so that the sizes do
    not depend on how many are alike.
    """
    automata, chosen = [], []
    for kind in kinds_of(guides):
        own = [(guide and getattr(guide, kind)) or _neutral(vocab_size) for guide in guides]
        if all(each is own[0] for each in own):
            automata.append(_on_device(own[0]))
            chosen.append(np.zeros(len(guides), np.int32))
        else:
            automata.append(stack(own))
            chosen.append(np.arange(len(guides), dtype=np.int32))
    return Advice(tuple(automata), tuple(chosen)) if automata else None


def kinds_of(guides: Sequence[Guide | None]) -> list[str]:
    """Returns the kinds of advice that any row has, in the order in which the decoder has them."""
    present = {kind for guide in guides if guide for kind in guide.kinds}
    return [kind for kind in KINDS if kind in present]


@functools.lru_cache(8)
def _on_device(automaton: Automaton) -> Automaton:
    return jax.device_put(automaton)


@functools.lru_cache(4)
def _neutral(vocab_size: int) -> Automaton:
    return neutral(vocab_size)
