"""Learning rates by step, which parameters decay, and clipping."""

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from tdt_jax.config import OptimizerConfig
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.training.optimizer import decayed, make_optimizer, schedule


def rates(steps, num_steps=1000, **changes):
    options = dict(learning_rate=0.1, warmup_steps=100, final_learning_rate=0.001)
    function = schedule(OptimizerConfig(**{**options, **changes}), num_steps)
    return [float(function(step)) for step in steps]


def test_cosine_schedule():
    """0, half way up, the peak, half way down, the end, beyond the end."""
    steps = [0, 50, 100, 550, 1000, 5000]
    np.testing.assert_allclose(
        rates(steps), [0, 0.05, 0.1, (0.1 + 0.001) / 2, 0.001, 0.001], rtol=1e-5, atol=1e-9
    )


def test_cosine_schedule_of_a_run_shorter_than_its_warm_up():
    np.testing.assert_allclose(rates([0, 30, 60], num_steps=60), [0, 0.03, 0.06], rtol=1e-5)


def test_noam_schedule():
    """Linear to the peak at the end of the warm-up, then 1 / sqrt(step), down to the floor."""
    steps = [0, 49, 99, 399, 9999, 10**7]
    np.testing.assert_allclose(
        rates(steps, schedule="noam"), [0.001, 0.05, 0.1, 0.05, 0.01, 0.001], rtol=1e-5
    )
    warming = rates([0], schedule="noam", final_learning_rate=0.05)
    np.testing.assert_allclose(warming, [0.001], rtol=1e-5)  # the floor is not for the warm-up


EXPECTED = {
    "encoder.subsampling": ["convolution", "pointwise1", "pointwise2", "output"],
    "encoder.blocks.attention": ["query", "key", "value", "output", "position"],
    "encoder.blocks.convolution": ["pointwise1", "pointwise2"],
    "encoder.blocks.feed_forward1": ["linear1", "linear2"],
    "encoder.blocks.feed_forward2": ["linear1", "linear2"],
    "predictor.layers.0": ["input", "recurrent"],
    "predictor.layers.1": ["input", "recurrent"],
    "joint": ["frame_projection", "state_projection", "token_head", "duration_head"],
}


def test_kernels_and_the_embedding_decay():
    """No bias, no norm, no attention bias, no depthwise kernel."""
    model = abstract_model(models.config(ctc=True))
    names = {name for name, decays in named_leaves(decayed(model)).items() if decays}
    kernels = {f"{part}.{name}.kernel" for part, parts in EXPECTED.items() for name in parts}
    assert names == kernels | {"predictor.embedding", "ctc.kernel"}
    assert jax.tree.structure(decayed(model)) == jax.tree.structure(model)


PARAMETERS = {"linear": {"kernel": np.full((2, 2), 3.0), "bias": np.full(2, 5.0)}}


def updates(gradients, **changes):
    """The optimizer's last update after several gradients, at a learning rate of one."""
    options = dict(
        learning_rate=1.0, warmup_steps=1, schedule="noam", final_learning_rate=1.0,
        weight_decay=0.0,
    )  # fmt: skip
    optimizer = make_optimizer(OptimizerConfig(**{**options, **changes}), 1000)
    parameters = jax.tree.map(np.float32, PARAMETERS)

    @jax.jit
    def run():
        state = optimizer.init(parameters)
        for gradient in gradients:
            scaled = jax.tree.map(lambda x, g=gradient: jnp.full_like(x, g), parameters)
            update, state = optimizer.update(scaled, state, parameters)
        return update["linear"]

    with jax.numpy_dtype_promotion("standard"):  # optax mixes steps with floats
        return jax.device_get(run())


def test_decay_pulls_kernels_only():
    update = updates([0.0], weight_decay=0.01)
    np.testing.assert_allclose(update["kernel"], -0.01 * PARAMETERS["linear"]["kernel"], rtol=1e-5)
    assert not np.any(update["bias"])


def test_gradients_are_clipped_by_their_common_norm():
    """Six equal entries of g have the norm g sqrt(6)."""
    at_the_limit, small = 1 / 6**0.5, 0.2 / 6**0.5
    clipped = updates([small, 1000.0], clip_norm=1.0)
    expected = updates([small, at_the_limit], clip_norm=1.0)
    free = updates([small, 1000.0], clip_norm=1e9)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(clipped[name], expected[name], rtol=1e-5)
        assert np.all(np.abs(free[name] - clipped[name]) > 1e-3)


@pytest.mark.parametrize("betas", [(0.5, 0.9), (0.9, 0.98)])
def test_betas_are_adams(betas):
    """The second update of Adam, written out."""
    gradients = [0.1, -0.05]
    mean = (betas[0] * (1 - betas[0]) * 0.1 + (1 - betas[0]) * -0.05) / (1 - betas[0] ** 2)
    square = betas[1] * (1 - betas[1]) * 0.1**2 + (1 - betas[1]) * 0.05**2
    expected = -mean / np.sqrt(square / (1 - betas[1] ** 2))
    np.testing.assert_allclose(
        updates(gradients, betas=betas, clip_norm=1e9)["bias"], [expected] * 2, rtol=1e-4
    )


def test_a_transducer_fits_the_optimizer():
    model = abstract_model(models.config())
    optimizer = make_optimizer(OptimizerConfig(), 1000)
    state = jax.eval_shape(optimizer.init, model)
    with jax.numpy_dtype_promotion("standard"):
        update, after = jax.eval_shape(optimizer.update, model, state, model)
    assert jax.tree.structure(update) == jax.tree.structure(model)
    assert jax.tree.structure(after) == jax.tree.structure(state)
