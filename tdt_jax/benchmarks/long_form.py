"""Whether a recogniser's words stay the same in long audio, after silence, and live.

Recordings are joined into one of many minutes, which `transcribe` cuts where it likes; silence or
their own background is put before them; they are streamed, also after silence. The words are
compared with the references, and with the transcripts of each recording by itself.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.waveform import background
from tdt_jax.benchmarks.near_silence import PLACES, channels, kinds, with_near_silence
from tdt_jax.benchmarks.recordings import read_each
from tdt_jax.benchmarks.report import Report
from tdt_jax.inference import metrics
from tdt_jax.inference.normalizers import make_normalizer
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcription import transcribe_each
from tdt_jax.recogniser import Recogniser


class Variant(NamedTuple):
    """One way to present the recordings."""

    name: str
    audio: list[np.ndarray]  # a variant of each recording, or all of them joined
    order: list[int] | None = None  # of the recordings, if they are joined
    lead: float | None = None  # seconds before each: its first word is so much later
    right: float | None = None  # if streamed, the seconds that the encoder sees ahead


def long_form_reports(
    recogniser: Recogniser,
    items: Sequence,
    *,
    minutes: Sequence[float] = (1.0, 10.0, 60.0),
    gaps: Sequence[float] = (0.0, 0.5),
    leads: Sequence[float] = (0.5, 1.0, 2.0),
    near_silence: Sequence[float] = (2.0,),
    rights: Sequence[float] = (0.8, 1.6),
    piece_seconds: float | None = None,
    normalizer: str = "none",
    failed: dict[str, str] | None = None,
) -> Iterator[Report]:
    """Transcribes recordings one by one, joined, after silence, and live; yields a report of each.

    A report has one row: the variant's name; audio_seconds; word_error_rate; the number of words
    and utterances in the transcripts of the recordings one by one; how many words and utterances
    of these have changed; and moved, the mean seconds of the first words from where they should be,
    for a variant with something before each recording.

    Args:
      recogniser: the one to measure.
      items: utterances, or what has `id`, `audio` and `text`, as a manifest's entries; all are held
        in memory.
      minutes: lengths of joined audio: the recordings, shuffled by a fixed seed, as often as it
        takes.
      gaps: seconds of digital silence between joined recordings.
      leads: seconds before each recording, of digital silence, which `transcribe` leaves out, and
        of noise like its background.
      near_silence: seconds of each kind of near silence (`benchmarks.near_silence`) before, behind
        and between words; if there are any, narrow channels too.
      rights: seconds that a `Stream` sees ahead, with chunks of 1.6 s, also after the last of the
        leads of digital silence; not for a CTC model, nor for a causal one, which sees no window
        (`benchmarks.live` measures it).
      piece_seconds: as of `transcribe`.
      normalizer: one of `normalizers.NORMALIZERS`, over references and transcripts.
      failed: takes the id and the reason of what cannot be read.

    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: for impossible times, and if there is nothing to transcribe.
    """
    times = (*gaps, *leads, *near_silence, *rights)
    if not all(0 < each < math.inf for each in minutes) or not all(
        0 <= each < math.inf for each in times
    ):
        raise ValueError(
            "minutes must be positive, other times must not be negative, and all finite"
        )
    normalize = make_normalizer(normalizer)
    rate = recogniser.config.features.sample_rate
    utterances = list(read_each(items, rate, failed))
    if not utterances:
        raise ValueError(f"there is nothing to transcribe: none of {len(items)} recordings")
    audio = [each.samples for each in utterances]
    references = [normalize(each.text) for each in utterances]
    separate, starts = _transcribed(recogniser, audio, piece_seconds)
    separate = [normalize(text) for text in separate]
    seconds = sum(map(len, audio)) / rate
    yield _report("one by one", seconds, references, separate, separate)
    config = recogniser.config
    live = () if config.predictor is None or config.encoder.is_causal else rights
    for variant in itertools.chain(
        _joined(audio, minutes, gaps, rate),
        _with_leads(audio, leads, rate),
        _with_near_silence(audio, near_silence, rate),
        _streamed(audio, live, leads, rate),
    ):
        if variant.right is None:
            texts, now = _transcribed(recogniser, variant.audio, piece_seconds)
        else:
            texts, now = [_live(recogniser, each, variant.right) for each in variant.audio], []
        texts, expected, before = [normalize(text) for text in texts], references, separate
        if variant.order is not None:
            expected, before = (
                [" ".join(each[i] for i in variant.order)] for each in (references, separate)
            )
        moved = None
        if variant.lead is not None:
            moves = [
                abs(later - start - variant.lead)
                for text, before_lead, later, start in zip(
                    texts, separate, now, starts, strict=True
                )
                if text == before_lead and later is not None and start is not None
            ]
            moved = float(np.mean(moves)) if moves else None
        seconds = sum(map(len, variant.audio)) / rate
        yield _report(variant.name, seconds, expected, before, texts, moved)


def _transcribed(
    recogniser: Recogniser, audio: Sequence[np.ndarray], piece_seconds: float | None
) -> tuple[list[str], list[float | None]]:
    """Returns the texts of recordings, and the times at which their first words start."""
    texts, starts = [], []
    for _, result in sorted(transcribe_each(recogniser, audio, piece_seconds=piece_seconds)):
        if isinstance(result, AudioError):
            raise result
        words = result.transcript.words
        texts.append(result.transcript.text)
        starts.append(words[0].start if words else None)
    return texts, starts


def _live(recogniser: Recogniser, samples: np.ndarray, right: float) -> str:
    """Returns the text of a recording that is streamed."""
    stream = Stream(recogniser, right=right)
    for _ in (*stream.push(samples), *stream.finish()):
        pass
    return stream.text


def _joined(
    audio: Sequence[np.ndarray], minutes: Sequence[float], gaps: Sequence[float], rate: int
) -> Iterator[Variant]:
    for length, gap in itertools.product(minutes, gaps):
        name = f"joined, {length:g} min" + (f", {gap:g} s between" if gap else "")
        order, samples = join(audio, round(length * 60 * rate), round(gap * rate))
        yield Variant(name, [samples], order=order)


def join(audio: Sequence[np.ndarray], size: int, gap: int) -> tuple[list[int], np.ndarray]:
    """Returns the order of the recordings, and their samples, as soon as there are `size` of them.

    Between recordings are `gap` zeros.
    """
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


def _with_leads(
    audio: Sequence[np.ndarray], leads: Sequence[float], rate: int
) -> Iterator[Variant]:
    for lead in leads:
        size = round(lead * rate)
        noise = (background(x, size, seed=i, sample_rate=rate) for i, x in enumerate(audio))
        silence = (np.zeros(size, np.float32) for _ in audio)
        for name, before in (("silence", silence), ("background", noise)):
            later = [np.concatenate(pair) for pair in zip(before, audio, strict=True)]
            yield Variant(f"after {lead:g} s of {name}", later, lead=lead)


def _with_near_silence(
    audio: Sequence[np.ndarray], lengths: Sequence[float], rate: int
) -> Iterator[Variant]:
    for length, kind, place in itertools.product(lengths, kinds(), PLACES):
        longer = [
            with_near_silence(x, kind, place, length, seed=i, sample_rate=rate)
            for i, x in enumerate(audio)
        ]
        yield Variant(f"{length:g} s of {kind} {place}", longer)
    for name, channel in channels(rate).items() if lengths else ():
        yield Variant(f"through {name}", [channel(samples) for samples in audio])


def _streamed(
    audio: Sequence[np.ndarray], rights: Sequence[float], leads: Sequence[float], rate: int
) -> Iterator[Variant]:
    for right, lead in itertools.product(rights, (0.0, *leads[-1:])):
        silence = np.zeros(round(lead * rate), np.float32)
        later = [np.concatenate([silence, samples]) for samples in audio]
        name = f"live, {right:g} s ahead" + (f", after {lead:g} s" if lead else "")
        yield Variant(name, later, right=right)


def _report(
    name: str,
    seconds: float,
    references: Sequence[str],
    before: Sequence[str],
    texts: Sequence[str],
    moved: float | None = None,
) -> Report:
    """Returns the report of a variant from its texts, and those of the recordings one by one."""
    edits, lengths = metrics.word_errors(before, texts)
    row = {
        "name": name,
        "audio_seconds": seconds,
        "word_error_rate": metrics.word_error_rate(references, texts).rate,
        "words": int(lengths.sum()),
        "changed": int(edits.sum()),
        "utterances": len(before),
        "changed_utterances": int(np.count_nonzero(edits)),
        "moved": moved,
    }
    line = (
        f"{name:32s}{seconds / 60:7.1f} min   WER {100 * row['word_error_rate']:6.2f} %"
        f"   changed: {row['changed']} of {row['words']} words, "
        f"{row['changed_utterances']} of {row['utterances']} transcripts"
    )
    if moved is not None:
        line += f"; first words are {moved:.2f} s off"
    return Report([row], line)
