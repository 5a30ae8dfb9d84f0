"""Where a recording sounds: near silence of many kinds is left out, speech is not."""

import numpy as np
import pytest

from tdt_jax.audio.encoded import through_codec
from tdt_jax.audio.reading import read_audio
from tdt_jax.audio.silence import sounding, stretches
from tdt_jax.benchmarks.near_silence import CODECS, kinds
from tdt_jax.data.telephone.compose import prompts_folder

RATE = 16000
LONGEST = 2 * RATE
PROMPT = "conf-invalidpin.opus"  # "that pin is invalid for this conference"
SILENT = [name for name in kinds() if name not in (*CODECS, "noise of 0.001", "noise of 0.01")]


def speech(peak: float = 0.3) -> np.ndarray:
    """A recorded phrase, without what is quiet at its ends."""
    samples = read_audio(prompts_folder() / PROMPT, RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    samples = samples[loud[0] : loud[-1] + 1]
    return samples * np.float32(peak / np.abs(samples).max())


def silence(kind: str, seconds: float) -> np.ndarray:
    samples = kinds()[kind](round(seconds * RATE), np.random.default_rng(0))
    return samples.astype(np.float32)


def where(samples: np.ndarray) -> list[tuple[int, int]]:
    return stretches(samples, longest=LONGEST, sample_rate=RATE)


@pytest.mark.parametrize("kind", SILENT)
def test_near_silence_is_left_out(kind):
    words = speech()
    samples = np.concatenate([silence(kind, 4), words, silence(kind, 10), words, silence(kind, 1)])
    margin, (first, second) = RATE // 10, where(samples)
    for (start, end), place in ((first, 4 * RATE), (second, 14 * RATE + len(words))):
        assert place - margin - 160 <= start <= place
        assert place + len(words) <= end <= place + len(words) + margin + 160


@pytest.mark.parametrize("kind", SILENT)
def test_short_near_silence_stays(kind):
    words, pause = speech(), silence(kind, 1.9)
    samples = np.concatenate([silence(kind, 0.3), words, pause, words, silence(kind, 0.3)])
    loud = np.flatnonzero(np.abs(samples) > 2.0**-24)  # digital silence at the ends never does
    assert where(samples) == [(loud[0], loud[-1] + 1)]


@pytest.mark.parametrize("kind", CODECS)
def test_a_codecs_silence_is_left_out(kind):
    words = speech()
    samples = np.concatenate([np.zeros(RATE, np.float32), words, np.zeros(RATE, np.float32)])
    ((start, end),) = where(through_codec(samples, RATE, *CODECS[kind]))
    assert 0.85 * RATE <= start <= RATE
    assert len(words) <= end - RATE <= len(words) + 0.15 * RATE


@pytest.mark.parametrize("level", [1e-3, 1e-2])
def test_the_noise_of_a_room_is_kept(level):
    words, noise = speech(), silence(f"noise of {level:g}", 4)
    samples = np.concatenate([noise, words, noise, words, noise])
    assert where(samples) == [(0, len(samples))]


@pytest.mark.parametrize(("decibels", "tail"), [(-40, 0), (-60, 0.03), (-70, 0.16)])
def test_quiet_speech_is_kept(decibels, tail):
    """All but the end of the last hiss, in seconds."""
    words = speech(10 ** (decibels / 20))
    noise = np.random.default_rng(0).normal(0, 0.003 * np.abs(words).max(), len(words) + 8 * RATE)
    samples = noise.astype(np.float32)
    samples[4 * RATE : -4 * RATE] += words
    ((start, end),) = where(samples)
    assert start <= 4 * RATE and end >= len(samples) - (4 + tail) * RATE


def test_real_recordings_are_kept_whole():
    """Those with up to 0.35 s of silence at their ends: nearly all."""
    changed = 0
    for path in sorted(prompts_folder().glob("*.opus"))[::28]:
        samples = read_audio(path, RATE)
        loud = np.flatnonzero(np.abs(samples) > 2.0**-24)
        changed += where(samples) != [(loud[0], loud[-1] + 1)]
    assert changed == 0


@pytest.mark.parametrize("size", [1, 160, 7777])
def test_blocks_make_no_difference(size):
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.choice([0, 2e-5, 1e-4, 1e-4, 1e-2], 16), RATE // 5)
    samples = (levels * rng.standard_normal(len(levels))).astype(np.float32)
    options = dict(longest=RATE // 10, sample_rate=RATE)
    blocks = (samples[i : i + size] for i in range(0, len(samples), size))
    spans: list[tuple[int, int]] = []
    for start, part in sounding(blocks, **options):
        np.testing.assert_array_equal(part, samples[start : start + len(part)])
        end = start + len(part)
        if spans and spans[-1][1] == start:
            start, _ = spans.pop()
        spans.append((start, end))
    assert spans == stretches(samples, **options)
    assert len(spans) > 1
