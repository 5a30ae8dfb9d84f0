"""PCM bytes of a client to samples at the model's rate."""

import numpy as np

from tdt_jax.audio.waveform import Resampler

RATES = range(8000, 48001)  # Hz


class Pcm:
    """Turns 16-bit little-endian mono PCM, in pieces of any size, into samples."""

    def __init__(self, rate: int, model_rate: int):
        self._resampler = Resampler(rate, model_rate)
        self._odd = b""  # the first byte of a sample whose second has not come

    def samples(self, data: bytes) -> np.ndarray:
        """Returns the samples [S] float32 that the next bytes complete."""
        data = self._odd + data
        whole = len(data) // 2 * 2
        self._odd = data[whole:]
        values = np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768
        return self._resampler.push(values)

    def rest(self) -> np.ndarray:
        """Returns the last samples [S]."""
        return self._resampler.rest()
