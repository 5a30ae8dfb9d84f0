"""Log-mel features against the same steps in float64; filters against librosa's."""

import functools

import jax
import librosa
import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax.benchmarks.near_silence import kinds
from tdt_jax.config import FeatureConfig
from tdt_jax.models.features import mel_filters

LENGTHS = np.array([8000, 5555, 1600], np.int32)


def log_mel(*arguments, **options):
    """`tdt.log_mel` in numpy."""
    return jax.device_get(tdt.log_mel(*arguments, **options))


def signal(lengths=LENGTHS, size=8000, seed=0):
    """Tones in noise that grow from utterance to utterance; garbage in the padding."""
    rng = np.random.default_rng(seed)
    time = np.arange(size) / 16000
    tones = sum(np.sin(2 * np.pi * f * time) for f in (220.0, 1333.0, 5000.0))
    samples = 0.1 * tones + 0.02 * rng.normal(size=(len(lengths), size))
    samples *= np.linspace(0.1, 1, len(lengths))[:, None]
    samples[np.arange(size) >= lengths[:, None]] = 99.0
    return samples.astype(np.float32)


def power_spectrum(x, window):
    """|DFT|^2 [M, 257] of windows of 512 samples; window m starts at sample 160 m - 256."""
    start = (512 - window) // 2
    weights = np.pad(np.hanning(window), (start, 512 - window - start))
    x = np.pad(x, 256)
    frames = [x[m : m + 512] * weights for m in range(0, len(x) - 511, 160)]
    return np.abs(np.fft.rfft(frames)) ** 2


def reference(samples, num_mels, window=400):
    """One utterance, step by step, in float64: [S] -> [S // 160, F]."""
    x = samples.astype(np.float64)
    x = np.concatenate([x[:1], x[1:] - 0.97 * x[:-1]])
    filters = mel_filters(FeatureConfig(num_mels=num_mels)).astype(np.float64)
    features = np.log(power_spectrum(x, window) @ filters.T + 2.0**-24)[: len(samples) // 160]
    deviation = features.std(axis=0, ddof=1)
    return (features - features.mean(axis=0)) / (deviation + 1e-5)


@pytest.mark.parametrize(("num_mels", "window"), [(80, 400), (128, 400), (80, 401)])
def test_features_follow_the_definition(num_mels, window):
    """Within 2e-4 deviations of a bin: what float32 loses in the transform.

    Its error is 1e-7 of a frame's loudest bin; the faintest bin of this signal is some 1e-3 of it.
    """
    samples = signal()
    config = FeatureConfig(num_mels=num_mels, window_length=window)
    features, num_features = log_mel(samples, LENGTHS, config)
    assert features.shape == (3, 50, num_mels) and features.dtype == np.float32
    np.testing.assert_array_equal(num_features, LENGTHS // 160)
    assert num_features.dtype == np.int32
    for b, length in enumerate(LENGTHS):
        expected = reference(samples[b, :length], num_mels, window)
        np.testing.assert_allclose(features[b, : len(expected)], expected, atol=2e-4)
        assert not np.any(features[b, len(expected) :])


@pytest.mark.parametrize("num_mels", [80, 128])
def test_filters_equal_librosa(num_mels):
    expected = librosa.filters.mel(sr=16000, n_fft=512, n_mels=num_mels, norm="slaney")
    filters = mel_filters(FeatureConfig(num_mels=num_mels))
    assert filters.shape == expected.shape == (num_mels, 257)
    np.testing.assert_allclose(filters, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("window", [400, 401])
def test_power_spectra_equal_librosa(window):
    x = np.random.default_rng(0).normal(size=5555)
    spectrum = librosa.stft(
        x, n_fft=512, hop_length=160, win_length=window, window=np.hanning(window),
        center=True, pad_mode="constant",
    )  # fmt: skip
    np.testing.assert_allclose(power_spectrum(x, window), np.abs(spectrum.T) ** 2, rtol=1e-9)


def test_padding_and_the_rest_of_the_batch_have_no_influence():
    samples = signal()
    features, _ = log_mel(samples, LENGTHS)
    for garbage in (0.0, -1e6, np.nan):
        changed = np.where(samples == 99.0, np.float32(garbage), samples)
        np.testing.assert_array_equal(log_mel(changed, LENGTHS)[0], features)
    rows = [1, 2, 0]
    np.testing.assert_array_equal(log_mel(samples[rows], LENGTHS[rows])[0], features[rows, :])
    longer, _ = log_mel(np.pad(samples, ((0, 0), (0, 1234)), constant_values=7), LENGTHS)
    assert longer.shape[1] == 9234 // 160
    np.testing.assert_allclose(longer[:, :50], features, atol=1e-4)  # other sums
    assert not np.any(longer[:, 50:])
    alone, _ = log_mel(samples[1:2, :5555], LENGTHS[1:2])
    np.testing.assert_allclose(alone[0], features[1, :34], atol=1e-4)


def test_short_lengths_are_finite():
    """No frame below 160 samples; one frame is its own mean; two lie 1 / sqrt(2) either side."""
    below, lengths = np.array([0, 1, 159], np.int32), np.array([160, 161, 320], np.int32)
    features, num_features = log_mel(signal(below), below)
    assert not np.any(num_features) and not np.any(features)
    features, num_features = log_mel(signal(lengths), lengths)
    np.testing.assert_array_equal(num_features, [1, 1, 2])
    assert np.all(np.isfinite(features)) and not np.any(features[:2])
    # The guard on the deviation and float32 show where the two frames of a bin are alike.
    np.testing.assert_allclose(np.abs(features[2, :2]), 0.5**0.5, atol=0.01)
    np.testing.assert_allclose(features[2, 0], -features[2, 1], atol=0.01)


def test_a_batch_shorter_than_a_frame_has_none():
    for size, config in ((0, FeatureConfig()), (159, FeatureConfig(silence=22.0))):
        samples = np.ones((2, size), np.float32)
        features, num_features = log_mel(samples, np.array([size, 0]), config)
        assert features.shape == (2, 0, 80) and not np.any(num_features)


def test_silence_is_finite():
    """Digital silence, constant offset and full scale square waves.

    Silence is near zero only: float32 rounds the mean of equal logarithms by 1e-6, and the guard
    on the deviation divides that by 1e-5.
    """
    square = np.where(np.arange(8000) // 40 % 2, 1.0, -1.0)
    samples = np.stack([np.zeros(8000), np.ones(8000), square]).astype(np.float32)
    features, _ = log_mel(samples, np.full(3, 8000, np.int32))
    assert np.all(np.isfinite(features)) and np.max(np.abs(features[0])) < 0.5


def test_fixed_normalization_leaves_speech_alone_whatever_is_beside_it():
    """Three seconds of silence before an utterance: the rest of its features stays as it was."""
    fixed = FeatureConfig(normalize=(-8.0, 4.0))
    samples = signal()[:1]
    alone, num_alone = log_mel(samples, LENGTHS[:1], fixed)
    later = np.pad(samples, ((0, 0), (48000, 0)))
    after, num_after = log_mel(later, LENGTHS[:1] + 48000, fixed)
    assert num_after - num_alone == 300
    np.testing.assert_allclose(after[:, 302:], alone[:, 2:], atol=1e-5)
    np.testing.assert_allclose(after[:, :298], (np.log(2.0**-24) + 8) / 4, rtol=1e-6)
    valid = int(num_alone[0])
    raw = np.array(log_mel(samples, LENGTHS[:1], FeatureConfig(normalize=(0.0, 1.0)))[0])
    np.testing.assert_allclose(alone[0, :valid], (raw[0, :valid] + 8) / 4, atol=1e-5)
    assert not np.any(raw[0, valid:])
    by_bin, _ = log_mel(samples, LENGTHS[:1])
    centered = raw[0, :valid] - raw[0, :valid].mean(0)
    expected = centered / raw[0, :valid].std(0, ddof=1)
    np.testing.assert_allclose(by_bin[0, :valid], expected, atol=1e-3)
    with pytest.raises(ValueError, match=r"features\.normalize needs a positive deviation"):
        FeatureConfig(normalize=(0.0, 0.0))


def test_dither_comes_with_a_key_only():
    samples = signal()
    plain, one, again, other = (
        log_mel(samples, LENGTHS, key=key)[0]
        for key in (None, jax.random.key(1), jax.random.key(1), jax.random.key(2))
    )
    np.testing.assert_array_equal(one, again)
    assert np.any(one != plain) and np.any(one != other)
    np.testing.assert_allclose(one, plain, atol=0.2)  # 1e-5 in a signal of 1e-2
    assert not np.any(np.where(np.arange(50)[:, None] >= 10, one[2], 0))


def test_dither_has_the_deviation_asked_for():
    """Noise of 1, of 0.1 and none: a dither of 0.01 puts the last as far below as the first two."""
    num_samples = np.full(1, 48000)
    noise = np.random.default_rng(0).normal(size=(1, 48000)) * np.repeat([1, 0.1, 0], 16000)
    features, _ = log_mel(
        noise.astype(np.float32), num_samples, FeatureConfig(dither=0.01), key=jax.random.key(0)
    )
    loud, faint, silent = np.asarray(features)[0].reshape(3, 100, 80).mean(axis=(1, 2))
    np.testing.assert_allclose((faint - silent) / (loud - silent), 0.5, atol=0.02)


@pytest.mark.parametrize(
    ("samples", "num_samples"),
    [((320,), (1,)), ((2, 320), (3,)), ((2, 320), ()), ((2, 2, 9), (2,))],
)
def test_bad_shapes_are_named(samples, num_samples):
    run = functools.partial(tdt.log_mel, np.zeros(samples, np.float32))
    with pytest.raises(ValueError, match=r"\[B, S\]") as caught:
        run(np.zeros(num_samples, np.int32))
    assert str(samples) in str(caught.value) and str(num_samples) in str(caught.value)


def in_silence(samples, kind, where=0):
    """Two seconds of a kind of near silence at a place in samples [S]."""
    silence = kinds()[kind](32000, np.random.default_rng(0))
    return np.concatenate([samples[:where], silence, samples[where:]], dtype=np.float32)


@pytest.mark.parametrize("kind", ["zeros", "steps of 16 bits", "a constant", "noise of 0.0001"])
@pytest.mark.parametrize("peak", [0.9, 0.1])
def test_silence_beside_speech_changes_no_feature_of_it(kind, peak):
    """But for the two frames at each end, whose windows reach into the silence.

    The step from a constant to speech is a click: two frames that count.
    """
    bound = 0.5 if kind == "a constant" else 0.1
    loudness = 10 ** (0.4 * np.sin(np.arange(48000) / 600))  # 8 dB up and down
    samples = np.random.default_rng(0).normal(0, 0.03 * peak, 48000) * loudness
    samples = samples.astype(np.float32)
    config = FeatureConfig(silence=22.0)
    alone, _ = log_mel(samples[None], np.int32([48000]), config)
    for where in (0, 48000, 24000):  # before, behind, between
        longer = in_silence(samples, kind, where)
        found, _ = log_mel(longer[None], np.int32([len(longer)]), config)
        first = where // 160
        speech = np.concatenate([found[0, :first], found[0, first + 200 :]])
        inner = np.abs(np.arange(300) - first) > 2
        assert np.abs(speech - alone[0])[inner].max() < bound, where
        usual = log_mel(longer[None], np.int32([len(longer)]), FeatureConfig())[0][0]
        usual = np.concatenate([usual[:first], usual[first + 200 :]])
        assert np.abs(usual - alone[0])[inner].max() > 0.7


def test_without_silence_all_frames_count():
    """A level of 22 dB below the loudest 0.2 s changes nothing where no frame is so low."""
    samples = signal()
    usual, _ = log_mel(samples, LENGTHS, FeatureConfig())
    found, _ = log_mel(samples, LENGTHS, FeatureConfig(silence=22.0))
    np.testing.assert_array_equal(found, usual)


def test_silence_is_refused_beside_a_fixed_normalization():
    with pytest.raises(
        ValueError, match=r"features\.silence affects the mean and deviation of each utterance only"
    ):
        FeatureConfig(normalize=(-9.0, 2.0), silence=22.0)
    with pytest.raises(ValueError, match=r"features\.silence must be positive"):
        FeatureConfig(silence=0.0)
