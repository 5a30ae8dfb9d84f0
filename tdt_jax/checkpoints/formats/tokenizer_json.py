"""SentencePiece models to and from the tokenizer.json of Hugging Face's tokenizers.

Both write down the same pieces. SentencePiece's BPE merges the neighbours whose union is the piece
of the highest score; tokenizer.json lists the merges from first to last.
"""

import base64
import itertools
import json
from collections.abc import Collection

from tdt_jax.tokenizer import SentencePiece

UNIGRAM, BPE = 1, 2  # SentencePiece's TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # SentencePiece.Type
MAX_PIECES = 1 << 20


class UnsupportedError(ValueError):
    """A tokenizer of another kind."""


def to_tokenizer_json(
    tokenizer: SentencePiece,
    extra_tokens: tuple[str, ...] = (),
    special: Collection[str] = (),
) -> str:
    """The tokenizer.json of a SentencePiece model.

    `extra_tokens` follow its pieces; they, its unknown and control pieces, and of those that the
    user defined the `special`, are left out where a text is decoded without special tokens.
    """
    model = _proto(tokenizer.model)
    pieces = [piece.piece for piece in model.pieces]
    unknown = next((piece.piece for piece in model.pieces if piece.type == UNKNOWN), "<unk>")
    added = [
        (index, piece.piece, piece.type != USER_DEFINED or piece.piece in special)
        for index, piece in enumerate(model.pieces)
        if piece.type in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    added += [(len(pieces) + index, token, True) for index, token in enumerate(extra_tokens)]
    if model.trainer_spec.model_type == BPE:
        body = {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": bool(model.trainer_spec.byte_fallback),
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": _merges(model),
        }
    else:
        body = {
            "type": "Unigram",
            "unk_id": pieces.index(unknown) if unknown in pieces else None,
            "vocab": [[piece.piece, piece.score] for piece in model.pieces],
            "byte_fallback": bool(model.trainer_spec.byte_fallback),
        }
    steps = []
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        encoded = base64.b64encode(charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if model.normalizer_spec.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    scheme = "always" if model.normalizer_spec.add_dummy_prefix else "never"
    spaces = {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
        "split": True,
    }  # fmt: skip
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index, "content": token, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": special,
            }
            for index, token, special in added
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": spaces,
        "post_processor": None,
        "decoder": spaces,
        "model": body,
    }  # fmt: skip
    return json.dumps(whole, ensure_ascii=False, indent=2)


def from_tokenizer_json(text: str, vocab_size: int) -> SentencePiece:
    """The first `vocab_size` pieces of a tokenizer.json as a SentencePiece model.

    Raises:
      ValueError: if it is not a BPE or Unigram tokenizer over "▁" with all of these pieces.
    """
    from sentencepiece import sentencepiece_model_pb2

    try:
        whole = json.loads(text)
        body = whole["model"]
        kind = body["type"]
        vocabulary = body["vocab"]
        if kind == "Unigram":
            scores = {index: float(score) for index, (_, score) in enumerate(vocabulary)}
            pieces = {index: str(piece) for index, (piece, _) in enumerate(vocabulary)}
        elif kind == "BPE":
            pieces = {int(index): str(piece) for piece, index in vocabulary.items()}
            scores = _scores(pieces, [_pair(merge) for merge in body["merges"]])
        else:
            raise UnsupportedError(f"its model is {kind!r:.80}, not BPE or Unigram")
        added = {
            int(token["id"]): (str(token["content"]), bool(token["special"]))
            for token in whole.get("added_tokens", [])
        }
        normalizers = _steps(whole.get("normalizer"))
        unknown = body.get("unk_token") or pieces.get(body.get("unk_id"), "<unk>")
        spaces = _steps(whole.get("pre_tokenizer"), "pretokenizers")
        charsmaps = [
            base64.b64decode(step["precompiled_charsmap"] or "")
            for step in normalizers
            if step.get("type") == "Precompiled"
        ]
    except UnsupportedError:
        raise
    except Exception as error:  # of many kinds, where something else is written there
        raise ValueError(f"not a tokenizer.json that can be read: {error!r:.200}") from None
    pieces |= {index: token for index, (token, _) in added.items()}
    if not 0 < vocab_size <= MAX_PIECES:
        raise ValueError(f"a tokenizer cannot have {vocab_size} pieces")
    if missing := [index for index in range(vocab_size) if index not in pieces]:
        raise ValueError(
            f"it has {len(pieces)} pieces and none with index {missing[0]}; the model has "
            f"{vocab_size}"
        )
    metaspace = [step for step in spaces if step.get("type") == "Metaspace"]
    if not metaspace or metaspace[0].get("replacement") != "▁":
        raise ValueError("it does not write spaces as '▁' (Metaspace)")

    model = sentencepiece_model_pb2.ModelProto()
    for index in range(vocab_size):
        piece = model.pieces.add()
        piece.piece, piece.score = pieces[index], scores.get(index, 0.0)
        if pieces[index] == unknown:
            piece.type = UNKNOWN
        elif index in added:
            piece.type = CONTROL if added[index][1] else USER_DEFINED
        elif body.get("byte_fallback") and _is_byte(pieces[index]):
            piece.type = BYTE
    if not any(piece.type == UNKNOWN for piece in model.pieces):
        raise ValueError(f"it has no unknown piece {unknown!r} among the model's")
    bytes_there = sum(piece.type == BYTE for piece in model.pieces) == 256
    if not bytes_there:
        for piece in model.pieces:
            piece.type = NORMAL if piece.type == BYTE else piece.type
    model.trainer_spec.model_type = BPE if kind == "BPE" else UNIGRAM
    model.trainer_spec.vocab_size = vocab_size
    model.trainer_spec.byte_fallback = bytes_there
    model.trainer_spec.unk_piece = unknown
    spec = model.normalizer_spec
    spec.name = "tokenizer.json"
    spec.add_dummy_prefix = metaspace[0].get("prepend_scheme", "always") != "never"
    spec.remove_extra_whitespaces = True
    spec.escape_whitespaces = True
    for charsmap in charsmaps:
        spec.precompiled_charsmap = charsmap
    return SentencePiece(model.SerializeToString())


def _proto(model: bytes):
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(model)


def _merges(model) -> list[list[str]]:
    """Pairs of pieces whose union is a piece, those of the highest score first."""
    mergeable = {
        piece.piece: piece.score for piece in model.pieces if piece.type in (NORMAL, USER_DEFINED)
    }
    found = [
        (-score, position, [piece[:position], piece[position:]])
        for piece, score in mergeable.items()
        for position in range(1, len(piece))
        if piece[:position] in mergeable and piece[position:] in mergeable
    ]
    return [pair for *_, pair in sorted(found, key=lambda each: each[:2])]


def _scores(pieces: dict[int, str], merges: list[tuple[str, str]]) -> dict[int, float]:
    """A score for every piece: those merged first have the highest, those never merged less."""
    order: dict[str, int] = {}
    for left, right in merges:
        order.setdefault(left + right, len(order))
    return {index: -float(order.get(piece, len(order) + index)) for index, piece in pieces.items()}


def _pair(merge) -> tuple[str, str]:
    left, right = merge if isinstance(merge, list) else merge.split(" ")
    return str(left), str(right)


def _steps(part, inner: str = "normalizers") -> list[dict]:
    """The steps of a normalizer or pre-tokenizer, out of their sequences."""
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return list(itertools.chain.from_iterable(_steps(each, inner) for each in part[inner]))
    return [part]


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
