"""SpecAugment's masks, and the level, noise and band of augmented samples, as measured."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tdt_jax.audio.encoded import through_codec
from tdt_jax.config import AugmentConfig
from tdt_jax.training import augment
from tdt_jax.training.augment import augment_samples, spec_augment

KEYS = 300
LENGTHS = np.array([60, 25, 0, 3], np.int32)


@functools.cache
def masks(**changes):
    """Returns which features are zeroed for each of many keys: [keys, B, M, F]."""
    config = AugmentConfig(**{**dict(freq_masks=0, time_masks=0), **changes})
    features = np.ones((len(LENGTHS), 60, 20), np.float32)

    @jax.jit
    def many(keys):
        return jax.vmap(lambda key: spec_augment(features, LENGTHS, config, key))(keys)

    masked = np.asarray(many(jax.random.split(jax.random.key(0), KEYS)))
    assert set(np.unique(masked)) <= {0, 1}
    return masked == 0


def runs(line):
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return edges[1::2] - edges[::2]


def test_one_frequency_mask():
    """One band across all time, of every width up to the largest, at every place."""
    masked = masks(freq_masks=1, freq_width=5)
    bands = masked[:, :, 0]
    np.testing.assert_array_equal(masked, np.broadcast_to(bands[:, :, None], masked.shape))
    widths = [runs(band) for band in bands.reshape(-1, 20)]
    assert all(len(each) <= 1 for each in widths)
    counts = np.bincount([int(each.sum()) for each in widths])
    assert len(counts) == 6 and np.all(np.abs(counts / counts.sum() - 1 / 6) < 0.05)
    assert np.all(bands.mean(axis=(0, 1)) > 0.02)  # every bin, the outermost as well
    assert np.any(bands[:, 0] != bands[:, 1])  # utterances have their own


def test_frequency_masks_add_up():
    counts = masks(freq_masks=3, freq_width=4)[:, :, 0].sum(axis=-1)
    assert counts.max() <= 12 and counts.max() > 8
    np.testing.assert_allclose(counts.mean(), 3 * 2, atol=1.2)  # less where masks overlap


def test_masks_wider_than_the_features():
    counts = masks(freq_masks=1, freq_width=99)[:, :, 0].sum(axis=-1)
    assert counts.max() == 20 and counts.min() == 0


def test_one_time_mask():
    """At most a share of the utterance, inside the utterance, anywhere in it."""
    masked = masks(time_masks=1, time_width=0.2)
    stretches = masked[..., 0]  # [keys, B, M]
    np.testing.assert_array_equal(masked, np.broadcast_to(stretches[..., None], masked.shape))
    for b, (length, widest) in enumerate(zip(LENGTHS, (12, 5, 0, 0), strict=True)):
        assert not np.any(stretches[:, b, length:])
        widths = [runs(line) for line in stretches[:, b]]
        assert all(len(each) <= 1 for each in widths)
        assert {int(each.sum()) for each in widths} == set(range(widest + 1))
        if widest:
            assert np.all(stretches[:, b, :length].mean(axis=0) > 0)


def test_time_masks_add_up():
    counts = masks(time_masks=4, time_width=0.2)[..., 0].sum(axis=-1)
    assert np.all(counts.max(axis=0) <= 4 * np.array([12, 5, 0, 0]))
    assert np.all(counts[:, :2].max(axis=0) > 2 * np.array([12, 5]))


@pytest.mark.parametrize(
    "off",
    [dict(), dict(freq_masks=2, freq_width=0, time_masks=2, time_width=0.0)],
)
def test_masks_off_at_zero(off):
    assert not np.any(masks(**off))


def test_spec_augment_keeps_the_rest_and_depends_on_the_key():
    features = np.random.default_rng(0).normal(size=(2, 30, 20)).astype(np.float32)
    config, lengths = AugmentConfig(time_masks=2, time_width=0.3), np.array([30, 20])
    augment = jax.jit(lambda key: spec_augment(features, lengths, config, key))
    one, again, other = (np.asarray(augment(jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert np.all((one == features) | (one == 0)) and np.any(one == 0) and np.any(one != 0)
    assert jax.eval_shape(
        lambda x: spec_augment(x, lengths, config, jax.random.key(0)),
        jax.ShapeDtypeStruct(features.shape, jnp.bfloat16),
    ).dtype == jnp.bfloat16  # fmt: skip


# Samples

NUM_SAMPLES = np.array([8000, 3000, 8000, 8000, 0, 500], np.int32)
LOUD_OR_SOFT = dict(noise_probability=1.0, gain=(-3.0, 3.0))


def signal(garbage=0.0):
    """Tones, one with digital silence inside, one silent throughout, one empty."""
    time = np.arange(8000)
    rows = np.stack([0.5 * np.sin(0.3 * time + b) for b in range(6)])
    rows[2, 1000:7000] = 0
    rows[3] = 0
    rows[time >= NUM_SAMPLES[:, None]] = garbage
    return rows.astype(np.float32)


@functools.partial(jax.jit, static_argnums=2)
def augment_16k(samples, num_samples, config, key):
    return augment_samples(samples, num_samples, config, key, sample_rate=16000)


def augmented(seed=0, garbage=0.0, **changes):
    """The signal, augmented with a seed's random numbers, in float64."""
    samples, key = signal(garbage), jax.random.key(seed)
    return np.asarray(augment_16k(samples, NUM_SAMPLES, AugmentConfig(**changes), key), np.float64)


def decibels(x):
    return 20 * np.log10(x)


def measured_snr(noisy):
    """Signal-to-noise ratio in dB of each row that is not silent.

    The signal is measured where it is not digital silence, the noise where samples are valid.
    """
    clean, ratios = signal().astype(np.float64), []
    for b in (0, 1, 2, 5):
        nonzero = clean[b][clean[b] != 0]
        noise = (noisy - clean)[b, : NUM_SAMPLES[b]]
        ratios.append(decibels(np.sqrt(np.mean(nonzero**2) / np.mean(noise**2))))
    return np.array(ratios)


@pytest.mark.parametrize("snr", [12.0, pytest.param(25.0, marks=pytest.mark.slow)])
def test_noise_has_the_ratio_asked_for(snr):
    noisy = augmented(noise_probability=1.0, noise_snr=(snr, snr))
    np.testing.assert_allclose(measured_snr(noisy), snr, atol=0.5)
    valid = np.arange(8000) < NUM_SAMPLES[:, None]
    assert not np.any(noisy[~valid])


def test_noise_ratios_fill_their_range():
    ratios = [
        measured_snr(augmented(seed, noise_probability=1.0, noise_snr=(10.0, 20.0)))
        for seed in range(25)
    ]
    assert np.min(ratios) >= 9.9 and np.max(ratios) <= 20.1
    assert np.min(ratios) < 11 and np.max(ratios) > 19
    assert np.all(np.std(ratios, axis=1) > 0)  # a ratio of its own for every utterance


def test_noise_comes_to_the_share_asked_for():
    np.testing.assert_array_equal(augmented(noise_probability=0.0), signal())
    touched = [
        np.any(augmented(seed, noise_probability=0.3) != signal(), axis=1) for seed in range(60)
    ]
    share = np.mean(touched, axis=0)
    assert share[4] == 0  # the empty row
    np.testing.assert_allclose(share[[0, 1, 2, 3, 5]].mean(), 0.3, atol=0.08)
    assert np.all(np.any(augmented(noise_probability=1.0) != signal(), axis=1) == (share > 0))


def test_noise_is_coloured_at_random():
    """Between white and a falling spectrum: neighbours correlate by 0 to 1/2."""

    def correlation(seed):
        noise = (augmented(seed, noise_probability=1.0) - signal())[0]
        return np.corrcoef(noise[1:], noise[:-1])[0, 1]

    values = [correlation(seed) for seed in range(12)]
    assert -0.05 < min(values) < 0.25 and 0.35 < max(values) < 0.55


def test_gain():
    np.testing.assert_allclose(augmented(gain=(6.0, 6.0)), signal() * 10**0.3, rtol=1e-5)
    gains = [
        decibels(augmented(seed, gain=(-3.0, 3.0))[[0, 1, 2], 1] / signal()[[0, 1, 2], 1])
        for seed in range(20)
    ]
    assert -3.01 < np.min(gains) < -2 and 2 < np.max(gains) < 3.01
    assert np.all(np.std(gains, axis=1) > 0)


def test_noise_follows_the_gain():
    """The ratio holds after the gain."""
    both = augmented(noise_probability=1.0, noise_snr=(12.0, 12.0), gain=(-20.0, -20.0))
    plain = augmented(noise_probability=1.0, noise_snr=(12.0, 12.0))
    np.testing.assert_allclose(both, plain / 10, atol=1e-6)


def test_samples_depend_on_the_key_and_not_on_padding():
    one, again, other = (augmented(seed, **LOUD_OR_SOFT) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    valid = np.arange(8000) < NUM_SAMPLES[:, None]
    for garbage in (7.0, np.nan):
        garbled = augmented(1, garbage, **LOUD_OR_SOFT)
        np.testing.assert_allclose(garbled[valid], one[valid], atol=1e-6)


def test_empty_and_silent_rows_stay_finite():
    noisy = augmented(**LOUD_OR_SOFT)
    assert np.all(np.isfinite(noisy)) and not np.any(noisy[4])
    assert np.max(np.abs(noisy[3])) < 1e-4  # silence has no level for noise to follow


def test_off_is_the_identity():
    np.testing.assert_array_equal(augmented(noise_probability=0.0, gain=(0.0, 0.0)), signal())


def test_level_and_noise_change_once_where_asked():
    """Up to one end the level is another, by up to 10 dB; the noise beside it is no louder."""
    size, count = 4000, 200
    tone = np.tile(np.sin(np.arange(size) * 0.3).astype(np.float32), (count, 1))
    lengths = np.full(count, size, np.int32)
    lengths[0] = 2000
    levels = {}
    for snr in (200.0, 10.0):
        config = AugmentConfig(noise_probability=1.0, noise_snr=(snr, snr), change_probability=0.5)
        augmented = np.asarray(augment_16k(tone, lengths, config, jax.random.key(0)))
        np.testing.assert_array_equal(augmented[0, 2000:], tone[0, 2000:])  # padding
        levels[snr] = augmented[1:] / np.where(np.abs(tone[1:]) > 0.1, tone[1:], np.inf)
    clean = levels[200.0]
    changes = 0
    for row, noisy in zip(clean, levels[10.0], strict=True):
        level = np.round(row[row != 0], 3)
        assert len(np.unique(level)) <= 2 and np.count_nonzero(np.diff(level)) <= 1
        assert level.min() > 0.31 and level.max() < 3.17
        gain = level[0] if level[0] != 1 else level[-1]
        if gain != 1 and 0.2 < np.mean(level == gain) < 0.8:
            changes += 1
            inside = np.round(row, 3) == gain
            rest = (row != 0) & ~inside
            assert np.std(noisy[inside] / gain) < 1.2 * np.std(noisy[rest])
    assert 30 < changes < 90
    same = augment_16k(tone, lengths, AugmentConfig(), jax.random.key(0))
    np.testing.assert_array_equal(same, tone)


def test_a_gate_silences_long_pauses_only():
    """Where it shuts, pauses of 1 s are nearly silent, those of 0.02 s never; the signal stays."""
    config = AugmentConfig(noise_probability=1.0, noise_snr=(20.0, 20.0), gate_probability=0.5)
    loud = np.zeros(32000, np.float32)
    loud[8000:12000] = loud[12320:16000] = 0.5
    samples, sizes = np.tile(loud, (64, 1)), np.full(64, 30000, np.int32)
    augmented = np.asarray(augment_16k(samples, sizes, config, jax.random.key(0)))
    pause = augmented[:, 24000:30000].std(axis=1)
    noise = 0.5 * 10 ** (-20 / 20)
    gated = pause < 1.1e-3
    assert 0.3 < gated.mean() < 0.7
    np.testing.assert_allclose(pause[~gated], noise, rtol=0.1)
    assert pause[gated].min() < 1e-6 and pause[gated].max() > 1e-5
    offsets = np.abs(augmented[gated, 24000:30000].mean(axis=1))
    assert 0.1 < (offsets > 3e-5).mean() < 0.45 and offsets.max() < 0.011
    np.testing.assert_allclose(augmented[:, 12100:12300].std(axis=1), noise, rtol=0.3)
    np.testing.assert_allclose(augmented[:, 8000:12000].mean(axis=1), 0.5, atol=0.01)
    assert not augmented[:, 30000:].any()


def test_channels_have_bands():
    """A third ends at 3.3 to 4 kHz, a third at 4 to 8 kHz; half of the narrowest start above 0."""
    samples = np.random.default_rng(0).normal(0, 0.1, (96, 16000)).astype(np.float32)
    config = AugmentConfig(band_probability=1.0)
    sizes = np.full(96, 16000, np.int32)
    augmented = np.asarray(augment_16k(samples, sizes, config, jax.random.key(0)))
    power = np.abs(np.fft.rfft(augmented)) ** 2
    hertz = np.fft.rfftfreq(16000, 1 / 16000)
    shares = np.cumsum(power, axis=1) / power.sum(axis=1, keepdims=True)
    upper = hertz[np.argmax(shares > 0.995, axis=1)]
    telephone, wide = upper < 4050, (upper >= 4050) & (upper < 7900)
    assert 0.2 < telephone.mean() < 0.47 and 0.2 < wide.mean() < 0.47
    assert upper.min() > 3200
    low = power[:, hertz < 80].sum(axis=1) / power.sum(axis=1)
    assert 0.1 < (low[telephone] < 1e-4).mean() < 0.6
    assert np.all(low[~telephone] > 1e-3)
    assert np.all(power[telephone][:, hertz > 4300].sum(axis=1) < 1e-6 * power[telephone].sum())


def test_channels_of_no_probability_change_nothing():
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 1601)).astype(np.float32)
    sizes = np.int32([1601, 900])
    config = AugmentConfig(band_probability=1e-9, gate_probability=1e-9)
    augmented = augment_16k(samples, sizes, config, jax.random.key(0))
    np.testing.assert_array_equal(augmented, samples)


@pytest.mark.parametrize(("law", "subtype"), [(augment._a_law, "ALAW"), (augment._mu_law, "ULAW")])
def test_companding_is_that_of_the_standard(law, subtype):
    """Within a step of libsndfile's G.711, whose curves are made of straight lines."""
    samples = np.linspace(-0.95, 0.95, 4001).astype(np.float32)
    expected = through_codec(samples, 8000, "WAV", subtype)
    step = 1.1 * np.maximum(np.abs(samples) / 16, 2.0**-11)
    assert np.all(np.abs(law(jnp.asarray(samples)) - expected) < step)
    assert len(np.unique(law(jnp.asarray(samples)))) <= 256
    zero = through_codec(np.zeros(1), 8000, "WAV", subtype)
    np.testing.assert_allclose(law(jnp.zeros(1)), zero, rtol=1e-3)


def test_rooms():
    """A click is followed by sound that decays, of less energy; half of the rows are as before."""
    samples = np.zeros((200, 16000), np.float32)
    samples[:, 1000] = 0.5
    config = AugmentConfig(room_probability=0.5)
    size = np.full(200, 16000, np.int32)
    run = jax.jit(functools.partial(augment_samples, config=config, sample_rate=16000))
    heard = np.asarray(run(samples, size, key=jax.random.key(0)))
    is_same = np.all(np.abs(heard - samples) < 1e-5, axis=1)
    assert 70 < is_same.sum() < 130
    rooms = heard[~is_same]
    np.testing.assert_allclose(rooms[:, :1000], 0, atol=1e-5)
    np.testing.assert_allclose(np.square(rooms).sum(axis=1), 0.25, rtol=1e-3)
    direct = np.square(rooms[:, 1000]) / 0.25
    assert direct.min() > 0.49 and direct.max() < 0.98  # 0 to 15 dB
    early, late = (np.square(rooms[:, 1040 + i : 2640 + i]).sum() for i in (0, 3200))
    assert 0 < late < 0.3 * early
