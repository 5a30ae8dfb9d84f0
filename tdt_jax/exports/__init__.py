"""Recognisers that leave this package: programs and graphs that others run.

exporting.py     export: a recogniser in a format of these
stablehlo.py     samples to labels and times in one program, serialized by jax.export
"""
