"""Channels to one: the weights of a standard down-mix, and sides that do not cancel."""

import numpy as np
import pytest
from media import sine

from tdt_jax.audio.downmix import mix, weights
from tdt_jax.audio.request import Block

RATE = 8000
STEREO = ("FL", "FR")


def mono(samples, layout=STEREO, sizes=None):
    """The mix of samples that come in blocks of these sizes."""
    samples = np.asarray(samples, np.float32)
    edges = np.cumsum(sizes) if sizes else []
    blocks = [Block(0.0, RATE, part, layout) for part in np.split(samples, edges) if len(part)]
    return np.concatenate([block for _, block in mix(blocks)])


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))


def test_weights_are_those_of_a_standard_down_mix():
    """-3 dB for the sides, -6 dB for what is behind them, nothing of the bass effects."""
    surround = ("FL", "FR", "FC", "LFE", "BL", "BR")
    expected = np.array([0.7071, 0.7071, 1, 0, 0.5, 0.5]) / 3.4142
    np.testing.assert_allclose(weights(surround, 6), expected, rtol=1e-4)
    np.testing.assert_allclose(weights(STEREO, 2), [0.5, 0.5])
    np.testing.assert_allclose(weights((), 4), [0.25] * 4)
    np.testing.assert_allclose(weights(("LFE",), 1), [1.0])
    for layout in (surround, STEREO, ("FL", "FR", "FC", "TFL", "NEW")):
        assert weights(layout, len(layout)).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("gain", [-1.0, -0.5, -2.0])
def test_a_side_that_mirrors_the_other_is_turned_over(gain):
    words = noise(3.3)
    mix = mono(np.stack([words, gain * words], axis=1))
    np.testing.assert_allclose(mix, words * (1 - gain) / 2, atol=1e-6)


def test_what_mirrors_in_part_is_heard():
    """Words on both sides, one of them turned over, with noise of its own on each."""
    words, left, right = noise(3.0), 0.3 * noise(3.0, 1), 0.3 * noise(3.0, 2)
    mix = mono(np.stack([words + left, -words + right], axis=1))
    assert np.corrcoef(mix, words)[0, 1] > 0.97 and np.std(mix) == pytest.approx(0.1, rel=0.1)


def test_ordinary_stereo_is_averaged():
    """Two that speak, one side alone, sides that are alike; constants that differ."""
    one, two = noise(2.0), noise(2.0, 1)
    for left, right in ((one, two), (one, 0 * one), (one, one), (one + 0.5, two - 0.5),
                        (one, 0.9 * two - 0.4 * one)):  # fmt: skip
        stereo = np.stack([left, right], axis=1)
        np.testing.assert_allclose(mono(stereo), stereo.mean(axis=1), atol=1e-6)


def test_a_recording_that_turns_over_in_the_middle():
    """Without a click: it takes a hundredth of a second."""
    words = sine(4.0, RATE, 100)
    other = np.where(np.arange(len(words)) < 2 * RATE, words, -words)
    mix = mono(np.stack([words, other], axis=1))
    np.testing.assert_allclose(mix[: 2 * RATE], words[: 2 * RATE], atol=1e-6)
    np.testing.assert_allclose(mix[2 * RATE + 80 :], words[2 * RATE + 80 :], atol=1e-6)
    assert np.abs(np.diff(mix)).max() < 1.6 * np.abs(np.diff(words)).max()


def test_the_mix_depends_on_no_block():
    stereo = np.stack([noise(5.0), np.r_[-noise(5.0)[:20000], noise(2.5, 3)]], axis=1)
    whole = mono(stereo)
    for sizes in ([1] * 50, [7777] * 5, [100, 30000]):
        np.testing.assert_array_equal(mono(stereo, sizes=sizes), whole)
    assert len(whole) == len(stereo)


def test_surround_sides_that_mirror_each_other_leave_the_centre():
    words, sides = noise(2.0), noise(2.0, 1)
    mix = mono(np.stack([sides, -sides, words], axis=1), ("FL", "FR", "FC"))
    np.testing.assert_allclose(mix, (2 * 0.7071 * sides + words) / 2.4142, atol=1e-4)


def test_kinds_of_blocks_that_follow_each_other():
    """Another number of channels, or another rate: a part of its own."""
    blocks = [Block(0.0, RATE, np.full((900, 2), 0.5, np.float32), STEREO),
              Block(0.0, RATE, np.full((90, 1), 0.25, np.float32), ("FC",)),
              Block(0.0, 2 * RATE, np.full((9, 1), 0.5, np.float32), ("FC",))]  # fmt: skip
    found = [(rate, len(block), block[0]) for rate, block in mix(blocks)]
    assert found == [(RATE, 900, 0.5), (RATE, 90, 0.25), (2 * RATE, 9, 0.5)]
