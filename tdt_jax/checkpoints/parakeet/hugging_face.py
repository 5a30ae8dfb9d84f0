"""transformers' folders: config.json, safetensors, tokenizer.json, the processor's settings."""

import json
import os
from pathlib import Path

import numpy as np

from tdt_jax.checkpoints.formats.fields import ConfigReader
from tdt_jax.checkpoints.formats.safetensors import read_safetensors, write_safetensors
from tdt_jax.checkpoints.formats.tensors import StoredTensor
from tdt_jax.checkpoints.formats.tokenizer_json import from_tokenizer_json, to_tokenizer_json
from tdt_jax.checkpoints.parakeet import tables
from tdt_jax.checkpoints.parakeet.convert import (
    OpenedCheckpoint,
    TensorName,
    disassemble,
    with_blank_embedding,
)
from tdt_jax.checkpoints.parakeet.hugging_face_config import (
    model_config,
    processor_config,
    read_config,
)
from tdt_jax.config import ModelConfig
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.tokenizer import SENTENCEPIECE_FILE, SentencePiece

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
PROCESSOR, FEATURE_EXTRACTOR = "processor_config.json", "preprocessor_config.json"
SHARD = 4 << 30  # bytes of tensors in a file, at most
MAX_JSON = 256 << 20  # bytes


def is_hugging_face(folder: Path) -> bool:
    """Returns whether a folder holds a model of transformers, rather than one of this package."""
    try:
        return (folder / CONFIG).is_file() and "model_type" in _read_json(folder, CONFIG)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def read_hugging_face(folder: str | os.PathLike) -> OpenedCheckpoint:
    """Opens a folder that transformers' `save_pretrained` wrote; its tensors stay in their files.

    Raises:
      ValueError: if it is damaged, or of a model that this package does not have.
    """
    folder = Path(folder)
    config = ConfigReader(_read_json(folder, CONFIG), CONFIG)
    processor = ConfigReader(_processor(folder), PROCESSOR)
    model = read_config(config, _feature_extractor(folder), processor)
    stored = _read_tensors(folder)
    tensor_name = _tensor_name(model)
    model = with_blank_embedding(model, stored, tensor_name)
    return OpenedCheckpoint(
        config=model,
        tokenizer=_read_tokenizer(folder, model),
        stored=stored,
        tensor_name=tensor_name,
    )


def write_hugging_face(recogniser: Recogniser, folder: str | os.PathLike) -> None:
    """Writes a recogniser as a folder that transformers' Parakeet or Nemotron classes load.

    Raises:
      ValueError: if transformers has no such model, or the tokenizer is not SentencePiece.
    """
    folder, tokenizer = Path(folder), recogniser.tokenizer
    if not isinstance(tokenizer, SentencePiece):
        raise ValueError(
            f"transformers needs a SentencePiece tokenizer, got {type(tokenizer).__name__}"
        )
    dtype = np.dtype(named_leaves(recogniser.model)["encoder.subsampling.output.kernel"].dtype)
    texts = _written_texts(recogniser.config, tokenizer, dtype.name)
    tensors = disassemble(recogniser.model, tensor_name=_tensor_name(recogniser.config))
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
        write_safetensors(folder / WEIGHTS, shards[0])
    else:
        file_of: dict[str, str] = {}
        for i, shard in enumerate(shards):
            file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
            write_safetensors(folder / file, shard)
            file_of |= dict.fromkeys(shard, file)
        total = sum(array.nbytes for array in tensors.values())
        texts[INDEX] = json.dumps({"metadata": {"total_size": total}, "weight_map": file_of})
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _tensor_name(config: ModelConfig) -> TensorName:
    is_causal = config.encoder.is_causal
    return tables.hugging_face_streaming_name if is_causal else tables.hugging_face_name


# Reading


def _processor(folder: Path) -> dict:
    return _read_json(folder, PROCESSOR) if (folder / PROCESSOR).is_file() else {}


def _feature_extractor(folder: Path) -> ConfigReader:
    """Returns the feature extractor's settings: a part of the processor's, or else its own file.

    transformers looks for them in this order.
    """
    processor = _processor(folder)
    for name in ("feature_extractor", "audio_processor"):
        if processor.get(name) is not None:
            return ConfigReader(processor[name], f"{PROCESSOR}'s {name}")
    has_file = (folder / FEATURE_EXTRACTOR).is_file()
    return ConfigReader(
        _read_json(folder, FEATURE_EXTRACTOR) if has_file else {}, FEATURE_EXTRACTOR
    )


def _read_json(folder: Path, name: str) -> dict:
    path = folder / name
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{name} has {path.stat().st_size} bytes")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{name} holds a {type(fields).__name__}, not fields")
    return fields


def _read_tokenizer(folder: Path, model: ModelConfig) -> SentencePiece:
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


def _read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of the one file, or of the files that the index names."""
    if not (folder / INDEX).is_file():
        return read_safetensors(folder / WEIGHTS)
    file_of = _read_json(folder, INDEX).get("weight_map")
    if not isinstance(file_of, dict) or not all(isinstance(x, str) for x in file_of.values()):
        raise ValueError(f"{INDEX} has no weight_map of names")
    tensors = {}
    for file in sorted(set(file_of.values())):
        if Path(file).name != file:
            raise ValueError(f"{INDEX} names a file outside the folder: {file!r}")
        for name, tensor in read_safetensors(folder / file).items():
            if file_of.get(name) == file:
                tensors[name] = tensor
    return tensors


# Writing


def _written_texts(config: ModelConfig, tokenizer: SentencePiece, dtype: str) -> dict[str, str]:
    """Returns the texts of a model's JSON files, by their names."""
    blank = config.blank
    fields = model_config(config, pad=_pad_token(config, tokenizer), dtype=dtype)
    pad = fields["pad_token_id"]
    special = {"unk_token": "<unk>"}
    generation = {"do_sample": False, "pad_token_id": pad}
    if config.kind == "CTC":
        special["pad_token"] = "<blank>" if "<pad>" in tokenizer.pieces else "<pad>"
        extra = (special["pad_token"],)  # decoding leaves it out
    else:
        special["pad_token"] = "<pad>" if pad != blank else "<blank>"
        extra = ("<blank>",)
        generation["decoder_start_token_id"] = blank
    if "<|endoftext|>" in tokenizer.pieces:
        special["eos_token"] = "<|endoftext|>"
    if config.durations is not None:
        generation["suppress_tokens"] = [blank + 1 + i for i in range(len(config.durations))]
    processor = processor_config(config)
    tokenizer_config = {
        "tokenizer_class": "ParakeetTokenizer",
        "processor_class": processor["processor_class"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
        **special,
    }
    files = {
        CONFIG: fields,
        "generation_config.json": generation,
        PROCESSOR: processor,
        "tokenizer_config.json": tokenizer_config,
    }
    return {
        **{name: json.dumps(content, indent=2) for name, content in files.items()},
        TOKENIZER: to_tokenizer_json(tokenizer, extra, tuple(special.values())),
    }


def _pad_token(config: ModelConfig, tokenizer: SentencePiece) -> int | None:
    """Returns the label that pads: transformers leaves it out of text, so no text may need it."""
    if config.kind == "CTC" or "<pad>" not in tokenizer.pieces:
        return None
    return tokenizer.pieces.index("<pad>")
