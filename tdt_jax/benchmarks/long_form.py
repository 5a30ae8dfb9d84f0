"""Whether a recogniser hears in long audio, after a silence and live what it hears otherwise.

Recordings are joined into one of many minutes, which `transcribe` cuts where it likes; silence or
their own background is put before them; they are streamed, also after silence. What the words
should be is known: the reference, and what was heard of each recording by itself.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.audio.reading import AudioError, as_samples
from tdt_jax.audio.waveform import background
from tdt_jax.benchmarks.near_silence import PLACES, channels, kinds, with_near_silence
from tdt_jax.data.utterance import Utterance
from tdt_jax.inference import metrics
from tdt_jax.inference.normalizers import make_normalizer
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcription import transcribe
from tdt_jax.recogniser import Recogniser


class Row(NamedTuple):
    """One way to put the recordings together."""

    name: str
    audio_seconds: float
    word_error_rate: float
    words: int  # that are heard of each recording by itself, in the same order
    changed: int  # word edits between those and what is heard now
    utterances: int  # in which that is to be seen
    changed_utterances: int  # of them
    moved: float | None = None  # mean seconds of first words from where they should be, after leads


def measure(
    recogniser: Recogniser,
    items: Sequence,
    *,
    minutes: Sequence[float] = (1.0, 10.0, 60.0),
    gaps: Sequence[float] = (0.0, 0.5),
    leads: Sequence[float] = (0.5, 1.0, 2.0),
    near_silence: Sequence[float] = (2.0,),
    rights: Sequence[float] = (0.8, 1.6),
    piece_seconds: float | None = None,
    normaliser: str = "none",
    failed: dict[str, str] | None = None,
) -> Iterator[Row]:
    """Transcribe recordings one by one, joined, after a lead, and live; a row each, as it is known.

    Args:
      recogniser: what is measured.
      items: utterances, or what has `id`, `audio` and `text`, as a manifest's entries; all are held
        in memory.
      minutes: of joined audio: the recordings, shuffled by a fixed seed, as often as it takes.
      gaps: seconds of digital silence between joined recordings.
      leads: seconds before each recording, of digital silence, which `transcribe` does not hear,
        and of noise like its background.
      near_silence: seconds of each kind of near silence (`benchmark_near_silence`) before, behind
        and between words; if there are any, narrow channels too.
      rights: seconds that a `Stream` hears ahead, with chunks of 1.6 s, also after the last of
        the leads of digital silence; not for a CTC model.
      piece_seconds: as of `transcribe`.
      normaliser: one of `normalizers.NORMALIZERS`, over references and transcripts.
      failed: takes the id and the reason of what cannot be read.

    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: for times that are none, and if there is nothing to transcribe.
    """
    times = (*gaps, *leads, *near_silence, *rights)
    if not all(0 < each < math.inf for each in minutes) or not all(
        0 <= t < math.inf for t in times
    ):
        raise ValueError(
            "minutes must be positive, other times must not be negative, and all finite"
        )
    normalise = make_normalizer(normaliser)
    rate = recogniser.config.features.sample_rate
    found = list(_read(items, rate, failed))
    if not found:
        raise ValueError(f"there is nothing to transcribe: none of {len(items)} recordings")

    def heard(audio: Sequence[np.ndarray]) -> tuple[list[str], list[float | None]]:
        """The texts, and when their first words start."""
        done = transcribe(recogniser, audio, piece_seconds=piece_seconds)
        starts = [each.words[0].start if each.words else None for each in done]
        return [normalise(each.text) for each in done], starts

    def row(name: str, audio, references, before, now, moved=None) -> Row:
        edits, lengths = metrics.word_errors(before, now)
        return Row(
            name,
            sum(map(len, audio)) / rate,
            metrics.word_error_rate(references, now).rate,
            int(lengths.sum()),
            int(edits.sum()),
            len(before),
            int(np.count_nonzero(edits)),
            moved,
        )

    references = [normalise(each.text) for each in found]
    audio = [each.samples for each in found]
    alone, starts = heard(audio)
    yield row("one by one", audio, references, alone, alone)
    for length in minutes:
        for gap in gaps:
            order, joined = _joined(audio, round(length * 60 * rate), round(gap * rate))
            texts = [[" ".join(texts[i] for i in order)] for texts in (references, alone)]
            name = f"joined, {length:g} min" + (f", {gap:g} s between" if gap else "")
            yield row(name, [joined], *texts, heard([joined])[0])
    for lead in leads:
        size = round(lead * rate)
        noise = (background(x, size, seed=i, sample_rate=rate) for i, x in enumerate(audio))
        silence = (np.zeros(size, np.float32) for _ in audio)
        for name, before in (("silence", silence), ("background", noise)):
            later = [np.concatenate(pair) for pair in zip(before, audio, strict=True)]
            texts, now = heard(later)
            same = [i for i, text in enumerate(texts) if text == alone[i] and starts[i] is not None]
            moves = [abs(now[i] - starts[i] - lead) for i in same]
            moved = float(np.mean(moves)) if moves else None
            yield row(f"after {lead:g} s of {name}", later, references, alone, texts, moved)
    for length in near_silence:
        for kind, place in itertools.product(kinds(), PLACES):
            options = dict(kind=kind, place=place, seconds=length, sample_rate=rate)
            longer = [with_near_silence(x, seed=i, **options) for i, x in enumerate(audio)]
            name = f"{length:g} s of {kind} {place}"
            yield row(name, longer, references, alone, heard(longer)[0])
    if near_silence:
        for name, channel in channels(rate).items():
            sent = [channel(samples) for samples in audio]
            yield row(f"through {name}", sent, references, alone, heard(sent)[0])
    for right in rights if recogniser.config.predictor is not None else ():
        for lead in (0.0, *leads[-1:]):
            silence = np.zeros(round(lead * rate), np.float32)
            later = [np.concatenate([silence, samples]) for samples in audio]
            live = [normalise(_live(recogniser, samples, right)) for samples in later]
            name = f"live, {right:g} s ahead" + (f", after {lead:g} s" if lead else "")
            yield row(name, later, references, alone, live)


def _read(items: Sequence, rate: int, failed: dict[str, str] | None) -> Iterator[Utterance]:
    for item in items:
        try:
            samples = np.asarray(as_samples(item.audio, rate), np.float32)
        except AudioError as error:
            if failed is None:
                raise
            failed[item.id] = str(error)
        else:
            yield Utterance(item.id, samples, item.text)


def _live(recogniser: Recogniser, samples: np.ndarray, right: float) -> str:
    stream = Stream(recogniser, right=right)
    for _ in (*stream.push(samples), *stream.finish()):
        pass
    return stream.text


def _joined(audio: Sequence[np.ndarray], size: int, gap: int) -> tuple[list[int], np.ndarray]:
    """Which recordings follow each other, and the samples: the first that reach `size`."""
    rng = np.random.default_rng(0)
    order, parts, length = [], [], 0
    while length < size:
        for i in rng.permutation(len(audio)):
            order.append(int(i))
            parts += [audio[i], np.zeros(gap, np.float32)]
            length += len(audio[i]) + gap
            if length >= size:
                break
    return order, np.concatenate(parts)


def describe(row: Row) -> str:
    """A line to read."""
    return (
        f"{row.name:32s}{row.audio_seconds / 60:7.1f} min   WER {100 * row.word_error_rate:6.2f} %"
        f"   changed: {row.changed} of {row.words} words, "
        f"{row.changed_utterances} of {row.utterances} transcripts"
    ) + ("" if row.moved is None else f"; first words are {row.moved:.2f} s off")
