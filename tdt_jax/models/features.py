"""Log-mel features on the accelerator, as NVIDIA's Parakeet models compute them.

    samples -> pre-emphasis -> windowed frames -> |DFT|^2 -> mel -> log -> mean/std per mel bin

Frame m is centred on sample 160 m (zeros beyond both ends), so an utterance of n samples has
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
LOUDEST = 20  # frames
DECIBELS = 10 / math.log(10)  # decibels of a nat of power


@functools.partial(jax.jit, static_argnames="config")
def log_mel(samples, num_samples, config: FeatureConfig = FeatureConfig(), *, key=None):
    """Normalised log-mel features of a batch of utterances.

    Every mel bin has mean 0 and standard deviation 1 (ddof 1) over the valid frames of its
    utterance, or with `config.silence` over those of them that are not silent, or with
    `config.normalize` is shifted and scaled as that says; padding is zero. What `samples` holds
    beyond `num_samples` has no influence.

    Args:
      samples: [B, S] float, 16 kHz mono, full scale = 1.
      num_samples: [B] int, valid samples of each utterance.
      config: the sizes.
      key: a PRNG key dithers the samples (training); None does not.

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
    emphasised = jnp.where(valid, samples - config.preemphasis * previous, 0.0)

    frames = _frame(emphasised, config.window_length, config.hop_length)  # [B, M, window]
    window = jnp.asarray(np.hanning(config.window_length), jnp.float32)
    spectrum = jnp.fft.rfft(frames * window[None, None, :], config.fft_length)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)  # [B, M, fft // 2 + 1]
    mel = jnp.matmul(power, mel_filters(config).T, precision=jax.lax.Precision.HIGHEST)
    num_features = num_samples // config.hop_length
    return _normalise(jnp.log(mel + LOG_GUARD), num_features, config), num_features


def dither(samples, config: FeatureConfig, key):
    """Samples [B, S] with a little white noise; as they are when `key` is None."""
    if key is None or not config.dither:
        return samples
    return samples + config.dither * jax.random.normal(key, samples.shape, jnp.float32)


def _frame(samples, window_length: int, hop_length: int):
    """[B, S] -> [B, S // hop, window]: frame m is the window centred on sample m * hop."""
    batch, num_samples = samples.shape
    num_frames = num_samples // hop_length
    hops = math.ceil(window_length / hop_length)  # hop-sized blocks that one window spans
    total = (num_frames + hops - 1) * hop_length
    before = (window_length + 1) // 2  # an odd window is centred as by torch.stft
    samples = jnp.pad(samples, ((0, 0), (before, max(0, total - before - num_samples))))
    blocks = samples[:, :total].reshape(batch, num_frames + hops - 1, hop_length)
    frames = jnp.concatenate([blocks[:, i : i + num_frames] for i in range(hops)], axis=-1)
    return frames[:, :, :window_length]


def _normalise(features, num_features, config: FeatureConfig):
    """Shifts and scales log-mels [B, M, F] as `log_mel` says; zero beyond `num_features`."""
    valid = (jnp.arange(features.shape[1])[None, :] < num_features[:, None])[:, :, None]
    if config.normalize is not None:
        mean, deviation = config.normalize
        return jnp.where(valid, (features - mean) / deviation, 0.0)
    counted = valid if config.silence is None else valid & ~_silent(features, valid, config.silence)
    count = jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1).astype(jnp.float32)
    mean = jnp.sum(jnp.where(counted, features, 0.0), axis=1, keepdims=True) / count
    centred = jnp.where(valid, features - mean, 0.0)
    squares = jnp.where(counted, jnp.square(centred), 0.0)
    variance = jnp.sum(squares, axis=1, keepdims=True) / jnp.maximum(count - 1, 1)
    return centred / (jnp.sqrt(variance) + STD_GUARD)


def _silent(features, valid, decibels: float):
    """Which frames of log-mels [B, M, F] are silent: [B, M, 1].

    A frame's level is its mean over the bins; silent frames are more than `decibels` below the
    level that is exceeded for 0.2 s.
    """
    levels = jnp.where(valid, jnp.mean(features, axis=-1, keepdims=True), -jnp.inf)
    loudest = jax.lax.top_k(levels[..., 0], min(LOUDEST, levels.shape[1]))[0][:, -1]
    return levels < loudest[:, None, None] - decibels / DECIBELS


@functools.lru_cache
def mel_filters(config: FeatureConfig) -> np.ndarray:
    """Slaney mel filters [F, fft_length // 2 + 1] from 0 Hz to half the sample rate.

    Triangles on a mel scale that is linear below 1 kHz and logarithmic above, each of unit area
    in Hz (Slaney, Auditory Toolbox, 1998).
    """
    nyquist = config.sample_rate / 2
    edges = _mel_to_hertz(np.linspace(0, _hertz_to_mel(nyquist), config.num_mels + 2))
    bins = np.linspace(0, nyquist, config.fft_length // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (high - low)).astype(np.float32)


_LINEAR_HERTZ = 200 / 3  # a mel below 1 kHz, in Hz
_BREAK_MEL = 1000 / _LINEAR_HERTZ
_LOG_STEP = math.log(6.4) / 27  # a mel above 1 kHz, as a ratio


def _hertz_to_mel(hertz: float) -> float:
    if hertz < 1000:
        return hertz / _LINEAR_HERTZ
    return _BREAK_MEL + math.log(hertz / 1000) / _LOG_STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    logarithmic = 1000 * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HERTZ, logarithmic)
