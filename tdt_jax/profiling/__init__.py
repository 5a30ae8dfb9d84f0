"""What a program costs, read from the compiler. Knows no model.

hlo.py           operations and collectives of a compiled program
flops.py         products in a jaxpr
tpu.py           TPU chips and topologies, seconds from cycles and bytes
parts.py         the part of a training step that an operation belongs to
"""
