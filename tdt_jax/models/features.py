"""Log-mel features on the accelerator, as NVIDIA's Parakeet models compute them.

    samples -> pre-emphasis -> windowed frames -> |DFT|^2 -> mel -> log -> mean/std per mel bin

Frame m is centered on sample 160 m (zeros beyond both ends), so an utterance of n samples has
n // 160 feature frames. With constants for mean and deviation, frame m depends on the samples of
its window only, and features come piece by piece (`log_mel_chunk`) as for the whole.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.config import FeatureConfig
from tdt_jax.models.layers import insert

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
    before = _samples_before(config)
    padded = jnp.pad(samples, ((0, 0), (before, 0)))
    valid = jnp.pad(valid, ((0, 0), (before, 0)))
    num_features = num_samples // config.hop_length
    log_mels = _log_mels(padded, valid, samples.shape[1] // config.hop_length, config)
    return _normalize(log_mels, num_features, config), num_features


class FeatureState(NamedTuple):
    """What `log_mel_chunk` carries from piece to piece, for rows at any place of their utterances.

    A row whose counts are zero is at the start of an utterance, whatever else the state holds.
    """

    num_samples: jax.Array  # [B] int32, samples received of the utterance
    num_features: jax.Array  # [B] int32, features returned
    samples: jax.Array  # [B, P] float32, from the first that the next feature depends on

    def restart(self, rows: jax.Array) -> "FeatureState":
        """Returns the state with a new utterance in the rows where `rows` [B] is True."""
        return self._replace(
            num_samples=jnp.where(rows, 0, self.num_samples),
            num_features=jnp.where(rows, 0, self.num_features),
        )


def start_log_mel(batch_size: int, config: FeatureConfig = FeatureConfig()) -> FeatureState:
    """Returns the state of `log_mel_chunk` at the start of `batch_size` utterances.

    Raises:
      ValueError: if features are normalized by utterance: they depend on all of it.
    """
    if config.normalize is None:
        raise ValueError(
            "features in pieces need features.normalize = (mean, deviation): without, every bin is "
            "normalized by the mean and deviation of the whole utterance"
        )
    size = _samples_before(config) + _samples_after(config) - 1
    return FeatureState(
        num_samples=jnp.zeros((batch_size,), jnp.int32),
        num_features=jnp.zeros((batch_size,), jnp.int32),
        samples=jnp.zeros((batch_size, size), jnp.float32),
    )


@functools.partial(jax.jit, static_argnames="config")
def log_mel_chunk(
    samples: jax.Array,
    num_samples: jax.Array,
    state: FeatureState,
    config: FeatureConfig = FeatureConfig(),
    last: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, FeatureState]:
    """Returns the features that the samples which come next complete, and the state after them.

    Piece after piece these are the features that `log_mel` returns for the whole, however the
    samples are cut. Feature m comes with sample 160 m + 200, or at the end of the utterance, which
    has less than 2^31 samples (37 hours).

    Args:
      samples: [B, S], the next of each utterance; rows may be at any place of theirs.
      num_samples: [B] int, how many; 0 for a row that waits.
      state: from `start_log_mel`, or after the piece before.
      config: as of `log_mel`, with constants to normalize by.
      last: [B] bool, True in rows whose utterance ends with these samples: the row returns its last
        features and begins a new utterance. None: no row ends.

    Returns:
      features [B, M, F] float32, num_features [B] int32, and the state.

    Raises:
      ValueError: if the shapes don't fit.
    """
    if samples.ndim != 2 or num_samples.shape != samples.shape[:1]:
        raise ValueError(
            "log_mel_chunk needs samples [B, S] and num_samples [B], got "
            f"{samples.shape} and {num_samples.shape}"
        )
    if num_samples.shape != state.num_samples.shape:
        raise ValueError(
            f"log_mel_chunk needs a state of {len(samples)} rows, got {len(state.num_samples)}"
        )
    last = jnp.zeros(num_samples.shape, bool) if last is None else last
    if last.shape != num_samples.shape:
        raise ValueError(
            f"log_mel_chunk needs last [B] for samples [B, S], got {last.shape} and "
            f"{len(num_samples)} rows"
        )
    hop, after = config.hop_length, _samples_after(config)
    before, size = _samples_before(config), state.samples.shape[1]
    center = hop * state.num_features  # the sample that the next feature is centered on
    received = insert(
        state.samples, before + state.num_samples - center, samples, num_samples.astype(jnp.int32)
    )
    total = state.num_samples + num_samples.astype(jnp.int32)
    complete = (total - after) // hop + 1
    num_features = jnp.maximum(jnp.where(last, total // hop, complete) - state.num_features, 0)
    time = jnp.arange(received.shape[1])[None, :] + (center - before)[:, None]
    valid = (time >= 0) & (time < total[:, None])
    log_mels = _log_mels(received, valid, (size - before + samples.shape[1]) // hop, config)
    features = _normalize(log_mels, num_features, config)
    rest = jnp.arange(size)[None, :] + hop * num_features[:, None]
    rest = jnp.take_along_axis(received, rest, axis=1, mode="clip")
    state = FeatureState(total, state.num_features + num_features, rest)
    return features, num_features, state.restart(last)


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
    edges = _mel_to_hertz(np.linspace(0, hertz_to_mel(nyquist), config.num_mels + 2))
    bins = np.linspace(0, nyquist, config.fft_length // 2 + 1)
    low, center, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (center - low)
    falling = (high - bins) / (high - center)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (high - low)).astype(np.float32)


def _samples_before(config: FeatureConfig) -> int:
    """Returns the samples before its center that a feature depends on, one for the pre-emphasis."""
    return (config.window_length + 1) // 2 + 1  # an odd window is centered as by torch.stft


def _samples_after(config: FeatureConfig) -> int:
    """Returns the samples from its center on after which a feature comes: at least a hop."""
    return max(config.window_length // 2, config.hop_length)


def _log_mels(samples, valid, num_features: int, config: FeatureConfig):
    """Returns log-mels [B, M, F] of samples [B, S], of which those that are not `valid` are zero.

    The samples begin with the first that the first frame depends on.
    """
    samples = jnp.where(valid, samples, 0.0)
    emphasized = samples[:, 1:] - config.preemphasis * samples[:, :-1]
    emphasized = jnp.where(valid[:, 1:], emphasized, 0.0)
    frames = _windows(emphasized, num_features, config.window_length, config.hop_length)
    window = jnp.asarray(np.hanning(config.window_length), jnp.float32)
    spectrum = jnp.fft.rfft(frames * window[None, None, :], config.fft_length)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)  # [B, M, fft // 2 + 1]
    mel = jnp.matmul(power, mel_filters(config).T, precision=jax.lax.Precision.HIGHEST)
    return jnp.log(mel + LOG_GUARD)


def _windows(samples, num_frames: int, window_length: int, hop_length: int):
    """[B, S] -> [B, M, window]: frame m begins at sample m * hop; zeros follow the samples."""
    hops = math.ceil(window_length / hop_length)  # blocks of a hop that one window spans
    total = (num_frames + hops - 1) * hop_length
    samples = jnp.pad(samples, ((0, 0), (0, max(0, total - samples.shape[1]))))
    blocks = samples[:, :total].reshape(samples.shape[0], num_frames + hops - 1, hop_length)
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


def hertz_to_mel(hertz: float) -> float:
    """Returns the place on the mel scale of `mel_filters`."""
    if hertz < 1000:
        return hertz / _LINEAR_HERTZ
    return _BREAK_MEL + math.log(hertz / 1000) / _LOG_STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    logarithmic = 1000 * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HERTZ, logarithmic)
