"""The decoder alone at Parakeet's size, against the weights it must read and beside transformers'.

A turn of the greedy loop multiplies a handful of vectors with matrices, so it waits for weights: of
the heads at every turn, of the predictor where an utterance emits a label. The floor of a batch is
those bytes over the best bandwidth at which a buffer of their size was read beside any batch.
Weights and frames are random; labels come as often as in speech
(`tdt_jax.benchmarks.random_decoder`). Every batch is measured in a process of its own; figures of
one call compare with each other, and with nothing else.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from tdt_jax.benchmarks.cases import MODELS
from tdt_jax.benchmarks.encoder import require_peers
from tdt_jax.benchmarks.random_decoder import (
    Weights,
    cut,
    decoder_only,
    find_blank_bias,
    generate_function,
    make_decoder_peer,
    make_frames,
    make_model,
    weights,
)
from tdt_jax.benchmarks.timing import in_subprocess, median_seconds
from tdt_jax.config import ModelConfig

WINDOWS = (1, 2, 4, 8)


class Decoded(NamedTuple):
    """A batch of random frames that was decoded."""

    turns: int  # of the loop at window 1: the most steps of an utterance
    label_turns: int  # of those, where any utterance emits a label
    labels: int  # of all utterances
    steps: int
    bandwidth: float  # bytes/s, the best
    seconds: dict[int, float]  # by window, the median
    found: list[tuple[np.ndarray, ...]]  # labels, times, durations of each utterance
    device: str

    def num_bytes(self, weights: Weights) -> int:
        """What all turns at window 1 read."""
        return self.turns * weights.heads + self.label_turns * weights.predictor


class Peer(NamedTuple):
    """transformers' generate() on the same frames with the same weights."""

    seconds: float  # the median
    found: list[tuple[np.ndarray, ...]]
    device: str


def decoder_report(
    names: Sequence[str] = ("0.6b",),
    *,
    batches: Sequence[int] = (1, 4, 32),
    seconds: float = 60.0,
    repeats: int = 5,
    peers: bool = False,
) -> list[str]:
    """A table for each size of `benchmark_encoder.MODELS`.

    Args:
      names: of the sizes.
      batches: utterances at a time.
      seconds: of audio in an utterance.
      repeats: runs of which the median counts, after one that does not.
      peers: beside transformers' generate().

    Raises:
      ValueError: for a size that there is not, for numbers that are not positive, and if peers are
        not installed.
    """
    if unknown := [name for name in names if name not in MODELS]:
        raise ValueError(f"no case {unknown[0]!r}; there are {', '.join(MODELS)}")
    if min(*batches, repeats) < 1 or seconds <= 0:
        raise ValueError(
            f"batches, repeats and seconds must be positive, got {tuple(batches)}, {repeats} and "
            f"{seconds}"
        )
    if peers:
        require_peers()
    reports = []
    for name in names:
        config = decoder_only(MODELS[name])
        num_frames = round(seconds / config.seconds_per_frame)
        bias = in_subprocess(find_blank_bias, config, num_frames)
        rows = []
        for batch in batches:
            options = config, bias, batch, num_frames, repeats
            rows.append((batch, in_subprocess(_measure, *options),
                         in_subprocess(_measure_peer, *options) if peers else None))  # fmt: skip
        reports.append(describe(name, config, num_frames, rows))
    return reports


# Ours


def _measure(
    config: ModelConfig, bias: float, batch: int, num_frames: int, repeats: int
) -> Decoded:
    import jax

    from tdt_jax.decoding.greedy import greedy_decode

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
                raise RuntimeError(f"window {window} finds other {field} than {WINDOWS[0]}")
    bandwidth = measure_bandwidth(sum(weights(model)))
    seconds: dict[int, list[float]] = {window: [] for window in WINDOWS}
    for _ in range(repeats):
        for window, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[window].append(time.perf_counter() - start)
    return Decoded(
        turns=int(first.num_steps.max()),
        label_turns=count_label_turns(model, frames),
        labels=int(first.num_labels.sum()),
        steps=int(first.num_steps.sum()),
        bandwidth=max(bandwidth, measure_bandwidth(sum(weights(model)))),
        seconds={window: statistics.median(each) for window, each in seconds.items()},
        found=[
            tuple(x[row, :count] for x in (first.labels, first.times, first.durations))
            for row, count in enumerate(first.num_labels)
        ],
        device=jax.devices()[0].device_kind,
    )


def count_label_turns(model, frames) -> int:
    """In how many turns at window 1 any of the utterances [B, T, D] emits a label."""
    import jax
    import jax.numpy as jnp

    from tdt_jax.decoding.greedy import decode_chunk, start_decoding

    batch, num_frames = frames.shape[:2]
    one = jnp.ones((batch,), jnp.int32)

    @jax.jit
    def run(model, frames):
        def look(state, frame):
            options = dict(max_symbols=model.config.max_symbols, window=1)
            found, state = decode_chunk(model, frame[:, None], one, state, **options)
            return state, (found.num_steps, found.num_labels)

        return jax.lax.scan(look, start_decoding(model, batch), jnp.swapaxes(frames, 0, 1))[1]

    steps, labels = (np.asarray(x) for x in run(model, frames))  # [T, B] at each frame
    emits = np.zeros((batch, steps.sum(axis=0).max()), bool)
    turn = np.zeros(batch, int)
    for t in range(num_frames):  # the labels of a frame come before its blank
        for row in np.flatnonzero(labels[t]):
            emits[row, turn[row] : turn[row] + labels[t, row]] = True
        turn += steps[t]
    return int(emits.any(axis=0).sum())


def measure_bandwidth(num_bytes: int, repeats: int = 20) -> float:
    """The best bytes/s at which a buffer of this size is read over and over.

    By numpy's maximum on one thread and on two, by its product of a vector with a matrix, and by a
    maximum of jax's.
    """
    import jax
    import jax.numpy as jnp

    buffer = np.ones((max(1, num_bytes // 4 // 512), 512), np.float32)
    halves = np.array_split(buffer, 2)
    vector = np.ones(len(buffer), np.float32)
    on_device, times = jax.device_put(buffer), 5

    @jax.jit
    def maximum(x):
        return jax.lax.fori_loop(0, times, lambda _, most: jnp.max(jnp.maximum(x, most)), 0.0)

    with ThreadPoolExecutor(2) as threads:
        ways: list[tuple[int, Callable]] = [
            (1, buffer.max),
            (1, lambda: list(threads.map(np.max, halves))),
            (1, lambda: vector @ buffer),
            (times, lambda: jax.block_until_ready(maximum(on_device))),
        ]
        return max(_best_rate(run, count * buffer.nbytes, repeats) for count, run in ways)


def _best_rate(run: Callable, num_bytes: int, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return num_bytes / min(seconds)


# transformers'


def _measure_peer(
    config: ModelConfig, bias: float, batch: int, num_frames: int, repeats: int
) -> Peer:
    """generate() in float32 on the CPU, without the encoder."""
    import torch
    import transformers

    frames = torch.from_numpy(make_frames(config, batch, num_frames))
    generate = generate_function(make_decoder_peer(config, bias), frames, config)
    with torch.no_grad():
        seconds, out = median_seconds(generate, repeats)
    rows = zip(out.sequences[:, 1:].numpy(), out.durations[:, 1:].numpy(), strict=True)
    return Peer(
        seconds,
        [cut(*row, config.blank, num_frames) for row in rows],
        f"{transformers.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads",
    )


def alike(ours: tuple, theirs: tuple, is_tdt: bool) -> bool:
    """Whether labels and times are the same, and durations: an RNN-T's are the peer's invention."""
    count = 3 if is_tdt else 2
    return all(map(np.array_equal, ours[:count], theirs[:count]))


# The table


def describe(
    name: str,
    config: ModelConfig,
    num_frames: int,
    rows: Sequence[tuple[int, Decoded, Peer | None]],
) -> str:
    """A table to read: for each batch, ours and the peer's."""
    from tdt_jax.decoding.greedy import WINDOW_RNNT, WINDOW_TDT

    size = weights(make_model(config, 0.0))
    is_tdt = config.durations is not None
    default = WINDOW_TDT if is_tdt else WINDOW_RNNT
    audio = num_frames * config.seconds_per_frame
    bandwidth = max(ours.bandwidth for _, ours, _ in rows)
    lines = [
        f"{name}: decoder of {audio:g} s an utterance; a turn reads {size.heads / 1e6:.1f} MB, and "
        f"{size.predictor / 1e6:.1f} MB more for a label, at {bandwidth / 1e9:.1f} GB/s; on "
        f"{rows[0][1].device}"
    ]
    for batch, ours, theirs in rows:
        floor, total = ours.num_bytes(size) / bandwidth, batch * audio
        lines.append(
            f"  batch {batch}: {ours.labels / total:.2f} labels and {ours.steps / total:.2f} steps "
            f"a second; {ours.turns} turns one frame wide, {ours.label_turns} with a label; floor "
            f"{floor:.3f} s"
        )
        for window, seconds in ours.seconds.items():
            lines.append(
                f"    window {window}{' (default)' * (window == default):10s} {seconds:8.3f} s  "
                f"{seconds / floor:5.2f} x floor"
            )
            if window == 1:
                lines[-1] += f"  {1e3 * seconds / ours.turns:6.2f} ms a turn"
        if theirs is not None:
            same = sum(alike(*pair, is_tdt) for pair in zip(ours.found, theirs.found, strict=True))
            lines.append(
                f"    transformers       {theirs.seconds:8.3f} s  {theirs.seconds / floor:5.2f} x "
                f"floor  {ours.seconds[default] / theirs.seconds:.2f} = ours / theirs; {same} of "
                f"{batch} alike; {theirs.device}"
            )
    return "\n".join(lines)
