"""Augmentation on the accelerator: level and noise of samples, SpecAugment of features."""

import functools
import math

import jax
import jax.numpy as jnp

from tdt_jax.config import AugmentConfig

OPEN = 0.01  # of an utterance's peak: louder samples open a noise gate
HOLD = (0.02, 0.4)  # seconds around them that it stays open
HUSH = (-8.0, -3.0)  # powers of ten: standard deviations of the noise that is left when it is shut
OFFSET = (-4.5, -2.0)  # powers of ten: constant offsets, of one in four
TELEPHONE, WIDE = (3300.0, 4000.0), (4000.0, 8000.0)  # Hz: the upper ends of channels' bands


def augment_samples(samples, num_samples, config: AugmentConfig, key, *, sample_rate: int = 16000):
    """Random level, and noise at a random signal-to-noise ratio, per utterance.

    The noise lies between white and a mean of two neighbours, which has no highest frequencies; the
    ratio counts the samples that are not digital silence as signal. Level and noise may change once
    inside an utterance (`change_probability`), as where two recordings meet. Pauses may be nearly
    silent (`gate_probability`), and whole batches go through narrow channels (`band_probability`).

    Args:
      samples: [B, S] float32.
      num_samples: [B] int; padding is left as it is.
      config: ranges and probabilities.
      key: PRNG key.
      sample_rate: in Hz.

    Returns:
      [B, S] float32.
    """
    noisy = _with_noise(samples, num_samples, config, key)
    valid = jnp.arange(samples.shape[1])[None, :] < num_samples[:, None]
    gate_key, band_key = jax.random.split(jax.random.fold_in(key, 2))
    if config.gate_probability:
        gated = _gated(samples, noisy, config.gate_probability, gate_key, sample_rate)
        noisy = jnp.where(valid, gated, noisy)
    if config.band_probability:
        which_key, band_key = jax.random.split(band_key)
        narrow = functools.partial(_through_channels, key=band_key, sample_rate=sample_rate)
        which = jax.random.bernoulli(which_key, config.band_probability)
        noisy = jnp.where(valid, jax.lax.cond(which, narrow, lambda x: x, noisy), noisy)
    return noisy


def _with_noise(samples, num_samples, config: AugmentConfig, key):
    """Another level, and noise."""
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


def _gated(samples, noisy, probability: float, key, sample_rate: int):
    """Noisy samples [B, S] whose long pauses are nearly silent in a share of the utterances.

    A noise gate is open near samples above 1 % of the utterance's peak. Shut, it leaves a constant
    offset or none, and white noise from -160 to -60 dBFS: dither, or silence spliced in.
    """
    batch, size = samples.shape
    which_key, hold_key, level_key, offset_key, noise_key = jax.random.split(key, 5)
    frame = sample_rate // 100
    magnitude = jnp.pad(jnp.abs(samples), ((0, 0), (0, -size % frame)))
    peaks = magnitude.reshape(batch, -1, frame).max(axis=2)  # of 10 ms
    loud = peaks > OPEN * peaks.max(axis=1, keepdims=True)
    hold = jax.random.uniform(hold_key, (batch, 1), minval=HOLD[0], maxval=HOLD[1]) * 100
    hold = hold.astype(jnp.int32)
    count = jnp.pad(jnp.cumsum(loud, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    place = jnp.arange(loud.shape[1])[None, :]
    until = jnp.take_along_axis(count, jnp.minimum(place + hold + 1, loud.shape[1]), axis=1)
    before = jnp.take_along_axis(count, jnp.maximum(place - hold, 0), axis=1)
    shut = jnp.repeat(until == before, frame, axis=1)[:, :size]
    low, high = HUSH
    level = 10 ** jax.random.uniform(level_key, (batch, 1), minval=low, maxval=high)
    low, high = OFFSET
    draw = jax.random.uniform(offset_key, (batch, 1), minval=low, maxval=low + 4 * (high - low))
    offset = jnp.where(draw < high, 10**draw, 0.0)
    level = jnp.minimum(level, OPEN * jnp.max(magnitude, axis=1, keepdims=True))
    hush = offset + level * jax.random.normal(noise_key, samples.shape)
    gated = jax.random.bernoulli(which_key, probability, (batch, 1))
    return jnp.where(gated & shut, hush, noisy)


def _through_channels(samples, *, key, sample_rate: int):
    """Samples [B, S] through channels as of telephones and codecs, one each.

    A third keep frequencies up to 3.3 to 4 kHz, a third up to 4 to 8 kHz, a third all; half of the
    first third lose those below 100 to 300 Hz. Half of all are companded to 8 bits (ITU-T G.711).
    """
    batch, size = samples.shape
    keys = jax.random.split(key, 6)
    kind = jax.random.randint(keys[0], (batch, 1), 0, 3)
    narrow, wide = (
        jax.random.uniform(k, (batch, 1), minval=low, maxval=high)
        for k, (low, high) in zip(keys[1:3], (TELEPHONE, WIDE), strict=True)
    )
    upper = jnp.where(kind == 0, narrow, jnp.where(kind == 1, wide, float(sample_rate)))
    lower = jax.random.uniform(keys[3], (batch, 1), minval=-300.0, maxval=300.0)
    lower = jnp.where((kind == 0) & (lower > 100), lower, 0.0)
    coder = jax.random.randint(keys[4], (batch, 1), 0, 4)  # 2: A-law, 3: mu-law
    coded = jnp.where(coder == 2, _a_law(samples), jnp.where(coder == 3, _mu_law(samples), samples))
    hertz = jnp.fft.rfftfreq(2 * (size // 2), 1 / sample_rate).astype(jnp.float32)[None, :]
    gain = jax.nn.sigmoid((upper - hertz) / 25.0)
    gain *= jnp.where(lower > 0, jax.nn.sigmoid((hertz - lower) / 10.0), 1.0)
    spectrum = jnp.fft.rfft(coded[:, : 2 * (size // 2)])
    filtered = jnp.fft.irfft(spectrum * gain.astype(spectrum.dtype), 2 * (size // 2))
    return jnp.pad(filtered, ((0, 0), (0, size % 2)))


def _a_law(x):
    """Samples companded to the 8 bits of A-law and back: the smallest are a constant, +-2^-12."""
    curve, scale = 87.6, 1 + math.log(87.6)
    size = jnp.minimum(jnp.abs(x), 1.0)
    linear = curve * size / scale
    log = (1 + jnp.log(jnp.maximum(curve * size, 1.0))) / scale
    steps = (jnp.floor(jnp.where(curve * size < 1, linear, log) * 128) + 0.5) / 128
    value = jnp.where(steps < 1 / scale, steps * scale / curve, jnp.exp(steps * scale - 1) / curve)
    return jnp.where(x < 0, -value, value)


def _mu_law(x):
    """Samples companded to the 8 bits of mu-law and back."""
    size = jnp.log1p(255 * jnp.minimum(jnp.abs(x), 1.0)) / math.log(256)
    return jnp.sign(x) * jnp.expm1(jnp.round(size * 127) / 127 * math.log(256)) / 255


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
