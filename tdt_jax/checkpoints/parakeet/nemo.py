"""NeMo's .nemo archives: a tar of a YAML configuration, a torch file of weights and a tokenizer.

Nothing is extracted: members are read where they lie in the archive. A gzipped archive is unpacked
into a temporary file without a name.
"""

import gzip
import io
import os
import posixpath
import re
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import yaml

from tdt_jax.checkpoints.formats.fields import ConfigReader
from tdt_jax.checkpoints.formats.tensors import StoredTensor
from tdt_jax.checkpoints.formats.torch_file import read_torch_file, write_torch_file
from tdt_jax.checkpoints.parakeet import tables
from tdt_jax.checkpoints.parakeet.convert import (
    OpenedCheckpoint,
    disassemble,
    with_blank_embedding,
)
from tdt_jax.checkpoints.parakeet.nemo_config import NULLS, read_config, write_config
from tdt_jax.config import FeatureConfig
from tdt_jax.models.features import mel_filters
from tdt_jax.recogniser import Recogniser
from tdt_jax.tokenizer import SentencePiece

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
MAX_SMALL = 16 << 20  # bytes of the configuration and of the tokenizer
MAX_RATIO = 32  # of an unpacked archive to the packed: weights hardly shrink
WINDOW, FILTERS = "preprocessor.featurizer.window", "preprocessor.featurizer.fb"


def read_nemo(path: str | os.PathLike) -> OpenedCheckpoint:
    """Opens a .nemo archive and returns it; its tensors stay in the file.

    Raises:
      ValueError: if it is damaged, hostile, or of a model that this package does not have.
    """
    file = _open(Path(path))
    try:
        members = _members(file)
        config = ConfigReader(_read_yaml(_read_small(file, members[CONFIG])), CONFIG, NULLS)
        stored = read_torch_file(file, members[WEIGHTS].offset_data)
        has_ctc_head = "ctc_decoder.decoder_layers.0.weight" in stored
        model, tokenizer_name = read_config(config, has_ctc_head=has_ctc_head)
        tokenizer = members.get(tokenizer_name)
        if tokenizer is None:
            raise ValueError(f"it holds no tokenizer {tokenizer_name!r}")
        _check_features(stored, model.features)
        return OpenedCheckpoint(
            config=with_blank_embedding(model, stored, tables.nemo_name),
            tokenizer=SentencePiece(_read_small(file, tokenizer)),
            stored=stored,
            tensor_name=tables.nemo_name,
            ignored=(WINDOW, FILTERS),
            file=file,
        )
    except BaseException:
        file.close()
        raise


def write_nemo(recogniser: Recogniser, path: str | os.PathLike) -> None:
    """Writes a recogniser as a .nemo archive that `ASRModel.restore_from` of NeMo reads.

    Raises:
      ValueError: if its tokenizer is not SentencePiece, or NeMo has no such model.
    """
    path, config, tokenizer = Path(path), recogniser.config, recogniser.tokenizer
    if not isinstance(tokenizer, SentencePiece):
        raise ValueError(f"NeMo needs a SentencePiece tokenizer, got {type(tokenizer).__name__}")
    tensors = disassemble(recogniser.model, tensor_name=tables.nemo_name)
    tensors[WINDOW] = np.hanning(config.features.window_length).astype(np.float32)
    tensors[FILTERS] = mel_filters(config.features)[None]
    text = yaml.safe_dump(
        write_config(config, tokenizer.pieces), sort_keys=False, allow_unicode=True
    )
    vocabulary = "".join(f"{piece}\n" for piece in tokenizer.pieces)
    scored = "".join(f"{piece}\t0\n" for piece in tokenizer.pieces)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # so that it is written whole
        part = Path(folder) / path.name
        with tempfile.TemporaryFile(dir=folder) as weights, part.open("wb") as file:
            write_torch_file(weights, tensors)
            size = weights.tell()
            weights.seek(0)
            with tarfile.open(fileobj=file, mode="w") as archive:
                for name, content in (
                    (CONFIG, text.encode()),
                    ("tokenizer.model", tokenizer.model),
                    ("vocab.txt", vocabulary.encode()),
                    ("tokenizer.vocab", scored.encode()),
                ):
                    _add_member(archive, name, io.BytesIO(content), len(content))
                _add_member(archive, WEIGHTS, weights, size)
        part.replace(path)


# Reading


def _open(path: Path) -> BinaryIO:
    """Returns the archive as an open file, unpacked if it is gzipped."""
    file = path.open("rb")
    is_packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not is_packed:
        return file
    limit = MAX_RATIO * path.stat().st_size + (1 << 20)
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (tensors are read from it later)
    try:
        with file, gzip.open(file) as source:
            while block := source.read(1 << 20):
                unpacked.write(block)
                if unpacked.tell() > limit:
                    raise ValueError(f"it unpacks to more than {MAX_RATIO} times its size")
    except (OSError, EOFError, zlib.error) as error:
        unpacked.close()
        raise ValueError(f"it is damaged: {error}") from None
    except BaseException:
        unpacked.close()
        raise
    return unpacked


def _members(file: BinaryIO) -> dict[str, tarfile.TarInfo]:
    """Returns the archive's plain files by name; raises ValueError if it has others."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                name = posixpath.normpath(member.name)
                if member.isdir():
                    continue
                if name.startswith(("/", "..")) or not member.isreg() or member.issparse():
                    raise ValueError(f"it has a member {member.name!r} that is no plain file")
                if name in members:
                    raise ValueError(f"it has two members {name!r}")
                if member.offset_data + member.size > size:
                    raise ValueError(f"it is truncated: it ends within {name!r}")
                members[name] = member
    except (tarfile.TarError, EOFError, RecursionError) as error:
        raise ValueError(f"it is not a .nemo archive: {error}") from None
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise ValueError(f"it is not a .nemo archive: it holds no {name}")
    return members


def _read_small(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_SMALL:
        raise ValueError(f"{member.name} has {member.size} bytes")
    file.seek(member.offset_data)
    return file.read(member.size)


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is faster


class _PlainLoader(_SafeLoader):
    """Loads plain values only, and no merge keys: they copy, and copies of copies have no end."""

    def flatten_mapping(self, node):
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("it has merge keys")


_PlainLoader.add_implicit_resolver(  # 1e-5, which YAML 1.1 takes for text, is a number to NeMo
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read_yaml(content: bytes) -> Any:
    try:
        return yaml.load(content, _PlainLoader)
    except Exception as error:  # constructors of plain values raise many kinds
        raise ValueError(f"{CONFIG} is not YAML: {error}") from None


def _check_features(stored: Mapping[str, StoredTensor], features: FeatureConfig) -> None:
    """Raises ValueError unless the archive's window and mel filters are those of `log_mel`."""
    computed = {
        WINDOW: np.hanning(features.window_length),
        FILTERS: mel_filters(features)[None],
    }
    for name, expected in computed.items():
        if name not in stored:
            continue
        if stored[name].shape != expected.shape:
            raise ValueError(f"{name} is {stored[name].shape}, expected {expected.shape}")
        difference = np.max(np.abs(stored[name].read() - expected))
        if not difference < 1e-4:
            raise ValueError(f"{name} differs by {difference} from the features here")


# Writing


def _add_member(archive: tarfile.TarFile, name: str, content: BinaryIO, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    archive.addfile(info, content)
