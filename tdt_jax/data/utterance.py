"""Utterances, stored or in memory, and batches of them padded to a bucket's shape."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from tdt_jax.config import Bucket
from tdt_jax.data.buckets import bucket_samples


class StoredUtterance(Protocol):
    """An utterance with its transcript, whose audio is read when it is needed.

    Entries of manifests and records of prepared datasets are such utterances.
    """

    @property
    def id(self) -> str: ...

    @property
    def audio(self) -> Any:
        """Returns what `tdt_jax.audio.reading.as_samples` reads."""
        ...

    @property
    def text(self) -> str: ...

    @property
    def seconds(self) -> float:
        """Returns the length of the audio, or 0.0 if it is unknown."""
        ...

    def exists(self) -> bool:
        """Returns whether there is a file to read."""
        ...

    def measured(self) -> Self:
        """Returns itself with the length of its audio, if that is unknown and can be read."""
        ...


class SpokenWord(NamedTuple):
    """A word, or several that were recorded together, and when it is spoken."""

    text: str
    start: float  # seconds, where its sound starts
    end: float


class Utterance(NamedTuple):
    """Samples in memory, with their transcript."""

    id: str
    samples: np.ndarray  # [S] float32
    text: str
    num_leading_samples: int = 0  # known to precede the first word
    words: tuple[SpokenWord, ...] = ()  # of the text, in order; () if their times are not known

    @property
    def audio(self) -> np.ndarray:
        """Returns the samples, which `tdt_jax.audio.reading.as_samples` reads."""
        return self.samples


class Batch(NamedTuple):
    """Utterances padded with zeros to a bucket's shape; an empty row has id "" and no samples."""

    samples: np.ndarray  # [B, S] float32
    num_samples: np.ndarray  # [B] int32
    labels: np.ndarray  # [B, U] int32
    num_labels: np.ndarray  # [B] int32
    num_leading_samples: np.ndarray  # [B] int32, known to precede the first word
    ids: tuple[str, ...]
    texts: tuple[str, ...]


def collate(
    utterances: Sequence[Utterance],
    labels: Sequence[Sequence[int]] | None,
    bucket: Bucket,
    *,
    sample_rate: int,
) -> Batch:
    """Returns utterances as one batch of the bucket's shape; without `labels` they are zeros.

    Raises:
      ValueError: naming the utterance that does not fit, and both lengths.
    """
    num_rows, width = bucket.batch_size, bucket_samples(bucket, sample_rate)
    labels = [()] * len(utterances) if labels is None else labels
    if len(utterances) != len(labels) or len(utterances) > num_rows:
        raise ValueError(
            f"got {len(utterances)} utterances and {len(labels)} labels for {num_rows} rows"
        )
    empty_rows = ("",) * (num_rows - len(utterances))
    batch = Batch(
        samples=np.zeros((num_rows, width), np.float32),
        num_samples=np.zeros(num_rows, np.int32),
        labels=np.zeros((num_rows, bucket.tokens), np.int32),
        num_labels=np.zeros(num_rows, np.int32),
        num_leading_samples=np.zeros(num_rows, np.int32),
        ids=tuple(utterance.id for utterance in utterances) + empty_rows,
        texts=tuple(utterance.text for utterance in utterances) + empty_rows,
    )
    for row, (utterance, label) in enumerate(zip(utterances, labels, strict=True)):
        num_samples, num_labels = len(utterance.samples), len(label)
        if num_samples > width or num_labels > bucket.tokens:
            raise ValueError(
                f"{utterance.id} has {num_samples} samples and {num_labels} labels; its bucket "
                f"holds {width} and {bucket.tokens}"
            )
        batch.samples[row, :num_samples] = utterance.samples
        batch.labels[row, :num_labels] = label
        batch.num_samples[row], batch.num_labels[row] = num_samples, num_labels
        batch.num_leading_samples[row] = utterance.num_leading_samples
    return batch
