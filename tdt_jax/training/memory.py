"""What the encoder keeps for the backward pass: as much as the device's memory allows.

Keeping is faster than recomputing, on GPUs up to a point. How much memory a step takes is the
compiler's own figure, of the step of the bucket with the most audio.
"""

import dataclasses
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding

from tdt_jax.config import Bucket, Config
from tdt_jax.data.buckets import bucket_samples
from tdt_jax.models.adapters import is_partial
from tdt_jax.runtime import backend, sharding
from tdt_jax.training.step import BatchArrays, init_state, train_step

# encoder.remat and remat_policy, the fastest first.
CHOICES = (
    (False, "nothing_saveable"),
    (True, "dots_with_no_batch_dims_saveable"),
    (True, "nothing_saveable"),
)
SHARE = 0.9  # of the device's memory that a step may take


def with_remat(config: Config, mesh: Mesh) -> Config:
    """Returns the configuration of a run with `model.encoder.remat` chosen, if it was none.

    On devices that do not report their memory, such as CPUs, every block is recomputed.
    """
    memory = _device_memory()
    if config.model.encoder.remat is not None or memory is None:
        return config
    return choose_remat(config, lambda each: step_fits(each, mesh, SHARE * memory))


def choose_remat(config: Config, fits: Callable[[Config], bool]) -> Config:
    """Returns the configuration with the first of CHOICES whose step `fits`, or else the last.

    On a GPU it does not keep everything: by XLA's model of an H100 the copies into the arrays of
    all layers, and out of them, take longer than to compute what they hold.
    """
    for remat, policy in CHOICES[backend.current() == "gpu" :]:
        encoder = dataclasses.replace(config.model.encoder, remat=remat, remat_policy=policy)
        model = dataclasses.replace(config.model, encoder=encoder)
        chosen = dataclasses.replace(config, model=model)
        if (remat, policy) == CHOICES[-1] or fits(chosen):
            return chosen
    raise AssertionError("the last choice is taken whether it fits or not")


def require_memory(config: Config, mesh: Mesh) -> None:
    """Compiles the step of the largest bucket, so that a run fails at its start if it must.

    Devices that do not report their memory, such as CPUs, are not asked.

    Raises:
      ValueError: if it needs more memory than a device has; the message says what to reduce.
    """
    memory = _device_memory()
    if memory is None or step_fits(config, mesh, memory):
        return
    bucket = largest_bucket(config)
    rows = bucket.batch_size // (mesh.size * config.training.accumulate)
    advice = []
    if rows > 1:
        advice.append(
            f"training.accumulate={2 * config.training.accumulate}, which computes half as many "
            "utterances at a time, or fewer in data.buckets"
        )
    advice.append(f"a largest bucket of less than {bucket.seconds:g} s in data.buckets")
    if config.training.init_from and not config.tuning.rank:
        advice.append("tuning.rank=16, which trains adapters only")
    if is_partial(config.tuning) and config.tuning.base_dtype != "bfloat16":
        advice.append("tuning.base_dtype=bfloat16")
    if mesh.size > config.training.fsdp:
        advice.append(f"training.fsdp={mesh.size}, which splits parameters among the devices")
    if config.model.dtype != "bfloat16":
        advice.append("model.dtype=bfloat16")
    raise ValueError(
        f"a training step of {bucket.batch_size} x {bucket.seconds:g} s needs more memory than "
        f"the {memory / 1e9:.1f} GB of a device; reduce it by one or more of: " + "; ".join(advice)
    )


def largest_bucket(config: Config) -> Bucket:
    """Returns the bucket with the most audio in a batch."""
    return max(config.data.buckets, key=lambda x: (x.batch_size * x.seconds, x.seconds))


def step_fits(config: Config, mesh: Mesh, num_bytes: float) -> bool:
    """Compiles a step, and returns whether each device needs no more memory for it than that."""
    bucket = largest_bucket(config)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = sharding.sharded_shapes(jax.eval_shape(lambda x: init_state(config, x), key), mesh)
    num_samples = bucket_samples(bucket, config.model.features.sample_rate)
    batch = BatchArrays.shapes(bucket.batch_size, num_samples, bucket.tokens)
    rows = NamedSharding(mesh, sharding.ROWS)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch)
    try:
        compiled = train_step.lower(state, batch, key, config=config, mesh=mesh).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return False
    memory = compiled.memory_analysis()
    return memory is None or memory.peak_memory_in_bytes <= num_bytes


def _device_memory() -> int | None:
    """Returns the bytes that this program can have of a device's memory; None if unknown."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
