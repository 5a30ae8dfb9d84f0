"""Utterances in memory, and batches of them padded to a bucket's shape."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.config import Bucket
from tdt_jax.data.buckets import bucket_samples


class Utterance(NamedTuple):
    """Samples in memory, with their transcript."""

    id: str
    samples: np.ndarray  # [S] float32
    text: str
    lead: int = 0  # of the samples, those before the first word, as far as is known

    @property
    def audio(self) -> np.ndarray:
        """What `tdt_jax.audio.reading.as_samples` reads."""
        return self.samples


class Batch(NamedTuple):
    """Utterances padded with zeros to a bucket's shape; a missing row has id "" and no samples."""

    samples: np.ndarray  # [B, S] float32
    num_samples: np.ndarray  # [B] int32
    labels: np.ndarray  # [B, U] int32
    num_labels: np.ndarray  # [B] int32
    lead: np.ndarray  # [B] int32, samples at the start in which nothing is said
    ids: tuple[str, ...]
    texts: tuple[str, ...]


def collate(
    utterances: Sequence[Utterance],
    labels: Sequence[Sequence[int]] | None,
    bucket: Bucket,
    *,
    sample_rate: int = 16000,
) -> Batch:
    """Pad utterances to one batch of the bucket's shape; without `labels` they are zeros.

    Raises: ValueError naming the utterance that does not fit, and both lengths.
    """
    num_rows, width = bucket.batch_size, bucket_samples(bucket, sample_rate)
    labels = [()] * len(utterances) if labels is None else labels
    if len(utterances) != len(labels) or len(utterances) > num_rows:
        raise ValueError(
            f"got {len(utterances)} utterances and {len(labels)} labels for {num_rows} rows"
        )
    batch = Batch(
        samples=np.zeros((num_rows, width), np.float32),
        num_samples=np.zeros(num_rows, np.int32),
        labels=np.zeros((num_rows, bucket.tokens), np.int32),
        num_labels=np.zeros(num_rows, np.int32),
        lead=np.zeros(num_rows, np.int32),
        ids=tuple(utterance.id for utterance in utterances) + ("",) * (num_rows - len(utterances)),
        texts=tuple(item.text for item in utterances) + ("",) * (num_rows - len(utterances)),
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
        batch.lead[row] = utterance.lead
    return batch
