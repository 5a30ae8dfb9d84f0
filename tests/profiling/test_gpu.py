"""Kernels that XLA generates for a GPU."""

from tdt_jax.profiling import gpu

PTXAS = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'fusion_56' for 'sm_90a'
ptxas info    : Function properties for fusion_56
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 62 registers, used 1 barriers, 136 bytes smem
ptxas info    : Compile time = 14.968 ms
ptxas info    : Compiling entry function 'sort_72_1' for 'sm_90a'
ptxas info    : Function properties for sort_72_1
    104 bytes stack frame, 100 bytes spill stores, 120 bytes spill loads
ptxas info    : Used 96 registers, used 1 barriers, 104 bytes cumulative stack size
"""


def test_registers_and_spills_of_kernels():
    assert gpu.parse_ptxas(PTXAS) == [
        gpu.Kernel("fusion_56", registers=62, spilled_bytes=0, shared_bytes=136),
        gpu.Kernel("sort_72_1", registers=96, spilled_bytes=220, shared_bytes=0),
    ]
