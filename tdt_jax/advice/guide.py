"""Guide: all the advice for a recording or a stream, ready for the decoder."""

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tdt_jax.advice.allowed import allowed_graph, script_graph
from tdt_jax.advice.arpa import arpa_graph
from tdt_jax.advice.phrases import Phrase, phrases_graph
from tdt_jax.decoding.automaton import Automaton, automaton, single_state
from tdt_jax.tokenizer import Tokenizer

KINDS = "phrases", "allowed", "language", "language_model"  # in the order of a decoder's automata
LM_WEIGHT = 0.3


@dataclass(frozen=True, eq=False)
class Guide:
    """The automata of a recording; None: no advice of this kind."""

    phrases: Automaton | None = None
    allowed: Automaton | None = None
    language: Automaton | None = None
    language_model: Automaton | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of advice that there are."""
        return tuple(kind for kind in KINDS if getattr(self, kind) is not None)


def make_guide(
    tokenizer: Tokenizer,
    *,
    boost: Iterable[Phrase] | None = None,
    allowed: str | Iterable[str] | None = None,
    language: str | Iterable[str] | None = None,
    lm: str | os.PathLike | None = None,
    lm_weight: float = LM_WEIGHT,
) -> Guide | None:
    """Returns the advice of options of `tdt_jax.transcribe`; None without any.

    Raises: ValueError for advice that cannot be followed; the message says why.
    """
    languages = [language] if isinstance(language, str) else language
    guide = Guide(
        phrases=None if boost is None else automaton(phrases_graph(boost, tokenizer)),
        allowed=None if allowed is None else automaton(allowed_graph(allowed, tokenizer)),
        language=None if languages is None else automaton(script_graph(languages, tokenizer)),
        language_model=None if lm is None else _language_model(lm, lm_weight, tokenizer),
    )
    return guide if guide.kinds else None


def neutral(vocab_size: int) -> Automaton:
    """Returns the automaton that weighs nothing."""
    return automaton(single_state(np.zeros(vocab_size)))


def _language_model(path: str | os.PathLike, weight: float, tokenizer: Tokenizer) -> Automaton:
    path = os.path.abspath(path)
    return _read_language_model(path, os.stat(path).st_mtime_ns, weight, tokenizer)


@functools.lru_cache(2)
def _read_language_model(path: str, time: int, weight: float, tokenizer: Tokenizer) -> Automaton:
    """`time` is that of the file, so that a changed one is read again."""
    return automaton(arpa_graph(path, weight, tokenizer))
