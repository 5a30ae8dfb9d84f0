"""An H100 to compile for without a GPU, and its performance.

    pip install "jax[cuda13]"

installs the compiler; the driver is not needed, with JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 in the
environment. XLA's model of the GPU estimates the time of each
operation (`tdt_jax.profiling.hlo`). What it chooses by trial on a device, such as the tiles of a
product, it leaves at defaults.
"""

import importlib.util
from typing import Any

from tdt_jax.profiling.tpu import Chip

# By NVIDIA's data sheet of the H100 SXM; a cycle is a nanosecond, the unit of the estimates.
H100 = Chip(memory=80e9, peak=989e12, bandwidth=3.35e12, link=900e9, clock=1e9)
OPTIONS: dict[str, str | bool] = {
    "xla_gpu_collect_cost_model_stats": True,
    "xla_gpu_enable_triton_gemm": False,  # products by cuBLAS: Triton's need tiles found by trial
}

# The fields of xla.GpuTargetConfigProto. Without the versions of driver and runtime, XLA leaves
# out what it is not sure that they can run.
TARGET = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  device_memory_size: 84929347584
  l2_cache_size: 52428800
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.28.0"
}
platform_name: "CUDA"
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 28 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def device() -> Any:
    """Returns an H100 as a device of jax, for compiling ahead of time.

    Raises:
      ValueError: without jax's plugin for CUDA.
    """
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise ValueError("compiling for a GPU needs its plugin (pip install 'jax[cuda13]')")
    from jax.experimental import topologies

    description = topologies.get_topology_desc(
        platform="cuda", target_config=TARGET, topology="1x1x1"
    )
    return description.devices[0]
