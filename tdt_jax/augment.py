"""Augmentation on the accelerator: level and noise of samples, SpecAugment of features."""

import jax
import jax.numpy as jnp

from tdt_jax.config import AugmentConfig


def augment_samples(samples, num_samples, config: AugmentConfig, key):
    """Random level, and noise at a random signal-to-noise ratio, per utterance.

    The noise lies between white and a mean of two neighbours, which has no highest frequencies; the
    ratio counts the samples that are not digital silence as signal. Level and noise may change once
    inside an utterance (`change_probability`), as where two recordings meet.

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
    scale = jnp.where(noisy, scale, 0.0)
    if config.change_probability == 0:
        return samples + scale * noise
    changed, gain, noise_gain = _change(num_samples, samples.shape[1], config, key)
    return jnp.where(
        changed, gain * (samples + noise_gain * scale * noise), samples + scale * noise
    )


def _change(num_samples, size: int, config: AugmentConfig, key):
    """Where another recording seems to begin or to have ended [B, S], its level, and its noise.

    The level differs by up to 10 dB, the noise by up to 20 dB, or there is none.
    """
    keys = jax.random.split(jax.random.fold_in(key, 1), 6)
    shape = (len(num_samples), 1)
    moment = jax.random.uniform(keys[0], shape) * num_samples[:, None].astype(jnp.float32)
    before = jax.random.bernoulli(keys[1], 0.5, shape)
    place = jnp.arange(size, dtype=jnp.float32)[None, :]
    inside = (place < moment) == before
    inside &= place < num_samples[:, None].astype(jnp.float32)
    changes = jax.random.bernoulli(keys[2], config.change_probability, shape)
    gain = 10 ** (jax.random.uniform(keys[3], shape, minval=-10.0, maxval=10.0) / 20)
    noise_gain = 10 ** (jax.random.uniform(keys[4], shape, minval=-20.0, maxval=0.0) / 20)
    silent = jax.random.bernoulli(keys[5], 0.2, shape)
    return changes & inside, gain, jnp.where(silent, 0.0, noise_gain)


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
