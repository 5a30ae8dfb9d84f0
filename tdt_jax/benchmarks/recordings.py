"""Recordings read into memory, to be measured."""

from collections.abc import Iterator, Sequence

import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import as_samples
from tdt_jax.data.utterance import Utterance


def read_each(
    items: Sequence, sample_rate: int, failed: dict[str, str] | None
) -> Iterator[Utterance]:
    """Yields utterances with their samples in memory.

    Args:
      items: utterances, or what has `id`, `audio` and `text`, as a manifest's entries.
      sample_rate: in Hz.
      failed: takes the id and the reason of what cannot be read.

    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
    """
    for item in items:
        try:
            samples = np.asarray(as_samples(item.audio, sample_rate), np.float32)
        except AudioError as error:
            if failed is None:
                raise
            failed[item.id] = str(error)
        else:
            yield Utterance(item.id, samples, item.text, words=getattr(item, "words", ()))
