"""What a program costs, read from the compiler.

target.py        accelerators to compile for where there is none, and what comes of it
tpu.py           TPU chips and topologies
gpu.py           an H100, and the kernels that XLA generates for it
chip.py          the performance of a device; seconds from cycles, bytes and operations
hlo.py           operations and collectives of a compiled program, from its text
launches.py      what the device and its host start, from a GPU program's thunks
flops.py         floating-point operations of matrix products and convolutions, from a jaxpr
step_parts.py    the part of a training step that an operation belongs to
"""
