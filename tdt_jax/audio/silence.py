"""Where a recording sounds: digital silence and near silence are left out."""

from collections.abc import Iterable, Iterator

import numpy as np

DIGITAL_SILENCE = 2.0**-24  # samples up to here are zero: half a step of 24-bit audio
QUIET = 0.1  # seconds of the quietest stretch of an utterance, from which silence is modelled
# A frame sounds by its level, the standard deviation of its samples (full scale = 1).
FRAME = 0.01  # seconds
LOUD = 1.5e-4  # -76 dBFS: louder frames always sound
LEAST = 3.2e-5  # frames up to this level never sound: dither of one step of 16 bits has it
MODULATION = 3.0  # between these, frames this many times as loud as the quietest nearby sound
NEARBY = 1.0  # seconds on both sides
SHORT = 0.35  # seconds of silence at an end of a recording that are kept whole
MARGIN = 0.1  # seconds that are kept of longer silence


def sounding(
    blocks: Iterable[np.ndarray], *, longest: int, sample_rate: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (position, samples [S]) of a recording without its silence, in order.

    A frame of 10 ms is silent, whatever its DC offset, if it is below -76 dBFS and no louder than
    its surroundings (zeros, dither, a noise gate, a codec's silence), or within a step of 16 bits.
    Quiet speech is louder than its surroundings, so it sounds. Silence is dropped between sounds if
    it lasts more than `longest`, and at the ends of the recording if it lasts more than 0.35 s.
    Of dropped silence, 0.1 s are kept next to sound, but no digital silence.

    Consecutive results are adjacent unless their positions say otherwise. At most `longest` samples
    are held in memory, besides a block and about two seconds.

    Args:
      blocks: consecutive samples [S] float32, of any sizes.
      longest: samples of silence that are kept between sounds.
      sample_rate: in Hz.
    """
    short, margin = round(SHORT * sample_rate), round(MARGIN * sample_rate)
    held, start = np.zeros(0, np.float32), 0  # samples from `start` on that may still be yielded
    end = 0  # of the samples that were examined
    last = None  # end of the last sound; None: no sound since silence was dropped
    is_first = True
    for block, sounds in _with_sounds(blocks, sample_rate):
        held = np.concatenate([held, block])
        for first, stop in _merge(end + sounds, longest):
            if last is not None and first - last > longest:
                yield from _tail(held[last - start :][:margin], last)
                last = None
            if last is None:
                begin = start if is_first and first <= short else max(start, first - margin)
                begin += int(np.argmax(np.abs(held[begin - start :]) > DIGITAL_SILENCE))
            else:
                begin = last
            yield begin, held[begin - start : stop - start]
            last, is_first = stop, False
        end += len(block)
        if last is not None and end - last > longest:
            yield from _tail(held[last - start :][:margin], last)
            last = None
        keep = max(start, end - (short if is_first else margin)) if last is None else last
        held, start = held[keep - start :], keep
    if last is not None:
        yield from _tail(held if len(held) <= short else held[:margin], last)


def stretches(samples: np.ndarray, *, longest: int, sample_rate: int) -> list[tuple[int, int]]:
    """Returns where samples [S] sound: (start, end) pairs more than `longest` of silence apart."""
    spans: list[tuple[int, int]] = []
    for start, part in sounding([samples], longest=longest, sample_rate=sample_rate):
        end = start + len(part)
        if spans and spans[-1][1] == start:
            start, _ = spans.pop()
        spans.append((start, end))
    return spans


def _tail(samples: np.ndarray, position: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the samples that follow a sound, without digital silence at their end."""
    loud = np.flatnonzero(np.abs(samples) > DIGITAL_SILENCE)
    if len(loud):
        yield position, samples[: loud[-1] + 1]


def _merge(sounds: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Returns sounds [n, 2] (start, end), joined if they are at most `longest` apart."""
    if not len(sounds):
        return []
    apart = np.flatnonzero(sounds[1:, 0] - sounds[:-1, 1] > longest)
    firsts, lasts = np.append(0, apart + 1), np.append(apart, len(sounds) - 1)
    return list(zip(sounds[firsts, 0].tolist(), sounds[lasts, 1].tolist(), strict=True))


def _with_sounds(
    blocks: Iterable[np.ndarray], sample_rate: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the samples in new blocks, with the frames of each block that sound: [n, 2].

    Frames are given by the start and end of their samples that are not digital silence.
    """
    frame, nearby = round(FRAME * sample_rate), round(NEARBY / FRAME)
    samples, before = np.zeros(0, np.float32), np.zeros(0)  # `before`: levels of frames before
    parts, size = [], 0  # samples that follow
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
    """Returns samples [S] and their sounds [n, 2]; `levels` may include frames that follow."""
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
    """Returns the standard deviations [n] of frames [n * frame]."""
    return samples.reshape(-1, frame).std(axis=1, dtype=np.float64)
