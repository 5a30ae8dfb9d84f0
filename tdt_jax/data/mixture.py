"""Training batches from two sources, of which the second has a share of the steps."""

import math
from collections.abc import Sequence

from tdt_jax.config import Bucket
from tdt_jax.data.batches import Batches
from tdt_jax.data.utterance import Batch


class Mixture:
    """Batches of two sources, each a pure function of its step.

    The steps of the second are spread evenly. A source's batches come in its own order, so that
    every utterance occurs as often as without the other.
    """

    def __init__(self, first: Batches, second: Batches, share: float):
        """`share` is that of the second, in [0, 1)."""
        if first.buckets != second.buckets:
            raise ValueError("batches of different buckets cannot be mixed")
        self.buckets: tuple[Bucket, ...] = first.buckets
        self._sources = first, second
        self._share = share

    @property
    def failed(self) -> dict[str, str]:
        """The utterances of both that could not be read, with the reasons."""
        first, second = (getattr(source, "failed", {}) for source in self._sources)
        return {**first, **second}

    def __getitem__(self, step: int) -> Batch:
        source, own_step = self._find(step)
        return source[own_step]

    def bucket_index(self, step: int) -> int:
        """Returns the index of the bucket that the batch of a step belongs to."""
        source, own_step = self._find(step)
        return source.bucket_index(own_step)

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """Returns some rows of `batches[step]`, without loading the others."""
        source, own_step = self._find(step)
        return source.rows(own_step, rows)

    def _find(self, step: int) -> tuple[Batches, int]:
        """Returns the source of a step, and which of its steps it is."""
        before, after = (math.floor(self._share * each) for each in (step, step + 1))
        if after > before:
            return self._sources[1], before
        return self._sources[0], step - before
