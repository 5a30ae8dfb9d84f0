"""Hugging Face folders: config.json, safetensors, tokenizer.json, the feature extractor's sizes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tdt_jax.checkpoints.formats.fields import ConfigReader
from tdt_jax.checkpoints.formats.safetensors import read_tensors
from tdt_jax.checkpoints.formats.tensors import StoredTensor
from tdt_jax.checkpoints.formats.tokenizer_json import from_tokenizer_json, to_tokenizer_json
from tdt_jax.checkpoints.parakeet import convert, tables
from tdt_jax.checkpoints.parakeet.convert import OpenedCheckpoint, blank_embedding
from tdt_jax.checkpoints.parakeet.hugging_face_config import model_config, read_config
from tdt_jax.config import ModelConfig
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.tokenizer import SENTENCEPIECE_FILE, SentencePiece

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
PROCESSOR, FEATURE_EXTRACTOR = "processor_config.json", "preprocessor_config.json"
SHARD = 4 << 30  # bytes of tensors in a file, at most
MAX_JSON = 256 << 20  # bytes


def is_hugging_face(folder: Path) -> bool:
    """Whether the folder holds a model of transformers, rather than one of this package."""
    try:
        return (folder / CONFIG).is_file() and "model_type" in _json(folder, CONFIG)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def read_hugging_face(folder: str | os.PathLike) -> OpenedCheckpoint:
    """The checkpoint in a folder that transformers' `save_pretrained` wrote, tensors on disk.

    Raises:
      ValueError: if it is not one of a model that this package has, or is damaged.
    """
    folder = Path(folder)
    model = read_config(ConfigReader(_json(folder, CONFIG), CONFIG), _feature_extractor(folder))
    stored = dict(_tensors(folder))
    model = blank_embedding(model, stored, tables.hugging_face_name)
    return OpenedCheckpoint(model, _tokenizer(folder, model), stored, tables.hugging_face_name, ())


def _feature_extractor(folder: Path) -> ConfigReader:
    """The feature extractor's configuration: a part of the processor's, or else its own file.

    So transformers looks for it.
    """
    if (folder / PROCESSOR).is_file():
        processor = _json(folder, PROCESSOR)
        for name in ("feature_extractor", "audio_processor"):
            if processor.get(name) is not None:
                return ConfigReader(processor[name], f"{PROCESSOR}'s {name}")
    found = _json(folder, FEATURE_EXTRACTOR) if (folder / FEATURE_EXTRACTOR).is_file() else {}
    return ConfigReader(found, FEATURE_EXTRACTOR)


def _json(folder: Path, name: str) -> dict:
    path = folder / name
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{name} has {path.stat().st_size} bytes")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds a {type(found).__name__}, not fields")
    return found


def _tokenizer(folder: Path, model: ModelConfig) -> SentencePiece:
    if (folder / TOKENIZER).is_file():
        if (folder / TOKENIZER).stat().st_size > MAX_JSON:
            raise ValueError(f"{TOKENIZER} is larger than {MAX_JSON} bytes")
        text = (folder / TOKENIZER).read_text(encoding="utf-8")
        try:
            return from_tokenizer_json(text, model.vocab_size)
        except ValueError as error:
            raise ValueError(f"{TOKENIZER}: {error}") from None
    if (folder / SENTENCEPIECE_FILE).is_file():
        return SentencePiece((folder / SENTENCEPIECE_FILE).read_bytes())
    raise ValueError(f"there is neither {TOKENIZER} nor {SENTENCEPIECE_FILE}")


def _tensors(folder: Path) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors of one file, or of the files that the index names."""
    if not (folder / INDEX).is_file():
        yield from read_tensors(folder / WEIGHTS)
        return
    places = _json(folder, INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(each, str) for each in places.values()):
        raise ValueError(f"{INDEX} has no weight_map of names")
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise ValueError(f"{INDEX} names a file outside the folder: {file!r}")
        for name, tensor in read_tensors(folder / file):
            if places.get(name) == file:
                yield name, tensor


# Writing


def write_hugging_face(recogniser, folder: str | os.PathLike) -> None:
    """Write a recogniser as a folder that transformers' Parakeet classes load.

    Raises:
      ValueError: if transformers has no such model, or the tokenizer is not SentencePiece.
    """
    from safetensors.numpy import save_file

    folder, config, tokenizer = Path(folder), recogniser.config, recogniser.tokenizer
    if not isinstance(tokenizer, SentencePiece):
        raise ValueError(
            f"transformers needs a SentencePiece tokenizer, got {type(tokenizer).__name__}"
        )
    dtype = np.dtype(named_leaves(recogniser.model)["encoder.subsampling.output.kernel"].dtype)
    files = write_configs(config, tokenizer, dtype.name)
    tensors = convert.disassemble(recogniser.model, name=tables.hugging_face_name)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict] = [{}]
    size = 0
    for name, array in tensors.items():
        if size and size + array.nbytes > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, metadata={"format": "pt"})
    else:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        places = {}
        for name, shard in zip(names, shards, strict=True):
            save_file(shard, folder / name, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, name)
        total = sum(array.nbytes for array in tensors.values())
        files[INDEX] = json.dumps({"metadata": {"total_size": total}, "weight_map": places})
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _pad(config: ModelConfig, tokenizer: SentencePiece) -> int | None:
    """The label that pads: transformers leaves it out of texts, so it must be none of theirs."""
    if config.kind == "CTC" or "<pad>" not in tokenizer.pieces:
        return None
    return tokenizer.pieces.index("<pad>")


def write_configs(config: ModelConfig, tokenizer: SentencePiece, dtype: str) -> dict[str, str]:
    """The JSON files of a model, by name."""
    features, kind, blank = config.features, config.kind, config.blank
    whole = model_config(config, pad=_pad(config, tokenizer), dtype=dtype)
    pad = whole["pad_token_id"]
    special = {"unk_token": "<unk>"}
    generation = {"do_sample": False, "pad_token_id": pad}
    if kind == "CTC":
        special["pad_token"] = "<blank>" if "<pad>" in tokenizer.pieces else "<pad>"
        extra = (special["pad_token"],)  # what the decoder leaves out
    else:
        special["pad_token"] = "<pad>" if pad != blank else "<blank>"
        extra = ("<blank>",)
        generation["decoder_start_token_id"] = blank
    if "<|endoftext|>" in tokenizer.pieces:
        special["eos_token"] = "<|endoftext|>"
    if kind == "TDT":
        generation["suppress_tokens"] = [blank + 1 + i for i in range(len(config.durations))]
    processor = {
        "processor_class": "ParakeetProcessor",
        "decoder_type": {"TDT": "tdt", "RNN-T": "rnnt", "CTC": "ctc"}[kind],
        "blank_token": "<blank>",
        "feature_extractor": {
            "feature_extractor_type": "ParakeetFeatureExtractor",
            "feature_size": features.num_mels,
            "sampling_rate": features.sample_rate,
            "n_fft": features.fft_length,
            "win_length": features.window_length,
            "hop_length": features.hop_length,
            "preemphasis": features.preemphasis,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
        },
    }
    tokenizer_config = {
        "tokenizer_class": "ParakeetTokenizer",
        "processor_class": "ParakeetProcessor",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
        **special,
    }
    files = {
        CONFIG: whole,
        "generation_config.json": generation,
        PROCESSOR: processor,
        "tokenizer_config.json": tokenizer_config,
    }
    return {
        **{name: json.dumps(content, indent=2) for name, content in files.items()},
        TOKENIZER: to_tokenizer_json(tokenizer, extra, tuple(special.values())),
    }
