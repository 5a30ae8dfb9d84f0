"""Channels to one, as listeners of one loudspeaker should hear them.

The weights are those of a standard down-mix (ITU-R BS.775; FFmpeg has the same), in proportion, so
that nothing clips. Channels of unknown places weigh alike. Two sides of which one is the other's
mirror image would cancel: a channel that goes against the others for a second is turned over.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from tdt_jax.audio.request import Block

HALF = 0.5**0.5  # -3 dB
WEIGHTS = {"FC": 1.0, "FL": HALF, "FR": HALF, "FLC": HALF, "FRC": HALF, "DL": HALF, "DR": HALF,
           "WL": HALF, "WR": HALF, "BC": 0.5, "BL": 0.5, "BR": 0.5, "SL": 0.5, "SR": 0.5,
           "LFE": 0.0, "LFE2": 0.0}  # fmt: skip
ABOVE = 0.5  # of all others: from above, below or behind
WINDOW = 1.0  # seconds
SHORTEST = 0.05  # seconds of a recording's rest in which nothing is decided anew
AGAINST = -0.5  # the correlation from which a channel is the mirror image of another
RAMP = 0.01  # seconds in which it is turned over


def weights(layout: tuple[str, ...], channels: int) -> np.ndarray:
    """What each channel weighs; their sum is 1.

    Args:
      layout: FFmpeg's names of the channels, or () if they are not known.
    """
    found = np.array([WEIGHTS.get(name, ABOVE) for name in layout] or [1.0] * channels)
    if not found.any():
        found = np.ones(channels)
    return (found / found.sum()).astype(np.float32)


def mixed(blocks: Iterable[Block]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (rate, samples [S]): the same whatever the sizes of the blocks.

    Holds no more than a second.
    """
    mixer, kind = None, None
    for block in blocks:
        new_kind = block.rate, block.layout, block.samples.shape[1]
        if new_kind != kind:
            if mixer:
                yield from mixer.finish()
            mixer, kind = _Mixer(block), new_kind
        yield from mixer.push(block.samples)
    if mixer:
        yield from mixer.finish()


class _Mixer:
    """Mixes windows of a second, whose borders depend on nothing but the recording."""

    def __init__(self, block: Block):
        channels = block.samples.shape[1]
        self._rate = block.rate
        self._weights = weights(block.layout, channels)
        self._signs: np.ndarray | None = None
        self._held = block.samples[:0]

    def push(self, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        if len(self._weights) == 1:
            yield self._rate, samples[:, 0]
            return
        size = round(WINDOW * self._rate)
        samples = np.concatenate([self._held, samples])
        whole = len(samples) // size * size
        if whole:
            parts = [self._mix(samples[i : i + size]) for i in range(0, whole, size)]
            yield self._rate, np.concatenate(parts)
        self._held = samples[whole:]

    def finish(self) -> Iterator[tuple[int, np.ndarray]]:
        if len(self._held):
            yield self._rate, self._mix(self._held)

    def _mix(self, window: np.ndarray) -> np.ndarray:
        before, self._signs = self._signs, self._turned(window)
        mono = window @ (self._weights * self._signs)
        if before is not None and (before != self._signs).any():
            size = min(len(window), round(RAMP * self._rate))
            share = np.linspace(0, 1, size, endpoint=False, dtype=np.float32)
            mono[:size] = share * mono[:size] + (1 - share) * (
                window[:size] @ (self._weights * before)
            )
        return mono

    def _turned(self, window: np.ndarray) -> np.ndarray:
        """The channels' signs: -1 for those that go against the first that is about loudest."""
        before = np.ones_like(self._weights) if self._signs is None else self._signs
        if len(window) < SHORTEST * self._rate:
            return before
        with np.errstate(all="ignore"):  # samples that are not finite are another's to refuse
            products = (window - window.mean(axis=0)) * (self._weights > 0)
            products = products.T @ products
            power = np.diag(products)
            first = int(np.argmax(power >= power.max() / 4))
            against = products[first] < AGAINST * np.sqrt(power * power[first])
        return np.where(against, np.float32(-1), np.float32(1)) if power.any() else before
