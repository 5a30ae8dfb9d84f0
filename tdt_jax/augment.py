"""Augmentation on the accelerator: level and noise of samples, SpecAugment of features."""

import jax
import jax.numpy as jnp

from tdt_jax.config import AugmentConfig


def augment_samples(samples, num_samples, config: AugmentConfig, key):
    """Random level, and noise at a random signal-to-noise ratio, per utterance.

    The noise lies between white and a mean of two neighbours, which has no highest frequencies; the
    ratio counts the samples that are not digital silence as signal.

    Args:
      samples: [B, S] float32.
      num_samples: [B] int; padding is left as it is.
      config: ranges and probabilities.
      key: PRNG key.

    Returns:
      [B, S] float32.
    """
    batch = samples.shape[0]
    gain_key, which_key, snr_key, colour_key, noise_key = jax.random.split(key, 5)
    if any(config.gain):
        low, high = config.gain
        gain = jax.random.uniform(gain_key, (batch, 1), minval=low, maxval=high)
        samples = samples * 10 ** (gain / 20)
    if config.noise_probability == 0:
        return samples
    valid = jnp.arange(samples.shape[1])[None, :] < num_samples[:, None]
    white = jax.random.normal(noise_key, samples.shape)
    colour = jax.random.uniform(colour_key, (batch, 1))  # how much of the last sample is added
    noise = jnp.where(valid, white + colour * jnp.pad(white[:, :-1], ((0, 0), (1, 0))), 0.0)
    low, high = config.noise_snr
    snr = jax.random.uniform(snr_key, (batch, 1), minval=low, maxval=high)
    noise_power = _mean_square(noise, valid)
    signal_power = _mean_square(samples, valid & (samples != 0))
    scale = jnp.sqrt(signal_power / noise_power) * 10 ** (-snr / 20)
    noisy = jax.random.bernoulli(which_key, config.noise_probability, (batch, 1))
    return samples + jnp.where(noisy, scale, 0.0) * noise


def _mean_square(x, counted):
    """Mean square [B, 1] of x [B, S] where it is counted; never zero."""
    count = jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1)
    squares = jnp.where(counted, jnp.square(x), 0.0)
    return jnp.sum(squares, axis=1, keepdims=True) / count.astype(jnp.float32) + 1e-12


def spec_augment(features, num_features, config: AugmentConfig, key):
    """Zero random bands of mel bins and random stretches of time (Park et al., 2019).

    Zero is the mean of normalised features. Widths are uniform from none to the most allowed.

    Args:
      features: [B, M, F].
      num_features: [B] int.
      config: how many masks and how wide.
      key: PRNG key.

    Returns:
      [B, M, F].
    """
    freq_key, time_key = jax.random.split(key)
    batch, size, num_mels = features.shape
    all_mels = jnp.full((batch,), num_mels)
    widest = jnp.full((batch,), min(config.freq_width, num_mels))
    bands = _stretches(freq_key, config.freq_masks, num_mels, all_mels, widest)
    longest = (config.time_width * num_features.astype(jnp.float32)).astype(jnp.int32)
    times = _stretches(time_key, config.time_masks, size, num_features, longest)
    masked = bands[:, None, :] | times[:, :, None]
    return jnp.where(masked, jnp.zeros_like(features), features)


def _stretches(key, num_masks: int, size: int, lengths, widest):
    """[B, size] bool: the union of `num_masks` random stretches inside each length [B]."""
    width_key, start_key = jax.random.split(key)
    shape = (len(lengths), num_masks)
    widths = jax.random.uniform(width_key, shape) * (widest[:, None] + 1).astype(jnp.float32)
    widths = jnp.floor(widths)
    room = lengths[:, None].astype(jnp.float32) - widths
    starts = jnp.floor(jax.random.uniform(start_key, shape) * (room + 1))
    position = jnp.arange(size, dtype=jnp.float32)[None, :, None]
    inside = (position >= starts[:, None]) & (position < (starts + widths)[:, None])
    return jnp.any(inside, axis=-1)
