"""Where utterances come from: a JSONL manifest, or splits of a prepared dataset."""

from pathlib import Path

from tdt_jax.data.manifest import Entry, read_manifest
from tdt_jax.data.prepared.dataset import KEYS, Record, open_dataset


def read_source(
    name: str, *, folder: str = "", keys: tuple[str, str] = KEYS, lowercase: bool = False
) -> list[Entry | Record]:
    """The utterances of a source, none of which is loaded.

    Args:
      name: a JSONL manifest, or "FOLDER:SPLIT" or "FOLDER:SPLIT+SPLIT" of a prepared dataset
        (`tdt_jax.data.prepared.dataset`).
      folder: what a relative name is relative to.
      keys: of the audio and the text in a dataset's records.
      lowercase: make the text lower case.

    Raises: ValueError for a manifest or dataset that cannot be read.
    """
    path = Path(folder) / name
    dataset, colon, splits = str(path).rpartition(":")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; of a prepared dataset name a split: {path}:SPLIT")
    if path.is_file() or not colon:
        items = read_manifest(path)
    else:
        opened = open_dataset(dataset, splits, keys=keys)
        items = [record for each in opened for record in each.records()]
    return [item._replace(text=item.text.lower()) for item in items] if lowercase else items
