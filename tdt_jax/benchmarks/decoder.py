"""The decoder alone at Parakeet's size, beside the time to read its weights and transformers'.

An iteration of the greedy loop multiplies a handful of vectors with matrices, so it waits for the
weights: those of the heads in every iteration, those of the predictor where an utterance emits a
label. The floor of a batch is the time that these bytes take at the best bandwidth at which a
buffer of their size was read beside any batch. Weights and frames are random; labels come as often
as in speech (`tdt_jax.benchmarks.random_decoder`). Every batch is measured in a process of its own;
compare the figures of one call with each other, and with nothing else.
"""

import functools
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.benchmarks.cases import MODELS, choose
from tdt_jax.benchmarks.peers import measure_peer_decoder, require_peers
from tdt_jax.benchmarks.random_decoder import (
    IterationBytes,
    decoder_only,
    find_blank_bias,
    iteration_bytes,
    make_frames,
    make_model,
)
from tdt_jax.benchmarks.report import Report
from tdt_jax.benchmarks.timing import Measurement, bandwidth, in_subprocess, timed
from tdt_jax.config import ModelConfig
from tdt_jax.decoding.greedy import (
    WINDOW_RNNT,
    WINDOW_TDT,
    decode_chunk,
    greedy_decode,
    start_decoding,
)
from tdt_jax.models.transducer import Transducer

WINDOWS = (1, 2, 4, 8)

Emitted = tuple[np.ndarray, ...]  # labels, times and durations of an utterance


class Decoded(NamedTuple):
    """A batch of random frames that was decoded."""

    iterations: int  # of the loop with window 1: the most steps of an utterance
    label_iterations: int  # those in which any utterance emits a label
    labels: int  # of all utterances
    steps: int  # of all utterances
    bandwidth: float  # bytes/s, the best
    seconds: dict[int, float]  # by window, the median
    emitted: list[Emitted]
    device: str

    def num_bytes(self, size: IterationBytes) -> int:
        """Returns what all iterations with window 1 read."""
        return self.iterations * size.heads + self.label_iterations * size.predictor


class Batch(NamedTuple):
    """A batch decoded by this package, and by transformers if asked for."""

    size: int
    ours: Decoded
    theirs: tuple[Measurement, list[Emitted]] | None


def decoder_reports(
    names: Sequence[str] = ("0.6b",),
    *,
    batches: Sequence[int] = (1, 4, 32),
    seconds: float = 60.0,
    repeats: int = 5,
    peers: bool = False,
) -> Iterator[Report]:
    """Yields a report for each size of `cases.MODELS`, with a row for each batch.

    Args:
      names: of the sizes.
      batches: numbers of utterances.
      seconds: length of the audio of an utterance.
      repeats: runs of which the median counts, after one that does not.
      peers: whether to measure transformers' generate() too.

    Raises:
      ValueError: for an unknown size, for numbers that are not positive, and if transformers is not
        installed but asked for.
    """
    configs = choose(names, MODELS)
    if min(*batches, repeats) < 1 or seconds <= 0:
        raise ValueError(
            f"batches, repeats and seconds must be positive, got {tuple(batches)}, {repeats} and "
            f"{seconds}"
        )
    if peers:
        require_peers()
    for name, full in configs.items():
        config = decoder_only(full)
        num_frames = round(seconds / config.seconds_per_frame)
        bias = in_subprocess(find_blank_bias, config, num_frames)
        decoded = []
        for size in batches:
            arguments, theirs = (config, bias, size, num_frames), None
            ours = in_subprocess(_measure, *arguments, repeats=repeats)
            if peers:
                theirs = in_subprocess(measure_peer_decoder, *arguments, repeats=repeats)
            decoded.append(Batch(size, ours, theirs))
        yield make_report(name, config, num_frames, decoded)


def _measure(
    config: ModelConfig, bias: float, batch: int, num_frames: int, *, repeats: int
) -> Decoded:
    model = jax.device_put(make_model(config, bias))
    frames = jax.device_put(make_frames(config, batch, num_frames))
    lengths = jax.device_put(np.full((batch,), num_frames, np.int32))
    runs = {
        window: functools.partial(
            greedy_decode, model, frames, lengths, max_symbols=config.max_symbols, window=window
        )
        for window in WINDOWS
    }
    results = {window: jax.device_get(run()) for window, run in runs.items()}  # compiled here
    first = results[WINDOWS[0]]
    for window, result in results.items():
        for field in ("labels", "times", "durations", "num_steps"):
            if not np.array_equal(getattr(result, field), getattr(first, field)):
                raise RuntimeError(f"window {window} gives other {field} than {WINDOWS[0]}")
    num_bytes = sum(iteration_bytes(model))
    rate = bandwidth(num_bytes)
    seconds: dict[int, list[float]] = {window: [] for window in WINDOWS}
    for _ in range(repeats):
        for window, run in runs.items():
            seconds[window].append(timed(lambda run=run: jax.block_until_ready(run()))[0])
    return Decoded(
        iterations=int(first.num_steps.max()),
        label_iterations=count_label_iterations(model, frames),
        labels=int(first.num_labels.sum()),
        steps=int(first.num_steps.sum()),
        bandwidth=max(rate, bandwidth(num_bytes)),
        seconds={window: statistics.median(each) for window, each in seconds.items()},
        emitted=[
            tuple(x[row, :count] for x in (first.labels, first.times, first.durations))
            for row, count in enumerate(first.num_labels)
        ],
        device=jax.devices()[0].device_kind,
    )


def count_label_iterations(model: Transducer, frames: jax.Array) -> int:
    """Returns how many iterations with window 1 emit any utterance's label, of frames [B, T, D]."""
    batch, num_frames = frames.shape[:2]
    one = jnp.ones((batch,), jnp.int32)

    @jax.jit
    def run(model, frames):
        def decode_frame(state, frame):
            options = dict(max_symbols=model.config.max_symbols, window=1)
            hypothesis, state = decode_chunk(model, frame[:, None], one, state, **options)
            return state, (hypothesis.num_steps, hypothesis.num_labels)

        start = start_decoding(model, batch)
        return jax.lax.scan(decode_frame, start, jnp.swapaxes(frames, 0, 1))[1]

    steps, labels = jax.device_get(run(model, frames))  # [T, B] at each frame
    emits = np.zeros((batch, steps.sum(axis=0).max()), bool)
    iteration = np.zeros(batch, int)
    for t in range(num_frames):  # the labels of a frame come before its blank
        for row in np.flatnonzero(labels[t]):
            emits[row, iteration[row] : iteration[row] + labels[t, row]] = True
        iteration += steps[t]
    return int(emits.any(axis=0).sum())


def make_report(
    name: str, config: ModelConfig, num_frames: int, batches: Sequence[Batch]
) -> Report:
    """Returns the report of one size, whose utterances have `num_frames` frames."""
    size = iteration_bytes(make_model(config, 0.0))
    is_tdt = config.durations is not None
    default = WINDOW_TDT if is_tdt else WINDOW_RNNT
    audio = num_frames * config.seconds_per_frame
    best = max(batch.ours.bandwidth for batch in batches)
    lines = [
        f"{name}: decoder of {audio:g} s an utterance; an iteration reads {size.heads / 1e6:.1f} "
        f"MB, and {size.predictor / 1e6:.1f} MB more for a label, at {best / 1e9:.1f} GB/s; on "
        f"{batches[0].ours.device}"
    ]
    rows = []
    for number, ours, theirs in batches:
        floor, total = ours.num_bytes(size) / best, number * audio
        figures = ours._asdict()
        del figures["emitted"]
        rows.append({"batch": number, "floor_seconds": floor, **figures})
        lines.append(
            f"  batch {number}: {ours.labels / total:.2f} labels and {ours.steps / total:.2f} "
            f"steps a second; {ours.iterations} iterations with window 1, {ours.label_iterations} "
            f"of them with a label; floor {floor:.3f} s"
        )
        for window, seconds in ours.seconds.items():
            lines.append(
                f"    window {window}{' (default)' * (window == default):10s} {seconds:8.3f} s  "
                f"{seconds / floor:5.2f} x floor"
            )
            if window == 1:
                lines[-1] += f"  {1e3 * seconds / ours.iterations:6.2f} ms an iteration"
        if theirs is not None:
            cost, emitted = theirs
            same = sum(alike(*pair, is_tdt) for pair in zip(ours.emitted, emitted, strict=True))
            rows[-1]["transformers"] = {"alike": same, **cost._asdict()}
            lines.append(
                f"    transformers       {cost.seconds:8.3f} s  {cost.seconds / floor:5.2f} x "
                f"floor  {ours.seconds[default] / cost.seconds:.2f} = ours / theirs; {same} of "
                f"{number} alike; {cost.device}"
            )
    return Report(rows, "\n".join(lines))


def alike(ours: Emitted, theirs: Emitted, is_tdt: bool) -> bool:
    """Returns whether labels and times are the same, and a TDT's durations.

    transformers invents the durations of an RNN-T.
    """
    count = 3 if is_tdt else 2
    return all(map(np.array_equal, ours[:count], theirs[:count]))
