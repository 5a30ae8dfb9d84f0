"""Adapts a recogniser to new text: trains predictor and joint on a manifest, not the encoder.

    python examples/fine_tune.py nvidia/parakeet-tdt_ctc-110m train.jsonl runs/adapted --steps 500

With the encoder fixed, its frames are computed once for each utterance, and a step costs little.
The result is a recogniser like any other: `tdt-jax transcribe runs/adapted FILES`. To train all
parameters, on many devices and with augmentation, use train.py and configs/parakeet.py.
"""

import argparse
import functools
import sys

import jax
import numpy as np
import optax

import tdt_jax as tdt
from tdt_jax.audio.reading import as_samples
from tdt_jax.data.manifest import read_manifest


@jax.jit
def encode(model, samples, num_samples):
    """Returns the frames [1, T, D] and their number [1] of an utterance [1, S]."""
    return tdt.encode(model, *tdt.log_mel(samples, num_samples, model.config.features))


def mean_loss(parts, frames, labels, num_frames, num_labels, *, durations):
    """Returns the mean TDT (or RNN-T) loss per label; `parts` are predictor and joint."""
    predictor, joint = parts
    given = joint, frames, predictor(labels), labels, num_frames, num_labels
    return tdt.transducer_loss(*given, durations=durations).sum() / num_labels.sum()


def make_step(optimizer, durations):
    """Returns a function of (parts, optimizer state, arrays) that takes one training step."""
    loss = functools.partial(mean_loss, durations=durations)

    @jax.jit
    def step(parts, state, arrays):
        value, gradients = jax.value_and_grad(loss)(parts, *arrays)
        updates, state = optimizer.update(gradients, state, parts)
        return optax.apply_updates(parts, updates), state, value

    return step


def encoded(recogniser, entries, seconds: float):
    """Returns frames [N, T, D], labels [N, U] and their numbers [N] of all utterances."""
    rate = recogniser.config.features.sample_rate
    frames, num_frames = [], []
    for entry in entries:
        samples = np.zeros((1, round(seconds * rate)), np.float32)
        found = as_samples(entry.audio, rate)[: samples.shape[1]]
        samples[0, : len(found)] = found
        whole, number = encode(recogniser.model, samples, np.array([len(found)], np.int32))
        frames.append(np.asarray(whole[0]))
        num_frames.append(int(number[0]))
    texts = [recogniser.tokenizer.encode(entry.text) for entry in entries]
    num_labels = np.array([len(text) for text in texts], np.int32)
    labels = np.zeros((len(texts), max(num_labels)), np.int32)
    for row, text in zip(labels, texts, strict=True):
        row[: len(text)] = text
    return np.stack(frames), labels, np.array(num_frames, np.int32), num_labels


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run, a .nemo archive, a Hugging Face folder or repository")
    parser.add_argument("manifest", help="JSONL: audio_filepath, duration, text")
    parser.add_argument("folder", help="where the new recogniser is saved")
    parser.add_argument("--steps", type=int, default=500, help="training steps [500]")
    parser.add_argument("--batch", type=int, default=16, help="utterances in a step [16]")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate [1e-4]")
    parser.add_argument("--seconds", type=float, default=20.0, help="longest utterance [20]")
    options = parser.parse_args(arguments)

    recogniser = tdt.load(options.model)
    model = recogniser.model
    entries = [e for e in read_manifest(options.manifest) if e.seconds <= options.seconds]
    data = encoded(recogniser, entries, options.seconds)
    print(f"{len(entries)} utterances encoded")

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(options.rate))
    step = make_step(optimizer, model.config.durations)
    parts = model.predictor, model.joint
    state = jax.device_put(jax.jit(optimizer.init)(parts), jax.devices()[0])  # beside the parts
    rng = np.random.default_rng(0)
    for number in range(1, options.steps + 1):
        rows = rng.choice(len(entries), options.batch)
        parts, state, loss = step(parts, state, tuple(each[rows] for each in data))
        if number == 1 or number % 50 == 0 or number == options.steps:
            print(f"step {number}: loss {loss:.3f} per label")

    model.predictor, model.joint = parts
    tdt.save(recogniser, options.folder)
    print(f"saved in {options.folder}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:  # a bad argument or file, which it names
        sys.exit(f"error: {error}")
