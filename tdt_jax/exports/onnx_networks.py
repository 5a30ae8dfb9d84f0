"""The networks of a model as ONNX graphs: its parameters, and the operations of `tdt_jax.models`.

Batch and time are dynamic. Every function adds to a graph and returns the names of values.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tdt_jax.config import FeatureConfig, ModelConfig
from tdt_jax.exports.onnx_graph import END, Graph
from tdt_jax.models.attention import MASKED, AttentionMask, attention_mask
from tdt_jax.models.features import DECIBELS, LOG_GUARD, LOUD_FRAMES, STD_GUARD, mel_filters
from tdt_jax.models.transducer import Transducer
from tdt_jax.runtime.pytree import named_leaves

Leaf = Callable[[str], Any]  # of a name: the array, or None where the model has none
GATES = 0, 3, 1, 2  # ONNX's order of an LSTM's gates, i o f c, among ours, i f g o


def parameters(model: Transducer) -> Leaf:
    """Returns a function that returns a parameter by its dotted name, or None."""
    leaves = named_leaves(model)

    def leaf(name):
        return None if name not in leaves else np.asarray(jax.device_get(leaves[name]), np.float32)

    return leaf


def normalize(graph: Graph, features: str, lengths: str, config: FeatureConfig) -> str:
    """Returns log-mels [B, M, F] of lengths [B] as `tdt_jax.log_mel` normalizes them."""
    valid = graph.expand(_valid(graph, graph.size(features, 1), lengths), 2)
    zero = np.float32(0)
    if config.normalize is not None:
        mean, deviation = (np.float32(each) for each in config.normalize)
        scaled = graph.op("Div", graph.op("Sub", features, mean), deviation)
        return graph.op("Where", valid, scaled, zero)
    counted = valid
    if config.silence is not None:
        levels = graph.op("ReduceMean", features, axes=[2], keepdims=1)
        levels = graph.op("Where", valid, levels, np.float32(-np.inf))
        count = graph.op("Min", graph.size(features, 1), np.array([LOUD_FRAMES]))
        loudest, _ = graph.op("TopK", levels, count, axis=1, outputs=2)
        loudest = graph.slice(loudest, 1, -1, END)
        least = graph.op("Sub", loudest, np.float32(config.silence / DECIBELS))
        silent = graph.op("Less", levels, least)
        counted = graph.op("And", valid, graph.op("Not", silent))

    def total(x):
        x = graph.op("Where", counted, x, zero)
        return graph.op("ReduceSum", x, np.array([1]), keepdims=1)

    count = graph.op("ReduceSum", graph.cast(counted, np.float32), np.array([1]), keepdims=1)
    one = np.float32(1)
    mean = graph.op("Div", total(features), graph.op("Max", count, one))
    centered = graph.op("Where", valid, graph.op("Sub", features, mean), zero)
    squares = total(graph.op("Mul", centered, centered))
    variance = graph.op("Div", squares, graph.op("Max", graph.op("Sub", count, one), one))
    deviation = graph.op("Add", graph.op("Sqrt", variance), np.float32(STD_GUARD))
    return graph.op("Div", centered, deviation)


def log_mel(graph: Graph, samples: str, config: FeatureConfig) -> tuple[str, str]:
    """Returns log-mels [1, M, F] of samples [S], before normalization, and their number [1] int64.

    One of less than a hop has one feature, which is not counted.
    """
    size = graph.size(samples, 0)
    before = graph.op("Concat", np.zeros(1, np.float32), graph.slice(samples, 0, 0, -1), axis=0)
    before = graph.slice(before, 0, 0, size)
    scaled = graph.op("Mul", before, np.float32(config.preemphasis))
    emphasized = graph.expand(graph.op("Sub", samples, scaled), 0, 1)
    window, hop, num_bins = config.window_length, config.hop_length, config.fft_length // 2 + 1
    angles = 2 * np.pi / config.fft_length * np.outer(np.arange(num_bins), np.arange(window))
    waves = np.concatenate([np.cos(angles), np.sin(angles)]) * np.hanning(window)
    left = (window + 1) // 2
    parts = graph.op(
        "Conv", emphasized, graph.constant(waves[:, None], np.float32), kernel_shape=[window],
        strides=[hop], pads=[left, window - left],
    )  # fmt: skip
    count = graph.op("Div", size, np.array([hop]))
    parts = graph.slice(parts, 2, 0, graph.op("Max", count, np.array([1])))
    real, imaginary = graph.op("Split", graph.op("Mul", parts, parts), axis=1, outputs=2)
    power = graph.op("Transpose", graph.op("Add", real, imaginary), perm=[0, 2, 1])
    mel = graph.op("MatMul", power, mel_filters(config).T)
    return graph.op("Log", graph.op("Add", mel, np.float32(LOG_GUARD))), count


def encode(graph: Graph, model: Transducer, features: str, lengths: str) -> tuple[str, str]:
    """Returns the frames [B, T, D] and their numbers [B] int64 of features [B, M, F]."""
    leaf, config = parameters(model), model.config.encoder
    x, num_frames = _subsample(graph, leaf, model.config, features, lengths)
    size = graph.size(x, 1)
    valid = _valid(graph, size, num_frames)  # [B, T]
    kept = graph.expand(graph.cast(valid, np.float32), 2)
    bias = _attention_bias(graph, valid, size, attention_mask(config))
    positions = _positions(graph, size, config.width)
    for layer in range(config.num_layers):

        def of_layer(name, layer=layer):
            array = leaf(f"encoder.blocks.{name}")
            return None if array is None else array[layer]

        x = _block(graph, of_layer, model.config, x, kept, bias, positions, size)
    return _prompted(graph, leaf, model.config, graph.op("Mul", x, kept), kept), num_frames


def ctc(graph: Graph, model: Transducer, frames: str) -> str:
    """Returns the log-probabilities [B, T, V + 1] of the CTC head at frames [B, T, D]."""
    leaf = parameters(model)
    logits = graph.linear(frames, leaf("ctc.kernel"), leaf("ctc.bias"), exact=True)
    return graph.op("LogSoftmax", logits, axis=-1)


def predict(
    graph: Graph, model: Transducer, labels: str, hidden: str, cell: str
) -> tuple[str, str, str]:
    """Returns the predictor's outputs [U, B, P] after labels [B, U], and its states [L, B, P]."""
    leaf, config = parameters(model), model.config
    assert config.predictor is not None
    table = leaf("predictor.embedding")
    if not config.predictor.blank_embedding:
        table = np.concatenate([table, np.zeros_like(table[:1])])
    x = graph.op("Gather", graph.weight(table), graph.op("Transpose", labels, perm=[1, 0]))
    hiddens, cells = [], []
    for layer in range(config.predictor.num_layers):
        kernels = [leaf(f"predictor.layers.{layer}.{part}.kernel")
                   for part in ("input", "recurrent")]  # fmt: skip
        biases = [leaf(f"predictor.layers.{layer}.{part}.bias") for part in ("input", "recurrent")]
        states = [graph.slice(state, 0, layer, layer + 1) for state in (hidden, cell)]
        y, new_hidden, new_cell = graph.op(
            "LSTM", x, *(graph.weight(_gates(kernel.T)[None]) for kernel in kernels),
            graph.constant(np.concatenate([_gates(each) for each in biases])[None]), "", *states,
            hidden_size=config.predictor.width, outputs=3,
        )  # fmt: skip
        x = graph.op("Squeeze", y, np.array([1]))  # of directions
        hiddens.append(new_hidden)
        cells.append(new_cell)
    return x, *(graph.op("Concat", *each, axis=0) for each in (hiddens, cells))


def join(graph: Graph, model: Transducer, frames: str, states: str) -> str:
    """Returns the logits of frames [B, T, 1, D] and states [B, 1, U, P]: tokens, then durations."""
    frames = project(graph, model, frames, "frame")
    return heads(graph, model, frames, project(graph, model, states, "state"))


def project(graph: Graph, model: Transducer, x: str, kind: str) -> str:
    """Returns frames or states [..., D or P] as the joint network adds them; `kind` says which."""
    leaf, name = parameters(model), f"joint.{kind}_projection"
    return graph.linear(x, leaf(f"{name}.kernel"), leaf(f"{name}.bias"), exact=True)


def heads(graph: Graph, model: Transducer, frames: str, states: str) -> str:
    """Returns the logits of projected frames and states, whose shapes broadcast to [..., J]."""
    leaf = parameters(model)
    kernel, bias = leaf("joint.token_head.kernel"), leaf("joint.token_head.bias")
    durations = model.config.durations
    if durations is not None:
        # Those who run the graph take the index for the duration: one for each from 0 to the last.
        known = [leaf("joint.duration_head.kernel"), leaf("joint.duration_head.bias")]
        kernels = np.zeros((len(kernel), durations[-1] + 1), np.float32)
        biases = np.full(durations[-1] + 1, MASKED, np.float32)
        kernels[:, list(durations)], biases[list(durations)] = known
        kernel = np.concatenate([kernel, kernels], axis=1)
        bias = np.concatenate([bias, biases])
    hidden = graph.op("Relu", graph.op("Add", frames, states))
    return graph.linear(hidden, kernel, bias, exact=True)


def _valid(graph, size, lengths):
    """Returns the mask [B, M] of utterances of lengths [B], True on valid frames."""
    return graph.op("Less", graph.expand(graph.range(size), 0), graph.expand(lengths, 1))


def _subsample(graph, leaf, config: ModelConfig, features, lengths):
    causal = config.encoder.causal_subsampling
    zeros = 1 + causal
    x = graph.expand(features, 1)  # [B, 1, M, F]
    channels = config.encoder.subsampling_channels
    length = lengths
    for stage in range(3):
        valid = _valid(graph, graph.size(x, 2), length)
        x = graph.op("Mul", x, graph.expand(graph.cast(valid, np.float32), 1, 3))
        name = "encoder.subsampling"
        if stage == 0:
            kernel = leaf(f"{name}.convolution.kernel").transpose(3, 2, 0, 1)
            bias, group = leaf(f"{name}.convolution.bias"), 1
        else:
            kernel = leaf(f"{name}.depthwise{stage}").transpose(2, 0, 1)[:, None]
            bias, group = leaf(f"{name}.depthwise{stage}_bias"), channels
        x = graph.op(
            "Conv", x, graph.weight(kernel), graph.constant(bias), group=group,
            kernel_shape=[3, 3], strides=[2, 2], pads=[zeros, zeros, 1, 1],
        )  # fmt: skip
        if stage > 0:
            kernel = leaf(f"{name}.pointwise{stage}.kernel").T[:, :, None, None]
            bias = graph.constant(leaf(f"{name}.pointwise{stage}.bias"))
            x = graph.op("Conv", x, graph.weight(kernel), bias, kernel_shape=[1, 1])
        x = graph.op("Relu", x)
        length = _halved(graph, length, causal)
    scale = math.sqrt(config.encoder.width) if config.encoder.scale_input else 1
    kernel, bias = leaf(f"{name}.output.kernel") * scale, leaf(f"{name}.output.bias") * scale
    x = graph.op("Transpose", x, perm=[0, 2, 1, 3])
    x = graph.reshape(x, 0, 0, len(kernel))
    length = graph.op("Min", length, lengths)
    return graph.linear(x, kernel, bias, exact=True), length


def _halved(graph, length, causal):
    """Returns what a stage of subsampling makes of a length, as `models.subsampling` does."""
    if causal:
        return graph.op("Add", graph.op("Div", length, 2), 1)
    return graph.op("Div", graph.op("Add", length, 1), 2)


def _attention_bias(graph, valid, size, mask: AttentionMask | None):
    """Returns what is added to the scores of all heads: [B, 1, 1 or T, T], 0 or `MASKED`."""
    visible = graph.expand(valid, 1, 2)
    if mask is not None:
        time = graph.range(size)
        chunk = graph.op("Mul", graph.op("Div", time, mask.chunk), mask.chunk)
        first = graph.expand(graph.op("Sub", chunk, mask.left), 1)
        end = graph.expand(graph.op("Add", chunk, mask.chunk + mask.right), 1)
        keys = graph.expand(time, 0)
        inside = graph.op(
            "And", graph.op("GreaterOrEqual", keys, first), graph.op("Less", keys, end)
        )
        visible = graph.op("And", visible, inside)
    return graph.op("Where", visible, np.float32(0), np.float32(MASKED))


def _positions(graph, size, width):
    """Returns the encodings [2T, D] of the distances T - 1, ..., -T."""
    time = graph.range(graph.op("Mul", size, np.array([2])))
    distance = graph.op("Sub", graph.op("Sub", size, np.array([1])), time)
    rates = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(1e4) / width))
    angles = graph.op("Mul", graph.expand(graph.cast(distance, np.float32), 1), rates[None])
    pairs = [graph.expand(graph.op(kind, angles), 2) for kind in ("Sin", "Cos")]
    return graph.reshape(graph.op("Concat", *pairs, axis=2), -1, width)


def _block(graph, leaf, config: ModelConfig, x, kept, bias, positions, size):
    def norm(x, name):
        scale, shift = leaf(f"{name}.scale"), leaf(f"{name}.bias")
        return graph.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def linear(x, name, factor=1.0):
        kernel, bias = leaf(f"{name}.kernel"), leaf(f"{name}.bias")
        return graph.linear(x, kernel * factor, None if bias is None else bias * factor)

    def feed_forward(x, name):
        hidden = _silu(graph, linear(norm(x, f"{name}_norm"), f"{name}.linear1"))
        return linear(hidden, f"{name}.linear2", 0.5)  # half of it is added

    x = graph.op("Add", x, feed_forward(x, "feed_forward1"))
    y = norm(x, "attention_norm")
    x = graph.op("Add", x, _attention(graph, leaf, linear, config, y, bias, positions, size))
    y = norm(x, "convolution_norm")
    x = graph.op("Add", x, _convolution(graph, leaf, linear, norm, config, y, kept))
    x = graph.op("Add", x, feed_forward(x, "feed_forward2"))
    return norm(x, "output_norm")


def _attention(graph, leaf, linear, config: ModelConfig, x, bias, positions, size):
    heads = config.encoder.num_heads
    width = config.encoder.width // heads
    scale = 1 / math.sqrt(width)

    def split(x, *perm):
        return graph.op("Transpose", graph.reshape(x, 0, 0, heads, width), perm=list(perm))

    def query(bias):
        biased = graph.op("Add", queries, leaf(f"attention.{bias}").reshape(-1) * np.float32(scale))
        return split(biased, 0, 2, 1, 3)  # [B, H, T, K]

    queries = linear(x, "attention.query", scale)
    keys = split(linear(x, "attention.key"), 0, 2, 3, 1)  # [B, H, K, T]
    values = split(linear(x, "attention.value"), 0, 2, 1, 3)
    projected = linear(positions, "attention.position")
    projected = graph.op("Transpose", graph.reshape(projected, 0, heads, width), perm=[1, 2, 0])
    by_position = graph.op("MatMul", query("position_bias"), projected)  # [B, H, T, 2T]
    # Of row t the columns from T - 1 - t on: in one row after another, those from T - 1 on, of
    # rows that are one shorter.
    before = graph.op("Sub", size, np.array([1]))
    double = graph.op("Add", size, before)  # 2T - 1
    end = graph.op("Add", before, graph.op("Mul", size, double))
    by_position = graph.slice(graph.reshape(by_position, 0, 0, -1), 2, before, end)
    by_position = graph.slice(graph.reshape(by_position, 0, 0, size, double), 3, 0, size)
    scores = graph.op("Add", graph.op("MatMul", query("content_bias"), keys), by_position)
    weights = graph.op("Softmax", graph.op("Add", scores, bias), axis=-1)
    mixed = graph.op("Transpose", graph.op("MatMul", weights, values), perm=[0, 2, 1, 3])
    return linear(graph.reshape(mixed, 0, 0, heads * width), "attention.output")


def _convolution(graph, leaf, linear, norm, config: ModelConfig, x, kept):
    halves = graph.op("Split", linear(x, "convolution.pointwise1"), axis=-1, outputs=2)
    gated = graph.op("Mul", halves[0], graph.op("Sigmoid", halves[1]))
    gated = graph.op("Transpose", graph.op("Mul", gated, kept), perm=[0, 2, 1])
    kernel = leaf("convolution.depthwise")
    shift = leaf("convolution.depthwise_bias")
    shift = np.zeros(kernel.shape[1], np.float32) if shift is None else shift
    is_affine = config.encoder.convolution_norm == "affine"
    if is_affine:
        scale, offset = leaf("convolution.norm.scale"), leaf("convolution.norm.bias")
        kernel, shift = kernel * scale, shift * scale + offset
    left, right = config.encoder.convolution_sides
    x = graph.op(  # in two dimensions, in which ONNX Runtime is faster
        "Conv", graph.expand(gated, 2), graph.weight(kernel.T[:, None, None]),
        graph.constant(shift), group=config.encoder.width, kernel_shape=[1, len(kernel)],
        pads=[0, left, 0, right],
    )  # fmt: skip
    x = graph.op("Transpose", graph.op("Squeeze", x, np.array([2])), perm=[0, 2, 1])
    x = x if is_affine else norm(x, "convolution.norm")
    return linear(_silu(graph, x), "convolution.pointwise2")


def _silu(graph, x):
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def _prompted(graph, leaf, config: ModelConfig, frames, kept):
    """Returns the frames with the language prompt of the configuration, if it has one."""
    if config.prompt is None:
        return frames
    width, kernel = config.encoder.width, leaf("prompt.linear1.kernel")
    bias = kernel[width + config.prompt.default] + leaf("prompt.linear1.bias")
    hidden = graph.op("Relu", graph.linear(frames, kernel[:width], bias, exact=True))
    output = leaf("prompt.linear2.kernel"), leaf("prompt.linear2.bias")
    return graph.op("Mul", graph.linear(hidden, *output, exact=True), kept)


def _gates(array):
    """Returns an array [4P, ...] with its gates in ONNX's order."""
    parts = np.split(array, 4)
    return np.concatenate([parts[i] for i in GATES])
