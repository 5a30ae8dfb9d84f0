"""The builder of tensorflow-datasets that all datasets prepared here share.

Audio is stored as the bytes of a file, since the library's own Audio feature needs TensorFlow.
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
    """A recording that becomes a record."""

    id: str
    size: int  # bytes, approximately
    fields: dict[str, str | int]  # the features other than id and speech


class Source(NamedTuple):
    """The recordings of one split.

    `read` takes some of them, in their order, and yields a function for each, which returns the
    bytes of its file.
    """

    split: str
    recordings: Sequence[Recording]
    read: Callable[[Sequence[Recording]], Iterator[Callable[[], bytes]]]
    problems: Sequence[str] = ()  # recordings that are left out, and why


class SpeechBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of encoded audio with transcripts; a subclass names it and its features."""

    VERSION = tfds.core.Version("1.0.0")
    features: ClassVar[dict] = {}

    def __init__(self, *, examples: dict[str, Iterable] | None = None, **options):
        """`examples`: split -> (key, features) in the order of the dataset."""
        self._examples = examples or {}
        super().__init__(**options)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self.features),
            supervised_keys=("speech", "text"),
            disable_shuffling=True,  # the index has the order of the records; training shuffles
        )

    def _split_generators(self, download_manager):
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str):
        yield from self._examples[split]
