"""Aligns transcripts with their recordings: the time of every word of a manifest, as CTM.

    python examples/align.py runs/quickstart train.jsonl > words.ctm

The model is not asked what was spoken, only where the given words are (forced alignment). Each line
has the utterance, the channel, the word's start and duration in seconds, the word, and the
probability of its least probable label.
"""

import argparse
import sys

import jax
import numpy as np

import tdt_jax as tdt
from tdt_jax.audio.reading import as_samples
from tdt_jax.data.manifest import read_manifest

IMPOSSIBLE = -1e29  # a log-probability below this: no alignment exists


@jax.jit
def align(model, samples, num_samples, labels, num_labels) -> tdt.Alignment:
    """Returns the best alignment of labels [B, U] with samples [B, S]."""
    config = model.config
    features, num_features = tdt.log_mel(samples, num_samples, config.features)
    frames, num_frames = tdt.encode(model, features, num_features)
    given = model.joint, frames, model.predictor(labels), labels, num_frames, num_labels
    return tdt.align(*given, durations=config.durations)


def padded(values: np.ndarray, multiple: int) -> np.ndarray:
    """Returns [1, n] with zeros up to a multiple, so that few shapes are compiled."""
    return np.pad(values, (0, -len(values) % multiple))[None]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run, a .nemo archive, a Hugging Face folder or repository")
    parser.add_argument("manifest", help="JSONL: audio_filepath, duration, text")
    options = parser.parse_args(arguments)

    recogniser = tdt.load(options.model)
    config, tokenizer = recogniser.config, recogniser.tokenizer
    rate, num_failed = config.features.sample_rate, 0
    for entry in read_manifest(options.manifest):
        samples = as_samples(entry.audio, rate)
        labels = np.array(tokenizer.encode(entry.text), np.int32)
        found = align(
            recogniser.model,
            padded(samples, 5 * rate),
            np.array([len(samples)], np.int32),
            padded(labels, 20),
            np.array([len(labels)], np.int32),
        )
        found = jax.device_get(found)
        if found.log_probability[0] < IMPOSSIBLE:
            print(f"{entry.id}: the audio is too short for the text", file=sys.stderr)
            num_failed += 1
            continue
        starts = found.times[0] * config.seconds_per_frame
        ends = starts + np.maximum(found.durations[0], 1) * config.seconds_per_frame
        for word in tokenizer.words(labels.tolist()):
            first, last = word.positions[0], word.positions[-1]
            probability = np.exp(found.scores[0, word.positions].min())
            times = f"{starts[first]:.2f} {ends[last] - starts[first]:.2f}"
            print(entry.id, 1, times, word.text, f"{probability:.3f}")
    return 1 if num_failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:  # a bad argument or file, which it names
        sys.exit(f"error: {error}")
