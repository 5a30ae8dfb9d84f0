"""TPU chips and their topologies."""

import importlib.util
import os

from tdt_jax.profiling.chip import Chip

# A link is an axis of the torus, both directions together. Google's public figures:
# cloud.google.com/tpu/docs/system-architecture-tpu-vm; Austin et al., "How to Scale Your Model",
# 2025, jax-ml.github.io/scaling-book/tpus. At these clocks the compiler estimates that a product of
# 8192 x 8192 bfloat16 matrices runs at 90, 88, 90 and 70 % of the peak.
CHIPS = {
    "v4": Chip(16e9, 137.5e12, 0.6e12, 90e9, 1.05e9),  # a device is a core, half a chip
    "v5e": Chip(16e9, 197e12, 0.81e12, 90e9, 1.5e9),
    "v5p": Chip(95e9, 459e12, 2.8e12, 180e9, 1.75e9),
    "v6e": Chip(32e9, 918e12, 1.6e12, 180e9, 1.75e9),
}


def devices(topology: str) -> list:
    """Returns the devices of a topology such as v5e:16x16, for compiling ahead of time.

    Raises:
      ValueError: for an unknown topology, and without libtpu.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("compiling for a TPU needs libtpu (pip install 'jax[tpu]')")
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs, so no chip is in use
    # One chip, as Colab and Kaggle lend it, is less than the host that libtpu assumes.
    options = {"chips_per_host_bounds": [1, 1, 1]} if topology.endswith(":1x1") else {}
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"libtpu knows no topology {topology!r}: {first}") from None
    return list(description.devices)
