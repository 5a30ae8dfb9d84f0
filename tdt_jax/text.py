"""The one form of Unicode that text is trained on and compared in."""

import unicodedata


def nfc(text: str) -> str:
    """The text in Unicode's form NFC.

    An "é" of one code point and one of two (NFD, as in names of files on macOS) are the same to a
    reader; so they are to a tokenizer and in an error rate.
    """
    return unicodedata.normalize("NFC", text)
