"""SentencePiece models as the tokenizer.json of Hugging Face's tokenizers, and back.

Both hold the same pieces. SentencePiece's BPE merges the neighbours whose union is the piece of the
highest score; tokenizer.json lists the merges from first to last.
"""

import base64
import itertools
import json
from collections.abc import Collection
from typing import Any, NamedTuple

from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue]

from tdt_jax.tokenizer import SentencePiece

UNIGRAM, BPE = 1, 2  # SentencePiece's TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # SentencePiece.Type
MAX_PIECES = 1 << 20
SPACE = "▁"


class UnsupportedError(ValueError):
    """A tokenizer of another kind."""


def to_tokenizer_json(
    tokenizer: SentencePiece,
    extra_tokens: tuple[str, ...] = (),
    special: Collection[str] = (),
) -> str:
    """Returns the tokenizer.json of a SentencePiece model.

    Args:
      tokenizer: the model.
      extra_tokens: special tokens that follow its pieces.
      special: those of its user-defined pieces that are special. Special tokens, among them the
        unknown and control pieces, are left out of text that is decoded without special tokens.
    """
    proto = ModelProto.FromString(tokenizer.model)
    added = [
        (index, piece.piece, piece.type != USER_DEFINED or piece.piece in special)
        for index, piece in enumerate(proto.pieces)
        if piece.type in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    added += [(len(proto.pieces) + i, token, True) for i, token in enumerate(extra_tokens)]
    normalizers = _normalizers(proto)
    spaces = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "always" if proto.normalizer_spec.add_dummy_prefix else "never",
        "split": True,
    }
    fields = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index, "content": token, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": is_special,
            }
            for index, token, is_special in added
        ],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": spaces,
        "post_processor": None,
        "decoder": spaces,
        "model": _model(proto),
    }  # fmt: skip
    return json.dumps(fields, ensure_ascii=False, indent=2)


def from_tokenizer_json(text: str, vocab_size: int) -> SentencePiece:
    """Returns a SentencePiece model of the first `vocab_size` pieces of a tokenizer.json.

    Raises:
      ValueError: if it is not a BPE or Unigram tokenizer over "▁" with all of these pieces.
    """
    try:
        parsed = _parse(json.loads(text))
    except UnsupportedError:
        raise
    except Exception as error:  # of many kinds, as a damaged file holds other types in any place
        raise ValueError(f"not a tokenizer.json that can be read: {error!r:.200}") from None
    pieces = parsed.pieces
    if not 0 < vocab_size <= MAX_PIECES:
        raise ValueError(f"a tokenizer cannot have {vocab_size} pieces")
    if missing := [index for index in range(vocab_size) if index not in pieces]:
        raise ValueError(
            f"it has {len(pieces)} pieces and none with index {missing[0]}; the model has "
            f"{vocab_size}"
        )
    if parsed.spaces is None or parsed.spaces.get("replacement") != SPACE:
        raise ValueError(f"it does not write spaces as {SPACE!r} (Metaspace)")

    proto = ModelProto()
    for index in range(vocab_size):
        piece = proto.pieces.add()
        piece.piece, piece.score = pieces[index], parsed.scores.get(index, 0.0)
        if pieces[index] == parsed.unknown:
            piece.type = UNKNOWN
        elif index in parsed.is_special:
            piece.type = CONTROL if parsed.is_special[index] else USER_DEFINED
        elif parsed.byte_fallback and _is_byte(pieces[index]):
            piece.type = BYTE
    if not any(piece.type == UNKNOWN for piece in proto.pieces):
        raise ValueError(f"it has no unknown piece {parsed.unknown!r} among the model's")
    has_all_bytes = sum(piece.type == BYTE for piece in proto.pieces) == 256
    if not has_all_bytes:
        for piece in proto.pieces:
            piece.type = NORMAL if piece.type == BYTE else piece.type
    proto.trainer_spec.model_type = BPE if parsed.is_bpe else UNIGRAM
    proto.trainer_spec.vocab_size = vocab_size
    proto.trainer_spec.byte_fallback = has_all_bytes
    proto.trainer_spec.unk_piece = parsed.unknown
    spec = proto.normalizer_spec
    spec.name = "tokenizer.json"
    spec.add_dummy_prefix = parsed.spaces.get("prepend_scheme", "always") != "never"
    spec.remove_extra_whitespaces = True
    spec.escape_whitespaces = True
    if parsed.charsmap:
        spec.precompiled_charsmap = parsed.charsmap
    return SentencePiece(proto.SerializeToString())


# Writing


def _model(proto: ModelProto) -> dict:
    """Returns the "model" of a tokenizer.json: pieces, and their merges or scores."""
    pieces = [piece.piece for piece in proto.pieces]
    unknown = next((piece.piece for piece in proto.pieces if piece.type == UNKNOWN), "<unk>")
    byte_fallback = bool(proto.trainer_spec.byte_fallback)
    if proto.trainer_spec.model_type != BPE:
        return {
            "type": "Unigram",
            "unk_id": pieces.index(unknown) if unknown in pieces else None,
            "vocab": [[piece.piece, piece.score] for piece in proto.pieces],
            "byte_fallback": byte_fallback,
        }
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": {piece: index for index, piece in enumerate(pieces)},
        "merges": _merges(proto),
    }


def _merges(proto: ModelProto) -> list[list[str]]:
    """Returns the pairs of pieces whose union is a piece, those of the highest score first."""
    scores = {
        piece.piece: piece.score for piece in proto.pieces if piece.type in (NORMAL, USER_DEFINED)
    }
    merges = [
        (-score, position, [piece[:position], piece[position:]])
        for piece, score in scores.items()
        for position in range(1, len(piece))
        if piece[:position] in scores and piece[position:] in scores
    ]
    return [pair for *_, pair in sorted(merges, key=lambda merge: merge[:2])]


def _normalizers(proto: ModelProto) -> list[dict]:
    normalizers = []
    if charsmap := proto.normalizer_spec.precompiled_charsmap:
        encoded = base64.b64encode(charsmap).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if proto.normalizer_spec.remove_extra_whitespaces:
        normalizers.append({"type": "Strip", "strip_left": True, "strip_right": True})
        normalizers.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    return normalizers


# Reading


class _Parsed(NamedTuple):
    """The parts of a tokenizer.json that a SentencePiece model has as well."""

    is_bpe: bool
    pieces: dict[int, str]
    scores: dict[int, float]
    is_special: dict[int, bool]  # of the added tokens
    unknown: str
    byte_fallback: bool
    charsmap: bytes  # of SentencePiece's normalisation; empty if there is none
    spaces: dict | None  # the pre-tokenizer that replaces spaces


def _parse(fields: Any) -> _Parsed:
    model = fields["model"]
    vocabulary = model["vocab"]
    if model["type"] == "Unigram":
        pieces = {index: str(piece) for index, (piece, _) in enumerate(vocabulary)}
        scores = {index: float(score) for index, (_, score) in enumerate(vocabulary)}
    elif model["type"] == "BPE":
        pieces = {int(index): str(piece) for piece, index in vocabulary.items()}
        scores = _scores(pieces, [_pair(merge) for merge in model["merges"]])
    else:
        raise UnsupportedError(f"its model is {model['type']!r:.80}, not BPE or Unigram")
    added = fields.get("added_tokens", [])
    charsmaps = [
        base64.b64decode(step["precompiled_charsmap"] or "")
        for step in _steps(fields.get("normalizer"), "normalizers")
        if step.get("type") == "Precompiled"
    ]
    spaces = [
        step
        for step in _steps(fields.get("pre_tokenizer"), "pretokenizers")
        if step.get("type") == "Metaspace"
    ]
    return _Parsed(
        is_bpe=model["type"] == "BPE",
        pieces=pieces | {int(token["id"]): str(token["content"]) for token in added},
        scores=scores,
        is_special={int(token["id"]): bool(token["special"]) for token in added},
        unknown=model.get("unk_token") or pieces.get(model.get("unk_id"), "<unk>"),
        byte_fallback=bool(model.get("byte_fallback")),
        charsmap=charsmaps[-1] if charsmaps else b"",
        spaces=spaces[0] if spaces else None,
    )


def _scores(pieces: dict[int, str], merges: list[tuple[str, str]]) -> dict[int, float]:
    """Returns a score for each piece: the sooner it is merged, the higher; the rest are lower."""
    order: dict[str, int] = {}
    for left, right in merges:
        order.setdefault(left + right, len(order))
    return {index: -float(order.get(piece, len(order) + index)) for index, piece in pieces.items()}


def _pair(merge: str | list) -> tuple[str, str]:
    left, right = merge if isinstance(merge, list) else merge.split(" ")
    return str(left), str(right)


def _steps(part: dict | None, key: str) -> list[dict]:
    """Returns the steps of a normalizer or pre-tokenizer; a sequence has its own under `key`."""
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return list(itertools.chain.from_iterable(_steps(each, key) for each in part[key]))
    return [part]


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
