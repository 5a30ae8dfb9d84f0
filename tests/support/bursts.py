"""Speech for tests of long audio, and its decoder: a word is a burst, named by its amplitude."""

import numpy as np

from tdt_jax.decoding.hypothesis import Hypothesis

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
LENGTH = 6400  # samples of a burst: 5 frames
FRAME = 1280  # samples


def burst(number: int) -> np.ndarray:
    """The samples of WORDS[number]."""
    ripple = 0.001 * (-1) ** np.arange(LENGTH)  # a constant is silence
    return ((number + 2) / 20 + ripple).astype(np.float32)


def talk(seconds: float, seed: int) -> tuple[np.ndarray, list[str]]:
    """Samples and their words: bursts close together, some pauses, and never two cuts alike."""
    rng = np.random.default_rng(seed)
    samples = rng.uniform(-1, 1, round(seconds * 16000)).astype(np.float32) * 1e-3
    words, at = [], rng.integers(0, 3000)
    while at + LENGTH < len(samples):
        number = int(rng.integers(len(WORDS)))
        samples[at : at + LENGTH] = (number + 2) / 20
        words.append(WORDS[number])
        at += LENGTH + int(rng.choice([400, 1600, 3200, 16000], p=[0.3, 0.4, 0.2, 0.1]))
    return samples, words


def decode(samples, num_samples, tokenizer) -> Hypothesis:
    """The words of the bursts that are wholly in a row, and half a word of the others."""
    rows = [_labels(row[:size], tokenizer) for row, size in zip(samples, num_samples, strict=True)]
    size = max(1, *(len(labels) for labels, _ in rows))
    table = np.zeros((len(rows), size), np.int32)
    times = np.zeros_like(table)
    for row, (labels, starts) in enumerate(rows):
        table[row, : len(labels)], times[row, : len(labels)] = labels, starts
    count = np.array([len(labels) for labels, _ in rows])
    real = np.zeros(table.shape, np.float32)
    return Hypothesis(table, count, times, np.ones_like(table), real, real, count)


def _labels(samples, tokenizer):
    loud = np.abs(np.asarray(samples)) > 0.05
    edges = np.flatnonzero(np.diff(np.pad(loud.astype(np.int8), 1)))
    labels, times = [], []
    for first, end in edges.reshape(-1, 2):
        word = WORDS[round(float(samples[first]) * 20) - 2]
        if end - first < 0.99 * LENGTH:
            word = word[: len(word) // 2]
        spelled = tokenizer.encode(word)
        labels += [*spelled, tokenizer.pieces.index(" ")]
        at = np.linspace(first, end - FRAME, len(spelled) + 1) / FRAME
        times += np.maximum(at, first / FRAME).astype(int).tolist()
    return labels, times
