"""A recogniser as one ONNX graph: from samples to labels, times, durations and scores.

    model.onnx   samples [S] float32 at the model's sample rate, of any length ->
                 labels, times, durations [N] int64 and scores [N] float32, as of a `Hypothesis`
    model.json   the vocabulary, the sample rate and the length of a frame

The decoder is a loop within the graph. It runs wherever ONNX Runtime does: in a browser too.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tdt_jax.exports import onnx_networks as networks
from tdt_jax.exports.folder import check_is_free, written_whole
from tdt_jax.exports.onnx import WEIGHTS
from tdt_jax.exports.onnx_graph import END, Graph, import_onnx, save
from tdt_jax.models.transducer import Transducer
from tdt_jax.recogniser import Recogniser


def export_whole(
    recogniser: Recogniser,
    folder: str | os.PathLike,
    *,
    decoder: str = "",
    weights: str = "float32",
) -> None:
    """Writes a recogniser as one ONNX graph, from samples to labels, for one recording at a time.

    Args:
      recogniser: from `tdt_jax.load`.
      folder: must not exist, or be empty; it is written whole or not at all.
      decoder, weights: as of `exports.onnx.export_onnx`.

    Raises:
      ValueError: for a folder that holds something, an unknown decoder or kind of weights.
      ImportError: without the package onnx.
    """
    folder = Path(folder)
    check_is_free(folder)
    if weights not in WEIGHTS:
        raise ValueError(f"no weights {weights!r}; there are {', '.join(WEIGHTS)}")
    recogniser.check_decoder(decoder)
    import_onnx()
    decoder = decoder or recogniser.config.decoders[0]
    model = whole_graph(recogniser.model, decoder, weights)
    description = json.dumps(_description(recogniser, decoder), ensure_ascii=False, indent=1)
    with written_whole(folder) as part:
        save(model, part / "model.onnx")
        (part / "model.json").write_text(description + "\n", encoding="utf-8")


def whole_graph(model: Transducer, decoder: str, weights: str = "float32") -> Any:
    """Returns the ONNX model from samples to labels."""
    graph, config = Graph(weights), model.config
    samples = graph.input("samples", np.float32, ["samples"])
    features, num_features = networks.log_mel(graph, samples, config.features)
    features = networks.normalize(graph, features, num_features, config.features)
    frames, num_frames = networks.encode(graph, model, features, num_features)
    decode = _decode_ctc if decoder == "ctc" else _decode
    labels, times, durations, scores = decode(graph, model, frames, num_frames)
    for name, value in (("labels", labels), ("times", times), ("durations", durations)):
        graph.output(name, value, np.int64, ["labels"])
    graph.output("scores", scores, np.float32, ["labels"])
    return graph.model("recogniser", {})


def _decode(graph: Graph, model: Transducer, frames: str, num_frames: str) -> list[str]:
    """Decodes frames [1, T, D] as `greedy_decode`: labels, times, durations and scores [N]."""
    config = model.config
    assert config.predictor is not None
    blank, zero = config.blank, np.zeros(1, np.int64)
    projected = graph.op("Squeeze", networks.project(graph, model, frames, "frame"), zero)  # [T, J]
    zeros = graph.constant(np.zeros((config.predictor.num_layers, 1, config.predictor.width)),
                           np.float32)  # fmt: skip
    start = _step(graph, model, graph.constant([[blank]], np.int64), zeros, zeros)

    body = Graph(graph.weights, graph)
    body.input("iteration", np.int64, [])
    body.input("continues", np.bool_, [])
    time, here = (body.input(name, np.int64, [1]) for name in ("time", "here"))
    shape = config.predictor.num_layers, 1, config.predictor.width
    state = [body.input("state", np.float32, [1, _width(config)])]
    state += [body.input(name, np.float32, shape) for name in ("hidden", "cell")]
    logits = networks.heads(body, model, body.op("Gather", projected, time, axis=0), state[0])
    tokens = body.slice(logits, 1, 0, blank + 1)
    token = body.op("ArgMax", tokens, axis=1, keepdims=0)  # [1]
    is_blank = body.op("Equal", token, np.array([blank]))
    if config.durations is None:
        duration = body.cast(is_blank, np.int64)
    else:
        heads = body.slice(logits, 1, blank + 1, END)
        duration = body.op("ArgMax", heads, axis=1, keepdims=0)
    score = body.op("Sub", body.op("ReduceMax", tokens, axes=[1], keepdims=0),
                    body.op("ReduceLogSumExp", tokens, axes=[1], keepdims=0))  # fmt: skip

    one = np.array([1])
    counted = body.op("Add", here, one)
    is_full = body.op("GreaterOrEqual", counted, np.array([config.max_symbols]))
    moves = body.op("Or", is_blank, is_full)  # at least by a frame
    least = body.op("Max", duration, body.cast(moves, np.int64))
    stays = body.op("Equal", least, zero)
    new_here = body.op("Where", stays, counted, zero)
    new_time = body.op("Add", time, least)

    kept, emitted = Graph(graph.weights, body), Graph(graph.weights, body)
    names = [f"branch_{part}" for part in ("state", "hidden", "cell")]
    sizes = [[1, _width(config)], shape, shape]
    new = _step(emitted, model, emitted.expand(token, 0), *state[1:])
    for branch, values in ((kept, state), (emitted, new)):
        for name, value, size in zip(names, values, sizes, strict=True):
            branch.output(branch.name(name), value, np.float32, size)
    condition = body.op("Squeeze", is_blank, zero)
    new_state = body.op(
        "If", condition, then_branch=kept.body(), else_branch=emitted.body(), outputs=3
    )

    continues = body.op("Squeeze", body.op("Less", new_time, num_frames), zero)
    body.output("continues_on", continues, np.bool_, [])
    for name, value in (("next_time", new_time), ("next_here", new_here)):
        body.output(name, value, np.int64, [1])
    for name, value, size in zip(names, new_state, sizes, strict=True):
        body.output(f"next_{name}", value, np.float32, size)
    for name, value in (("token", token), ("emission", time), ("frames", duration)):
        body.output(f"each_{name}", value, np.int64, [1])
    body.output("each_score", score, np.float32, [1])

    first = graph.op("Squeeze", graph.op("Less", zero, num_frames), zero)
    *_, tokens, times, durations, scores = graph.op(
        "Loop", "", first, zero, zero, *start, body=body.body(), outputs=9
    )
    results = [graph.reshape(each, -1) for each in (tokens, times, durations, scores)]
    emits = graph.op("Not", graph.op("Equal", results[0], np.array([blank])))
    return [graph.op("Compress", each, emits, axis=0) for each in results]


def _step(graph: Graph, model: Transducer, label: str, hidden: str, cell: str) -> list[str]:
    """Returns the predictor's projected output [1, J] and its states, after a label [1, 1]."""
    x, hidden, cell = networks.predict(graph, model, label, hidden, cell)
    x = graph.op("Squeeze", networks.project(graph, model, x, "state"), np.array([0]))
    return [x, hidden, cell]


def _decode_ctc(graph: Graph, model: Transducer, frames: str, num_frames: str) -> list[str]:
    """Decodes frames [1, T, D] as `ctc_decode`: labels, times, durations and scores [N]."""
    logprobs = graph.op("Squeeze", networks.ctc(graph, model, frames), np.array([0]))
    logprobs = graph.slice(logprobs, 0, 0, num_frames)
    tokens = graph.op("ArgMax", logprobs, axis=1, keepdims=0)
    scores = graph.op("ReduceMax", logprobs, axes=[1], keepdims=0)
    none = graph.constant([-1], np.int64)
    before = graph.slice(graph.op("Concat", none, tokens, axis=0), 0, 0, -1)
    is_first = graph.op("Not", graph.op("Equal", tokens, before))
    times = graph.op("Compress", graph.range(num_frames), is_first, axis=0)
    ends = graph.op("Concat", graph.slice(times, 0, 1, END), num_frames, axis=0)
    durations = graph.op("Sub", graph.slice(ends, 0, 0, graph.size(times, 0)), times)
    tokens, scores = (graph.op("Compress", x, is_first, axis=0) for x in (tokens, scores))
    emits = graph.op("Not", graph.op("Equal", tokens, np.array([model.config.blank])))
    return [graph.op("Compress", each, emits, axis=0)
            for each in (tokens, times, durations, scores)]  # fmt: skip


def _width(config) -> int:
    assert config.joint is not None
    return config.joint.width


def _description(recogniser: Recogniser, decoder: str) -> dict[str, Any]:
    """Returns what model.json holds."""
    config, tokenizer = recogniser.config, recogniser.tokenizer
    return {
        "kind": "CTC" if decoder == "ctc" else config.kind,
        "sample_rate": config.features.sample_rate,
        "seconds_per_frame": config.seconds_per_frame,
        "seconds": config.piece_seconds or 30.0,
        "vocabulary": [piece.replace(" ", "▁") for piece in tokenizer.pieces],
        "tags": sorted(tokenizer.tags),
        "bytes": {str(label): byte for label, byte in getattr(tokenizer, "bytes", {}).items()},
    }
