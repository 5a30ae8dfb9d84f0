"""An H100 to compile for without a GPU, and the kernels that XLA generates for it.

    pip install "jax[cuda13]"

installs the compiler; NVIDIA's driver is not needed, with JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 in the
environment. What XLA chooses by trial on a device, such as the tiles of a product, stays at its
default.
"""

import importlib.util
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tdt_jax.profiling.chip import Chip

# By NVIDIA's data sheet of the H100 SXM: NVLink carries 450 GB/s in each direction. A cycle is a
# nanosecond, the unit of the estimates.
H100 = Chip(memory=80e9, peak=989e12, bandwidth=3.35e12, link=450e9, clock=1e9)
OPTIONS: dict[str, str | bool] = {
    "xla_gpu_collect_cost_model_stats": True,  # writes estimates into the program's text
    "xla_gpu_enable_triton_gemm": False,  # products by cuBLAS: Triton's need tiles found by trial
}
MAX_PTX = 1_000_000

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


def devices(number: int = 1) -> list:
    """Returns H100s of one host as devices of jax, for compiling ahead of time.

    Raises:
      ValueError: without jax's plugin for CUDA, or if it cannot be used.
    """
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise ValueError("compiling for a GPU needs its plugin (pip install 'jax[cuda13]')")
    from jax.experimental import topologies

    try:
        description = topologies.get_topology_desc(
            platform="cuda", target_config=TARGET, topology=f"1x1x{number}"
        )
    except NotImplementedError:
        raise ValueError(
            "jax has not loaded its plugin for CUDA; without NVIDIA's driver it does with "
            "JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 in the environment"
        ) from None
    return list(description.devices)


def dump_options(folder: str) -> dict[str, str | bool]:
    """Returns options by which XLA writes a program's thunks and its kernels' PTX to a folder."""
    return {"xla_dump_to": folder, "xla_dump_hlo_as_text": True, "xla_dump_emitter_re": "ptx"}


class Kernel(NamedTuple):
    """What a thread, or a block, of a kernel takes on the device."""

    name: str
    registers: int  # of a thread
    spilled_bytes: int  # of a thread: what does not fit into its registers
    shared_bytes: int  # of a block, without what the launch adds


def kernels(folder: Path) -> list[Kernel] | None:
    """Returns the kernels that XLA and Pallas generated, from the PTX in a dump of XLA's.

    Kernels of cuBLAS and cuDNN are not among them, nor those with more than MAX_PTX bytes of PTX,
    for which the assembler takes minutes. Returns None without NVIDIA's ptxas, which jax[cuda13]
    installs.
    """
    ptxas = _ptxas()
    if ptxas is None:
        return None
    found = []
    for path in sorted(folder.glob("*.ptx")):
        if path.stat().st_size > MAX_PTX:
            continue
        command = [ptxas, "-v", "-arch=sm_90a", "-o", "/dev/null", path]
        found += parse_ptxas(subprocess.run(command, capture_output=True, text=True).stderr)
    return found


def parse_ptxas(text: str) -> list[Kernel]:
    """Returns the kernels in the output of `ptxas -v`."""
    found = []
    for part in text.split("Compiling entry function '")[1:]:
        name = part.partition("'")[0]
        numbers = (
            sum(int(number) for number in re.findall(pattern, part))
            for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill", r"(\d+) bytes smem")
        )
        found.append(Kernel(name, *numbers))
    return found


def _ptxas() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else None
    return next((x for each in folders or () for x in Path(each).glob("cu*/bin/ptxas")), None)
