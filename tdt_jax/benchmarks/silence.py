"""A TDT beside an RNN-T on the same audio, as it is and with silence inserted.

A TDT jumps over what an RNN-T looks at frame by frame, so what it saves grows with the silence;
Xu et al. (2023, arXiv 2304.06795) report up to 2.82 times the speed at batch 1. Both models run in
turns on every batch, in one process; times of one call compare with each other, and with nothing
else.
"""

import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.audio.reading import AudioError, as_samples
from tdt_jax.audio.waveform import num_inserted, with_silence
from tdt_jax.config import Bucket
from tdt_jax.data.manifest import Entry
from tdt_jax.data.utterance import Batch, Utterance, collate
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.inference import metrics
from tdt_jax.inference.normalizers import make_normalizer
from tdt_jax.inference.recognition import decode_samples
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import encode
from tdt_jax.plot import BLANK, INK, LABEL
from tdt_jax.recogniser import Recogniser

SHARES = (0.0, 0.25, 0.5, 0.75)
SHORTEST = 2.56  # seconds; audio is padded to this or 2, 4, 8, ... times as much


class Side(NamedTuple):
    """One model on the audio of a row. Seconds are sums over batches of the median run."""

    word_error_rate: float
    steps_per_second: float  # decoder steps per second of audio
    decoder_seconds: float  # greedy decoding alone, of encoded frames
    empty_seconds: float  # the same calls with no frame to decode: what is not the loop
    whole_seconds: float  # features, encoder and decoder
    first_run_seconds: float  # of each shape: mostly compilation, and in no other figure

    @property
    def loop_seconds(self) -> float:
        return max(self.decoder_seconds - self.empty_seconds, 0.0)


class Row(NamedTuple):
    """Both models on the same audio."""

    share: float  # of the audio that is inserted silence
    utterances: int
    audio_seconds: float  # with the silence
    batch_size: int
    repeats: int
    device: str
    tdt: Side
    rnnt: Side

    @property
    def ratios(self) -> dict[str, float]:
        """RNN-T / TDT: decoder steps, and seconds in the decoder's loop, its call, and in all."""
        figures = (
            (x.steps_per_second, x.loop_seconds, x.decoder_seconds, x.whole_seconds)
            for x in (self.tdt, self.rnnt)
        )
        names = "steps", "loop", "decoder", "whole"
        return {
            name: theirs / max(ours, 1e-9)
            for name, ours, theirs in zip(names, *figures, strict=True)
        }


def compare(
    tdt: Recogniser,
    rnnt: Recogniser,
    entries: Sequence[Entry | Utterance],
    *,
    shares: Sequence[float] = SHARES,
    batch_size: int = 1,
    repeats: int = 3,
    normaliser: str = "none",
    failed: dict[str, str] | None = None,
) -> list[Row]:
    """Steps, times and word error rates of both models, a row for each share of silence.

    Args:
      tdt, rnnt: the models; a hybrid's transducer counts.
      entries: utterances, or entries of a manifest; each goes through in one piece.
      shares: of the resulting audio that is silence inserted by `with_silence`, 0 <= share < 1.
      batch_size: utterances at a time.
      repeats: runs of each batch of which the median counts, after one that does not.
      normaliser: one of `normalizers.NORMALIZERS`, over references and hypotheses.
      failed: takes the id and the reason of what cannot be read.

    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: if the models are not a TDT and an RNN-T of one sample rate, for other numbers
        than above, and if there is nothing to compare on.
    """
    _check(tdt, rnnt, shares, batch_size, repeats)
    normalise = make_normalizer(normaliser)
    rate = tdt.config.features.sample_rate
    lengths: dict[int, int] = {}  # samples of what can be read, by position
    for position, entry in enumerate(entries):
        try:
            lengths[position] = len(_read(entry, rate).samples)
        except AudioError as error:
            if failed is None:
                raise
            failed[entry.id] = str(error)
    if not lengths:
        raise ValueError(f"there is nothing to compare on: none of {len(entries)} utterances")
    seen: set[tuple[int, ...]] = set()
    rows = []
    for share in shares:
        sides = _Side(tdt), _Side(rnnt)
        for batch in _batches(entries, lengths, share, batch_size, rate):
            for side in sides:
                side.start(batch, is_new=batch.samples.shape not in seen)
            seen.add(batch.samples.shape)
            for _ in range(repeats):
                for side in sides:
                    side.run()
            for side in sides:
                side.finish()
        audio = sum(n + num_inserted(n, share) for n in lengths.values()) / rate
        device = jax.devices()[0].device_kind
        results = (side.result(audio, normalise) for side in sides)
        rows.append(Row(share, len(lengths), audio, batch_size, repeats, device, *results))
    return rows


def _check(tdt: Recogniser, rnnt: Recogniser, shares, batch_size: int, repeats: int) -> None:
    kinds = tdt.config.kind, rnnt.config.kind
    if kinds != ("TDT", "RNN-T"):
        raise ValueError(
            f"the first model must be a TDT and the second an RNN-T, got a {kinds[0]} and a "
            f"{kinds[1]} model"
        )
    rates = [each.config.features.sample_rate for each in (tdt, rnnt)]
    if rates[0] != rates[1]:
        raise ValueError(f"the TDT hears {rates[0]} Hz and the RNN-T {rates[1]} Hz")
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ValueError(f"shares of silence must be at least 0 and below 1, got {tuple(shares)}")
    if batch_size < 1 or repeats < 1:
        raise ValueError(
            f"batch_size and repeats must be >= 1, got batch_size {batch_size}, repeats {repeats}"
        )


class _Side:
    """One model on its way through the batches of a row."""

    def __init__(self, recogniser: Recogniser):
        self.recogniser = recogniser
        self.references, self.texts = [], []
        self.steps = 0
        self.seconds = np.zeros(3)  # decoder, empty, whole
        self.first_run_seconds = 0.0

    def start(self, batch: Batch, *, is_new: bool) -> None:
        """Take what the model hears in a batch, untimed, and keep the encoder's frames."""
        start = time.perf_counter()
        model = self.recogniser.model
        self.arrays = jax.device_put((batch.samples, batch.num_samples))
        frames, num_frames = encode(model, *log_mel(*self.arrays, model.config.features))
        self.encoded, self.empty = (frames, num_frames), (frames, jnp.zeros_like(num_frames))
        found = jax.device_get(self._decode(*self.encoded))
        if is_new:
            self.first_run_seconds += time.perf_counter() - start
        for row, (name, text) in enumerate(zip(batch.ids, batch.texts, strict=True)):
            if name:
                labels = found.labels[row, : found.num_labels[row]]
                self.references.append(text)
                self.texts.append(self.recogniser.tokenizer.decode(labels))
                self.steps += int(found.num_steps[row])
        self.times: list[tuple[float, ...]] = []

    def run(self) -> None:
        """Time the decoder alone, the decoder on nothing, and then everything."""
        ways = (
            lambda: self._decode(*self.encoded),
            lambda: self._decode(*self.empty),
            lambda: decode_samples(self.recogniser.model, *self.arrays, decoder="transducer"),
        )
        self.times.append(tuple(map(_seconds, ways)))

    def finish(self) -> None:
        """Count the median of the batch's runs."""
        self.seconds += np.median(self.times, axis=0)

    def result(self, audio_seconds: float, normalise: Callable[[str], str]) -> Side:
        texts = (list(map(normalise, each)) for each in (self.references, self.texts))
        return Side(
            metrics.word_error_rate(*texts).rate,
            self.steps / audio_seconds,
            *self.seconds.tolist(),
            self.first_run_seconds,
        )

    def _decode(self, frames, num_frames):
        model = self.recogniser.model
        return greedy_decode(model, frames, num_frames, max_symbols=model.config.max_symbols)


def _seconds(run: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def _read(entry: Entry | Utterance, sample_rate: int) -> Utterance:
    if isinstance(entry, Utterance):
        return entry
    return Utterance(entry.id, as_samples(entry.audio, sample_rate), entry.text)


def _batches(
    entries: Sequence[Entry | Utterance],
    lengths: dict[int, int],
    share: float,
    batch_size: int,
    rate: int,
) -> Iterator[Batch]:
    """The utterances with their silence, shape by shape; empty rows fill a shape's last batch."""
    shapes: dict[float, list[int]] = defaultdict(list)
    for position, length in lengths.items():
        seconds = SHORTEST
        while length + num_inserted(length, share) > seconds * rate:
            seconds *= 2
        shapes[seconds].append(position)
    for seconds, positions in sorted(shapes.items()):
        for first in range(0, len(positions), batch_size):
            utterances = []
            for position in positions[first : first + batch_size]:
                one = _read(entries[position], rate)
                seed = zlib.crc32(one.id.encode())
                samples = with_silence(one.samples, share, seed=seed, sample_rate=rate)
                utterances.append(one._replace(samples=samples))
            yield collate(utterances, None, Bucket(seconds, 1, batch_size), sample_rate=rate)


# What is reported


def to_json(rows: Sequence[Row]) -> list[dict]:
    """The rows as objects, with the ratios RNN-T / TDT."""
    return [
        {**row._asdict(), "tdt": row.tdt._asdict(), "rnnt": row.rnnt._asdict(),
         "ratios": row.ratios}
        for row in rows
    ]  # fmt: skip


def describe(rows: Sequence[Row]) -> str:
    """A table to read."""
    first = rows[0]
    compilation = sum(row.tdt.first_run_seconds + row.rnnt.first_run_seconds for row in rows)
    lines = [
        f"{first.utterances} utterances, batch {first.batch_size}, on {first.device}; seconds are "
        f"the median of {first.repeats}; first runs, not counted, took {compilation:.1f} s",
        "silence   audio    model         WER   steps/s   its loop    decoder      whole",
    ]
    for row in rows:
        share = f"{100 * row.share:.0f} %" if row.share else "as it is"
        for name, side in (("TDT", row.tdt), ("RNN-T", row.rnnt)):
            seconds = side.loop_seconds, side.decoder_seconds, side.whole_seconds
            lines.append(
                f"{share:8s}{row.audio_seconds:6.0f} s  {name:8s}"
                f"{100 * side.word_error_rate:7.2f} %{side.steps_per_second:10.2f}"
                + "".join(f"{each:9.3f} s" for each in seconds)
            )
        ratios = "".join(f"{ratio:9.2f} x" for ratio in row.ratios.values())
        lines.append(f"{'':18s}RNN-T / TDT      {ratios}")
    return "\n".join(lines)


RATIOS = {  # of a row of benchmark_silence: name and style
    "steps": ("decoder steps", INK, "o-"),
    "loop": ("time in the decoder's loop", LABEL, "o-"),
    "decoder": ("time of decoding", "#e6a0aa", "o-"),
    "whole": ("time with the encoder", BLANK, "o-"),
}


PUBLISHED = 2.82  # times an RNN-T's speed, at most: Xu et al., 2023, arXiv 2304.06795


def plot(rows: Sequence):
    """What a TDT saves as silence is inserted, of the rows of `benchmark_silence.compare`.

    Left the decoder steps of both models per second of audio, right how many times the TDT's steps
    and seconds the RNN-T takes.
    """
    import matplotlib.pyplot as plt

    first, x = rows[0], [100 * row.share for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 5), layout="constrained")
    figure.suptitle(
        "A TDT and an RNN-T on the same audio, with silence inserted\n"
        f"{first.utterances} utterances, {first.batch_size} at a time, on {first.device}; "
        f"times are medians of {first.repeats} runs",
        fontsize=11,
        color=INK,
    )
    ends = []
    for name, side, colour in (("RNN-T", "rnnt", INK), ("TDT", "tdt", LABEL)):
        steps = [getattr(row, side).steps_per_second for row in rows]
        left.plot(x, steps, "o-", color=colour, linewidth=2)
        ends.append((name, steps[-1], colour))
        for row, place in zip(rows, zip(x, steps, strict=True), strict=True):
            wer = 100 * getattr(row, side).word_error_rate
            text = f"{place[1]:.1f} steps\nWER {wer:.1f} %"
            _note(left, text, place, colour, ha="center")
    _finish(left, "decoder steps per second of audio", x, ends)
    right.axhline(PUBLISHED, color="#9aa5b1", linewidth=1, linestyle="--", zorder=0)
    published = f"published: up to {PUBLISHED} x as fast (Xu et al., 2023)"
    _note(right, published, (x[0], PUBLISHED), "#6b7785", ha="left")
    ends = []
    for key, (name, colour, style) in RATIOS.items():
        ratios = [row.ratios[key] for row in rows]
        right.plot(x, ratios, style, color=colour, linewidth=2, markersize=5)
        ends.append((f"{ratios[-1]:.2f} x  {name}", ratios[-1], colour))
    _finish(right, "RNN-T / TDT (1: no difference)", x, ends)
    return np.array([left, right])


def _finish(axes, title: str, x: Sequence[float], ends: Sequence[tuple[str, float, str]]) -> None:
    """Finishes axes from zero, with the names (text, y, color) of the lines beside their ends."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    top = 1.15 * axes.get_ylim()[1]
    margin = 0.12 * (max(x) - min(x)) or 1.0
    axes.set(xticks=x, ylim=(0, top), xlim=(min(x) - margin, max(x) + margin))
    axes.set_xlabel("inserted silence, % of the audio", color=INK)
    axes.grid(axis="y", color="#e3e7ec", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    last = -np.inf
    for text, y, colour in sorted(ends, key=lambda end: end[1]):
        last = max(y / top, last + 0.055)  # names do not overlap
        style = dict(xycoords="axes fraction", va="center", fontsize=9.5, color=colour)
        axes.annotate(text, (1.01, last), **style)


def _note(axes, text: str, place: tuple[float, float], colour: str, *, ha: str) -> None:
    """Writes small text above a point."""
    style = dict(xytext=(0, 7), textcoords="offset points", fontsize=8.5, color=colour)
    clear = dict(facecolor="white", edgecolor="none", pad=1)  # the grid does not run through it
    axes.annotate(text, place, ha=ha, va="bottom", bbox=clear, **style)
