"""The golden Parakeet checkpoints, and copies of them with something changed."""

import copy
import functools
import io
import json
import tarfile

import numpy as np
import yaml
from paths import GOLDEN

from tdt_jax.runtime.pytree import named_leaves

FOLDERS = {kind: GOLDEN / f"parakeet_{kind}" for kind in ("tdt", "rnnt", "ctc")}
ARCHIVE = GOLDEN / "parakeet_hybrid.nemo"
UNIFIED = GOLDEN / "parakeet_unified.nemo"
NEMOTRON = GOLDEN / "nemotron"  # a folder, and an archive with .nemo
TEXTS = (
    "the quick brown fox jumps over the lazy dog",
    "hello world, again and again",
    "it's a test, isn't it? yes.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "voix ambiguë d'un cœur qui au zéphyr préfère les jattes de kiwis",
)


@functools.cache
def _members():
    with tarfile.open(ARCHIVE) as archive:
        return {
            each.name.removeprefix("./"): archive.extractfile(each).read()
            for each in archive
            if each.isreg()
        }


def members() -> dict[str, bytes]:
    """The files of the golden archive by name."""
    return dict(_members())


def pack(path, contents, *special, mode="w"):
    """Writes an archive of files by name, and of `special` members; returns its path."""
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return path


@functools.cache
def _config():
    return yaml.safe_load(_members()["model_config.yaml"])


def changed_config(**changes) -> dict:
    """The golden archive's configuration with fields changed, by path with "__" for dots."""
    return changed(copy.deepcopy(_config()), **changes)


def changed_archive(folder, **changes):
    """Writes the golden archive to `folder` with fields of its configuration changed."""
    text = yaml.safe_dump(changed_config(**changes))
    return pack(folder / "changed.nemo", {**members(), "model_config.yaml": text.encode()})


def change_json(path, **changes) -> None:
    """Changes fields of a JSON file, by path with "__" for dots."""
    path.write_text(json.dumps(changed(json.loads(path.read_text()), **changes)))


def changed(fields: dict, **changes) -> dict:
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = fields
        for name in outer:
            place = place[name]
        place[last] = value
    return fields


def assert_same_leaves(one, other) -> None:
    """Asserts that two models have the same parameters, bit for bit, in the same dtypes."""
    one, other = named_leaves(one), named_leaves(other)
    assert set(one) == set(other)
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[name], strict=True, err_msg=name)
