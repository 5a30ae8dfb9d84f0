"""Text to labels and back: SentencePiece pieces, or plain characters.

Both kinds offer vocab_size, pieces, tags, encode, decode, words, languages and save. Text is
normalised both ways and before training: Unicode's form NFC, single spaces between words, none
around them. Labels are 0..vocab_size - 1, and the transducer's blank comes after them.

What `decode` and `words` spell is written as tdt_jax.orthography says: closing marks join the word
before, and a language without spaces has words of a piece or a few. Tags are labels that say
something of the speech, or nothing, and are not said: `<|en|>`, `<pad>`, `<unk>`; they are left out
unless `keep_tags`.
"""

import contextlib
import functools
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tdt_jax import orthography
from tdt_jax.orthography import nfc

SENTENCEPIECE_FILE = "tokenizer.model"
CHARACTERS_FILE = "characters.json"
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # SentencePiece.Type
TAG = re.compile(r"<\|[^\s<>|]+\|>")
ANGLES = re.compile(r"<[^\s<>]+>")  # a tag, where a tokenizer's maker has defined it
# Of two letters, or with script or region: "<|en|>", "<|zh-Hant|>", "<en-US>".
LANGUAGE = re.compile(
    r"<\|([a-z]{2}|yue|haw|[a-z]{2,3}(?:-[A-Z][a-z]{3})?-(?:[A-Z]{2}|\d{3})|[a-z]{2,3}-[A-Z][a-z]{3})"
    r"\|>|<([a-z]{2,3}-[A-Z]{2})>"
)


class TextWord(NamedTuple):
    """A word of the text of labels."""

    text: str
    positions: list[int]  # of the labels that spell it
    space_before: bool  # False: follows the word before without a space


class UnknownTextError(ValueError):
    """Text with characters that the tokenizer has no label for; the message names them."""


@dataclass(frozen=True)
class Characters:
    """One label a character, in the order of `alphabet`; words are separated by its space."""

    alphabet: str

    def __post_init__(self):
        if not self.alphabet or len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError(f"alphabet needs distinct characters, got {self.alphabet!r}")

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet)

    @property
    def pieces(self) -> list[str]:
        return list(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """The labels of `text`; UnknownTextError if a character has none."""
        text = _squeeze(text)
        if unknown := sorted(set(text) - set(self.alphabet)):
            raise UnknownTextError(f"no label for {' '.join(map(repr, unknown))} in {text!r}")
        return [self._index[character] for character in text]

    def decode(self, ids: Sequence[int], *, keep_tags: bool = False) -> str:
        """The text of labels; ValueError for one outside 0..vocab_size - 1. There are no tags."""
        return _joined(self.words(ids, keep_tags=keep_tags))

    def words(self, ids: Sequence[int], *, keep_tags: bool = False) -> list[TextWord]:
        """The words of `decode(ids)`; labels of whitespace spell none."""
        texts = [self.alphabet[i] for i in _checked(ids, self.vocab_size)]
        return [
            TextWord(nfc(text), [i for i in units if not texts[i].isspace()], space)
            for text, units, space in orthography.divide(texts)
        ]

    @property
    def tags(self) -> frozenset[int]:
        """None."""
        return frozenset()

    def languages(self, ids: Sequence[int]) -> list[str]:
        """None."""
        return []

    def save(self, folder: str | os.PathLike) -> Path:
        """Write characters.json into `folder`, for `load`."""
        text = json.dumps({"alphabet": self.alphabet}, ensure_ascii=False)
        return _write(folder, CHARACTERS_FILE, text.encode())

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {character: i for i, character in enumerate(self.alphabet)}


@dataclass(frozen=True)
class SentencePiece:
    """Subword labels from a serialised SentencePiece model; a piece that starts a word begins "▁".

    The unknown piece keeps its label, as in NVIDIA's models, but `encode` never produces it. Tags
    are the unknown and control pieces, user-defined ones in angle brackets, and `<|...|>`; `encode`
    gives user-defined ones for text that spells them, so that they can be trained on.
    """

    model: bytes = field(repr=False)

    def __post_init__(self):
        if self.vocab_size < 1:
            raise ValueError("the SentencePiece model has no pieces")

    @property
    def vocab_size(self) -> int:
        return self._processor.get_piece_size()

    @functools.cached_property
    def pieces(self) -> list[str]:
        return [self._processor.id_to_piece(i) for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        """The labels of `text`; UnknownTextError if a character has none."""
        text = _squeeze(text)
        ids = self._processor.encode(text)
        unknown_id = self._processor.unk_id()
        if unknown_id in ids:
            unknown = [c for c in sorted(set(text)) if unknown_id in self._processor.encode(c)]
            raise UnknownTextError(f"no label for {' '.join(map(repr, unknown))} in {text!r}")
        return ids

    def decode(self, ids: Sequence[int], *, keep_tags: bool = False) -> str:
        """The text of labels, without tags or with them as words.

        Raises: ValueError for a label outside 0..vocab_size - 1.
        """
        return _joined(self.words(ids, keep_tags=keep_tags))

    def words(self, ids: Sequence[int], *, keep_tags: bool = False) -> list[TextWord]:
        """The words of `decode(ids)`.

        Every label but tags is of one word, in order; a lone "▁" of that after it, or of the one
        before it if that goes on ("▁vra", "i", "▁", "?": "vrai?") or is the last.
        """
        units: list[tuple[str, list[int]]] = []
        alone: set[int] = set()
        encoded: list[int] = []  # positions of bytes that spell characters together
        labels = _checked(ids, self.vocab_size)
        for position, label in [*enumerate(labels), (len(labels), None)]:
            if label in self.tags and not keep_tags:
                continue
            if label is not None and self._types[label] == BYTE:
                encoded.append(position)
                continue
            units += _characters([int(self.pieces[labels[i]][1:-1], 16) for i in encoded], encoded)
            encoded = []
            if label in self.tags:
                alone.add(len(units))
            if label is not None:
                units.append((self.pieces[label].replace("▁", " "), [position]))
        return [
            TextWord(nfc(text), [position for i in indices for position in units[i][1]], space)
            for text, indices, space in orthography.divide([text for text, _ in units], alone)
        ]

    @functools.cached_property
    def tags(self) -> frozenset[int]:
        """Labels that are tags."""
        return frozenset(
            label
            for label, (piece, type) in enumerate(zip(self.pieces, self._types, strict=True))
            if type in (UNKNOWN, CONTROL)
            or TAG.fullmatch(piece)
            or (type == USER_DEFINED and ANGLES.fullmatch(piece))
        )

    def languages(self, ids: Sequence[int]) -> list[str]:
        """The languages that tags among labels name, in order."""
        tags = (self.pieces[i] for i in _checked(ids, self.vocab_size) if i in self.tags)
        matches = filter(None, map(LANGUAGE.fullmatch, tags))
        return [match[1] or match[2] for match in matches]

    def save(self, folder: str | os.PathLike) -> Path:
        """Write tokenizer.model into `folder`, for `load`."""
        return _write(folder, SENTENCEPIECE_FILE, self.model)

    @functools.cached_property
    def _types(self) -> list[int]:
        from sentencepiece import sentencepiece_model_pb2

        model = sentencepiece_model_pb2.ModelProto.FromString(self.model)
        return [piece.type for piece in model.pieces]

    @functools.cached_property
    def _processor(self):
        import sentencepiece

        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"not a SentencePiece model ({len(self.model)} bytes): {error}"
            ) from None


def train_characters(texts: Iterable[str]) -> Characters:
    """Characters over exactly those that occur in `texts`, sorted, the space always among them."""
    alphabet = {character for text in texts for character in _squeeze(text)}
    if not alphabet:
        raise ValueError("there is no text to take characters from")
    return Characters("".join(sorted(alphabet | {" "})))


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, model_type: str = "bpe"
) -> SentencePiece:
    """Train SentencePiece on `texts`; the same texts in the same order give the same model.

    Every character of the texts gets a piece and the text is taken as it is (no Unicode
    normalisation but NFC). The unknown piece is label 0. A corpus that supports fewer pieces than
    `vocab_size` gives fewer: read `.vocab_size` of the result.

    Raises: ValueError without text, for `vocab_size` below the number of characters, and for
    `model_type` other than "bpe" or "unigram".
    """
    import sentencepiece

    if model_type not in ("bpe", "unigram"):
        raise ValueError(f"model_type must be 'bpe' or 'unigram', got {model_type!r}")
    texts = [text for text in map(_squeeze, texts) if text]
    if not texts:
        raise ValueError("there is no text to train SentencePiece on")
    required = len(set().union(*texts) - {" "}) + 2  # and "▁" and the unknown piece
    if vocab_size < required:
        raise ValueError(
            f"vocab_size must be at least {required} for the characters of this text, "
            f"got {vocab_size}"
        )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocab_size,
        model_type=model_type,
        character_coverage=1.0,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        max_sentence_length=10 + max(len(text.encode()) for text in texts),  # longer are dropped
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return SentencePiece(model.getvalue())


def load(path: str | os.PathLike) -> Characters | SentencePiece:
    """The tokenizer that `save` wrote into a folder, or the .model or .json file itself."""
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in (SENTENCEPIECE_FILE, CHARACTERS_FILE)]
        found = [file for file in found if file.is_file()]
        if len(found) != 1:
            raise ValueError(
                f"{path} must hold one of {SENTENCEPIECE_FILE} and {CHARACTERS_FILE}, "
                f"found {len(found)}"
            )
        (path,) = found
    if not path.is_file():
        raise ValueError(f"no tokenizer at {path}")
    if path.suffix != ".json":
        return SentencePiece(path.read_bytes())
    try:
        return Characters(json.loads(path.read_text(encoding="utf-8"))["alphabet"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a character tokenizer: {error!r}") from None


def without_tags(text: str) -> str:
    """The text without what looks like a tag, `<|...|>`."""
    return TAG.sub(" ", text)


def _joined(words: Sequence[TextWord]) -> str:
    return "".join(" " * word.space_before + word.text for word in words).lstrip()


def _characters(values: list[int], positions: list[int]) -> list[tuple[str, list[int]]]:
    """The characters that bytes spell in UTF-8, with the bytes' positions; "\ufffd" is of none."""
    units, begin = [], 0
    while begin < len(values):
        for end in range(begin + 1, min(begin + 4, len(values)) + 1):
            with contextlib.suppress(UnicodeDecodeError):
                units.append((bytes(values[begin:end]).decode(), positions[begin:end]))
                break
        else:
            end = begin + 1
            units.append(("\ufffd", positions[begin:end]))
        begin = end
    return units


def _squeeze(text: str) -> str:
    return " ".join(nfc(text).split())


def _checked(ids: Sequence[int], vocab_size: int) -> list[int]:
    ids = [int(i) for i in ids]
    if outside := [i for i in ids if not 0 <= i < vocab_size]:
        raise ValueError(f"labels must be in 0..{vocab_size - 1}, got {outside[0]}")
    return ids


def _write(folder: str | os.PathLike, name: str, data: bytes) -> Path:
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
