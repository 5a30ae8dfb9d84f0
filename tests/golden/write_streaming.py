"""Writes random streaming models of every kind, and what they compute, for check_streaming.py.

    PYTHONPATH=tests/support python tests/golden/write_streaming.py /tmp/streaming

Each is written in every format that has it. Computed are frames, and the labels and times of 200
ragged utterances, in every context.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import models
import numpy as np
import streaming_cases
from flax import nnx
from streaming_cases import CONTEXTS, KINDS, PROMPTS, UNIFIED

import tdt_jax as tdt
from tdt_jax.tokenizer import SentencePiece


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = SentencePiece(streaming_cases.train_tokenizer())
    for name in KINDS:
        model = random_model(name, tokenizer.vocab_size)
        recogniser = tdt.Recogniser(model, tokenizer)
        tdt.save(recogniser, folder / f"{name}.nemo", format="nemo")
        if model.config.encoder.is_causal and model.config.kind == "RNN-T":
            tdt.save(recogniser, folder / name, format="hf")
        np.savez(folder / f"{name}.npz", **computed(model))


def random_model(name: str, vocab_size: int):
    """Returns a model whose heads emit blanks, labels and all durations."""
    fields, changes = dict(KINDS[name][0]), KINDS[name][1]
    encoder = models.encoder_config(**{
        "chunked_contexts": tuple(map(tuple, CONTEXTS)), "convolution_context": (4, 0),
        "causal_subsampling": True, "scale_input": True, **changes,
    })  # fmt: skip
    predictor = tdt.PredictorConfig(width=12, num_layers=fields.pop("num_layers", 2))
    if fields.get("prompt"):
        fields["prompt"] = tdt.PromptConfig(7, 32, 5, tuple(PROMPTS.items()))
    config = models.config(
        vocab_size=vocab_size, encoder=encoder, predictor=predictor,
        joint=tdt.JointConfig(width=12),
        features=tdt.FeatureConfig(num_mels=16, normalize=(0.0, 1.0)),
        **{"durations": None, **fields},
    )  # fmt: skip
    model = models.transducer(config, seed=1)
    features, lengths = streaming_cases.utterances()
    frames, _ = tdt.encode(model, features[:8], lengths[:8].astype(np.int32))
    labels = np.random.default_rng(3).integers(0, 20, (8, 5)).astype(np.int32)
    for head, logits in zip(
        (model.joint.token_head, model.joint.duration_head),
        jax.jit(model.joint)(frames, model.predictor(labels)),
        strict=True,
    ):
        if head is None:
            continue
        logits = np.asarray(logits).reshape(-1, logits.shape[-1])
        mean, deviation = logits.mean(0), logits.std(0)
        bias = (np.asarray(head.bias[...]) - mean) / deviation
        if head is model.joint.token_head:
            bias[-1] += 2.2 if config.durations is None else 1.0
        else:
            bias[0] -= 1.5  # else duration 0 for ever
        head.kernel = nnx.Param(jnp.asarray(np.asarray(head.kernel[...]) / deviation))
        head.bias = nnx.Param(jnp.asarray(bias.astype(np.float32)))
    return model


def computed(model) -> dict[str, np.ndarray]:
    """Returns what a model computes for the random utterances, in every context."""
    features, lengths = streaming_cases.utterances()
    lengths, arrays = lengths.astype(np.int32), {}
    for context in model.config.encoder.chunked_contexts or (*UNIFIED, None):
        frames, num_frames = tdt.encode(model, features, lengths, context=context)
        hypothesis = jax.device_get(tdt.greedy_decode(model, frames, num_frames))
        name = "_".join(map(str, context or ("whole",)))
        projected = model.joint.frame_projection(frames[:2])
        arrays |= {f"frames_{name}": frames[:2], f"projected_{name}": projected}
        for part in ("num_labels", "labels", "times"):
            arrays[f"{part}_{name}"] = getattr(hypothesis, part)
    return {name: np.asarray(array) for name, array in arrays.items()}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
