"""A TDT beside an RNN-T on the same audio, as it is and with silence inserted.

A TDT jumps over frames that an RNN-T visits one by one, so what it saves grows with the silence;
Xu et al. (2023, arXiv 2304.06795) report up to 2.82 times the speed at batch 1. Both models run in
turns on every batch, in one process; compare the times of one call with each other, and with
nothing else.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.waveform import num_inserted, with_silence
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import timed
from tdt_jax.config import Bucket
from tdt_jax.data.utterance import Batch, Utterance, collate
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.inference import metrics
from tdt_jax.inference.normalizers import make_normalizer
from tdt_jax.inference.recognition import decode_samples
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import encode
from tdt_jax.plot import BLANK, INK, LABEL
from tdt_jax.recogniser import Recogniser

SHARES = (0.0, 0.25, 0.5, 0.75)
SHORTEST = 2.56  # seconds; audio is padded to this or 2, 4, 8, ... times as much
PUBLISHED = 2.82  # times an RNN-T's speed, at most: Xu et al.
RATIOS = {  # of a row: name and color
    "steps": ("decoder steps", INK),
    "loop": ("time in the decoder's loop", LABEL),
    "decoder": ("time of decoding", "#e6a0aa"),
    "whole": ("time with the encoder", BLANK),
}


def compare(
    tdt: Recogniser,
    rnnt: Recogniser,
    items: Sequence,
    *,
    shares: Sequence[float] = SHARES,
    batch_size: int = 1,
    repeats: int = 3,
    normalizer: str = "none",
    failed: dict[str, str] | None = None,
) -> Report:
    """Measures steps, times and word error rates of both models, a row for each share of silence.

    A row holds the share; the number of utterances; audio_seconds with the silence; batch_size,
    repeats and device; ratios, RNN-T to TDT, of decoder steps and of seconds in the decoder's loop,
    its call, and in all; and for each model ("tdt", "rnnt") word_error_rate, decoder
    steps_per_second of audio, and sums over batches of the median seconds: decoder_seconds of
    decoding encoded frames, empty_seconds of the same calls without a frame, which is all but the
    loop, and whole_seconds of features, encoder and decoder. first_run_seconds is that of each
    shape's first run, mostly compilation, and in no other figure.

    Args:
      tdt, rnnt: the models; a hybrid's transducer counts.
      items: utterances, or what has `id`, `audio` and `text`, as a manifest's entries; each is
        decoded in one piece.
      shares: of the resulting audio that is silence inserted by `with_silence`, 0 <= share < 1.
      batch_size: utterances at a time.
      repeats: runs of each batch of which the median counts, after one that does not.
      normalizer: one of `normalizers.NORMALIZERS`, over references and hypotheses.
      failed: takes the id and the reason of what cannot be read.

    Raises:
      AudioError: for audio that cannot be read, unless `failed` is given.
      ValueError: if the models are not a TDT and an RNN-T of one sample rate, for other numbers
        than above, and if there is nothing to compare on.
    """
    _check(tdt, rnnt, shares, batch_size, repeats)
    normalize = make_normalizer(normalizer)
    rate = tdt.config.features.sample_rate
    lengths: dict[int, int] = {}  # samples of what can be read, by position
    for position, item in enumerate(items):
        try:
            lengths[position] = len(as_samples(item.audio, rate))
        except AudioError as error:
            if failed is None:
                raise
            failed[item.id] = str(error)
    if not lengths:
        raise ValueError(f"there is nothing to compare on: none of {len(items)} utterances")
    seen: set[tuple[int, ...]] = set()
    rows = []
    for share in shares:
        models = _Model(tdt), _Model(rnnt)
        for batch in _batches(items, lengths, share, batch_size, rate):
            for model in models:
                model.start(batch, is_new=batch.samples.shape not in seen)
            seen.add(batch.samples.shape)
            for _ in range(repeats):
                for model in models:
                    model.run()
            for model in models:
                model.finish()
        audio = sum(n + num_inserted(n, share) for n in lengths.values()) / rate
        case = {
            "share": share,
            "utterances": len(lengths),
            "audio_seconds": audio,
            "batch_size": batch_size,
            "repeats": repeats,
            "device": jax.devices()[0].device_kind,
        }
        rows.append(make_row(case, *(model.figures(audio, normalize) for model in models)))
    return Report(rows, make_table(rows))


def _check(
    tdt: Recogniser, rnnt: Recogniser, shares: Sequence[float], batch_size: int, repeats: int
) -> None:
    kinds = tdt.config.kind, rnnt.config.kind
    if kinds != ("TDT", "RNN-T"):
        raise ValueError(
            f"the first model must be a TDT and the second an RNN-T, got a {kinds[0]} and a "
            f"{kinds[1]} model"
        )
    rates = [each.config.features.sample_rate for each in (tdt, rnnt)]
    if rates[0] != rates[1]:
        raise ValueError(f"the TDT takes audio of {rates[0]} Hz and the RNN-T of {rates[1]} Hz")
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ValueError(f"shares of silence must be at least 0 and below 1, got {tuple(shares)}")
    if batch_size < 1 or repeats < 1:
        raise ValueError(
            f"batch_size and repeats must be >= 1, got batch_size {batch_size}, repeats {repeats}"
        )


def _batches(
    items: Sequence, lengths: Mapping[int, int], share: float, batch_size: int, rate: int
) -> Iterator[Batch]:
    """Yields the utterances with their silence, shape by shape; the last batch has empty rows."""
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
                item = items[position]
                samples, seed = as_samples(item.audio, rate), zlib.crc32(item.id.encode())
                samples = with_silence(samples, share, seed=seed, sample_rate=rate)
                utterances.append(Utterance(item.id, samples, item.text))
            yield collate(utterances, None, Bucket(seconds, 1, batch_size), sample_rate=rate)


class _Model:
    """A model that goes through the batches of a row, and its sums over them."""

    def __init__(self, recogniser: Recogniser):
        self.recogniser = recogniser
        self.references, self.texts = [], []
        self.steps = 0
        self.seconds = np.zeros(3)  # decoder, empty, whole
        self.first_run_seconds = 0.0

    def start(self, batch: Batch, *, is_new: bool) -> None:
        """Transcribes a batch, untimed, and keeps the encoder's frames."""
        seconds, hypothesis = timed(lambda: self._transcribe(batch))
        self.first_run_seconds += seconds * is_new
        for row, (name, text) in enumerate(zip(batch.ids, batch.texts, strict=True)):
            if name:
                labels = np.asarray(hypothesis.labels)[row, : hypothesis.num_labels[row]]
                self.references.append(text)
                self.texts.append(self.recogniser.tokenizer.decode(labels.tolist()))
                self.steps += int(hypothesis.num_steps[row])
        self.times: list[tuple[float, ...]] = []

    def _transcribe(self, batch: Batch) -> Hypothesis:
        model = self.recogniser.model
        self.arrays = jax.device_put((batch.samples, batch.num_samples))
        frames, num_frames = encode(model, *log_mel(*self.arrays, model.config.features))
        self.encoded, self.empty = (frames, num_frames), (frames, jnp.zeros_like(num_frames))
        return jax.device_get(self._decode(*self.encoded))

    def _decode(self, frames: jax.Array, num_frames: jax.Array) -> Hypothesis:
        model = self.recogniser.model
        return greedy_decode(model, frames, num_frames, max_symbols=model.config.max_symbols)

    def run(self) -> None:
        """Times the decoder alone, the decoder without a frame, and all of the model."""
        runs = (
            lambda: self._decode(*self.encoded),
            lambda: self._decode(*self.empty),
            lambda: decode_samples(self.recogniser.model, *self.arrays, decoder="transducer"),
        )
        times = (timed(lambda run=run: jax.block_until_ready(run())) for run in runs)
        self.times.append(tuple(seconds for seconds, _ in times))

    def finish(self) -> None:
        """Adds the medians of the batch's runs."""
        self.seconds += np.median(self.times, axis=0)

    def figures(self, audio_seconds: float, normalize: Callable[[str], str]) -> dict[str, float]:
        """Returns the figures of a row."""
        references, texts = (list(map(normalize, x)) for x in (self.references, self.texts))
        decoder, empty, whole = self.seconds.tolist()
        return {
            "word_error_rate": metrics.word_error_rate(references, texts).rate,
            "steps_per_second": self.steps / audio_seconds,
            "decoder_seconds": decoder,
            "empty_seconds": empty,
            "whole_seconds": whole,
            "first_run_seconds": self.first_run_seconds,
        }


def make_row(
    case: Mapping[str, Any], tdt: Mapping[str, float], rnnt: Mapping[str, float]
) -> dict[str, Any]:
    """Returns the row of a case from the figures of both models."""
    values = zip(_compared(tdt), _compared(rnnt), strict=True)
    ratios = {
        name: theirs / max(ours, 1e-9) for name, (ours, theirs) in zip(RATIOS, values, strict=True)
    }
    return {**case, "tdt": dict(tdt), "rnnt": dict(rnnt), "ratios": ratios}


def _compared(model: Mapping[str, float]) -> tuple[float, ...]:
    """Returns decoder steps per second, and seconds in the decoder's loop, its call, and in all."""
    decoder, empty = model["decoder_seconds"], model["empty_seconds"]
    return model["steps_per_second"], max(decoder - empty, 0.0), decoder, model["whole_seconds"]


def make_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the rows."""
    first = rows[0]
    compilation = sum(row[model]["first_run_seconds"] for row in rows for model in ("tdt", "rnnt"))
    lines = [
        f"{first['utterances']} utterances, batch {first['batch_size']}, on {first['device']}; "
        f"seconds are the median of {first['repeats']}; first runs, not counted, took "
        f"{compilation:.1f} s",
        "silence   audio    model         WER   steps/s   its loop    decoder      whole",
    ]
    for row in rows:
        share = f"{100 * row['share']:.0f} %" if row["share"] else "as it is"
        for name, model in (("TDT", row["tdt"]), ("RNN-T", row["rnnt"])):
            steps, *seconds = _compared(model)
            lines.append(
                f"{share:8s}{row['audio_seconds']:6.0f} s  {name:8s}"
                f"{100 * model['word_error_rate']:7.2f} %{steps:10.2f}"
                + "".join(f"{each:9.3f} s" for each in seconds)
            )
        ratios = "".join(f"{ratio:9.2f} x" for ratio in row["ratios"].values())
        lines.append(f"{'':18s}RNN-T / TDT      {ratios}")
    return "\n".join(lines)


def plot(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Draws what a TDT saves as silence is inserted, from the rows of `compare`.

    Returns two axes: decoder steps of both models per second of audio, and how many times the TDT's
    steps and seconds the RNN-T takes.
    """
    import matplotlib.pyplot as plt

    first, x = rows[0], [100 * row["share"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 5), layout="constrained")
    figure.suptitle(
        "A TDT and an RNN-T on the same audio, with silence inserted\n"
        f"{first['utterances']} utterances, {first['batch_size']} at a time, on "
        f"{first['device']}; times are medians of {first['repeats']} runs",
        fontsize=11,
        color=INK,
    )
    ends = []
    for name, key, color in (("RNN-T", "rnnt", INK), ("TDT", "tdt", LABEL)):
        steps = [row[key]["steps_per_second"] for row in rows]
        left.plot(x, steps, "o-", color=color, linewidth=2)
        ends.append((name, steps[-1], color))
        for row, point in zip(rows, zip(x, steps, strict=True), strict=True):
            error_rate = 100 * row[key]["word_error_rate"]
            _note(left, f"{point[1]:.1f} steps\nWER {error_rate:.1f} %", point, color, ha="center")
    _finish(left, "decoder steps per second of audio", x, ends)
    right.axhline(PUBLISHED, color="#9aa5b1", linewidth=1, linestyle="--", zorder=0)
    published = f"published: up to {PUBLISHED} x as fast (Xu et al., 2023)"
    _note(right, published, (x[0], PUBLISHED), "#6b7785", ha="left")
    ends = []
    for key, (name, color) in RATIOS.items():
        ratios = [row["ratios"][key] for row in rows]
        right.plot(x, ratios, "o-", color=color, linewidth=2, markersize=5)
        ends.append((f"{ratios[-1]:.2f} x  {name}", ratios[-1], color))
    _finish(right, "RNN-T / TDT (1: no difference)", x, ends)
    return np.array([left, right])


def _note(axes, text: str, point: tuple[float, float], color: str, *, ha: str) -> None:
    """Writes small text above a point."""
    style = dict(xytext=(0, 7), textcoords="offset points", fontsize=8.5, color=color)
    clear = dict(facecolor="white", edgecolor="none", pad=1)  # hides the grid behind the text
    axes.annotate(text, point, ha=ha, va="bottom", bbox=clear, **style)


def _finish(axes, title: str, x: Sequence[float], ends: Sequence[tuple[str, float, str]]) -> None:
    """Lets axes begin at zero, and writes names (text, y, color) beside the ends of lines."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    top = 1.15 * axes.get_ylim()[1]
    margin = 0.12 * (max(x) - min(x)) or 1.0
    axes.set(xticks=x, ylim=(0, top), xlim=(min(x) - margin, max(x) + margin))
    axes.set_xlabel("inserted silence, % of the audio", color=INK)
    axes.grid(axis="y", color="#e3e7ec", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    last = -np.inf
    for text, y, color in sorted(ends, key=lambda end: end[1]):
        last = max(y / top, last + 0.055)  # names do not overlap
        style = dict(xycoords="axes fraction", va="center", fontsize=9.5, color=color)
        axes.annotate(text, (1.01, last), **style)
