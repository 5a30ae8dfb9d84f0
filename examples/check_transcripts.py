"""Finds wrong transcripts in a corpus: lists the utterances that a model finds least probable.

    python examples/check_transcripts.py runs/quickstart train.jsonl --num 50

The measure is the transducer loss of the given text, in nats per label. High values come from
transcripts that do not match the audio, cut recordings, and noise; listen to these first.
"""

import argparse
import sys

import jax
import numpy as np

import tdt_jax as tdt
from tdt_jax.audio.reading import as_samples
from tdt_jax.data.manifest import read_manifest


@jax.jit
def loss_per_label(model, samples, num_samples, labels, num_labels) -> jax.Array:
    """Returns [B], the loss of labels [B, U] given samples [B, S], divided by their number."""
    config = model.config
    features, num_features = tdt.log_mel(samples, num_samples, config.features)
    frames, num_frames = tdt.encode(model, features, num_features)
    given = model.joint, frames, model.predictor(labels), labels, num_frames, num_labels
    return tdt.transducer_loss(*given, durations=config.durations) / num_labels.clip(1)


def stacked(rows: list[np.ndarray], num_rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of different lengths as [num_rows, width] with zeros, and their lengths."""
    array = np.zeros((num_rows, width), rows[0].dtype)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    lengths = [len(row) for row in rows] + [0] * (num_rows - len(rows))
    return array, np.array(lengths, np.int32)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run, a .nemo archive, a Hugging Face folder or repository")
    parser.add_argument("manifest", help="JSONL: audio_filepath, duration, text")
    parser.add_argument("--num", type=int, default=20, help="utterances to list [20]")
    parser.add_argument("--batch", type=int, default=8, help="utterances at a time [8]")
    parser.add_argument("--seconds", type=float, default=20.0, help="the longest to check [20]")
    options = parser.parse_args(arguments)

    recogniser = tdt.load(options.model)
    rate = recogniser.config.features.sample_rate
    entries = read_manifest(options.manifest)
    short = sorted((e for e in entries if e.seconds <= options.seconds), key=lambda e: e.seconds)
    labels = [np.array(recogniser.tokenizer.encode(entry.text), np.int32) for entry in short]
    width = max(map(len, labels), default=1)  # one shape, so that one program is compiled
    losses = []
    for first in range(0, len(short), options.batch):
        batch = slice(first, first + options.batch)
        samples = [as_samples(entry.audio, rate) for entry in short[batch]]
        arrays = (
            *stacked(samples, options.batch, round((options.seconds + 1) * rate)),
            *stacked(labels[batch], options.batch, width),
        )
        losses += loss_per_label(recogniser.model, *arrays)[: len(samples)].tolist()

    ranked = sorted(zip(losses, short, strict=True), key=lambda pair: -pair[0])
    for loss, entry in ranked[: options.num]:
        print(f"{loss:.3f}\t{entry.id}\t{entry.text}")
    print(f"checked {len(short)} of {len(entries)} utterances; mean {np.mean(losses):.3f}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:  # a bad argument or file, which it names
        sys.exit(f"error: {error}")
