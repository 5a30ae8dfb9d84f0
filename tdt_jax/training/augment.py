"""Augmentation on the accelerator: samples (level, noise, channels) and features (SpecAugment)."""

import functools
import math

import jax
import jax.numpy as jnp

from tdt_jax.config import AugmentConfig

# Of a noise gate.
GATE_THRESHOLD = 0.01  # of an utterance's peak: louder samples open the gate
GATE_HOLD = (0.02, 0.4)  # seconds before and after a loud sample in which it stays open
GATE_NOISE = (-8.0, -3.0)  # log10 of the standard deviation of the noise while it is shut
GATE_OFFSET = (-4.5, -2.0)  # log10 of the constant offset while it is shut, in a quarter of them
# Upper limits of channels' bands, in Hz.
TELEPHONE_BAND, WIDE_BAND = (3300.0, 4000.0), (4000.0, 8000.0)
# Of a room: seconds in which its sound decays by 60 dB, and dB of direct to reverberant energy.
DECAY, DIRECT = (0.1, 0.7), (0.0, 15.0)


def augment_samples(
    samples: jax.Array,
    num_samples: jax.Array,
    config: AugmentConfig,
    key: jax.Array,
    *,
    sample_rate: int,
) -> jax.Array:
    """Returns samples [B, S] float32 of another level, with noise, each utterance its own.

    The noise lies between white and the sum of two neighboring white samples, which has no highest
    frequencies. The signal-to-noise ratio counts as signal the samples that are not digital
    silence. An utterance may reverberate as in a room (`room_probability`), with its noise beside
    it. Level and noise may change once inside an utterance (`change_probability`), as where
    two recordings meet. Pauses may be nearly silent (`gate_probability`), and whole batches may
    pass narrow channels (`band_probability`).

    Args:
      samples: [B, S] float32.
      num_samples: [B] int; padding stays as it is.
      config: ranges and probabilities.
      key: PRNG key.
      sample_rate: in Hz.
    """
    valid = jnp.arange(samples.shape[1])[None, :] < num_samples[:, None]
    if config.room_probability:
        room_key = jax.random.fold_in(key, 3)
        in_room = _in_room(samples, config.room_probability, room_key, sample_rate)
        samples = jnp.where(valid, in_room, samples)
    noisy = _with_level_and_noise(samples, num_samples, config, key)
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


def spec_augment(
    features: jax.Array, num_features: jax.Array, config: AugmentConfig, key: jax.Array
) -> jax.Array:
    """Zeroes random bands of mel bins and random stretches of time (Park et al., 2019).

    Returns features [B, M, F]. Zero is the mean of normalized features. Widths are uniform from
    none to the largest that is allowed.

    Args:
      features: [B, M, F].
      num_features: [B] int.
      config: how many masks and how wide.
      key: PRNG key.
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
    """Returns the union of `num_masks` random stretches inside each length [B]: [B, size] bool."""
    width_key, start_key = jax.random.split(key)
    shape = (len(lengths), num_masks)
    widths = jax.random.uniform(width_key, shape) * (widest[:, None] + 1).astype(jnp.float32)
    widths = jnp.floor(widths)
    room = lengths[:, None].astype(jnp.float32) - widths
    starts = jnp.floor(jax.random.uniform(start_key, shape) * (room + 1))
    position = jnp.arange(size, dtype=jnp.float32)[None, :, None]
    inside = (position >= starts[:, None]) & (position < (starts + widths)[:, None])
    return jnp.any(inside, axis=-1)


def _in_room(samples, probability: float, key, sample_rate: int):
    """Returns samples [B, S] of which a share `probability` of the rows reverberates.

    The impulse response is the direct sound and, 2 ms later, white noise that decays exponentially.
    Its energy is one. Rows end where they did.
    """
    batch, size = samples.shape
    keys = jax.random.split(key, 4)
    length = min(sample_rate // 2, size)
    low, high = DECAY
    decay = jax.random.uniform(keys[0], (batch, 1), minval=low, maxval=high)
    low, high = DIRECT
    direct = 10 ** (jax.random.uniform(keys[1], (batch, 1), minval=low, maxval=high) / 10)
    time = jnp.arange(length, dtype=jnp.float32)[None, :] / sample_rate
    tail = jax.random.normal(keys[2], (batch, length)) * 10 ** (-3 * time / decay)
    tail = jnp.where(time < 0.002, 0.0, tail)
    tail /= jnp.sqrt(jnp.sum(jnp.square(tail), axis=1, keepdims=True) * (1 + direct) + 1e-12)
    response = tail.at[:, 0].set(jnp.sqrt(direct / (1 + direct))[:, 0])
    padded = size + length
    padded += padded % 2
    spectrum = jnp.fft.rfft(samples, padded) * jnp.fft.rfft(response, padded)
    reverberant = jnp.fft.irfft(spectrum, padded)[:, :size]
    chosen = jax.random.bernoulli(keys[3], probability, (batch, 1))
    return jnp.where(chosen, reverberant, samples)


def _with_level_and_noise(samples, num_samples, config: AugmentConfig, key):
    """Returns samples [B, S] of another level, with noise."""
    batch = samples.shape[0]
    gain_key, which_key, snr_key, color_key, noise_key = jax.random.split(key, 5)
    if any(config.gain):
        low, high = config.gain
        gain = jax.random.uniform(gain_key, (batch, 1), minval=low, maxval=high)
        samples = samples * 10 ** (gain / 20)
    if config.noise_probability == 0:
        return samples
    valid = jnp.arange(samples.shape[1])[None, :] < num_samples[:, None]
    white = jax.random.normal(noise_key, samples.shape)
    color = jax.random.uniform(color_key, (batch, 1))  # how much of the previous sample is added
    noise = jnp.where(valid, white + color * jnp.pad(white[:, :-1], ((0, 0), (1, 0))), 0.0)
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


def _mean_square(x, counted):
    """Returns the mean square [B, 1] of x [B, S] where `counted`; it is never zero."""
    count = jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1)
    squares = jnp.where(counted, jnp.square(x), 0.0)
    return jnp.sum(squares, axis=1, keepdims=True) / count.astype(jnp.float32) + 1e-12


def _change(num_samples, size: int, config: AugmentConfig, key):
    """Returns where a batch sounds like another recording [B, S] bool, and two gains there [B, 1].

    The first gain is of signal and noise, up to 10 dB either way; the second is of the noise alone,
    from -20 to 0 dB, or zero. The other recording reaches up to one end of the utterance.
    """
    keys = jax.random.split(jax.random.fold_in(key, 1), 6)
    shape = (len(num_samples), 1)
    moment = jax.random.uniform(keys[0], shape) * num_samples[:, None].astype(jnp.float32)
    before = jax.random.bernoulli(keys[1], 0.5, shape)
    position = jnp.arange(size, dtype=jnp.float32)[None, :]
    inside = (position < moment) == before
    inside &= position < num_samples[:, None].astype(jnp.float32)
    changes = jax.random.bernoulli(keys[2], config.change_probability, shape)
    gain = 10 ** (jax.random.uniform(keys[3], shape, minval=-10.0, maxval=10.0) / 20)
    noise_gain = 10 ** (jax.random.uniform(keys[4], shape, minval=-20.0, maxval=0.0) / 20)
    silent = jax.random.bernoulli(keys[5], 0.2, shape)
    return changes & inside, gain, jnp.where(silent, 0.0, noise_gain)


def _gated(samples, noisy, probability: float, key, sample_rate: int):
    """Returns `noisy` samples [B, S] after a noise gate, in a share `probability` of the rows.

    The gate is open near samples that exceed 1 % of the utterance's peak. Shut, it leaves white
    noise of -160 to -60 dBFS, as of dither or of inserted silence, with a constant offset or none.
    """
    batch, size = samples.shape
    which_key, hold_key, level_key, offset_key, noise_key = jax.random.split(key, 5)
    frame = sample_rate // 100
    magnitude = jnp.pad(jnp.abs(samples), ((0, 0), (0, -size % frame)))
    peaks = magnitude.reshape(batch, -1, frame).max(axis=2)  # of 10 ms
    loud = peaks > GATE_THRESHOLD * peaks.max(axis=1, keepdims=True)
    low, high = GATE_HOLD
    hold = jax.random.uniform(hold_key, (batch, 1), minval=low, maxval=high) * 100
    hold = hold.astype(jnp.int32)
    count = jnp.pad(jnp.cumsum(loud, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    position = jnp.arange(loud.shape[1])[None, :]
    until = jnp.take_along_axis(count, jnp.minimum(position + hold + 1, loud.shape[1]), axis=1)
    before = jnp.take_along_axis(count, jnp.maximum(position - hold, 0), axis=1)
    shut = jnp.repeat(until == before, frame, axis=1)[:, :size]
    low, high = GATE_NOISE
    level = 10 ** jax.random.uniform(level_key, (batch, 1), minval=low, maxval=high)
    low, high = GATE_OFFSET
    draw = jax.random.uniform(offset_key, (batch, 1), minval=low, maxval=low + 4 * (high - low))
    offset = jnp.where(draw < high, 10**draw, 0.0)
    level = jnp.minimum(level, GATE_THRESHOLD * jnp.max(magnitude, axis=1, keepdims=True))
    silence = offset + level * jax.random.normal(noise_key, samples.shape)
    gated = jax.random.bernoulli(which_key, probability, (batch, 1))
    return jnp.where(gated & shut, silence, noisy)


def _through_channels(samples, *, key, sample_rate: int):
    """Passes each utterance of samples [B, S] through a channel like a telephone's or a codec's.

    A third keeps frequencies up to 3.3 to 4 kHz, a third up to 4 to 8 kHz, a third all. Half of the
    first third lose those below 100 to 300 Hz. Half of all are companded to 8 bits (ITU-T G.711).
    """
    batch, size = samples.shape
    keys = jax.random.split(key, 6)
    kind = jax.random.randint(keys[0], (batch, 1), 0, 3)
    narrow, wide = (
        jax.random.uniform(k, (batch, 1), minval=low, maxval=high)
        for k, (low, high) in zip(keys[1:3], (TELEPHONE_BAND, WIDE_BAND), strict=True)
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
    """Compands samples to the 8 bits of A-law and back: the smallest become +-2^-12."""
    curve, scale = 87.6, 1 + math.log(87.6)
    size = jnp.minimum(jnp.abs(x), 1.0)
    linear = curve * size / scale
    log = (1 + jnp.log(jnp.maximum(curve * size, 1.0))) / scale
    steps = (jnp.floor(jnp.where(curve * size < 1, linear, log) * 128) + 0.5) / 128
    value = jnp.where(steps < 1 / scale, steps * scale / curve, jnp.exp(steps * scale - 1) / curve)
    return jnp.where(x < 0, -value, value)


def _mu_law(x):
    """Compands samples to the 8 bits of mu-law and back."""
    size = jnp.log1p(255 * jnp.minimum(jnp.abs(x), 1.0)) / math.log(256)
    return jnp.sign(x) * jnp.expm1(jnp.round(size * 127) / 127 * math.log(256)) / 255
