"""A recogniser as ONNX graphs, in the layout that onnx-asr or sherpa-onnx loads.

    onnx-asr      encoder-model.onnx, decoder_joint-model.onnx (of a CTC decoder model.onnx),
                  vocab.txt, config.json
    sherpa-onnx   encoder.onnx, decoder.onnx, joiner.onnx (of a CTC decoder model.onnx), tokens.txt,
                  bpe.vocab

Both compute log-mel features themselves: onnx-asr ours, normalized by utterance; sherpa-onnx its
own, which the encoder's graph normalizes as the model does.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tdt_jax.config import FeatureConfig, ModelConfig
from tdt_jax.exports import onnx_networks as networks
from tdt_jax.exports.folder import check_is_free, written_whole
from tdt_jax.exports.onnx_graph import END, LARGEST_FILE, Graph, import_onnx, num_bytes, save
from tdt_jax.models.features import hertz_to_mel
from tdt_jax.models.transducer import Transducer
from tdt_jax.recogniser import Recogniser
from tdt_jax.tokenizer import SentencePiece, Tokenizer

CONSUMERS = "onnx-asr", "sherpa-onnx"
WEIGHTS = {"float32": "", "float16": ".fp16", "int8": ".int8"}  # and the suffixes of files
MEL_BINS = 80, 128  # that onnx-asr computes
DEVIATION = 2.5  # of the log-mels of speech with pauses, in nats: taken for that of any recording
SHERPA_BELOW_NYQUIST = 400  # Hz, where its mel filters end with a transducer

Models = dict[str, Any]  # by the name of their file


def export_onnx(
    recogniser: Recogniser,
    folder: str | os.PathLike,
    *,
    consumer: str = "onnx-asr",
    decoder: str = "",
    weights: str = "float32",
) -> None:
    """Writes a recogniser as ONNX graphs that another program runs, of any batch and length.

    Args:
      recogniser: from `tdt_jax.load`.
      folder: must not exist, or be empty; it is written whole or not at all.
      consumer: "onnx-asr" or "sherpa-onnx".
      decoder: "transducer" or "ctc", of a model that has both; by default the first that it has.
      weights: "float32"; "float16", of half the size; "int8", a quarter: the products of the
        encoder's blocks, in groups of 32 weights.

    Raises:
      ValueError: for a folder that holds something, an unknown consumer, decoder or kind of
        weights, and for a model that the consumer cannot run: the message says why.
      ImportError: without the package onnx.
    """
    folder = Path(folder)
    check_is_free(folder)
    check(recogniser, consumer, decoder, weights)
    import_onnx()
    decoder = decoder or recogniser.config.decoders[0]
    models = _models(recogniser.model, consumer, decoder, weights)
    if consumer == "sherpa-onnx" and any(
        num_bytes(each) > LARGEST_FILE for each in models.values()
    ):
        raise ValueError(
            "sherpa-onnx reads a graph from one file, of at most 2 GB, and the encoder is larger: "
            "export int8 or float16 weights"
        )
    with written_whole(folder) as part:
        for name, model in models.items():
            save(model, part / f"{name}{WEIGHTS[weights]}.onnx")
        _write_vocabulary(recogniser.tokenizer, part, consumer)
        if consumer == "onnx-asr":
            config = _onnx_asr_config(recogniser.config, decoder)
            (part / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def check(
    recogniser: Recogniser, consumer: str, decoder: str = "", weights: str = "float32"
) -> None:
    """Raises ValueError, with the reason, if a consumer cannot run the model or the export."""
    if consumer not in CONSUMERS:
        raise ValueError(f"no export for {consumer!r}; there is one for {' and '.join(CONSUMERS)}")
    if weights not in WEIGHTS:
        raise ValueError(f"no weights {weights!r}; there are {', '.join(WEIGHTS)}")
    recogniser.check_decoder(decoder)
    config = recogniser.config
    rate = config.features.sample_rate
    expected = FeatureConfig(
        num_mels=config.features.num_mels,
        sample_rate=rate,
        fft_length=1 << (rate // 40 - 1).bit_length(),
        window_length=rate // 40,
        hop_length=rate // 100,
    )
    names = "fft_length", "window_length", "hop_length", "preemphasis"
    differ = [
        f"features.{name} = {getattr(config.features, name)} ({getattr(expected, name)})"
        for name in names
        if getattr(config.features, name) != getattr(expected, name)
    ]
    if differ:
        raise ValueError(f"{consumer} has other features than the model: {', '.join(differ)}")
    if consumer == "onnx-asr":
        _check_onnx_asr(config)
    _check_vocabulary(recogniser.tokenizer, consumer)


def _check_onnx_asr(config: ModelConfig) -> None:
    features = config.features
    if features.num_mels not in MEL_BINS:
        raise ValueError(
            f"onnx-asr computes {' or '.join(map(str, MEL_BINS))} mel bins, the model has "
            f"{features.num_mels}; sherpa-onnx takes any number"
        )
    if features.sample_rate != 16000:
        raise ValueError(f"onnx-asr resamples to 16000 Hz, the model has {features.sample_rate} Hz")
    if features.normalize is not None:
        raise ValueError(
            "onnx-asr normalizes features by the utterance, the model by constants "
            f"(features.normalize = {features.normalize}): export it for sherpa-onnx, which leaves "
            "that to the graph"
        )


def _check_vocabulary(tokenizer: Tokenizer, consumer: str) -> None:
    pieces = _pieces(tokenizer)
    broken = [piece for piece in pieces if not piece or piece.split() != [piece]]
    if broken:
        raise ValueError(f"a piece of the vocabulary has spaces or is empty: {broken[0]!r}")
    if "<blk>" in pieces:
        raise ValueError(f"{consumer} takes the piece <blk> for the blank, and the model has one")
    if not isinstance(tokenizer, SentencePiece) or not tokenizer.bytes:
        return
    if consumer == "onnx-asr":
        raise ValueError(
            "the model spells some characters by their bytes, which onnx-asr prints as <0x41>"
        )
    misplaced = [label for label, byte in tokenizer.bytes.items() if label != byte + 3]
    if misplaced:
        raise ValueError(
            "sherpa-onnx takes the labels 3 to 258 for the bytes of characters, the model has one "
            f"at {misplaced[0]}"
        )


def _models(model: Transducer, consumer: str, decoder: str, weights: str) -> Models:
    metadata = _metadata(model.config, decoder) if consumer == "sherpa-onnx" else {}
    if decoder == "ctc":
        return {"model": _ctc_graph(model, consumer, weights, metadata)}
    encoder = _encoder_graph(model, consumer, weights, metadata)
    if consumer == "onnx-asr":
        joint = _decoder_joint_graph(model, weights)
        return {"encoder-model": encoder, "decoder_joint-model": joint}
    return {
        "encoder": encoder,
        "decoder": _decoder_graph(model, weights),
        "joiner": _joiner_graph(model, weights),
    }


def _frames(graph: Graph, model: Transducer, consumer: str, decoder: str) -> tuple[str, str]:
    """Adds the encoder with its inputs; returns frames [B, T, D] and their numbers."""
    config = model.config.features
    shape = "batch", config.num_mels, "time"
    features = graph.input("audio_signal", np.float32, shape)
    lengths = graph.input("length", np.int64, ["batch"])
    features = graph.op("Transpose", features, perm=[0, 2, 1])
    if consumer == "sherpa-onnx":
        if decoder == "transducer":
            features = graph.op("MatMul", features, _stretch(config).T)
        features = networks.normalize(graph, features, lengths, config)
    elif config.silence is not None:
        # Its level in dB is not known any more. All the rest of the normalization is undone by one.
        scaled = graph.op("Mul", features, np.float32(DEVIATION))
        features = networks.normalize(graph, scaled, lengths, config)
    return networks.encode(graph, model, features, lengths)


def _stretch(config: FeatureConfig) -> np.ndarray:
    """Returns the matrix [F, F] that makes our mel bins of those of sherpa-onnx, nearly.

    With a transducer its highest mel filter ends 400 Hz below ours: log-mels are interpolated
    between its filters' centers.
    """
    nyquist = config.sample_rate / 2
    ours, theirs = (
        np.linspace(0, hertz_to_mel(top), config.num_mels + 2)[1:-1]
        for top in (nyquist, nyquist - SHERPA_BELOW_NYQUIST)
    )
    bins = [np.interp(ours, theirs, row) for row in np.eye(config.num_mels)]
    return np.stack(bins, axis=1).astype(np.float32)


def _encoder_graph(model: Transducer, consumer: str, weights: str, metadata: dict) -> Any:
    graph = Graph(weights)
    frames, num_frames = _frames(graph, model, consumer, "transducer")
    shape = "batch", model.config.encoder.width, "frames"
    frames = graph.op("Transpose", frames, perm=[0, 2, 1])
    graph.output("outputs", frames, np.float32, shape)
    graph.output("encoded_lengths", num_frames, np.int64, ["batch"])
    return graph.model("encoder", metadata)


def _ctc_graph(model: Transducer, consumer: str, weights: str, metadata: dict) -> Any:
    graph = Graph(weights)
    frames, num_frames = _frames(graph, model, consumer, "ctc")
    shape = "batch", "frames", model.config.vocab_size + 1
    logprobs = networks.ctc(graph, model, frames)
    if consumer == "sherpa-onnx":
        logprobs = _without_a_repeat(graph, logprobs, num_frames)
    graph.output("logprobs", logprobs, np.float32, shape)
    return graph.model("ctc", metadata)


def _without_a_repeat(graph: Graph, logprobs: str, num_frames: str) -> str:
    """Leaves a frame out of utterances [B, T, V + 1] whose length is no multiple of 8 features.

    Of these sherpa-onnx does not read the last frame, where a word may end. The last frame whose
    best token is that of the frame before makes room for it: no label is lost.
    """
    best = graph.op("ArgMax", logprobs, axis=2, keepdims=0)
    repeats = graph.op("Equal", graph.slice(best, 1, 1, END), graph.slice(best, 1, 0, -1))
    none = graph.op("Less", graph.slice(best, 1, 0, 1), np.array([0]))
    size = graph.size(best, 1)
    time = graph.expand(graph.range(size), 0)
    repeats = graph.op("Concat", none, repeats, axis=1)
    repeats = graph.op("And", repeats, graph.op("Less", time, graph.expand(num_frames, 1)))
    last = graph.op("ArgMax", graph.cast(repeats, np.int64), axis=1, select_last_index=1)
    is_cut = graph.op("Greater", graph.op("Mod", "length", np.array([8])), np.array([0]))
    is_later = graph.op("And", graph.op("GreaterOrEqual", time, last), graph.expand(is_cut, 1))
    kept = graph.op("Add", time, graph.cast(is_later, np.int64))
    kept = graph.op("Min", kept, graph.op("Sub", size, np.array([1])))
    return graph.op("GatherND", logprobs, graph.expand(kept, 2), batch_dims=1)


def _predictor(graph: Graph, model: Transducer, size: int | str) -> str:
    """Adds the predictor with its inputs and states; returns its outputs [U, B, P]."""
    config = model.config.predictor
    assert config is not None
    labels = graph.input("targets", np.int32, ["batch", size])
    length = graph.input("target_length", np.int32, ["batch"])
    shape = config.num_layers, "batch", config.width
    states = [graph.input(f"input_states_{i}", np.float32, shape) for i in (1, 2)]
    x, *states = networks.predict(graph, model, labels, *states)
    graph.output("prednet_lengths", length, np.int32, ["batch"])
    for i, state in enumerate(states, 1):
        graph.output(f"output_states_{i}", state, np.float32, shape)
    return x


def _decoder_joint_graph(model: Transducer, weights: str) -> Any:
    graph, config = Graph(weights), model.config
    frames = graph.input("encoder_outputs", np.float32, ["batch", config.encoder.width, "frames"])
    states = _predictor(graph, model, "labels")
    _output_logits(graph, model, frames, graph.op("Transpose", states, perm=[1, 0, 2]))
    return graph.model("decoder_joint", {})


def _decoder_graph(model: Transducer, weights: str) -> Any:
    graph, config = Graph(weights), model.config.predictor
    assert config is not None
    outputs = graph.op("Transpose", _predictor(graph, model, "labels"), perm=[1, 2, 0])
    graph.output("outputs", outputs, np.float32, ["batch", config.width, "labels"])
    # sherpa-onnx takes outputs by their place: outputs, lengths, states.
    graph.move_output("outputs", 0)
    return graph.model("decoder", {})


def _joiner_graph(model: Transducer, weights: str) -> Any:
    graph, config = Graph(weights), model.config
    assert config.predictor is not None
    frames = graph.input("encoder_outputs", np.float32, ["batch", config.encoder.width, "frames"])
    shape = "batch", config.predictor.width, "labels"
    states = graph.input("decoder_outputs", np.float32, shape)
    _output_logits(graph, model, frames, graph.op("Transpose", states, perm=[0, 2, 1]))
    return graph.model("joiner", {})


def _output_logits(graph: Graph, model: Transducer, frames: str, states: str) -> None:
    """Adds the joint network of frames [B, D, T] and states [B, U, P], with its output."""
    frames = graph.expand(graph.op("Transpose", frames, perm=[0, 2, 1]), 2)
    logits = networks.join(graph, model, frames, graph.expand(states, 1))
    durations = model.config.durations
    size = model.config.vocab_size + 1 + (0 if durations is None else durations[-1] + 1)
    graph.output("outputs", logits, np.float32, ["batch", "frames", "labels", size])


def _metadata(config: ModelConfig, decoder: str) -> dict[str, Any]:
    """Returns what sherpa-onnx reads of the encoder."""
    metadata = {
        "vocab_size": config.vocab_size,
        "normalize_type": "",  # by the graph
        "subsampling_factor": 8,
        "feat_dim": config.features.num_mels,
    }
    if decoder == "ctc":
        return {"model_type": "EncDecCTCModelBPE", **metadata}
    assert config.predictor is not None
    # It decodes as a TDT what has this word in its address.
    kind = "tdt" if config.durations is not None else "rnnt"
    return {
        "model_type": "EncDecRNNTBPEModel",
        "url": f"tdt_jax/{kind}" if kind == "tdt" else "",
        "pred_rnn_layers": config.predictor.num_layers,
        "pred_hidden": config.predictor.width,
        **metadata,
    }


def _onnx_asr_config(config: ModelConfig, decoder: str) -> dict[str, Any]:
    kind = {"TDT": "tdt", "RNN-T": "rnnt"}[config.kind] if decoder == "transducer" else "ctc"
    return {
        "model_type": f"nemo-conformer-{kind}",
        "features_size": config.features.num_mels,
        "subsampling_factor": 8,
        "max_tokens_per_step": config.max_symbols,
    }


def _pieces(tokenizer: Tokenizer) -> list[str]:
    return [piece.replace(" ", "▁") for piece in tokenizer.pieces]


def _write_vocabulary(tokenizer: Tokenizer, folder: Path, consumer: str) -> None:
    pieces = [*_pieces(tokenizer), "<blk>"]
    lines = "".join(f"{piece} {label}\n" for label, piece in enumerate(pieces))
    name = "vocab.txt" if consumer == "onnx-asr" else "tokens.txt"
    (folder / name).write_text(lines, encoding="utf-8")
    if consumer == "sherpa-onnx" and isinstance(tokenizer, SentencePiece):
        scored = zip(tokenizer.pieces, tokenizer.scores, strict=True)
        lines = "".join(f"{piece}\t{score:g}\n" for piece, score in scored)
        (folder / "bpe.vocab").write_text(lines, encoding="utf-8")
