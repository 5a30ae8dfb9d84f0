"""What the scripts about streaming models share: kinds of models, utterances, a tokenizer."""

import io

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

MELS, MAX_FEATURES = 16, 160
CONTEXTS = [[8, 3], [8, 0], [8, 1], [8, 7]]
PROMPTS = {"en-US": 0, "en": 0, "de-DE": 2, "no": 3, "auto": 5}
TEXTS = ["the quick brown fox jumps over the lazy dog", "hello world, again and again"]
UNIFIED = [(70, 2, 3), (70, 13, 13), (70, 1, 0), (70, 7, 4)]
KINDS = {  # fields of the model and of its encoder that differ from a causal RNN-T's
    "rnnt": ({}, {}),
    "eou": ({"num_layers": 1}, {}),
    "prompt": ({"prompt": True}, {}),
    "tdt": ({"durations": (0, 1, 2, 3, 4)}, {}),
    "hybrid": ({"durations": (0, 1, 2, 3, 4), "ctc": True, "prompt": True}, {}),
    "sides": ({}, {"convolution_context": (3, 1)}),
    "unified": ({}, {
        "chunked_contexts": (), "unified_contexts": ((70,), (1, 2, 7, 13), (0, 3, 4, 13)),
        "convolution_context": None, "causal_subsampling": False, "convolution_norm": "affine",
    }),
}  # fmt: skip


def utterances(seed=4, count=200, size=MAX_FEATURES):
    """Returns random features [200, 160, 16] of ragged lengths, zero beyond them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, size + 1, count)
    lengths[:8] = (size - np.arange(8))[:count]
    features = rng.normal(size=(count, size, MELS)).astype(np.float32)
    features[np.arange(size)[None] >= lengths[:, None]] = 0
    return features, lengths


def train_tokenizer():
    """Returns a SentencePiece model with tags of languages, and of the ends of utterances."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3), model_writer=model, vocab_size=64, model_type="bpe",
        hard_vocab_limit=False, bos_id=-1, eos_id=-1, unk_id=0, minloglevel=2,
        normalization_rule_name="identity", user_defined_symbols=["<en-US>", "<de-DE>"],
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    for piece in ("<EOU>", "<EOB>"):
        proto.pieces.add(piece=piece, score=0.0, type=3)
    return proto.SerializeToString()
