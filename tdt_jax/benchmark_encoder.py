"""The encoder's speed and memory, and how far a model of full size is from transformers' (parity).

Weights are random: published ones need not be at hand. Every measurement runs in a process of its
own; figures of one call compare with each other, and with nothing else.
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tdt_jax import presets
from tdt_jax.benchmark import _apart, _installed, _peak_since, _reset_peak, _timed
from tdt_jax.config import ModelConfig

MODELS: dict[str, ModelConfig] = {
    "110m": presets.PARAKEET_TDT_CTC_110M,
    "0.6b": presets.PARAKEET_TDT_0_6B_V3,
    "1.1b": presets.PARAKEET_TDT_1_1B,
    "rnnt-0.6b": presets.PARAKEET_RNNT_0_6B,
}


class Speed(NamedTuple):
    """An encoder that was run."""

    seconds: float  # the median
    compile_seconds: float
    flops: float  # of its products, counted from the sizes
    temporary_bytes: int | None  # of the compiled program, by XLA's own account
    peak_bytes: int | None  # by which the process grew at its peak
    device: str


def flops(config: ModelConfig, num_features: int) -> float:
    """Floating point operations of the encoder's products on one utterance."""
    encoder, bins, rows = config.encoder, config.features.num_mels, num_features
    width, channels, total = encoder.width, encoder.subsampling_channels, 0.0
    for stage in range(3):
        rows, bins = -(-rows // 2), -(-bins // 2)
        total += 2 * rows * bins * channels * (9 + (channels if stage else 0))
    total += 2 * rows * bins * channels * width
    context = encoder.attention_context
    seen = rows if context is None else min(rows, 3 * max(context))
    positions = 2 * rows if context is None else sum(context) + 1
    per_frame = (4 * encoder.feed_forward_factor + 4 + 3) * width**2  # products with matrices
    per_frame += width * encoder.kernel_size + width * (2 * seen + positions)
    return total + 2 * encoder.num_layers * (rows * per_frame + positions * width**2)


def measure(config: ModelConfig, *, seconds: float, batch: int, dtype: str, repeats: int) -> Speed:
    """`tdt_jax.encode` on random features of some seconds."""
    return _apart(_measure, config, seconds, batch, dtype, repeats)


def _measure(config: ModelConfig, seconds: float, batch: int, dtype: str, repeats: int) -> Speed:
    import jax

    from tdt_jax.model import encode

    config = dataclasses.replace(config, dtype=dtype)
    model = _random_model(config, dtype)
    features, lengths = _features(config, seconds, batch)
    start = time.perf_counter()
    compiled = encode.lower(model, features, lengths).compile()
    compile_seconds = time.perf_counter() - start
    before = _reset_peak()
    taken, _ = _timed(lambda: jax.block_until_ready(compiled(model, features, lengths)), repeats)
    peak, device = _peak_since(before), jax.devices()[0]
    if device.platform != "cpu":
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use")  # parameters and all
    temporary = compiled.memory_analysis().temp_size_in_bytes
    total = batch * flops(config, features.shape[1])
    return Speed(taken, compile_seconds, total, temporary, peak, device.device_kind)


def _random_model(config: ModelConfig, dtype: str):
    import jax
    import jax.numpy as jnp

    from tdt_jax.recogniser import abstract_model

    def fill(path, leaf):
        size = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        key = jax.random.key(hash(jax.tree_util.keystr(path)) % (1 << 31), impl="rbg")
        return jax.random.normal(key, leaf.shape, jnp.dtype(dtype)) / np.float32(size**0.5).astype(
            jnp.dtype(dtype)
        )

    return jax.tree.map_with_path(fill, abstract_model(config))


def _features(config: ModelConfig, seconds: float, batch: int):
    num_features = round(seconds * 100)
    shape = batch, num_features, config.features.num_mels
    features = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return features, np.full((batch,), num_features, np.int32)


def matmul_rate(config: ModelConfig, dtype: str) -> float:
    """The best flop/s of the feed-forward's product."""
    return _apart(_matmul_rate, config.encoder.width, dtype)


def _matmul_rate(width: int, dtype: str) -> float:
    import jax
    import jax.numpy as jnp

    best = 0.0
    for rows in (512, 4096):
        x, kernel = jnp.ones((rows, width), dtype), jnp.ones((width, 4 * width), dtype)
        function = jax.jit(jnp.matmul)
        seconds, _ = _timed(lambda f=function, x=x, k=kernel: jax.block_until_ready(f(x, k)), 10)
        best = max(best, 8 * rows * width**2 / seconds)
    return best


def describe(name: str, config: ModelConfig, seconds: float, batch: int, rate: float,
             speeds: dict[str, Speed]) -> str:  # fmt: skip
    """A table to read."""
    first = next(iter(speeds.values()))
    context = config.encoder.attention_context
    lines = [
        f"{name}: encoder of {batch} x {seconds:g} s, attention "
        f"{'full' if context is None else context}; {first.flops / 1e9:.0f} GFLOP; products alone "
        f"{rate / 1e9:.0f} GFLOP/s; on {first.device}"
    ]
    for method, speed in speeds.items():
        memory = [
            f"{label} {value / 1e6:.0f} MB"
            for label, value in (("temporaries", speed.temporary_bytes), ("peak", speed.peak_bytes))
            if value is not None
        ]
        lines.append(
            f"  {method:14s} {speed.seconds:8.3f} s  {batch * seconds / speed.seconds:7.1f} x real "
            f"time  {first.flops / speed.seconds / rate:5.2f} of the products' rate  "
            + "  ".join(memory)
        )
        if speed is not first:
            lines[-1] += f"  {first.seconds / speed.seconds:.2f} = ours / theirs"
    return "\n".join(lines)


# Beside transformers


def require_peers() -> None:
    """Raise ValueError unless torch and transformers are installed."""
    if missing := [x for x in ("torch", "transformers") if not _installed(x)]:
        raise ValueError(f"--peers needs {' and '.join(missing)} (pip install) beside tdt_jax")


def measure_peer(config: ModelConfig, *, seconds: float, batch: int, repeats: int) -> Speed:
    """transformers' encoder in float32 on the CPU, on the same features."""
    return _apart(_measure_peer, config, seconds, batch, repeats)


def _measure_peer(config: ModelConfig, seconds: float, batch: int, repeats: int) -> Speed:
    import torch

    encoder = _peer(config).encoder
    features, lengths = _features(config, seconds, batch)
    x, mask = torch.from_numpy(features), torch.ones(features.shape[:2], dtype=torch.bool)
    before = _reset_peak()
    with torch.no_grad():
        taken, _ = _timed(lambda: encoder(x, mask), repeats)
    device = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    total = batch * flops(config, int(lengths[0]))
    return Speed(taken, 0.0, total, None, _peak_since(before), device)


def _peer(config: ModelConfig):
    """A transformers model of the same sizes, whose weights make every part matter."""
    import torch
    import transformers

    from tdt_jax.pretrained.hugging_face import model_config

    fields = model_config(dataclasses.replace(config, ctc=False))
    kind = fields["architectures"][0]
    cls = getattr(transformers, kind.replace("For", "") + "Config")
    fields.pop("dtype")
    peer = getattr(transformers, kind)(cls(**fields)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in peer.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif "norm" in name and name.endswith("weight"):
                tensor.uniform_(0.8, 1.2, generator=generator)
            elif tensor.ndim > 1:
                tensor.normal_(0, np.prod(tensor.shape[1:]) ** -0.5, generator=generator)
            else:
                tensor.normal_(0, 0.1, generator=generator)
        peer.decoder.embedding.weight[config.blank] = 0
    return peer


def parity(name: str, config: ModelConfig, *, num_utterances: int) -> str:
    """How far a model of this size is from transformers' with the same weights, as a table.

    The weights go the way of a user's: saved by transformers, loaded by `tdt_jax.load`.
    """
    with tempfile.TemporaryDirectory() as folder:
        theirs = _apart(_peer_stages, config, folder, num_utterances)
        ours = _apart(_our_stages, folder, theirs)
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

    peer, blank = _peer(config), config.blank
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
    from tdt_jax.attention import position_encoding

    jax.devices()
    files = sorted(Path(folder).glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    start = time.perf_counter()
    for file in files:
        file.read_bytes()
    read = time.perf_counter() - start
    before = _reset_peak()
    start = time.perf_counter()
    recogniser = tdt.load(folder)
    jax.block_until_ready(jax.tree.leaves(recogniser.model))
    load, peak = time.perf_counter() - start, _peak_since(before)

    model, config = recogniser.model, recogniser.config
    features, lengths, labels = _parity_inputs(config, theirs["num_utterances"])
    errors = {}

    def compare(stage, found, expected):
        found, expected = np.asarray(found), np.asarray(expected)
        errors[stage] = float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))

    stages = theirs["stages"]
    subsampling, blocks = model.encoder.subsampling, model.encoder.blocks
    x, num_frames = jax.jit(type(subsampling).__call__)(subsampling, features[:4], lengths[:4])
    valid = np.arange(x.shape[1])[None] < np.asarray(num_frames)[:, None]
    compare("subsampled", x[valid], stages["subsampled"][valid])
    if config.encoder.scale_input:
        x = x * config.encoder.width**0.5
    positions = position_encoding(x.shape[1] - 1, 1 - x.shape[1], x.shape[2])
    apply = jax.jit(type(blocks).__call__)
    shown = {0, config.encoder.num_layers // 2, config.encoder.num_layers - 1}
    for i in range(config.encoder.num_layers):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        x = apply(block, x, positions, jnp.asarray(~valid))
        if i in shown:
            compare(f"block {i}", x[valid], stages[f"block {i}"][valid])
    frames, _ = tdt.encode(model, features[:4], lengths[:4])
    compare("frames", frames[valid], stages[f"block {config.encoder.num_layers - 1}"][valid])
    states = model.predictor(jnp.asarray(labels))
    compare("predictor, projected", model.joint.project_states(states), stages["states"])
    logits = [each for each in model.joint(frames, states) if each is not None]
    compare("logits", jnp.concatenate(logits, -1)[valid], stages["logits"][valid])

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


def encoder_report(
    names: list[str],
    *,
    seconds: float,
    batch: int,
    dtype: str,
    repeats: int,
    attention_context: tuple[int, int] | None,
    peers: bool,
) -> list[str]:
    """A table for each size.

    Raises:
      ValueError: for a size that there is not, and if peers are not installed.
    """
    if unknown := [name for name in names if name not in MODELS]:
        raise ValueError(f"no case {unknown[0]!r}; there are {', '.join(MODELS)}")
    if peers:
        require_peers()
    reports = []
    for name in names:
        config = MODELS[name]
        encoder = dataclasses.replace(config.encoder, attention_context=attention_context)
        config = dataclasses.replace(config, encoder=encoder)
        options = dict(seconds=seconds, batch=batch, repeats=repeats)
        speeds = {"tdt_jax": measure(config, dtype=dtype, **options)}
        if peers:
            full = dataclasses.replace(encoder, attention_context=None)
            speeds["transformers"] = measure_peer(
                dataclasses.replace(config, encoder=full), **options
            )
        rate = matmul_rate(config, dtype)
        reports.append(describe(name, config, seconds, batch, rate, speeds))
    return reports
