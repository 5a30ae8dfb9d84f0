"""What the benchmarks run on: sizes, random inputs, shapes of batches."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from tdt_jax import presets
from tdt_jax.config import Bucket, ModelConfig

DURATIONS = (0, 1, 2, 3, 4)


SIGMA = 0.02


class Case(NamedTuple):
    """Sizes of a batch: B utterances of T frames and U labels, V tokens, a joint J wide."""

    name: str
    batch: int
    frames: int
    labels: int
    vocab: int
    width: int = 640

    @property
    def num_logits(self) -> int:
        """Token and duration logits of all nodes."""
        nodes = self.batch * self.frames * (self.labels + 1)
        return nodes * (self.vocab + 1 + len(DURATIONS))

    @property
    def flops(self) -> int:
        """Of the products with the heads that an exact gradient needs if it takes every node.

        Logits, logits again (they cannot be kept), and the gradients in both their factors.
        """
        return 4 * 2 * self.width * self.num_logits


CASES = {
    case.name: case
    for case in (
        Case("small", 4, 100, 25, 128),
        Case("v2", 8, 200, 50, 1024),  # Parakeet v2's vocabulary
        Case("v3", 2, 250, 100, 8192),  # Parakeet v3's, 20 seconds
        Case("long", 1, 1500, 500, 1024),  # two minutes
    )
}


def inputs(case: Case) -> dict[str, np.ndarray]:
    """Random frames, states, labels and joint weights, the same for everyone."""
    rng = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return scale * rng.standard_normal(shape, dtype=np.float32)

    width, scale = case.width, case.width**-0.5
    return {
        "frames": normal(case.batch, case.frames, width),
        "states": normal(case.batch, case.labels + 1, width),
        "labels": rng.integers(0, case.vocab, (case.batch, case.labels)).astype(np.int32),
        "frame_projection": normal(width, width, scale=scale),
        "state_projection": normal(width, width, scale=scale),
        "token_head": normal(width, case.vocab + 1, scale=scale),
        "duration_head": normal(width, len(DURATIONS), scale=scale),
    }


def make_joint(case: Case, dtype: str, arrays: dict[str, np.ndarray] | None = None):
    """The joint network, with the weights of `inputs` if given."""

    from tdt_jax.config import JointConfig
    from tdt_jax.models.joint import Joint

    joint = Joint(
        JointConfig(width=case.width, dropout=0.0),
        frame_width=case.width,
        state_width=case.width,
        vocab_size=case.vocab,
        num_durations=len(DURATIONS),
        dtype=jnp.dtype(dtype),
        rngs=nnx.Rngs(0),
    )
    heads = ("frame_projection", "state_projection", "token_head", "duration_head")
    for name in heads if arrays else ():
        getattr(joint, name).kernel[...] = jnp.asarray(arrays[name])
    return joint


MODELS: dict[str, ModelConfig] = {
    "110m": presets.PARAKEET_TDT_CTC_110M,
    "0.6b": presets.PARAKEET_TDT_0_6B_V3,
    "0.6b-v2": presets.PARAKEET_TDT_0_6B_V2,  # with a vocabulary of 1024
    "1.1b": presets.PARAKEET_TDT_1_1B,
    "rnnt-0.6b": presets.PARAKEET_RNNT_0_6B,
}


class Shape(NamedTuple):
    """Of the batch of each device."""

    seconds: float
    tokens: int
    rows: int


def parse_shape(text: str | None) -> Shape | None:
    """SECONDS,TOKENS,ROWS as a Shape; none where there is no text.

    Raises:
      ValueError: if it is anything else.
    """
    if text is None:
        return None
    try:
        seconds, tokens, rows = text.split(",")
        shape = Shape(float(seconds), int(tokens), int(rows))
    except ValueError:
        raise ValueError(f"a batch reads SECONDS,TOKENS,ROWS, got {text!r}") from None
    if min(shape) <= 0:
        raise ValueError(f"a batch needs positive SECONDS,TOKENS,ROWS, got {text!r}")
    return shape


def largest(buckets: tuple[Bucket, ...], num_devices: int) -> Shape:
    """The last bucket's share for each device."""
    bucket = buckets[-1]
    if bucket.batch_size % num_devices:
        raise ValueError(
            f"a batch of {bucket.batch_size} cannot be split among {num_devices} devices; "
            "name another: SECONDS,TOKENS,ROWS of each device"
        )
    return Shape(bucket.seconds, bucket.tokens, bucket.batch_size // num_devices)
