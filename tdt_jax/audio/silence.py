"""Silence: what of a recording is none, where it is quiet, and more of the silence it has."""

from collections.abc import Iterable, Iterator

import numpy as np

DIGITAL_SILENCE = 2.0**-24  # the largest sample that counts as none: half a step of 24-bit audio
QUIET = 0.1  # seconds of the utterance that its silence takes after


def sounding(blocks: Iterable[np.ndarray], *, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (position, samples [S]) of a recording without its digital silence.

    What is left out are silent samples before the first and after the last that is not, and runs
    of more than `longest` between two. What is not, is yielded in order, and follows what was
    yielded before it unless the position says otherwise. No more than `longest` samples are held.

    Args:
      blocks: [S] float32 each, any sizes.
      longest: samples of digital silence that are kept where sound goes on after them.
    """
    position, last = 0, None  # of the next block, and behind the last sample that is not silent
    held: list[np.ndarray] = []  # the blocks' silent samples from `last` on
    for block in blocks:
        found = stretches(block, longest=longest)
        if found:
            if last is not None and position + found[0][0] - last <= longest:
                yield from _in_order(last, held)
                found[0] = 0, found[0][1]
            for start, end in found:
                yield position + start, block[start:end]
            last, held = position + found[-1][1], [block[found[-1][1] :]]
        elif last is not None and position + len(block) - last <= longest:
            held.append(block)
        else:
            held = []
        position += len(block)


def stretches(samples: np.ndarray, *, longest: int) -> list[tuple[int, int]]:
    """Where samples [S] sound: starts and ends, more than `longest` of digital silence between."""
    loud = np.flatnonzero(np.abs(samples) > DIGITAL_SILENCE)
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-np.inf) > longest + 1)]
    ends = np.append(loud[np.searchsorted(loud, starts[1:]) - 1], loud[-1:]) + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _in_order(position: int, parts: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    for part in parts:
        if len(part):
            yield position, part
            position += len(part)


def quietest(samples: np.ndarray, window: int) -> int:
    """Where the `window` samples [S] with the least power begin."""
    power = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(power[window:] - power[:-window]))


def num_inserted(num_samples: int, share: float) -> int:
    """Samples of silence that make up `share` of the result."""
    return round(num_samples * share / (1 - share))


def with_silence(
    samples: np.ndarray, share: float, *, seed: int, sample_rate: int = 16000
) -> np.ndarray:
    """Insert silence [S] -> [S + num_inserted(S, share)], the samples in order and untouched.

    A third goes before the utterance, a third after it, and a third into the middle of the
    quietest 0.1 s between its first and its last tenth. The silence is Gaussian noise of the
    spectrum and the mean power of the utterance's quietest 0.1 s anywhere: digital silence if that
    is zero, and only then.
    """
    window = min(len(samples), round(QUIET * sample_rate))
    size = num_inserted(len(samples), share)
    noise = background(samples, size, seed=seed, sample_rate=sample_rate)
    before, inside, after = np.array_split(noise, 3)
    tenth = min(len(samples) // 10, (len(samples) - window) // 2)
    place = tenth + quietest(samples[tenth : len(samples) - tenth], window) + window // 2
    return np.concatenate([before, samples[:place], inside, samples[place:], after])


def background(
    samples: np.ndarray, size: int, *, seed: int, sample_rate: int = 16000
) -> np.ndarray:
    """Gaussian noise [size] of the spectrum and the mean power of the quietest 0.1 s."""
    window = min(len(samples), round(QUIET * sample_rate))
    lowest = quietest(samples, window)
    quiet = samples[lowest : lowest + window]
    white = np.random.default_rng(seed).standard_normal(size + window)
    noise = np.fft.irfft(np.fft.rfft(white) * np.fft.rfft(quiet, len(white)), len(white))[:size]
    power, wanted = (np.mean(np.square(x, dtype=np.float64)) if size else 0.0
                     for x in (noise, quiet))  # fmt: skip
    return (noise * np.sqrt(wanted / power if power else 0.0)).astype(np.float32)
