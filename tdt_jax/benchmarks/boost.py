"""What boosting phrases does to them, to other words, and to audio without words.

Utterances with noise are encoded once, and decoded with each weight of the phrases.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from tdt_jax.advice.guide import Guide, make_guide
from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.waveform import add_noise, noise
from tdt_jax.benchmarks.report import Report
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.decoding.hypothesis import take
from tdt_jax.inference import metrics
from tdt_jax.inference.advised import batch_advice
from tdt_jax.inference.normalizers import make_normalizer
from tdt_jax.inference.scheduler import Shape, pad_rows
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import encode
from tdt_jax.recogniser import Recogniser

ROWS, WINDOW = 8, 20.48  # utterances in a batch, and the seconds of those without words
LEVELS = {"silence": 0.0, "faint noise": 1e-3, "noise": 0.1}  # amplitudes of audio without words


class _Frames(NamedTuple):
    """Batches of encoded audio: frames, their numbers, and the rows that are filled."""

    batches: list[tuple[jax.Array, jax.Array, int]]
    texts: list[str]


def boost_report(
    recogniser: Recogniser,
    items: Sequence,
    phrases: Sequence[str],
    *,
    weights: Sequence[float],
    snrs: Sequence[float],
    minutes: float = 10.0,
    normalizer: str = "none",
) -> Report:
    """Measures precision, recall and F1 of phrases, and the WER of utterances without them.

    A row holds the weight (0: no advice) and the kind of audio. Utterances are those of `items` at
    each signal-to-noise ratio of `snrs` in dB; a row of `minutes` without words has the phrases
    and the words that were emitted there.

    Raises: ValueError for phrases that cannot be boosted.
    """
    normalize = make_normalizer(normalizer)
    rate, rng = recogniser.config.features.sample_rate, np.random.default_rng(0)
    items = sorted(items, key=lambda item: item.seconds)
    speech = [as_samples(item.audio, rate) for item in items]
    texts = [normalize(item.text) for item in items]
    sets = {
        f"{snr:g} dB": _encode(recogniser, [add_noise(x, snr, rng) for x in speech], texts)
        for snr in snrs
    }
    size = round(WINDOW * rate)
    for name, level in LEVELS.items():
        count = math.ceil(minutes * 60 / WINDOW)
        empty = [(level * noise(size, rng)).astype(np.float32) for _ in range(count)]
        sets[name] = _encode(recogniser, empty, [""] * count)
    rows = []
    for weight in weights:
        boost = [(phrase, weight) for phrase in phrases] if weight else None
        guide = make_guide(recogniser.tokenizer, boost=boost)
        for name, frames in sets.items():
            texts = list(map(normalize, _decode(recogniser, frames, guide)))
            rows.append({"weight": weight, "audio": name} | _figures(frames.texts, texts, phrases))
    return Report(rows, _table(rows))


def _encode(recogniser: Recogniser, audio: Sequence[np.ndarray], texts: list[str]) -> _Frames:
    config, batches = recogniser.config, []
    rate = config.features.sample_rate
    for first in range(0, len(audio), ROWS):
        part = audio[first : first + ROWS]
        seconds = 2.56
        while max(map(len, part)) > seconds * rate:
            seconds *= 2
        batch = pad_rows(part, Shape(seconds, ROWS), rate)
        batches.append((*encode(recogniser.model, *log_mel(*batch, config.features)), len(part)))
    return _Frames(batches, texts)


def _decode(recogniser: Recogniser, frames: _Frames, guide: Guide | None) -> Iterator[str]:
    config = recogniser.config
    advice = batch_advice([guide] * ROWS, config.vocab_size)
    for encoded, num_frames, count in frames.batches:
        options = dict(max_symbols=config.max_symbols, advice=advice)
        hypothesis = jax.device_get(greedy_decode(recogniser.model, encoded, num_frames, **options))
        for row in range(count):
            yield recogniser.tokenizer.decode(take(hypothesis, row).labels.tolist())


def _figures(references: list[str], texts: list[str], phrases: Sequence[str]) -> dict:
    rates = metrics.phrase_rates(references, texts, phrases)
    none = [metrics.phrase_rates([text], [""], phrases).in_references == 0 for text in references]
    others = [
        [text for text, is_other in zip(side, none, strict=True) if is_other]
        for side in (references, texts)
    ]
    words = metrics.word_error_rate(references, texts)
    without = metrics.word_error_rate(*others)
    return {
        "precision": rates.precision,
        "recall": rates.recall,
        "f1": rates.f1,
        "wer": words.rate,
        "wer_without": without.rate,
        "false": rates.in_transcripts - rates.correct,
        "insertions": words.insertions,
    }


def _table(rows: list[dict]) -> str:
    lines = [
        "weight  audio        precision  recall     F1     WER  WER without  false  insertions"
    ]
    for row in rows:
        shares = [f"{100 * row[key]:6.1f}" for key in ("precision", "recall", "f1", "wer")]
        lines.append(
            f"{row['weight']:6.2f}  {row['audio']:12s} {shares[0]:>9s}  {shares[1]:>6s} "
            f"{shares[2]:>6s}  {shares[3]:>6s}  {100 * row['wer_without']:11.1f}  "
            f"{row['false']:5d}  {row['insertions']:10d}"
        )
    return "\n".join(lines)
