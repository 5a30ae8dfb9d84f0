"""What may be emitted at all: some phrases one after another, digits, or a language's script.

An automaton whose weights are 0 for labels that are allowed, and FORBIDDEN for all others.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

from tdt_jax.advice.phrases import BOUNDARY, INSIDE, compile_trie, make_trie
from tdt_jax.advice.pieces import Pieces, pieces_of
from tdt_jax.decoding.automaton import Graph, single_state
from tdt_jax.orthography import fold, is_boundary
from tdt_jax.tokenizer import Tokenizer

FORBIDDEN = -1e30
DIGITS = "digits"
# Scripts of languages that are not written in Latin letters, as in the names of characters.
SCRIPTS = {
    **dict.fromkeys("ba be bg kk ky mk mn ru tg tt uk".split(), ("CYRILLIC",)),
    "sr": ("CYRILLIC", "LATIN"),
    "el": ("GREEK",),
    **dict.fromkeys("ar fa ps sd ur".split(), ("ARABIC",)),
    **dict.fromkeys("he yi".split(), ("HEBREW",)),
    **dict.fromkeys("hi mr ne sa".split(), ("DEVANAGARI",)),
    **dict.fromkeys("as bn".split(), ("BENGALI",)),
    "gu": ("GUJARATI",),
    "pa": ("GURMUKHI",),
    "ta": ("TAMIL",),
    "te": ("TELUGU",),
    "kn": ("KANNADA",),
    "ml": ("MALAYALAM",),
    "si": ("SINHALA",),
    "th": ("THAI",),
    "lo": ("LAO",),
    "my": ("MYANMAR",),
    "bo": ("TIBETAN",),
    "hy": ("ARMENIAN",),
    "ka": ("GEORGIAN",),
    "am": ("ETHIOPIC",),
    "km": ("KHMER",),
    "ja": ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    **dict.fromkeys("zh yue".split(), ("CJK", "IDEOGRAPHIC")),
    "ko": ("HANGUL",),
}
LATIN = ("LATIN",)
SHARED = "MODIFIER"  # letters that all scripts have, such as the apostrophe ʼ
CODE = re.compile(r"[a-z]{2,3}")


def allowed_graph(allowed: str | Iterable[str], tokenizer: Tokenizer) -> Graph:
    """Returns the automaton of what may be emitted.

    Args:
      allowed: "digits" (0 to 9), or phrases, of which any number may follow one another. Case
        makes no difference, and marks are allowed.

    Raises: ValueError for no phrase, and for one that no labels spell.
    """
    pieces = pieces_of(tokenizer)
    if allowed == DIGITS:
        keep = [
            text is None or not any(c.isalpha() or unicodedata.category(c)[0] == "M" for c in text)
            for text in pieces.texts
        ]
        return _mask(np.array(keep), pieces, "digits", str.isdigit, lift=(FORBIDDEN, 0.0))
    texts = [
        " ".join(text.split()) for text in ([allowed] if isinstance(allowed, str) else allowed)
    ]
    if not texts or not all(texts):
        raise ValueError(f"allowed needs phrases, got {texts}")
    if wrong := [text for text in texts if not pieces.fewest(fold(text))]:
        raise ValueError(
            f"the model's labels cannot spell {len(wrong)} of {len(texts)} allowed phrases: "
            + ", ".join(map(repr, wrong[:10]))
        )
    trie = make_trie(dict.fromkeys(map(fold, texts), 0.0))
    ends = {trie.path(node) for node in trie.ends}
    graph, states = compile_trie(trie, pieces, may_precede=lambda text: text.rstrip() in ends)
    losses = np.full((len(graph.backoff), 2), FORBIDDEN)
    for node in range(BOUNDARY + 1, len(losses)):
        text = trie.path(node)
        if text.rstrip() in ends:  # after which a phrase may begin, but not within the word
            losses[states[node]] = 0.0, 0.0 if is_boundary(text[-1]) else FORBIDDEN
    weights, targets = (each.copy() for each in graph.rows[BOUNDARY])
    for label, text in enumerate(pieces.texts):
        is_free = text is None or all(map(is_boundary, text))
        weights[label] = 0.0 if is_free or targets[label] > BOUNDARY else FORBIDDEN
    rows = {INSIDE: (weights, targets), BOUNDARY: (weights, targets)}
    return graph._replace(
        weights=np.zeros(len(graph.weights)),
        backoff=np.full(len(graph.backoff), BOUNDARY),
        backoff_weights=losses,
        rows=rows,
        lift=(FORBIDDEN, 0.0),
    )


def script_graph(languages: Iterable[str], tokenizer: Tokenizer) -> Graph:
    """Returns the automaton of the scripts of languages, named by codes such as "de" or "pt-BR".

    Labels with letters of another script are never emitted; another label takes their place.

    Raises: ValueError for what is no code, and for a vocabulary without letters of these scripts.
    """
    languages = list(languages)
    codes = [code.partition("-")[0].lower() for code in languages]
    for language, code in zip(languages, codes, strict=True):
        if not CODE.fullmatch(code):
            raise ValueError(f'a language is a code such as "de" or "pt-BR", got {language!r}')
    scripts = tuple(script for code in codes for script in SCRIPTS.get(code, LATIN))
    pieces = pieces_of(tokenizer)

    def is_of_scripts(text: str) -> bool:
        return all(
            unicodedata.name(c, "").partition(" ")[0] in (*scripts, SHARED)
            for c in unicodedata.normalize("NFKC", text)  # "ª" is an a
            if c.isalpha()
        )

    keep = [text is None or is_of_scripts(text) for text in pieces.texts]
    return _mask(np.array(keep), pieces, " and ".join(codes), str.isalpha, lift=(0.0, 0.0))


def _mask(
    keep: np.ndarray,
    pieces: Pieces,
    name: str,
    is_written: Callable[[str], bool],
    *,
    lift: tuple[float, float],
) -> Graph:
    """Returns the automaton that forbids labels unless `keep` [V].

    Raises: ValueError unless there is a kept label with a character that `is_written`.
    """
    kept = [text for text, is_kept in zip(pieces.texts, keep, strict=True) if is_kept and text]
    if not any(is_written(character) for text in kept for character in text):
        raise ValueError(f"the model's labels cannot spell any text in {name}")
    return single_state(np.where(keep, 0.0, FORBIDDEN), lift)
