"""Log-mel features on the accelerator, as NVIDIA's Parakeet models compute them.

    samples -> pre-emphasis -> windowed frames -> |DFT|^2 -> mel -> log -> mean/std per mel bin

Frame m is centered on sample 160 m (zeros beyond both ends), so an utterance of n samples has
n // 160 feature frames.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.config import FeatureConfig

LOG_GUARD = 2.0**-24
STD_GUARD = 1e-5
LOUD_FRAMES = 20  # the 20th loudest frame has the level of speech
DECIBELS = 10 / math.log(10)  # dB of a nat of log power


@functools.partial(jax.jit, static_argnames="config")
def log_mel(
    samples: jax.Array,
    num_samples: jax.Array,
    config: FeatureConfig = FeatureConfig(),
    *,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the normalized log-mel features of a batch of utterances, and their numbers.

    By default every mel bin has mean 0 and standard deviation 1 (ddof 1) over the valid frames of
    its utterance. With `config.silence`, mean and deviation leave out silent frames; with
    `config.normalize`, they are two constants. Padding is zero. Samples beyond `num_samples` have
    no influence.

    Args:
      samples: [B, S] float, mono, at `config.sample_rate`, full scale = 1.
      num_samples: [B] int, valid samples of each utterance.
      config: the sizes, and how to normalize.
      key: a PRNG key that turns dither on (for training).

    Returns:
      features [B, M, F] float32 with M = S // hop_length, and num_features [B] int32.

    Raises:
      ValueError: if the shapes don't fit.
    """
    if samples.ndim != 2 or num_samples.shape != samples.shape[:1]:
        raise ValueError(
            "log_mel needs samples [B, S] and num_samples [B], got "
            f"{samples.shape} and {num_samples.shape}"
        )
    samples = dither(samples.astype(jnp.float32), config, key)
    num_samples = num_samples.astype(jnp.int32)
    valid = jnp.arange(samples.shape[1])[None, :] < num_samples[:, None]  # [B, S]
    previous = jnp.pad(samples[:, :-1], ((0, 0), (1, 0)))
    emphasized = jnp.where(valid, samples - config.preemphasis * previous, 0.0)

    frames = _windows(emphasized, config.window_length, config.hop_length)  # [B, M, window]
    window = jnp.asarray(np.hanning(config.window_length), jnp.float32)
    spectrum = jnp.fft.rfft(frames * window[None, None, :], config.fft_length)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)  # [B, M, fft // 2 + 1]
    mel = jnp.matmul(power, mel_filters(config).T, precision=jax.lax.Precision.HIGHEST)
    num_features = num_samples // config.hop_length
    return _normalize(jnp.log(mel + LOG_GUARD), num_features, config), num_features


def dither(samples: jax.Array, config: FeatureConfig, key: jax.Array | None) -> jax.Array:
    """Adds a little white noise to samples [B, S]. Returns them unchanged if `key` is None."""
    if key is None or not config.dither:
        return samples
    return samples + config.dither * jax.random.normal(key, samples.shape, jnp.float32)


@functools.lru_cache
def mel_filters(config: FeatureConfig) -> np.ndarray:
    """Returns Slaney mel filters [F, fft_length // 2 + 1] from 0 Hz to half the sample rate.

    Triangles on a mel scale that is linear below 1 kHz and logarithmic above, each of unit area
    in Hz (Slaney, Auditory Toolbox, 1998).
    """
    nyquist = config.sample_rate / 2
    edges = _mel_to_hertz(np.linspace(0, _hertz_to_mel(nyquist), config.num_mels + 2))
    bins = np.linspace(0, nyquist, config.fft_length // 2 + 1)
    low, center, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (center - low)
    falling = (high - bins) / (high - center)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (high - low)).astype(np.float32)


def _windows(samples, window_length: int, hop_length: int):
    """[B, S] -> [B, S // hop, window]: frame m is the window that is centered on sample m * hop."""
    batch, num_samples = samples.shape
    num_frames = num_samples // hop_length
    hops = math.ceil(window_length / hop_length)  # blocks of a hop that one window spans
    total = (num_frames + hops - 1) * hop_length
    before = (window_length + 1) // 2  # an odd window is centered as by torch.stft
    samples = jnp.pad(samples, ((0, 0), (before, max(0, total - before - num_samples))))
    blocks = samples[:, :total].reshape(batch, num_frames + hops - 1, hop_length)
    frames = jnp.concatenate([blocks[:, i : i + num_frames] for i in range(hops)], axis=-1)
    return frames[:, :, :window_length]


def _normalize(features, num_features, config: FeatureConfig):
    """Normalizes log-mels [B, M, F] as `log_mel` documents it; zero beyond `num_features`."""
    valid = (jnp.arange(features.shape[1])[None, :] < num_features[:, None])[:, :, None]
    if config.normalize is not None:
        mean, deviation = config.normalize
        return jnp.where(valid, (features - mean) / deviation, 0.0)
    counted = valid if config.silence is None else valid & ~_silent(features, valid, config.silence)
    count = jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1).astype(jnp.float32)
    mean = jnp.sum(jnp.where(counted, features, 0.0), axis=1, keepdims=True) / count
    centered = jnp.where(valid, features - mean, 0.0)
    squares = jnp.where(counted, jnp.square(centered), 0.0)
    variance = jnp.sum(squares, axis=1, keepdims=True) / jnp.maximum(count - 1, 1)
    return centered / (jnp.sqrt(variance) + STD_GUARD)


def _silent(features, valid, decibels: float):
    """Returns which frames of log-mels [B, M, F] are silent: [B, M, 1] bool.

    A frame's level is its mean over the bins. Silent frames lie more than `decibels` below the
    level of the 20th loudest frame.
    """
    levels = jnp.where(valid, jnp.mean(features, axis=-1, keepdims=True), -jnp.inf)
    loudest = jax.lax.top_k(levels[..., 0], min(LOUD_FRAMES, levels.shape[1]))[0][:, -1:]
    return levels < loudest[:, :, None] - decibels / DECIBELS


_LINEAR_HERTZ = 200 / 3  # Hz per mel below 1 kHz
_BREAK_MEL = 1000 / _LINEAR_HERTZ
_LOG_STEP = math.log(6.4) / 27  # log of the ratio of frequencies one mel apart, above 1 kHz


def _hertz_to_mel(hertz: float) -> float:
    if hertz < 1000:
        return hertz / _LINEAR_HERTZ
    return _BREAK_MEL + math.log(hertz / 1000) / _LOG_STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    logarithmic = 1000 * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HERTZ, logarithmic)
