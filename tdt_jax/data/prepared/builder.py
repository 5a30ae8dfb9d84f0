"""What the datasets that are prepared here have in common: a builder of tensorflow-datasets.

Without TensorFlow: audio is the bytes of a file, since the library's own Audio feature needs it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from tdt_jax.data.prepared.dataset import needing_packages

with needing_packages():
    import tensorflow_datasets as tfds

ENCODED = tfds.features.Tensor(shape=(), dtype=np.object_)  # the bytes of an audio file
TEXT = tfds.features.Text()


class Recording(NamedTuple):
    """What becomes a record."""

    id: str
    size: int  # bytes, about
    fields: dict[str, str | int]  # but id and speech


class Source(NamedTuple):
    """The recordings of one split, in the order in which `read` gives any of them."""

    split: str
    recordings: Sequence[Recording]
    read: Callable[[Sequence[Recording]], Iterator[Callable[[], bytes]]]
    problems: Sequence[str] = ()  # of recordings that were left out already


class SpeechBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of encoded audio with transcripts; a subclass names it and its features."""

    VERSION = tfds.core.Version("1.0.0")
    features: ClassVar[dict] = {}

    def __init__(self, *, examples: dict[str, Iterable] | None = None, **options):
        """`examples`: split -> (key, features) in the order that is to be kept."""
        self._examples = examples or {}
        super().__init__(**options)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self.features),
            supervised_keys=("speech", "text"),
            disable_shuffling=True,  # training shuffles; the index keeps the order of the records
        )

    def _split_generators(self, download_manager):
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str):
        yield from self._examples[split]
