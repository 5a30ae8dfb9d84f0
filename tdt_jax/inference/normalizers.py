"""Text normalizers: they make references and transcripts alike before words are compared."""

import re
from collections.abc import Callable

from tdt_jax.orthography import nfc

NORMALIZERS = ("none", "whisper", "leaderboard")
MERGING = frozenset({"leaderboard"})  # those by whose rules compounds merge
# Normalized references that the Open ASR Leaderboard leaves out of its sets (its data_utils.py).
NOT_SCORED = frozenset({"", "ignore time segment in scoring"})


def make_normalizer(name: str) -> Callable[[str], str]:
    """Returns the normalizer of a name, a function from text to text.

    - "none": `plain`, which all others end with.
    - "whisper", for English: the EnglishTextNormalizer of the Whisper paper (Radford et al., 2022,
      arXiv 2212.04356, appendix C), from the package whisper-normalizer: lower case, no
      punctuation, no "um", contractions written out, numbers in digits, American spelling.
      Ellipses are removed first, lest one at the end become a word.
    - "leaderboard", for English: that of the Open ASR Leaderboard
      (`tdt_jax.inference.leaderboard_normalizer`). By its rules compounds merge, as
      `metrics.word_error_rate` has it with `merge_compounds`; see MERGING.

    Raises: ValueError for another name, or if a package is not installed.
    """
    if name == "none":
        return plain
    if name not in NORMALIZERS:
        raise ValueError(f"normalizer must be one of {', '.join(NORMALIZERS)}, got {name!r}")
    try:
        if name == "leaderboard":
            import kaldialign  # noqa: F401  # merges compounds

            from tdt_jax.inference.leaderboard_normalizer import LeaderboardNormalizer

            normalize = LeaderboardNormalizer()
            return lambda text: plain(normalize(text))
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        packages = "whisper-normalizer" + (" kaldialign" if name in MERGING else "")
        raise ValueError(f"normalizer {name!r} needs packages: pip install {packages}") from error
    normalize = EnglishTextNormalizer()
    return lambda text: plain(normalize(re.sub(r"\.{3,}", " ", text)))


def plain(text: str) -> str:
    """Returns the text in Unicode's form NFC, with single spaces between words."""
    return " ".join(nfc(text).split())
