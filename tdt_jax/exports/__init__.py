"""Recognisers that leave this package: programs and graphs that others run.

exporting.py       export: a recogniser in a format of these
stablehlo.py       samples to labels and times in one program, serialized by jax.export
onnx.py            ONNX graphs for onnx-asr and sherpa-onnx
onnx_whole.py      samples to labels and times in one ONNX graph
onnx_networks.py   the networks of a model as ONNX graphs
onnx_graph.py      builds ONNX graphs node by node
folder.py          a folder that is written whole or not at all
"""
