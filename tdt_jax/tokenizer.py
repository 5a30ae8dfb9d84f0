"""Text to labels and back: SentencePiece pieces, or plain characters.

Labels are 0..vocab_size - 1; the transducer's blank comes after them. Before training and encoding,
and after decoding, text is normalized to Unicode's form NFC with single spaces between words and
none around them.

`decode` and `words` set spaces and divide words by the rules of tdt_jax.orthography: closing marks
join the word before, and languages without spaces have words of one or a few pieces.

Tags are labels that are no spoken text: `<|en|>`, `<pad>`, `<unk>`, `<EOU>`. They are left out of
decoded text unless `keep_tags`.
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
from typing import Any, NamedTuple, Protocol

from tdt_jax import orthography
from tdt_jax.orthography import nfc

SENTENCEPIECE_FILE = "tokenizer.model"
CHARACTERS_FILE = "characters.json"
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # SentencePiece.Type
TAG = re.compile(r"<\|[^\s<>|]+\|>")
ANGLES = re.compile(r"<[^\s<>]+>")  # a tag, if the piece is user-defined
END_OF_UTTERANCE = "<EOU>"
TURNS = END_OF_UTTERANCE, "<EOB>"  # the latter ends a backchannel, such as "uh-huh"
# A language's tag, also with script or region: "<|en|>", "<|zh-Hant|>", "<en-US>".
LANGUAGE = re.compile(
    r"<\|([a-z]{2}|yue|haw|[a-z]{2,3}(?:-[A-Z][a-z]{3})?-(?:[A-Z]{2}|\d{3})|[a-z]{2,3}-[A-Z][a-z]{3})"
    r"\|>|<([a-z]{2,3}-[A-Z]{2})>"
)


class TextWord(NamedTuple):
    """A word of decoded text."""

    text: str
    positions: list[int]  # of the labels that spell it
    space_before: bool  # False: it follows the word before without a space


class UnknownTextError(ValueError):
    """A text has characters without a label; the message names them."""


class Tokenizer(Protocol):
    """The methods that every tokenizer has: `Characters` and `SentencePiece`."""

    @property
    def vocab_size(self) -> int:
        """The number of labels."""
        ...

    @property
    def pieces(self) -> list[str]:
        """The text of each label, as the tokenizer stores it."""
        ...

    @property
    def tags(self) -> frozenset[int]:
        """The labels that are tags."""
        ...

    @property
    def end_of_utterance(self) -> frozenset[int]:
        """The labels that end a speaker's utterance: `<EOU>`."""
        ...

    def encode(self, text: str) -> list[int]:
        """Returns the labels of a text.

        Raises: UnknownTextError if a character has none.
        """
        ...

    def decode(self, ids: Sequence[int], *, keep_tags: bool = False) -> str:
        """Returns the text of labels, with or without tags as words.

        Raises: ValueError for a label outside 0..vocab_size - 1.
        """
        ...

    def words(self, ids: Sequence[int], *, keep_tags: bool = False) -> list[TextWord]:
        """Returns the words of `decode(ids)`."""
        ...

    def languages(self, ids: Sequence[int]) -> list[str]:
        """Returns the languages that tags among labels name, in order."""
        ...

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the tokenizer into `folder`, for `load`; returns the file's path."""
        ...


@dataclass(frozen=True)
class Characters:
    """One label per character, in the order of `alphabet`; there are no tags."""

    alphabet: str

    def __post_init__(self):
        if not self.alphabet or len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError(f"alphabet needs distinct characters, got {self.alphabet!r}")

    @property
    def vocab_size(self) -> int:
        """The number of labels."""
        return len(self.alphabet)

    @property
    def pieces(self) -> list[str]:
        """The characters."""
        return list(self.alphabet)

    @property
    def tags(self) -> frozenset[int]:
        """The empty set."""
        return frozenset()

    @property
    def end_of_utterance(self) -> frozenset[int]:
        """The empty set."""
        return frozenset()

    def encode(self, text: str) -> list[int]:
        """Returns the labels of a text; raises UnknownTextError if a character has none."""
        text = _normalize(text)
        if unknown := sorted(set(text) - set(self.alphabet)):
            raise UnknownTextError(f"no label for {' '.join(map(repr, unknown))} in {text!r}")
        return [self._index[character] for character in text]

    def decode(self, ids: Sequence[int], *, keep_tags: bool = False) -> str:
        """Returns the text of labels; raises ValueError for one outside 0..vocab_size - 1."""
        return _join(self.words(ids, keep_tags=keep_tags))

    def words(self, ids: Sequence[int], *, keep_tags: bool = False) -> list[TextWord]:
        """Returns the words of `decode(ids)`; labels of whitespace belong to none."""
        texts = [self.alphabet[i] for i in _checked(ids, self.vocab_size)]
        return [
            TextWord(nfc(text), [i for i in units if not texts[i].isspace()], space)
            for text, units, space in orthography.divide(texts)
        ]

    def languages(self, ids: Sequence[int]) -> list[str]:
        """Returns the empty list."""
        return []

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes characters.json into `folder`, for `load`; returns its path."""
        text = json.dumps({"alphabet": self.alphabet}, ensure_ascii=False)
        return _write(folder, CHARACTERS_FILE, text.encode())

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {character: i for i, character in enumerate(self.alphabet)}


@dataclass(frozen=True)
class SentencePiece:
    """Subword labels of a serialized SentencePiece model; pieces that begin a word begin with "▁".

    The unknown piece has a label, as in NVIDIA's models, but `encode` never returns it. Tags are
    the unknown and control pieces, user-defined pieces in angle brackets, `<|...|>`, a language as
    `<en-US>`, `<EOU>` and `<EOB>`. `encode` returns user-defined tags for text that spells them, so
    that they can be trained on.
    """

    model: bytes = field(repr=False)

    def __post_init__(self):
        if self.vocab_size < 1:
            raise ValueError("the SentencePiece model has no pieces")

    @property
    def vocab_size(self) -> int:
        """The number of labels."""
        return self._processor.get_piece_size()

    @property
    def pieces(self) -> list[str]:
        """The pieces of the SentencePiece model, "▁" included."""
        return self._pieces

    @property
    def tags(self) -> frozenset[int]:
        """The labels that are tags."""
        return self._tags

    @property
    def end_of_utterance(self) -> frozenset[int]:
        """The label of the piece `<EOU>`, if there is one."""
        return self._end_of_utterance

    @property
    def bytes(self) -> dict[int, int]:
        """The byte that each label stands for, of labels that spell characters by their bytes."""
        return {
            label: int(piece[3:-1], 16)
            for label, (piece, type) in enumerate(zip(self.pieces, self._types, strict=True))
            if type == BYTE
        }

    @property
    def scores(self) -> list[float]:
        """The score of each piece in the SentencePiece model."""
        return [self._processor.get_score(i) for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        """Returns the labels of a text; raises UnknownTextError if a character has none."""
        text = _normalize(text)
        ids = self._processor.encode(text)
        unknown_id = self._processor.unk_id()
        if unknown_id in ids:
            unknown = [c for c in sorted(set(text)) if unknown_id in self._processor.encode(c)]
            raise UnknownTextError(f"no label for {' '.join(map(repr, unknown))} in {text!r}")
        return ids

    def decode(self, ids: Sequence[int], *, keep_tags: bool = False) -> str:
        """Returns the text of labels; raises ValueError for one outside 0..vocab_size - 1."""
        return _join(self.words(ids, keep_tags=keep_tags))

    def words(self, ids: Sequence[int], *, keep_tags: bool = False) -> list[TextWord]:
        """Returns the words of `decode(ids)`.

        Every label but tags belongs to one word, in order. A lone "▁" belongs to the word after it,
        or to the word before if that continues ("▁vra", "i", "▁", "?": "vrai?") or is the last.
        """
        units: list[tuple[str, list[int]]] = []  # text and positions of its labels
        alone: set[int] = set()
        encoded: list[int] = []  # positions of adjacent byte pieces
        labels = _checked(ids, self.vocab_size)
        for position, label in [*enumerate(labels), (len(labels), None)]:
            if label in self.tags and not keep_tags:
                continue
            if label is not None and self._types[label] == BYTE:
                encoded.append(position)
                continue
            values = [int(self.pieces[labels[i]][1:-1], 16) for i in encoded]  # "<0x41>"
            units += _decode_bytes(values, encoded)
            encoded = []
            if label in self.tags:
                alone.add(len(units))
            if label is not None:
                units.append((self.pieces[label].replace("▁", " "), [position]))
        return [
            TextWord(nfc(text), [position for i in indices for position in units[i][1]], space)
            for text, indices, space in orthography.divide([text for text, _ in units], alone)
        ]

    def languages(self, ids: Sequence[int]) -> list[str]:
        """Returns the languages that tags among labels name, in order."""
        tags = (self.pieces[i] for i in _checked(ids, self.vocab_size) if i in self.tags)
        matches = filter(None, map(LANGUAGE.fullmatch, tags))
        return [match[1] or match[2] for match in matches]

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes tokenizer.model into `folder`, for `load`; returns its path."""
        return _write(folder, SENTENCEPIECE_FILE, self.model)

    @functools.cached_property
    def _pieces(self) -> list[str]:
        return [self._processor.id_to_piece(i) for i in range(self.vocab_size)]

    @functools.cached_property
    def _tags(self) -> frozenset[int]:
        return frozenset(
            label
            for label, (piece, type) in enumerate(zip(self.pieces, self._types, strict=True))
            if type in (UNKNOWN, CONTROL)
            or TAG.fullmatch(piece)
            or LANGUAGE.fullmatch(piece)
            or piece in TURNS
            or (type == USER_DEFINED and ANGLES.fullmatch(piece))
        )

    @functools.cached_property
    def _end_of_utterance(self) -> frozenset[int]:
        return frozenset(i for i, piece in enumerate(self.pieces) if piece == END_OF_UTTERANCE)

    @functools.cached_property
    def _types(self) -> list[int]:
        from sentencepiece import sentencepiece_model_pb2

        protobuf: Any = sentencepiece_model_pb2  # its classes exist at run time only
        return [piece.type for piece in protobuf.ModelProto.FromString(self.model).pieces]

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
    """Returns a tokenizer of the characters of `texts`, sorted, and the space.

    Raises: ValueError without text.
    """
    alphabet = {character for text in texts for character in _normalize(text)}
    if not alphabet:
        raise ValueError("no text to take characters from")
    return Characters("".join(sorted(alphabet | {" "})))


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, model_type: str = "bpe"
) -> SentencePiece:
    """Returns SentencePiece trained on `texts`; it depends on nothing else but their order.

    Every character of the texts gets a piece. Texts are normalized to NFC and otherwise unchanged.
    The unknown piece is label 0. The result has fewer than `vocab_size` pieces if the texts support
    no more.

    Raises: ValueError without text, for `vocab_size` below the number of characters, and for a
    `model_type` other than "bpe" and "unigram".
    """
    import sentencepiece

    if model_type not in ("bpe", "unigram"):
        raise ValueError(f"model_type must be 'bpe' or 'unigram', got {model_type!r}")
    texts = [text for text in map(_normalize, texts) if text]
    if not texts:
        raise ValueError("no text to train SentencePiece on")
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


def extend(tokenizer: Tokenizer, other: Tokenizer) -> Characters | SentencePiece:
    """Returns `tokenizer` with the pieces of `other` that it does not have, after its own.

    With BPE its own pieces are put together first, as before.

    Raises: ValueError unless both are of characters, or both of SentencePiece.
    """
    if isinstance(tokenizer, Characters) and isinstance(other, Characters):
        new = "".join(c for c in other.alphabet if c not in tokenizer.alphabet)
        return Characters(tokenizer.alphabet + new)
    if not (isinstance(tokenizer, SentencePiece) and isinstance(other, SentencePiece)):
        raise ValueError(
            f"a tokenizer of {type(tokenizer).__name__} cannot be extended by one of "
            f"{type(other).__name__}"
        )
    from sentencepiece import sentencepiece_model_pb2

    protobuf: Any = sentencepiece_model_pb2  # its classes exist at run time only
    model, more = (protobuf.ModelProto.FromString(each.model) for each in (tokenizer, other))
    known, lowest = set(tokenizer.pieces), min(piece.score for piece in model.pieces)
    types = model.trainer_spec.model_type, more.trainer_spec.model_type
    is_unigram = set(types) == {model.trainer_spec.UNIGRAM}
    for piece in more.pieces:
        if piece.piece in known or piece.type in (UNKNOWN, CONTROL):
            continue
        added = model.pieces.add()
        added.CopyFrom(piece)
        if not is_unigram and piece.type not in (USER_DEFINED, BYTE):
            lowest -= 1
            added.score = lowest
    model.trainer_spec.vocab_size = len(model.pieces)
    return SentencePiece(model.SerializeToString())


def load(path: str | os.PathLike) -> Characters | SentencePiece:
    """Returns the tokenizer that `save` wrote: `path` is the folder, or its file.

    Raises: ValueError if there is none.
    """
    path = Path(path)
    if path.is_dir():
        files = [path / name for name in (SENTENCEPIECE_FILE, CHARACTERS_FILE)]
        files = [file for file in files if file.is_file()]
        if len(files) != 1:
            raise ValueError(
                f"{path} must hold one of {SENTENCEPIECE_FILE} and {CHARACTERS_FILE}, "
                f"found {len(files)}"
            )
        (path,) = files
    if not path.is_file():
        raise ValueError(f"no tokenizer at {path}")
    if path.suffix != ".json":
        return SentencePiece(path.read_bytes())
    try:
        return Characters(json.loads(path.read_text(encoding="utf-8"))["alphabet"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a character tokenizer: {error!r}") from None


def without_tags(text: str) -> str:
    """Returns the text with a space for everything of the form `<|...|>`."""
    return TAG.sub(" ", text)


def _normalize(text: str) -> str:
    return " ".join(nfc(text).split())


def _join(words: Sequence[TextWord]) -> str:
    return "".join(" " * word.space_before + word.text for word in words).lstrip()


def _decode_bytes(values: list[int], positions: list[int]) -> list[tuple[str, list[int]]]:
    """Returns the characters that bytes spell in UTF-8, with the positions of each one's bytes.

    A byte that belongs to no character becomes U+FFFD.
    """
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
