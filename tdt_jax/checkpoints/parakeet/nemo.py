""".nemo archives: a tar of a YAML configuration, a torch file of weights and a tokenizer.

Nothing is extracted under a name from the archive: members are read where they lie. A gzipped
archive is unpacked into one nameless temporary file.
"""

import gzip
import io
import os
import posixpath
import re
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tdt_jax.checkpoints.formats.fields import ConfigReader
from tdt_jax.checkpoints.formats.torch_file import read_torch_file, write_torch_file
from tdt_jax.checkpoints.parakeet import convert, tables
from tdt_jax.checkpoints.parakeet.convert import OpenedCheckpoint, blank_embedding
from tdt_jax.checkpoints.parakeet.nemo_config import NULLS, read_config, write_config
from tdt_jax.config import FeatureConfig
from tdt_jax.models.features import mel_filters
from tdt_jax.tokenizer import SentencePiece

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
MAX_SMALL = 16 << 20  # bytes of the configuration and of the tokenizer
MAX_RATIO = 32  # of an unpacked archive to the packed: weights hardly shrink
WINDOW, FILTERS = "preprocessor.featurizer.window", "preprocessor.featurizer.fb"


def read_nemo(path: str | os.PathLike) -> OpenedCheckpoint:
    """A .nemo archive, its tensors still on disk.

    Raises:
      ValueError: if it is not one of a model that this package has, or is damaged or hostile.
    """
    path = Path(path)
    file = _unpacked(path)
    try:
        return _opened(file)
    except BaseException:
        file.close()
        raise


def _opened(file: BinaryIO) -> OpenedCheckpoint:
    members = _members(file)
    config = ConfigReader(_yaml(_small(file, members[CONFIG])), CONFIG, NULLS)
    stored = read_torch_file(file, members[WEIGHTS].offset_data)
    model, tokenizer_name = read_config(
        config, has_ctc_head="ctc_decoder.decoder_layers.0.weight" in stored
    )
    tokenizer = members.get(tokenizer_name)
    if tokenizer is None:
        raise ValueError(f"it holds no tokenizer {tokenizer_name!r}")
    _check_features(stored, model.features)
    return OpenedCheckpoint(
        blank_embedding(model, stored, tables.nemo_name),
        SentencePiece(_small(file, tokenizer)),
        stored,
        tables.nemo_name,
        (WINDOW, FILTERS),
        file,
    )


def _unpacked(path: Path) -> BinaryIO:
    file = path.open("rb")
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not packed:
        return file
    limit = MAX_RATIO * path.stat().st_size + (1 << 20)
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (read from later)
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
    """The archive's plain files by name, the configuration and the weights among them."""
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


def _small(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_SMALL:
        raise ValueError(f"{member.name} has {member.size} bytes")
    file.seek(member.offset_data)
    return file.read(member.size)


def _yaml(content: bytes) -> dict:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        """Plain values only, and no merge keys: they copy, and copies of copies have no end."""

        def flatten_mapping(self, node):
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise yaml.YAMLError("it has merge keys")

    exponent_only = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")  # 1e-5 is a number to NeMo
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent_only, list("-+0123456789"))
    try:
        return yaml.load(content, Loader)
    except Exception as error:  # constructors of plain values raise many kinds
        raise ValueError(f"{CONFIG} is not YAML: {error}") from None


def _check_features(stored: dict, features: FeatureConfig) -> None:
    """The window and the mel filters that the archive carries are those computed here."""
    ours = {
        WINDOW: np.hanning(features.window_length),
        FILTERS: mel_filters(features)[None],
    }
    for name, expected in ours.items():
        if name not in stored:
            continue
        if stored[name].shape != expected.shape:
            raise ValueError(f"{name} is {stored[name].shape}, expected {expected.shape}")
        difference = np.max(np.abs(stored[name].read() - expected))
        if not difference < 1e-4:
            raise ValueError(f"{name} differs by {difference} from the features here")


# Writing


def write_nemo(recogniser, path: str | os.PathLike) -> None:
    """Write a recogniser as a .nemo archive that `ASRModel.restore_from` of NeMo reads.

    Raises:
      ValueError: if its tokenizer is not SentencePiece, or NeMo has no such model.
    """
    import yaml

    path, config, tokenizer = Path(path), recogniser.config, recogniser.tokenizer
    if not isinstance(tokenizer, SentencePiece):
        raise ValueError(f"NeMo needs a SentencePiece tokenizer, got {type(tokenizer).__name__}")
    tensors = convert.disassemble(recogniser.model, name=tables.nemo_name)
    tensors[WINDOW] = np.hanning(config.features.window_length).astype(np.float32)
    tensors[FILTERS] = mel_filters(config.features)[None]
    text = yaml.safe_dump(
        write_config(config, tokenizer.pieces), sort_keys=False, allow_unicode=True
    )
    vocabulary = "".join(f"{piece}\n" for piece in tokenizer.pieces)
    scored = "".join(f"{piece}\t0\n" for piece in tokenizer.pieces)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # whole, or not at all
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
                    _add(archive, name, io.BytesIO(content), len(content))
                _add(archive, WEIGHTS, weights, size)
        part.replace(path)


def _add(archive: tarfile.TarFile, name: str, content: BinaryIO, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    archive.addfile(info, content)
