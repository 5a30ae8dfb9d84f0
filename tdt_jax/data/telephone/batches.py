"""Training batches of composed telephone speech, each a function of its step."""

from collections.abc import Sequence

import numpy as np

from tdt_jax.config import Bucket
from tdt_jax.data.buckets import part_of
from tdt_jax.data.telephone.compose import Telephone
from tdt_jax.data.utterance import Batch, Utterance, collate
from tdt_jax.tokenizer import Tokenizer


class TelephoneBatches:
    """Training batches without end: `batches[step]` is a pure function of (seed, step).

    Every step draws one bucket, with equal probability, from those that the curriculum allows. Each
    of its entries (first step, index of the largest bucket) applies from its step on; before the
    first, all buckets are allowed. Utterances are longer than the next smaller bucket where
    possible. Threads may share the object.
    """

    def __init__(
        self,
        telephone: Telephone,
        tokenizer: Tokenizer,
        buckets: tuple[Bucket, ...],
        *,
        seed: int,
        curriculum: tuple[tuple[int, int], ...] = (),
    ):
        self.telephone = telephone
        self.tokenizer = tokenizer
        self.buckets = tuple(buckets)
        self.seed = seed
        self.curriculum = sorted(curriculum)
        for first_step, largest in self.curriculum:
            if not 0 <= largest < len(self.buckets):
                raise ValueError(
                    f"the curriculum allows bucket {largest} from step {first_step} on, "
                    f"but there are {len(self.buckets)} buckets"
                )

    def bucket_index(self, step: int) -> int:
        """Returns the index of the bucket that the batch of a step belongs to."""
        if step < 0:
            raise IndexError(f"step must be >= 0, got {step}")
        num_allowed = len(self.buckets)
        for first_step, largest in self.curriculum:
            if first_step <= step:
                num_allowed = largest + 1
        return int(np.random.default_rng((self.seed, step)).integers(num_allowed))

    def __getitem__(self, step: int) -> Batch:
        return self.rows(step, range(self.buckets[self.bucket_index(step)].batch_size))

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """Returns some rows of `batches[step]`, without composing the others."""
        index = self.bucket_index(step)
        bucket = part_of(self.buckets[index], rows)
        # Rows count from 1: NumPy makes the same generator from (seed, step) and (seed, step, 0).
        generators = [np.random.default_rng((self.seed, step, row + 1)) for row in rows]
        utterances, labels = zip(*(self._row(rng, index) for rng in generators), strict=True)
        return collate(utterances, labels, bucket, sample_rate=self.telephone.sample_rate)

    def _row(self, rng: np.random.Generator, index: int) -> tuple[Utterance, list[int]]:
        bucket = self.buckets[index]
        min_seconds = self.buckets[index - 1].seconds if index else 0.0
        max_words = None
        for _ in range(30):
            utterance = self.telephone.sample(
                rng, max_seconds=bucket.seconds, min_seconds=min_seconds, max_words=max_words
            )
            labels = self.tokenizer.encode(utterance.text)
            if len(labels) <= bucket.tokens:
                return utterance, labels
            num_words = len(utterance.text.split())
            max_words = max(1, num_words * bucket.tokens // len(labels))
        raise ValueError(f"no utterance has as few tokens as the bucket {bucket}")
