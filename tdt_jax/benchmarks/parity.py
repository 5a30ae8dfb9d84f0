"""How far a Parakeet of full size is from transformers' with the same random weights."""

# pyright: reportMissingImports=false

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.benchmarks.peers import make_peer
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import in_subprocess, peak_since, reset_peak, timed
from tdt_jax.checkpoints.loading import load
from tdt_jax.config import ModelConfig
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.models.attention import position_encoding
from tdt_jax.models.transducer import Transducer, encode

NUM_STAGED = 4  # utterances of which every stage is compared


def parity_report(name: str, config: ModelConfig, *, num_utterances: int) -> Report:
    """Compares a model of this size with transformers', stage by stage and label by label.

    The weights take a user's way: saved by transformers, loaded by `tdt_jax.load`.
    """
    with tempfile.TemporaryDirectory() as folder:
        theirs = in_subprocess(_peer_stages, config, folder, num_utterances)
        row = in_subprocess(_compare, folder, theirs)
    lines = [f"{name}: beside transformers, float32, random weights"]
    lines += [f"  {stage:24s} {error:.1e}" for stage, error in row["errors"].items()]
    lines.append(
        f"  greedy decoding: {row['alike']} of {row['compared']} utterances alike in tokens, "
        f"times and durations ({row['labels']} labels, by duration {row['durations']}); "
        f"{num_utterances - row['compared']} left out: more labels at a frame than the most"
    )
    lines.append(
        f"  loading {row['bytes'] / 1e9:.2f} GB: {row['load']:.2f} s, reading the file "
        f"{row['read']:.2f} s"
    )
    if row["peak"] is not None:
        lines[-1] += f"; the process grew to {row['peak'] / row['bytes']:.2f} x the file"
    return Report([row], "\n".join(lines))


def _inputs(config: ModelConfig, num_utterances: int) -> tuple[np.ndarray, ...]:
    """Returns features [N, M, F], lengths [N], and labels [NUM_STAGED, U]."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(20, 161, num_utterances).astype(np.int32)
    lengths[0] = 160
    shape = num_utterances, 160, config.features.num_mels
    features = rng.standard_normal(shape, dtype=np.float32)
    features[np.arange(160)[None] >= lengths[:, None]] = 0
    labels = rng.integers(0, config.vocab_size, (NUM_STAGED, 6)).astype(np.int32)
    return features, lengths, labels


# transformers'


def _peer_stages(config: ModelConfig, folder: str, num_utterances: int) -> dict[str, Any]:
    """Saves a random model of transformers', and returns its stages and what it emits."""
    import torch

    peer, blank = make_peer(config), config.blank
    features, lengths, labels = _inputs(config, num_utterances)
    mask = torch.from_numpy(np.arange(features.shape[1])[None] < lengths[:, None])
    x, start = torch.from_numpy(features), torch.full((NUM_STAGED, 1), blank)
    first, first_mask = x[:NUM_STAGED], mask[:NUM_STAGED]
    with torch.no_grad():
        states = peer.decoder(torch.cat([start, torch.from_numpy(labels).long()], 1))

        def logits():
            frames = peer.get_audio_features(first, first_mask).pooler_output
            return peer.joint(states[:, None], frames[:, :, None])

        # Heads in which every output has its turn, blanks most often.
        flat = logits().flatten(0, -2)
        peer.joint.head.weight /= flat.std(0)[:, None]
        peer.joint.head.bias -= flat.mean(0)
        peer.joint.head.bias /= flat.std(0)
        peer.joint.head.bias[blank] += 3.5
        if config.durations is not None:
            peer.joint.head.bias[blank + 1] -= 0.2
        hidden = peer.encoder(first, first_mask, output_hidden_states=True).hidden_states
        stages = {"subsampled": peer.encoder.subsampling(first, first_mask)}
        stages |= {f"block {i}": each for i, each in enumerate(hidden[1:])}
        stages |= {"states": states, "logits": logits()}
        emitted = [_peer_greedy(peer, x[i : i + 1, :n], blank) for i, n in enumerate(lengths)]
    peer.save_pretrained(folder)
    processor = {"feature_size": config.features.num_mels}
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(processor))
    (Path(folder) / "tokenizer.json").write_text(_any_tokenizer(config.vocab_size))
    return {"stages": {k: v.numpy() for k, v in stages.items()}, "emitted": emitted}


def _peer_greedy(peer, x, blank: int) -> tuple[np.ndarray, ...] | None:
    """Returns labels, times and durations of transformers' own decoding.

    None where the two differ by design: transformers does not limit a TDT's labels at a frame.
    """
    import torch

    durations = getattr(peer.config, "durations", ())
    suppressed = list(range(blank + 1, blank + 1 + len(durations)))
    out = peer.generate(
        input_features=x,
        attention_mask=torch.ones(x.shape[:2], dtype=torch.bool),
        decoder_start_token_id=blank,
        max_new_tokens=12 * -(-x.shape[1] // 8),
        **({"suppress_tokens": suppressed} if suppressed else {}),
    )
    steps = out.durations[0, 1:].numpy()
    tokens = out.sequences[0, 1 : 1 + len(steps)].numpy()
    times, emitted = np.cumsum(steps) - steps, tokens != blank
    most = np.bincount(times[emitted], minlength=1).max()
    if durations and most >= peer.config.max_symbols_per_step:
        return None
    return tokens[emitted], times[emitted], steps[emitted]


def _any_tokenizer(vocab_size: int) -> str:
    """Returns a tokenizer.json of pieces without meaning."""
    pieces = ["<unk>"] + [f"▁{index}" for index in range(1, vocab_size)]
    model = {"type": "Unigram", "unk_id": 0, "vocab": [[piece, 0.0] for piece in pieces]}
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    return json.dumps({"model": model, "pre_tokenizer": spaces, "added_tokens": []})


# Ours


def _compare(folder: str, theirs: dict[str, Any]) -> dict[str, Any]:
    """Loads the model that transformers has saved, and returns the figures of the report."""
    jax.devices()
    files = sorted(Path(folder).glob("*.safetensors"))
    read, _ = timed(lambda: [file.read_bytes() for file in files])
    before = reset_peak()

    def load_all():
        recogniser = load(folder)
        jax.block_until_ready(jax.tree.leaves(recogniser.model))
        return recogniser

    seconds, recogniser = timed(load_all)
    peak, model, emitted = peak_since(before), recogniser.model, theirs["emitted"]
    features, lengths, labels = _inputs(model.config, len(emitted))
    staged = features[:NUM_STAGED], lengths[:NUM_STAGED]
    return {
        "errors": _errors(model, theirs["stages"], *staged, labels),
        **_decoded_alike(model, features, lengths, emitted),
        "bytes": sum(file.stat().st_size for file in files),
        "load": seconds,
        "read": read,
        "peak": peak,
    }


def _errors(
    model: Transducer,
    stages: dict[str, np.ndarray],
    features: np.ndarray,
    lengths: np.ndarray,
    labels: np.ndarray,
) -> dict[str, float]:
    """Returns the largest error of each stage, relative to the stage's largest value."""
    config, errors = model.config, {}
    if model.predictor is None or model.joint is None:
        raise ValueError("a CTC model has no predictor and no joint network to compare")

    def check(stage, result, expected):
        result = np.asarray(result)
        errors[stage] = float(np.max(np.abs(result - expected)) / np.max(np.abs(expected)))

    subsampling, blocks = model.encoder.subsampling, model.encoder.blocks
    x, num_frames = jax.jit(type(subsampling).__call__)(subsampling, features, lengths)
    valid = np.arange(x.shape[1])[None] < np.asarray(num_frames)[:, None]
    check("subsampled", x[valid], stages["subsampled"][valid])
    if config.encoder.scale_input:
        x = x * config.encoder.width**0.5
    positions = position_encoding(x.shape[1] - 1, 1 - x.shape[1], x.shape[2])
    apply = jax.jit(type(blocks).__call__)
    last = config.encoder.num_layers - 1
    for i in range(config.encoder.num_layers):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        x = apply(block, x, positions, jnp.asarray(~valid))
        if i in (0, config.encoder.num_layers // 2, last):
            check(f"block {i}", x[valid], stages[f"block {i}"][valid])
    frames, _ = encode(model, features, lengths)
    check("frames", frames[valid], stages[f"block {last}"][valid])
    states = model.predictor(jnp.asarray(labels))
    check("predictor, projected", model.joint.project_states(states), stages["states"])
    logits = [each for each in model.joint(frames, states) if each is not None]
    check("logits", jnp.concatenate(logits, -1)[valid], stages["logits"][valid])
    return errors


def _decoded_alike(
    model: Transducer, features: np.ndarray, lengths: np.ndarray, emitted: list
) -> dict[str, Any]:
    """Returns how many utterances are decoded as transformers decodes them, and what is emitted."""
    durations = model.config.durations
    alike, lasted, batch = 0, [], 8
    for first in range(0, len(lengths), batch):
        rows = slice(first, first + batch)
        encoded = encode(model, features[rows], lengths[rows])
        options = dict(max_symbols=model.config.max_symbols)
        hypothesis = jax.device_get(greedy_decode(model, *encoded, **options))
        for row, theirs in enumerate(emitted[rows]):
            if theirs is None:
                continue
            count = int(hypothesis.num_labels[row])
            ours = hypothesis.labels, hypothesis.times, hypothesis.durations
            ours = [each[row, :count] for each in ours]
            compared = 2 if durations is None else 3
            alike += all(map(np.array_equal, ours[:compared], theirs[:compared]))
            lasted.append(ours[2])
    lasted = np.concatenate(lasted)
    return {
        "alike": alike,
        "compared": sum(each is not None for each in emitted),
        "labels": len(lasted),
        "durations": np.bincount(lasted, minlength=len(durations or (0,))).tolist(),
    }
