"""Channels to one, so that nothing clips and nothing cancels.

The weights are in the proportions of a standard down-mix (ITU-R BS.775; FFmpeg has the same), and
add up to 1. Channels of unknown position have equal weights. Where one side is the inverse of the
other, the two would cancel: in each second, inverted channels are inverted back.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from tdt_jax.audio.request import Block

HALF = 0.5**0.5  # -3 dB
WEIGHTS = {"FC": 1.0, "FL": HALF, "FR": HALF, "FLC": HALF, "FRC": HALF, "DL": HALF, "DR": HALF,
           "WL": HALF, "WR": HALF, "BC": 0.5, "BL": 0.5, "BR": 0.5, "SL": 0.5, "SR": 0.5,
           "LFE": 0.0, "LFE2": 0.0}  # fmt: skip
OTHER = 0.5  # weight of all other channels: above, below, behind
WINDOW = 1.0  # seconds
SHORTEST = 0.05  # seconds; a shorter last window keeps the signs of the one before
INVERTED = -0.5  # correlation with another channel below which a channel is inverted
RAMP = 0.01  # seconds of cross-fade where a sign changes


def weights(layout: tuple[str, ...], num_channels: int) -> np.ndarray:
    """Returns the weight of each channel: [num_channels] float32, of sum 1.

    Args:
      layout: FFmpeg's names of the channels, or () if they are unknown.
    """
    shares = np.array([WEIGHTS.get(name, OTHER) for name in layout] or [1.0] * num_channels)
    if not shares.any():
        shares = np.ones(num_channels)
    return (shares / shares.sum()).astype(np.float32)


def mix(blocks: Iterable[Block]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (rate, mono samples [S]) of a recording; the sizes of its blocks make no difference.

    Holds at most one second of samples.
    """
    mixer, kind = None, None
    for block in blocks:
        new_kind = block.rate, block.layout, block.samples.shape[1]
        if mixer is None or new_kind != kind:
            if mixer:
                yield from mixer.finish()
            mixer, kind = _Mixer(block), new_kind
        yield from mixer.push(block.samples)
    if mixer:
        yield from mixer.finish()


class _Mixer:
    """Mixes windows of a second, whose borders depend on the recording alone."""

    def __init__(self, block: Block):
        self._rate = block.rate
        self._weights = weights(block.layout, block.samples.shape[1])
        self._signs: np.ndarray | None = None  # of each channel: -1 where it is inverted
        self._held = block.samples[:0]  # [S, channels], of the window that is not complete

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
        before, self._signs = self._signs, self._new_signs(window)
        mono = window @ (self._weights * self._signs)
        if before is not None and (before != self._signs).any():
            size = min(len(window), round(RAMP * self._rate))
            share = np.linspace(0, 1, size, endpoint=False, dtype=np.float32)
            mono[:size] = share * mono[:size] + (1 - share) * (
                window[:size] @ (self._weights * before)
            )
        return mono

    def _new_signs(self, window: np.ndarray) -> np.ndarray:
        """Returns -1 for channels that invert the first of the loudest ones, 1 for the others."""
        before = np.ones_like(self._weights) if self._signs is None else self._signs
        if len(window) < SHORTEST * self._rate:
            return before
        with np.errstate(all="ignore"):  # samples that are not finite are refused later
            products = (window - window.mean(axis=0)) * (self._weights > 0)
            products = products.T @ products
            power = np.diag(products)
            first = int(np.argmax(power >= power.max() / 4))
            is_inverted = products[first] < INVERTED * np.sqrt(power * power[first])
        return np.where(is_inverted, np.float32(-1), np.float32(1)) if power.any() else before
