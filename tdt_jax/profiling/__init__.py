"""What a program costs, read from the compiler.

hlo.py           operations and collectives of a compiled program, from its text
flops.py         floating-point operations of matrix products and convolutions, from a jaxpr
tpu.py           TPU chips and topologies; seconds from cycles and bytes
gpu.py           an H100 to compile for
step_parts.py    the part of a training step that an operation belongs to
"""
