"""How well each text fits its audio: the loss of every pair under a recogniser.

Pairs whose loss per label is the largest are mostly wrong texts, cut audio, or another language.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import as_samples
from tdt_jax.config import Bucket
from tdt_jax.data.buckets import bucket_samples
from tdt_jax.data.utterance import StoredUtterance, Utterance, collate
from tdt_jax.losses.ctc import ctc_loss
from tdt_jax.losses.tiled import transducer_loss
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import Transducer
from tdt_jax.recogniser import Recogniser
from tdt_jax.tokenizer import UnknownTextError
from tdt_jax.training.step import IMPOSSIBLE

LENGTHS = (2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 40.0, 64.0)  # seconds of the batches
LABELS = 16  # the labels of a batch are a multiple


def pair_losses(
    recogniser: Recogniser,
    items: Sequence[StoredUtterance],
    *,
    batch_seconds: float = 120.0,
    progress: Callable[[float], object] = lambda seconds: None,
) -> np.ndarray:
    """Returns the loss per label of each utterance, [n] float32 in nats.

    It is minus the log-probability of the text given the audio, summed over all alignments, divided
    by the number of labels; of a CTC model by CTC. It is NaN for audio that cannot be read, is
    longer than 64 s or of unknown length, and for texts that have no label or an unknown character;
    infinite if no alignment fits.

    Args:
      items: with lengths (`tdt_jax.data.sources.measured`).
      batch_seconds: length of the audio in a batch, in seconds.
      progress: is called with the seconds of audio that are done.
    """
    losses = np.full(len(items), np.nan, np.float32)
    labels = [_encode(recogniser, item.text) for item in items]
    rate = recogniser.config.features.sample_rate
    for length in LENGTHS:
        shortest = max((each for each in LENGTHS if each < length), default=0.0)
        members = [
            n for n, item in enumerate(items) if labels[n] and shortest < item.seconds <= length
        ]
        if not members:
            continue
        most = max(len(labels[n]) for n in members)
        rows = max(1, int(batch_seconds // length))
        bucket = Bucket(length, -(-most // LABELS) * LABELS, rows)
        members.sort(key=lambda n: items[n].seconds)
        for start in range(0, len(members), rows):
            part = members[start : start + rows]
            losses[part] = _batch_losses(
                recogniser, [items[n] for n in part], [labels[n] for n in part], bucket, rate
            )
            progress(sum(items[n].seconds for n in part))
    return losses


def _batch_losses(recogniser, items, labels, bucket: Bucket, rate: int) -> list[float]:
    width, utterances = bucket_samples(bucket, rate), []
    for item in items:
        try:
            samples = as_samples(item.audio, rate)
        except AudioError:
            samples = np.zeros(0, np.float32)
        utterances.append(Utterance(item.id, samples[:width], item.text))
    batch = collate(utterances, labels, bucket, sample_rate=rate)
    arrays = batch.samples, batch.num_samples, batch.labels, batch.num_labels
    losses = np.asarray(_losses(recogniser.model, *arrays))
    read = batch.num_samples > 0
    fits = losses < IMPOSSIBLE
    per_label = losses / np.maximum(batch.num_labels, 1)
    return np.where(read, np.where(fits, per_label, np.inf), np.nan)[: len(items)].tolist()


@jax.jit
def _losses(model: Transducer, samples, num_samples, labels, num_labels) -> jax.Array:
    features, num_features = log_mel(samples, num_samples, model.config.features)
    frames, num_frames = model.encoder(features, num_features)
    frames = model.prompted(frames, num_frames)
    if model.joint is None or model.predictor is None:
        assert model.ctc is not None
        blank = model.config.blank
        return ctc_loss(model.ctc(frames), num_frames, labels, num_labels, blank=blank)
    states, durations = model.predictor(labels), model.config.durations
    lengths = labels, num_frames, num_labels
    return transducer_loss(model.joint, frames, states, *lengths, durations=durations)


def _encode(recogniser: Recogniser, text: str) -> list[int]:
    try:
        return recogniser.tokenizer.encode(text)
    except UnknownTextError:
        return []
