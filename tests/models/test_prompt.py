"""The language prompt: its one-hot is a lookup, rows have their own, what does not fit is told."""

import dataclasses

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax.config import PromptConfig
from tdt_jax.models.prompt import Prompt

CONFIG = PromptConfig(5, 24, 3, (("en", 0), ("en-US", 0), ("de", 4), ("auto", 3)))


@pytest.fixture(scope="module")
def prompt():
    return models.build(
        lambda: Prompt(CONFIG, 16, dtype=jnp.float32, rngs=models.nnx.Rngs(0)), seed=1
    )


@pytest.fixture(scope="module")
def apply(prompt):
    program = jax.jit(type(prompt).__call__)
    return lambda *arrays: np.asarray(program(prompt, *arrays))


def frames(seed=0):
    return np.random.default_rng(seed).normal(size=(4, 7, 16)).astype(np.float32)


LENGTHS = np.array([7, 3, 0, 6], np.int32)


def test_it_is_two_linear_layers_over_the_frame_and_a_one_hot(prompt, apply):
    x, slots = frames(), np.array([0, 4, 3, 2], np.int32)
    one_hot = np.broadcast_to(np.eye(5, dtype=np.float32)[slots][:, None], (4, 7, 5))
    kernel1, kernel2 = np.asarray(prompt.linear1.kernel), np.asarray(prompt.linear2.kernel)
    hidden = np.concatenate([x, one_hot], -1) @ kernel1 + np.asarray(prompt.linear1.bias)
    expected = np.maximum(hidden, 0) @ kernel2 + np.asarray(prompt.linear2.bias)
    expected[np.arange(7)[None] >= LENGTHS[:, None]] = 0
    np.testing.assert_allclose(apply(x, LENGTHS, slots), expected, rtol=0, atol=1e-5)


def test_the_default_is_a_slot_as_others(apply):
    x, default = frames(), np.full(4, CONFIG.default, np.int32)
    np.testing.assert_array_equal(apply(x, LENGTHS, None), apply(x, LENGTHS, default))


def test_a_slot_that_does_not_exist_is_no_other(apply):
    x, lengths = frames(), np.array([7, 7, 7, 7], np.int32)
    computed = apply(x, lengths, np.array([-1, 5, 0, 4], np.int32))
    assert np.all(np.isnan(computed[:2])) and np.all(np.isfinite(computed[2:]))


def test_slots_by_language():
    assert [CONFIG.slot(each) for each in ("en-US", "de", "auto", 1, np.int32(4))] == [
        0,
        4,
        3,
        1,
        4,
    ]
    with pytest.raises(ValueError, match="no prompt for 'fr'; it has en, en-US, de, auto"):
        CONFIG.slot("fr")
    with pytest.raises(ValueError, match="no prompt for 'fr'; it has none by name"):
        PromptConfig().slot("fr")
    for slot in (-1, 5):
        with pytest.raises(ValueError, match=rf"slots in 0\.\.4, got {slot}"):
            CONFIG.slot(slot)


def test_the_configuration_survives_its_text():
    config = models.config(prompt=CONFIG)
    assert tdt.config.from_json(tdt.config.to_json(config), tdt.ModelConfig) == config


def causal(**changes):
    encoder = models.encoder_config(
        chunked_contexts=((4, 1),), convolution_context=(4, 0), causal_subsampling=True
    )
    return models.config(encoder=encoder, prompt=CONFIG, **changes)


@pytest.mark.slow
def test_whole_utterances_and_chunks_have_the_same_prompt():
    model, lengths = models.transducer(causal()), np.array([31, 16], np.int32)
    features = np.random.default_rng(2).normal(size=(2, 32, 16)).astype(np.float32)
    prompt = np.array([4, 0], np.int32)
    frames, num_frames = jax.device_get(tdt.encode(model, features, lengths, prompt=prompt))
    default, _ = jax.device_get(tdt.encode(model, features, lengths))
    assert np.all(np.any(frames[:, :3] != default[:, :3], axis=-1))
    state, rows = tdt.start_encoding(model, 2), [[], []]
    for start in (0, 16):
        count, last = np.clip(lengths - start, 0, 16), (start + 16 >= lengths) & (start < lengths)
        x, num, state = jax.device_get(
            tdt.encode_chunk(model, features[:, start : start + 16], count, state, last, prompt)
        )
        for row, each, n in zip(rows, x, num, strict=True):
            row.append(each[:n])
    for row, expected, n in zip(rows, frames, num_frames, strict=True):
        np.testing.assert_allclose(np.concatenate(row), expected[:n], rtol=0, atol=1e-5)


def test_prompts_that_do_not_fit():
    features, lengths = np.zeros((2, 32, 16), np.float32), np.array([32, 32], np.int32)
    model = models.transducer(causal())
    for prompt in (np.zeros(3, np.int32), np.zeros(2, np.float32), np.zeros((2, 1), np.int32)):
        with pytest.raises(ValueError, match=r"prompt must be integers \[B\] for 2 utterances"):
            tdt.encode(model, features, lengths, prompt=prompt)
    plain = models.transducer(dataclasses.replace(causal(), prompt=None))
    with pytest.raises(ValueError, match="no language prompt"):
        tdt.encode(plain, features, lengths, prompt=np.zeros(2, np.int32))
