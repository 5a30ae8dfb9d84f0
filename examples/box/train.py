"""Trains the model of configs/box.py for a given time, with corpus and augmentation on one device.

    python examples/box/train.py corpus/* --out runs/box --seconds 3000

The corpus lies in the device's memory as 16-bit samples. A compiled step draws utterances, changes
their speed and places them in a batch; the learning rate follows the time that is left. It writes
config.json, the tokenizer, and parameters as average.safetensors and last.safetensors.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import math
import os
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

START = time.perf_counter()

import jax
import jax.numpy as jnp
import numpy as np
import optax
import soundfile
from flax import nnx
from safetensors.numpy import load_file, save_file

from tdt_jax import config as configs
from tdt_jax import tokenizer as tokenizers
from tdt_jax.models.transducer import Transducer
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves, num_parameters
from tdt_jax.training.optimizer import decayed
from tdt_jax.training.step import BatchArrays, loss_and_metrics

ROOT = Path(__file__).parents[2]
RATE = 16000
SPEED = (0.88, 1.13)  # changes pitch and vocal tract as well
SHORT_SHARE = 0.12  # of the time, after which the next longer shape occurs as well
SAVE_EVERY = 40.0  # seconds
REPEATED = {"kokoro": 3}  # times that utterances of the most natural voices count


class Corpus(NamedTuple):
    samples: jax.Array  # [S] int16, of all utterances
    starts: jax.Array  # [N]
    lengths: jax.Array  # [N], samples
    labels: jax.Array  # [N, U]
    num_labels: jax.Array  # [N]
    pools: tuple[jax.Array, ...]  # by shape: the utterances that fit
    seconds: jax.Array  # those that fit as a second utterance


class State(NamedTuple):
    step: jax.Array
    model: Any
    average: Any
    optimizer: Any


def read_manifests(folders: list[Path], tokenizer, buckets) -> tuple[list[Path], Corpus]:
    """Returns the files of `make_corpus.py`'s folders, and the corpus with samples yet to come."""
    lines, files = [], []
    for folder in folders:
        for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            path = folder / entry["audio_filepath"]
            if not files or files[-1] != path:
                files.append(path)
            engine = entry["speaker"].partition("_")[0]
            lines.append((path, entry["offset"], entry["duration"], entry["text"], engine))
    bounds = np.cumsum([0, *(soundfile.info(path).frames for path in files)])
    places = dict(zip(files, bounds, strict=False))
    longest = buckets[-1]
    starts, lengths, labels, times = [], [], [], []
    for path, offset, seconds, text, engine in lines:
        tokens = tokenizer.encode(text)
        if seconds / SPEED[0] > longest.seconds or len(tokens) > longest.tokens:
            continue
        starts.append(places[path] + round(offset * RATE))
        lengths.append(round(seconds * RATE))
        labels.append(tokens)
        times.append(REPEATED.get(engine, 1))
    counts, lengths = np.array([len(each) for each in labels]), np.array(lengths)
    table = np.zeros((len(labels), longest.tokens), np.int32)
    for row, each in zip(table, labels, strict=True):
        row[: len(each)] = each

    def pool(fits):
        return np.repeat(np.flatnonzero(fits), np.array(times)[fits]).astype(np.int32)

    pools = [pool((lengths / SPEED[0] <= b.seconds * RATE) & (counts <= b.tokens)) for b in buckets]
    tables = Corpus(
        jax.ShapeDtypeStruct((int(bounds[-1]),), jnp.int16),
        np.array(starts, np.int32), lengths.astype(np.int32), table, counts.astype(np.int32),
        tuple(pools), pool((lengths <= 2.6 * RATE) & (counts <= 14)),
    )  # fmt: skip
    hours = lengths.sum() / RATE / 3600
    print(f"{len(lines)} utterances, {len(labels)} kept, {hours:.2f} h; pools {[*map(len, pools)]}")
    return files, tables


def read_samples(files: list[Path], size: int) -> np.ndarray:
    """Returns the samples of all files, one after the other: [size] int16."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda path: soundfile.read(path, dtype="int16")[0], files))
    samples = np.concatenate(parts)
    assert len(samples) == size, (len(samples), size)
    return samples


def make_batch(corpus: Corpus, key: jax.Array, index: int, bucket: configs.Bucket) -> BatchArrays:
    """Returns a batch of one shape: in each row one utterance, or two in the longest shape."""
    rows, width = bucket.batch_size, int(bucket.seconds * RATE)
    keys = jax.random.split(key, 10)

    def uniform(key, low, high):
        return jax.random.uniform(key, (rows,), minval=low, maxval=high)

    def drawn(key, pool):
        return pool[jax.random.randint(key, (rows,), 0, len(pool))]

    first, second = drawn(keys[0], corpus.pools[index]), drawn(keys[1], corpus.seconds)
    speeds = uniform(keys[2], *SPEED), uniform(keys[3], *SPEED)
    sizes = [
        jnp.floor(corpus.lengths[which] / speed).astype(jnp.int32) - 2
        for which, speed in zip((first, second), speeds, strict=True)
    ]
    gap = (uniform(keys[4], 0.0, 0.6) * RATE).astype(jnp.int32)
    counts = corpus.num_labels[first], corpus.num_labels[second]
    both = (sizes[0] + gap + sizes[1] < width) & (counts[0] + counts[1] <= bucket.tokens)
    is_longest = index == len(corpus.pools) - 1
    both &= uniform(keys[5], 0.0, 1.0) < (0.6 if is_longest else 0.0)
    total = sizes[0] + jnp.where(both, gap + sizes[1], 0)
    room = (width - total).astype(jnp.float32)
    lead = (uniform(keys[6], 0.0, 1.0) * jnp.minimum(room, 0.8 * RATE)).astype(jnp.int32)
    room = (width - total - lead).astype(jnp.float32)
    trail = (uniform(keys[7], 0.0, 1.0) * jnp.minimum(room, 0.8 * RATE)).astype(jnp.int32)

    def placed(which, speed, size, start):
        position = jnp.arange(width)[None, :] - start[:, None]
        place = jnp.maximum(position, 0).astype(jnp.float32) * speed[:, None]
        whole = jnp.floor(place)
        weight = place - whole
        place = corpus.starts[which][:, None] + whole.astype(jnp.int32)
        last = len(corpus.samples) - 1
        a, b, c, d = (
            corpus.samples[jnp.clip(place + k, 0, last)].astype(jnp.float32) for k in (-1, 0, 1, 2)
        )
        # Catmull-Rom
        value = b + 0.5 * weight * (
            c - a + weight * (2 * a - 5 * b + 4 * c - d + weight * (3 * (b - c) + d - a))
        )
        return jnp.where((position >= 0) & (position < size[:, None]), value / 32768, 0.0)

    samples = placed(first, speeds[0], sizes[0], lead)
    if is_longest:
        level = 10 ** (uniform(keys[8], -6.0, 6.0) / 20)[:, None]
        other = placed(second, speeds[1], sizes[1], lead + sizes[0] + gap)
        samples += jnp.where(both[:, None], level * other, 0.0)
    position = jnp.arange(bucket.tokens)[None, :]
    width_all = corpus.labels.shape[1]
    a = corpus.labels[first][:, : bucket.tokens]
    b = jnp.take_along_axis(
        corpus.labels[second], jnp.clip(position - counts[0][:, None], 0, width_all - 1), axis=1
    )
    num_labels = counts[0] + jnp.where(both, counts[1], 0)
    labels = jnp.where(position < counts[0][:, None], a, b)
    return BatchArrays(
        samples=samples,
        num_samples=total + lead + trail,
        labels=jnp.where(position < num_labels[:, None], labels, 0),
        num_labels=num_labels,
        num_leading_samples=lead,
    )


def optimizer(config: configs.OptimizerConfig) -> optax.GradientTransformation:
    """Returns AdamW without its learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(*config.betas),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
    )


@functools.partial(jax.jit, static_argnames=("config", "index"), donate_argnames="state")
def train_step(state: State, corpus: Corpus, key, rate, *, config: configs.Config, index: int):
    """Returns the state after a step, the loss per label, and the gradient's norm."""
    keys = jax.random.split(jax.random.fold_in(key, state.step))
    batch = make_batch(corpus, keys[0], index, config.data.buckets[index])
    gradient = jax.value_and_grad(loss_and_metrics, has_aux=True)
    (loss, metrics), gradients = gradient(state.model, batch, keys[1], config)
    norm = optax.tree.norm(gradients)
    gradients = jax.tree.map(lambda g: jnp.where(jnp.isfinite(norm), g, 0.0), gradients)
    updates, state_ = optimizer(config.optimizer).update(gradients, state.optimizer, state.model)
    model = jax.tree.map(lambda p, u: p - rate * u, state.model, updates)
    decay = jnp.minimum(config.optimizer.ema_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), state.average, model)
    return State(state.step + 1, model, average, state_), (loss, norm, metrics.num_impossible)


def save(state: State, out: Path) -> None:
    for name in ("average", "model"):
        leaves = named_leaves(jax.device_get(getattr(state, name)))
        file = "average" if name == "average" else "last"
        path = out / f"{file}.safetensors"
        save_file({k: np.ascontiguousarray(v) for k, v in leaves.items()}, out / "part")
        os.replace(out / "part", path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="since the start, to the end")
    parser.add_argument("--config", default=ROOT / "configs" / "box.py")
    parser.add_argument("--tokenizer", type=Path, help="otherwise trained on the corpus")
    parser.add_argument("--init", type=Path, help="parameters to start from: a .safetensors file")
    parser.add_argument("--short-share", type=float, default=SHORT_SHARE)
    parser.add_argument("--scale", type=float, default=1.0, help="of the batch sizes")
    a = parser.parse_args()
    end = START + a.seconds
    a.out.mkdir(parents=True, exist_ok=True)

    def log(line):
        print(f"{time.perf_counter() - START:6.1f} s  {line}", flush=True)

    config = configs.load(a.config)
    if a.tokenizer:
        tokenizer = tokenizers.load(a.tokenizer)
    else:
        texts = [
            json.loads(line)["text"]
            for folder in a.corpus
            for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()
        ]
        tokenizer = tokenizers.train_sentencepiece(texts, config.tokenizer.vocab_size)
    buckets = tuple(
        dataclasses.replace(b, batch_size=max(1, round(b.batch_size * a.scale)))
        for b in config.data.buckets
    )
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size),
        data=dataclasses.replace(config.data, buckets=buckets),
    )
    tokenizer.save(a.out)
    (a.out / "config.json").write_text(configs.to_json(config))
    # A loop over the blocks compiles in a fraction of the time.
    encoder = dataclasses.replace(config.model.encoder, unroll=1)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder))
    key = jax.random.key(config.training.seed)

    initial = load_file(a.init) if a.init else {}

    @jax.jit
    def start(key):
        model = Transducer(config.model, rngs=nnx.Rngs(key))
        if initial:
            model = from_named_leaves(initial, model)
        average = jax.tree.map(jnp.copy, model)
        state = optimizer(config.optimizer).init(model)
        return State(jnp.zeros((), jnp.int32), model, average, state)

    log(f"{jax.devices()}")
    files, tables = read_manifests(a.corpus, tokenizer, buckets)
    log("manifests read")
    num_threads = 1 if jax.default_backend() == "cpu" else 4  # its compiler takes gigabytes
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        loading = pool.submit(read_samples, files, tables.samples.shape[0])
        state = start(key)
        log(f"{num_parameters(state.model)} parameters, {tokenizer.vocab_size} tokens")

        def compiled(index):
            lowered = train_step.lower(
                state, tables, key, np.float32(0), config=config, index=index
            )
            return lowered.compile()

        programs = pool.map(compiled, range(len(buckets)))
        corpus = jax.tree.map(jnp.asarray, tables._replace(samples=loading.result()))
        log("samples read")
        steps = list(programs)
    log("compiled")
    begin = last_save = time.perf_counter()
    rng = np.random.default_rng(config.training.seed)
    peak, warmup = config.optimizer.learning_rate, config.optimizer.warmup_steps
    pending, done, losses, shown = deque(), 0, [], 0
    while (now := time.perf_counter()) < end - 3:
        share = (now - begin) / (end - 3 - begin)
        index = int(rng.integers(min(len(buckets), 1 + int(share / a.short_share))))
        rate = peak * min(1, (done + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * share))
        state, metrics = steps[index](state, corpus, key, np.float32(rate))
        pending.append(metrics)
        done += 1
        if len(pending) > 4:
            losses.append([float(x) for x in pending.popleft()])
        if done % 100 == 0 and losses:
            loss, norm, bad = np.array(losses[shown:]).mean(0)
            log(f"step {done} loss {loss:.3f} norm {norm:.2f} unaligned {bad:.1f} rate {rate:.2e}")
            shown = len(losses)
        if now - last_save > SAVE_EVERY:
            save(state, a.out)
            last_save = now
    jax.block_until_ready(state)
    save(state, a.out)
    log(f"{done} steps, loss {np.mean([each[0] for each in losses[-200:]]):.3f}")
    (a.out / "losses.json").write_text(json.dumps([round(x[0], 4) for x in losses]))


if __name__ == "__main__":
    main()
