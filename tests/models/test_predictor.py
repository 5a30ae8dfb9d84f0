"""The prediction network against the LSTM's formula in numpy."""

import functools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from flax import nnx

from tdt_jax.config import PredictorConfig
from tdt_jax.models.predictor import Predictor

VOCAB = 5
LABELS = np.array([[0, 4, 2, 2], [3, 3, 1, 0]], np.int32)


@functools.cache
def predictor(num_layers, dtype="float32", dropout=0.0):
    config = PredictorConfig(width=6, num_layers=num_layers, dropout=dropout)
    return models.build(lambda: Predictor(config, VOCAB, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))


@jax.jit
def run(predictor, labels, key):
    return predictor(labels, key=key)


def sequence(predictor, labels, key=None):
    return np.asarray(run(predictor, labels, key))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(predictor, labels):
    """Outputs [U + 1, P] for one utterance, in float64, with torch's gates: i, f, g, o."""
    predictor = models.numpy_model(predictor)
    embedding = np.asarray(predictor.embedding[...], np.float64)
    xs = [np.zeros(embedding.shape[1])] + [embedding[label] for label in labels]
    for layer in predictor.layers:
        hidden = cell = np.zeros(embedding.shape[1])
        outputs = []
        for x in xs:
            gates = x @ np.asarray(layer.input.kernel[...]) + np.asarray(layer.input.bias[...])
            gates = gates + hidden @ np.asarray(layer.recurrent.kernel[...])
            i, f, g, o = np.split(gates + np.asarray(layer.recurrent.bias[...]), 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            outputs.append(hidden)
        xs = outputs
    return np.stack(xs)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_sequence_and_steps_follow_the_formula(num_layers):
    """The sequence starts with a zero embedding; the first step takes blank for it."""
    model = predictor(num_layers)
    outputs = sequence(model, LABELS)
    assert outputs.shape == (2, 5, 6) and outputs.dtype == jnp.float32
    for b, labels in enumerate(LABELS):
        np.testing.assert_allclose(outputs[b], reference(model, labels), atol=1e-6)

    state = model.start(2)
    assert state.hidden.shape == state.cell.shape == (num_layers, 2, 6)
    step = jax.jit(Predictor.step)
    for u, labels in enumerate(np.concatenate([[[VOCAB], [VOCAB]], LABELS], axis=1).T):
        before = state
        output, state = step(model, labels, state)
        np.testing.assert_allclose(output, outputs[:, u], atol=1e-6)
        np.testing.assert_array_equal(output, state.hidden[-1])
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, before)


def test_no_labels_leave_the_start():
    model = predictor(1)
    outputs = sequence(model, np.zeros((3, 0), np.int32))
    assert outputs.shape == (3, 1, 6)
    np.testing.assert_allclose(outputs[1], reference(model, []), atol=1e-6)


def test_later_labels_have_no_influence():
    changed = LABELS.copy()
    changed[0, 2:] = [VOCAB, 1]
    one, other = sequence(predictor(2), LABELS), sequence(predictor(2), changed)
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[0, :3], other[0, :3])
    assert np.all(np.any(one[0, 3:] != other[0, 3:], axis=-1))


def test_blank_embeds_as_zero_and_takes_no_gradient():
    model = predictor(1)
    assert not np.any(model.embed(np.array([VOCAB])))
    np.testing.assert_array_equal(model.embed(np.array([[2]]))[0, 0], model.embedding[2])

    @jax.jit
    def gradient(model, labels):
        return jax.grad(lambda model: jnp.sum(model(labels)))(model).embedding[...]

    assert gradient(model, LABELS).shape == (VOCAB, 6)  # no row for blank
    assert not np.any(gradient(model, np.full_like(LABELS, VOCAB)))
    rows = np.any(gradient(model, np.where(LABELS == 3, VOCAB, LABELS)), axis=1)
    np.testing.assert_array_equal(rows, [True, True, True, False, True])


def test_dropout_comes_with_a_key_only():
    model, key = predictor(2, dropout=0.5), functools.partial(jax.random.key, impl="rbg")
    np.testing.assert_array_equal(sequence(model, LABELS), sequence(predictor(2), LABELS))
    one, again, other = (sequence(model, LABELS, key=key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    np.testing.assert_allclose(np.mean(one == 0), 0.5, atol=0.2)


def test_bfloat16_computes_on_float32_parameters():
    model = predictor(2, "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("float32")}
    outputs = sequence(model, LABELS)
    assert outputs.dtype == jnp.bfloat16 and model.start(2).cell.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        outputs.astype(np.float32), sequence(predictor(2), LABELS), atol=0.02
    )
    output, state = jax.eval_shape(Predictor.step, model, LABELS[:, 0], model.start(2))
    assert output.dtype == state.hidden.dtype == state.cell.dtype == jnp.bfloat16
