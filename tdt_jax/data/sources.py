"""Reads the utterances of a source: a JSONL manifest, or splits of a prepared dataset."""

from collections.abc import Sequence
from pathlib import Path

from tdt_jax.data.manifest import Entry, read_manifest
from tdt_jax.data.prepared.dataset import KEYS, Record, open_dataset
from tdt_jax.data.utterance import StoredUtterance


def read_source(
    name: str, *, folder: str = "", keys: tuple[str, str] = KEYS, lowercase: bool = False
) -> list[StoredUtterance]:
    """Returns the utterances of a source, without reading their audio.

    Args:
      name: a JSONL manifest, or "FOLDER:SPLIT" or "FOLDER:SPLIT+SPLIT" of a prepared dataset
        (`tdt_jax.data.prepared.dataset`).
      folder: that a relative name is relative to.
      keys: of the audio and the text in a dataset's records.
      lowercase: whether to convert the text to lower case.

    Raises:
      ValueError: for a manifest or dataset that cannot be read.
    """
    path = Path(folder) / name
    dataset, colon, splits = str(path).rpartition(":")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; of a prepared dataset name a split: {path}:SPLIT")
    items: Sequence[Entry | Record]
    if path.is_file() or not colon:
        items = read_manifest(path)
    else:
        datasets = open_dataset(dataset, splits, keys=keys)
        items = [record for dataset in datasets for record in dataset.records()]
    return [item._replace(text=item.text.lower()) if lowercase else item for item in items]
