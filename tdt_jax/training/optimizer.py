"""The optimiser: AdamW with warm-up, decay and gradient clipping, as an optax chain."""

import jax
import jax.numpy as jnp
import optax

from tdt_jax.config import OptimizerConfig


def schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """The learning rate by step: linear warm-up to the peak, then cosine or Noam decay."""
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=config.learning_rate,
            warmup_steps=config.warmup_steps,
            decay_steps=max(num_steps, config.warmup_steps + 1),
            end_value=config.final_learning_rate,
        )

    def noam(step):
        """Vaswani et al. (2017): rises linearly, then falls as 1 / sqrt(step)."""
        progress = (jnp.asarray(step, jnp.float32) + 1) / config.warmup_steps
        rate = config.learning_rate * jnp.minimum(progress, progress**-0.5)
        return jnp.where(progress < 1, rate, jnp.maximum(rate, config.final_learning_rate))

    return noam


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW with decay on kernels and embeddings only."""
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


def decayed(parameters):
    """Which parameters decay: those named as kernels or embeddings."""

    def is_matrix(path, _):
        names = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        return any(name in ("kernel", "embedding") for name in names)

    return jax.tree_util.tree_map_with_path(is_matrix, parameters)
