"""The optimizer: AdamW with warm-up, decay and gradient clipping, as an optax chain."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tdt_jax.config import OptimizerConfig
from tdt_jax.runtime.pytree import leaf_name


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Returns clipping by the global norm, then AdamW that decays kernels and embeddings only.

    `num_steps` is the length of the run, over which the learning rate decays.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule(config, num_steps),
            b1=config.betas[0],
            b2=config.betas[1],
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )


def schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Returns the learning rate by step: linear warm-up to the peak, then cosine or Noam decay."""
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=config.learning_rate,
            warmup_steps=config.warmup_steps,
            decay_steps=max(num_steps, config.warmup_steps + 1),
            end_value=config.final_learning_rate,
        )

    def noam(step):
        """Rises linearly, then falls as 1 / sqrt(step) (Vaswani et al., 2017)."""
        progress = (jnp.asarray(step, jnp.float32) + 1) / config.warmup_steps
        rate = config.learning_rate * jnp.minimum(progress, progress**-0.5)
        return jnp.where(progress < 1, rate, jnp.maximum(rate, config.final_learning_rate))

    return noam


def decayed(parameters: Any) -> Any:
    """Returns which parameters decay, as a pytree of bools: kernels and embeddings."""

    def is_matrix(path, _):
        names = leaf_name(path).split(".")
        return "kernel" in names or "embedding" in names

    return jax.tree_util.tree_map_with_path(is_matrix, parameters)
