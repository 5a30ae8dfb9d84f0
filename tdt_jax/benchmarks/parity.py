"""How far a Parakeet of full size is from transformers' with the same random weights."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from tdt_jax.benchmarks.encoder import make_peer
from tdt_jax.benchmarks.timing import in_subprocess, peak_since, reset_peak
from tdt_jax.config import ModelConfig


def compare(name: str, config: ModelConfig, *, num_utterances: int) -> str:
    """How far a model of this size is from transformers' with the same weights, as a table.

    The weights go the way of a user's: saved by transformers, loaded by `tdt_jax.load`.
    """
    with tempfile.TemporaryDirectory() as folder:
        theirs = in_subprocess(_peer_stages, config, folder, num_utterances)
        ours = in_subprocess(_our_stages, folder, theirs)
    lines = [f"{name}: beside transformers, float32, random weights"]
    lines += [f"  {stage:24s} {error:.1e}" for stage, error in ours["errors"].items()]
    lines.append(
        f"  greedy decoding: {ours['alike']} of {ours['compared']} utterances alike in tokens, "
        f"times and durations ({ours['labels']} labels, by duration {ours['durations']}); "
        f"{num_utterances - ours['compared']} left out: more labels at a frame than the most"
    )
    lines.append(
        f"  loading {ours['bytes'] / 1e9:.2f} GB: {ours['load']:.2f} s, reading the file "
        f"{ours['read']:.2f} s; the process grew to {ours['peak'] / ours['bytes']:.2f} x the file"
    )
    return "\n".join(lines)


def _parity_inputs(config: ModelConfig, num_utterances: int):
    rng = np.random.default_rng(1)
    lengths = rng.integers(20, 161, num_utterances).astype(np.int32)
    lengths[0] = 160
    shape = num_utterances, 160, config.features.num_mels
    features = rng.standard_normal(shape, dtype=np.float32)
    features[np.arange(160)[None] >= lengths[:, None]] = 0
    labels = rng.integers(0, config.vocab_size, (4, 6)).astype(np.int32)
    return features, lengths, labels


def _peer_stages(config: ModelConfig, folder: str, num_utterances: int) -> dict:
    import torch

    peer, blank = make_peer(config), config.blank
    features, lengths, labels = _parity_inputs(config, num_utterances)
    mask = torch.from_numpy(np.arange(features.shape[1])[None] < lengths[:, None])
    x, start = torch.from_numpy(features), torch.full((4, 1), blank)
    with torch.no_grad():
        states = peer.decoder(torch.cat([start, torch.from_numpy(labels).long()], 1))

        def logits():
            frames = peer.get_audio_features(x[:4], mask[:4]).pooler_output
            return peer.joint(states[:, None], frames[:, :, None])

        # Heads in which every output has its turn, blanks most often.
        flat = logits().flatten(0, -2)
        peer.joint.head.weight /= flat.std(0)[:, None]
        peer.joint.head.bias -= flat.mean(0)
        peer.joint.head.bias /= flat.std(0)
        peer.joint.head.bias[blank] += 3.5
        if config.durations is not None:
            peer.joint.head.bias[blank + 1] -= 0.2
        hidden = peer.encoder(x[:4], mask[:4], output_hidden_states=True).hidden_states
        stages = {"subsampled": peer.encoder.subsampling(x[:4], mask[:4])}
        stages |= {f"block {i}": each for i, each in enumerate(hidden[1:])}
        stages |= {"states": states, "logits": logits()}
        found = [_peer_greedy(peer, x[i : i + 1, :n], blank) for i, n in enumerate(lengths)]
    peer.save_pretrained(folder)
    processor = {"feature_size": config.features.num_mels}
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(processor))
    (Path(folder) / "tokenizer.json").write_text(_any_tokenizer(config.vocab_size))
    return {"stages": {k: v.numpy() for k, v in stages.items()}, "found": found,
            "num_utterances": num_utterances}  # fmt: skip


def _peer_greedy(peer, x, blank: int):
    """Labels, times, durations of transformers' own decoding; None where they differ by design.

    It knows no most number of labels at a frame for a TDT.
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
    times = np.cumsum(steps) - steps
    said = tokens != blank
    if (
        durations
        and np.bincount(times[said], minlength=1).max() >= peer.config.max_symbols_per_step
    ):
        return None
    return tokens[said], times[said], steps[said]


def _any_tokenizer(vocab_size: int) -> str:
    pieces = ["<unk>"] + [f"▁{index}" for index in range(1, vocab_size)]
    model = {"type": "Unigram", "unk_id": 0, "vocab": [[piece, 0.0] for piece in pieces]}
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    return json.dumps({"model": model, "pre_tokenizer": spaces, "added_tokens": []})


def _our_stages(folder: str, theirs: dict) -> dict:
    import jax
    import jax.numpy as jnp

    import tdt_jax as tdt
    from tdt_jax.models.attention import position_encoding

    jax.devices()
    files = sorted(Path(folder).glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    start = time.perf_counter()
    for file in files:
        file.read_bytes()
    read = time.perf_counter() - start
    before = reset_peak()
    start = time.perf_counter()
    recogniser = tdt.load(folder)
    jax.block_until_ready(jax.tree.leaves(recogniser.model))
    load, peak = time.perf_counter() - start, peak_since(before)

    model, config = recogniser.model, recogniser.config
    features, lengths, labels = _parity_inputs(config, theirs["num_utterances"])
    errors = {}

    def check(stage, found, expected):
        found, expected = np.asarray(found), np.asarray(expected)
        errors[stage] = float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))

    stages = theirs["stages"]
    subsampling, blocks = model.encoder.subsampling, model.encoder.blocks
    x, num_frames = jax.jit(type(subsampling).__call__)(subsampling, features[:4], lengths[:4])
    valid = np.arange(x.shape[1])[None] < np.asarray(num_frames)[:, None]
    check("subsampled", x[valid], stages["subsampled"][valid])
    if config.encoder.scale_input:
        x = x * config.encoder.width**0.5
    positions = position_encoding(x.shape[1] - 1, 1 - x.shape[1], x.shape[2])
    apply = jax.jit(type(blocks).__call__)
    shown = {0, config.encoder.num_layers // 2, config.encoder.num_layers - 1}
    for i in range(config.encoder.num_layers):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        x = apply(block, x, positions, jnp.asarray(~valid))
        if i in shown:
            check(f"block {i}", x[valid], stages[f"block {i}"][valid])
    frames, _ = tdt.encode(model, features[:4], lengths[:4])
    check("frames", frames[valid], stages[f"block {config.encoder.num_layers - 1}"][valid])
    states = model.predictor(jnp.asarray(labels))
    check("predictor, projected", model.joint.project_states(states), stages["states"])
    logits = [each for each in model.joint(frames, states) if each is not None]
    check("logits", jnp.concatenate(logits, -1)[valid], stages["logits"][valid])

    alike, counted, batch = 0, [], 8
    for first in range(0, len(lengths), batch):
        rows = slice(first, first + batch)
        hypothesis = jax.device_get(
            tdt.greedy_decode(model, *tdt.encode(model, features[rows], lengths[rows]))
        )
        for row, found in enumerate(theirs["found"][rows]):
            if found is None:
                continue
            tokens, times, durations = found
            count = int(hypothesis.num_labels[row])
            same = count == len(tokens) and np.array_equal(hypothesis.labels[row, :count], tokens)
            same = same and np.array_equal(hypothesis.times[row, :count], times)
            if config.durations is not None:
                same = same and np.array_equal(hypothesis.durations[row, :count], durations)
            alike += bool(same)
            counted.append(hypothesis.durations[row, :count])
    counted = np.concatenate(counted)
    sizes = len(config.durations or (0,))
    return {
        "errors": errors,
        "alike": alike,
        "compared": sum(each is not None for each in theirs["found"]),
        "labels": len(counted),
        "durations": np.bincount(counted, minlength=sizes).tolist(),
        "bytes": size,
        "load": load,
        "read": read,
        "peak": peak,
    }
