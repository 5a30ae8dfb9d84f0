"""A small SentencePiece model of many scripts, with the kinds of pieces that real ones have."""

import functools

import numpy as np
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.tokenizer import SentencePiece

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
TAGS = ["<|nospeech|>", "<pad>", "<|endoftext|>", "<|en|>", "<|ja|>", "<en-US>", "<|pnc|>"]
WORDS = (
    "▁ ▁vra i ▁the ▁it s ▁Qué Qué Para ▁Para keet ▁東京 東京 で ▁を を 使 う です 今日 パ ー ッ "
    "きょ コ 本 ฉัน เ ป็น ไทย ▁คน ล ์ ํ ລາວ ខ្ញុំ ្ က ာ န ် 한국 ▁한국 é ▁of▁the"
).split()
MARKS = (
    ". , ? ! : - – & % $ / ' \" ▁. ▁, ▁? ▁- ▁' ▁\" 。 、 ？ 「 」 ・ … “ ” ▁“ ▁„ » ▁« ▁¿ ¿ ¡ ( ) "
    "▁( ▁) ٪ ؟ ။ 〜 々 ..."
).split()


@functools.cache
def tokenizer(special: int = USER_DEFINED) -> SentencePiece:
    """`special`: the type of all tags, as a checkpoint's form has it."""
    model = sentencepiece_model_pb2.ModelProto()
    kinds = [("<unk>", UNKNOWN), *((tag, special) for tag in TAGS)]
    kinds += [(digit, USER_DEFINED) for digit in "0123"]
    kinds += [(f"<0x{value:02X}>", BYTE) for value in range(256)]
    kinds += [(piece, NORMAL) for piece in WORDS + MARKS]
    for index, (piece, kind) in enumerate(kinds):
        model.pieces.add(piece=piece, score=-float(index), type=kind)
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(kinds)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    return SentencePiece(model.SerializeToString())


def spell(*pieces: str) -> list[int]:
    """Labels of pieces; what is none is spelled by its bytes."""
    known = tokenizer().pieces
    found = []
    for piece in pieces:
        if piece in known:
            found.append(known.index(piece))
        else:
            found += [known.index(f"<0x{value:02X}>") for value in piece.encode()]
    return found


def any_labels():
    """Lists of labels, most of them of text."""
    size = tokenizer().vocab_size
    texts = st.integers(size - len(WORDS + MARKS), size - 1)
    return st.lists(st.one_of(texts, texts, texts, st.integers(0, size - 1)), max_size=30)


def emitted(labels, times, durations):
    """A Hypothesis of labels, less certain one after another."""
    entropies = np.linspace(0, 1, len(labels), dtype=np.float32)
    return Hypothesis(
        np.array(labels, np.int32), np.int32(len(labels)), np.array(times, np.int32),
        np.array(durations, np.int32), -entropies, entropies, np.int32(0),
    )  # fmt: skip


@st.composite
def any_hypothesis(draw):
    """Labels, times and durations as a decoder may give them."""
    labels = draw(any_labels())
    durations = [draw(st.integers(0, 4)) for _ in labels]
    gaps = [draw(st.sampled_from([0, 0, 0, 1, 3, 20])) for _ in labels]
    times = np.cumsum([0, *durations])[:-1] + np.cumsum(gaps or [0])[: len(labels)]
    return emitted(labels, times, durations)


JAPANESE = [
    ("▁東京", 0, 5), ("で", 5, 2), ("Para", 8, 3), ("keet", 11, 3), ("を", 14, 2), ("使", 17, 2),
    ("う", 19, 2), ("。", 21, 1), ("今日", 24, 4), ("です", 28, 3), ("？", 32, 1), ("コ", 34, 2),
    ("ー", 36, 2), ("本", 60, 3),
]  # fmt: skip
