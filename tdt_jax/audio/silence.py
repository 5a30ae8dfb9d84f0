"""Silence: what of a recording is none, where it is quiet, and more of the silence it has."""

from collections.abc import Iterable, Iterator

import numpy as np

DIGITAL_SILENCE = 2.0**-24  # the largest sample that counts as none: half a step of 24-bit audio
QUIET = 0.1  # seconds of the utterance that its silence takes after
FRAME = 0.01  # seconds; sound is looked for by their standard deviations, full scale = 1
LOUD = 1.5e-4  # -76 dBFS: louder frames sound
LEAST = 3.2e-5  # frames up to here never sound: it is what one step of 16 bits up and down has
MODULATION = 3.0  # frames so many times as loud as the quietest nearby sound, as speech does
NEARBY = 1.0  # seconds on both sides
SHORT = 0.35  # seconds of silence at the ends of a recording that are kept whole
MARGIN = 0.1  # seconds that are kept of more


def sounding(
    blocks: Iterable[np.ndarray], *, longest: int, sample_rate: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (position, samples [S]) of a recording without its silence.

    A frame of 10 ms is silent, whatever its offset, if it is below -76 dBFS and no louder than what
    is around it (zeros, dither, a noise gate, a codec's silence), or near a step of 16 bits. Quiet
    speech is louder than what is around it: it sounds. Silence is left out at the ends of a
    recording (of 0.35 s or less none is) and between sounds that it keeps apart for more than
    `longest`; 0.1 s of it are kept next to sound, but no digital silence. What is left is yielded
    in order, and follows what was yielded before it unless the position says otherwise. No more
    than `longest` samples are held beside a block and some two seconds.

    Args:
      blocks: [S] float32 each, any sizes.
      longest: samples of silence that are kept where sound goes on after them.
      sample_rate: in Hz.
    """
    short, margin = round(SHORT * sample_rate), round(MARGIN * sample_rate)
    held, start = np.zeros(0, np.float32), 0  # samples from `start` on that may still be yielded
    end = 0  # of what is looked at
    last = None  # behind the last sound; None: there was none since the last cut
    is_first = True
    for block, sounds in _with_sounds(blocks, sample_rate):
        held = np.concatenate([held, block])
        for first, behind in _merged(end + sounds, longest):
            if last is not None and first - last > longest:
                yield from _tail(held[last - start :][:margin], last)
                last = None
            if last is None:
                begin = start if is_first and first <= short else max(start, first - margin)
                begin += int(np.argmax(np.abs(held[begin - start :]) > DIGITAL_SILENCE))
            else:
                begin = last
            yield begin, held[begin - start : behind - start]
            last, is_first = behind, False
        end += len(block)
        if last is not None and end - last > longest:
            yield from _tail(held[last - start :][:margin], last)
            last = None
        keep = max(start, end - (short if is_first else margin)) if last is None else last
        held, start = held[keep - start :], keep
    if last is not None:
        yield from _tail(held if len(held) <= short else held[:margin], last)


def _tail(samples: np.ndarray, position: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields what of the samples behind a sound is not digital silence at their end."""
    loud = np.flatnonzero(np.abs(samples) > DIGITAL_SILENCE)
    if len(loud):
        yield position, samples[: loud[-1] + 1]


def _merged(sounds: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """The sounds [n, 2] (first, behind), those at most `longest` apart as one."""
    if not len(sounds):
        return []
    apart = np.flatnonzero(sounds[1:, 0] - sounds[:-1, 1] > longest)
    firsts, lasts = np.append(0, apart + 1), np.append(apart, len(sounds) - 1)
    return list(zip(sounds[firsts, 0].tolist(), sounds[lasts, 1].tolist(), strict=True))


def _with_sounds(
    blocks: Iterable[np.ndarray], sample_rate: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the same samples in other blocks, and where frames of each sound: [n, 2].

    The first and the last sample of these frames that are not digital silence bound a sound.
    """
    frame, nearby = round(FRAME * sample_rate), round(NEARBY / FRAME)
    samples, before = np.zeros(0, np.float32), np.zeros(0)  # levels before those of `samples`
    parts, size = [], 0  # what came behind them
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size >= nearby * frame:
            samples = np.concatenate([samples, *parts])
            parts, size = [], 0
            levels = _levels(samples[: len(samples) // frame * frame], frame)
            if (count := len(levels) - nearby) > 0:
                yield _split(samples[: count * frame], levels, before, frame)
                before = np.concatenate([before, levels[:count]])[-nearby:]
                samples = samples[count * frame :]
    samples = np.concatenate([samples, *parts])
    if len(samples):
        padded = np.pad(samples, (0, -len(samples) % frame), mode="edge")
        yield _split(samples, _levels(padded, frame), before, frame)


def _split(
    samples: np.ndarray, levels: np.ndarray, before: np.ndarray, frame: int
) -> tuple[np.ndarray, np.ndarray]:
    """Samples [S] and their sounds [n, 2]; `levels` are of them and of what is known behind."""
    from scipy.ndimage import minimum_filter1d

    size = 2 * round(NEARBY / FRAME) + 1
    count = -(-len(samples) // frame)
    around = np.concatenate([before, levels])
    quietest_nearby = minimum_filter1d(around, size, mode="nearest")[len(before) :][:count]
    level = levels[:count]
    sounds = (level > LOUD) | (level > np.maximum(LEAST, MODULATION * quietest_nearby))
    loud = np.zeros(count * frame, bool)
    loud[: len(samples)] = np.abs(samples) > DIGITAL_SILENCE
    loud = loud.reshape(count, frame)[sounds]
    starts = np.flatnonzero(sounds) * frame
    firsts, lasts = loud.argmax(axis=1), frame - loud[:, ::-1].argmax(axis=1)
    return samples, np.stack([starts + firsts, starts + lasts], axis=1)


def _levels(samples: np.ndarray, frame: int) -> np.ndarray:
    """Standard deviations [n] of frames [n * frame]."""
    return samples.reshape(-1, frame).std(axis=1, dtype=np.float64)


def stretches(samples: np.ndarray, *, longest: int, sample_rate: int) -> list[tuple[int, int]]:
    """Where samples [S] sound: starts and ends, more than `longest` of silence between."""
    found: list[tuple[int, int]] = []
    for start, part in sounding([samples], longest=longest, sample_rate=sample_rate):
        end = start + len(part)
        if found and found[-1][1] == start:
            start, _ = found.pop()
        found.append((start, end))
    return found
