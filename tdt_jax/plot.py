"""Drawings for notebooks: features, the alignment lattice, the decoder's jumps, words.

Every function draws on the given axes, or on those of a new figure, and returns them. matplotlib is
imported only when something is drawn.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tdt_jax.config import ModelConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL, BLANK, INK = "#d1495b", "#7a869a", "#22303c"  # colors
FAINTEST = 0.01  # arcs of a lower posterior are not drawn


class DecoderStep(NamedTuple):
    """One evaluation of the joint network by the greedy decoder."""

    frame: int
    position: int  # labels emitted before
    token: int
    duration: int  # frames that the decoder advances


def decoder_steps(
    token_logits: ArrayLike,
    duration_logits: ArrayLike | None,
    durations: tuple[int, ...] | None,
    *,
    max_symbols: int = 10,
) -> list[DecoderStep]:
    """Returns the steps of `greedy_decode` on one utterance, given the logits for its own labels.

    Args:
      token_logits: [T, U+1, V+1], for the frames and the labels that the decoder emitted.
      duration_logits: [T, U+1, N]; None for an RNN-T.
      durations: N frame counts; None for an RNN-T.
      max_symbols: as in `greedy_decode`.

    Raises:
      ValueError: if the logits lead to more than U labels.
    """
    tokens = np.argmax(token_logits, axis=-1)  # [T, U+1]
    blank = np.shape(token_logits)[-1] - 1
    if durations is None or duration_logits is None:
        lengths = np.where(tokens == blank, 1, 0)
    else:
        lengths = np.asarray(durations)[np.argmax(duration_logits, axis=-1)]
    steps, frame, position, num_symbols = [], 0, 0, 0  # symbols: labels at this frame
    while frame < len(tokens):
        token, length = int(tokens[frame, position]), int(lengths[frame, position])
        emits = token != blank
        if position + emits == tokens.shape[1]:
            raise ValueError(f"the logits are of {position} labels, but the decoder emits more")
        num_symbols = num_symbols + 1 if emits else 0
        if length == 0 and (not emits or num_symbols >= max_symbols):
            length = 1
        steps.append(DecoderStep(frame, position, token, length))
        frame, position = frame + length, position + emits
        num_symbols = 0 if length else num_symbols
    return steps


def over_time(rows: ArrayLike, *, seconds: float, label: str, axes: "Axes | None" = None) -> "Axes":
    """Draws [time, channels] as an image over time, such as features or encoder frames.

    Args:
      seconds: the length of a row.
      label: of the vertical axis.
    """
    axes = axes or _new_axes(9, 2.4)
    rows = np.asarray(rows)
    low, high = np.percentile(rows, (1, 99))
    extent = (0, len(rows) * seconds, -0.5, rows.shape[1] - 0.5)
    style: dict[str, Any] = dict(origin="lower", aspect="auto", interpolation="nearest")
    axes.imshow(rows.T, extent=extent, vmin=low, vmax=high, cmap="magma", **style)
    axes.set(xlabel="seconds", ylabel=label)
    return axes


def lattice(
    blank: ArrayLike,
    label: ArrayLike,
    *,
    blank_durations: Sequence[int],
    label_durations: Sequence[int],
    texts: Sequence[str],
    path: Sequence[DecoderStep] = (),
    axes: "Axes | None" = None,
) -> "Axes":
    """Draws the alignment lattice: arcs as strong as their posterior, the decoder's path dotted.

    Args:
      blank: [T, U+1, Nb] posteriors of the blank arcs, from
        `tdt_jax.losses.lattice.arc_posteriors`.
      label: [T, U, Nl] posteriors of the label arcs.
      blank_durations, label_durations: the frames that the arcs span.
      texts: the texts of the U labels.
      path: from `decoder_steps`.
    """
    from matplotlib.collections import LineCollection

    blank, label = np.asarray(blank), np.asarray(label)
    num_frames, num_labels = blank.shape[0], label.shape[1]
    axes = axes or _new_axes(min(12, 3 + 0.35 * num_frames), 1.6 + 0.5 * num_labels)
    frames, positions = np.meshgrid(np.arange(num_frames + 1), np.arange(num_labels + 1))
    axes.scatter(frames, positions, s=5, color="#c9d0d9", zorder=1, linewidths=0)
    kinds = ((blank, blank_durations, 0, BLANK), (label, label_durations, 1, LABEL))
    for posteriors, durations, rise, color in kinds:
        chosen = np.argwhere(posteriors > FAINTEST)
        strength = np.minimum(posteriors[tuple(chosen.T)], 1.0)
        curves = [
            _curve((t, u), (t + durations[i], u + rise), height=0.08 * (1 - rise) * durations[i])
            for t, u, i in chosen
        ]
        widths, alphas = 0.6 + 2.6 * strength, 0.15 + 0.85 * strength
        axes.add_collection(LineCollection(curves, linewidths=widths, alpha=alphas, color=color))
        axes.plot([], [], color=color, linewidth=2.5, label="label" if rise else "blank")
    if path:
        x = [*(step.frame for step in path), path[-1].frame + path[-1].duration]
        y = [*(step.position for step in path), num_labels]
        axes.plot(x, y, "o:", color=INK, linewidth=1, markersize=3.5, zorder=3,
                  label="greedy decoder")  # fmt: skip
    axes.scatter([0, num_frames], [0, num_labels], s=45, color=INK, zorder=4, linewidths=0)
    axes.set_yticks(range(num_labels + 1), ["(start)", *texts])
    axes.set(xlabel="frame", ylabel="labels emitted")
    axes.set(xlim=(-0.6, num_frames + 0.6), ylim=(-0.45, num_labels + 0.45))
    _frameless(axes)
    axes.legend(loc="lower right", frameon=False)
    return axes


def jumps(
    features: ArrayLike, path: Sequence[DecoderStep], pieces: Sequence[str], config: ModelConfig
) -> np.ndarray:
    """Draws the decoder's steps over the features [M, F]: an arc from each frame to the next.

    A dot is an evaluation of the joint network. Labels are written at the frame that emits them.

    Args:
      path: from `decoder_steps`.
      pieces: the text of each label.

    Returns: the two axes.
    """
    import matplotlib.pyplot as plt

    features = np.asarray(features)
    hop = config.features.hop_length / config.features.sample_rate
    frame, num_frames = config.seconds_per_frame, -(-len(features) // 8)
    _, (top, bottom) = plt.subplots(
        2, 1, figsize=(11, 4.2), sharex=True, height_ratios=(1, 2), layout="constrained"
    )
    over_time(features, seconds=hop, label="mel bin", axes=bottom)
    top.plot(np.arange(num_frames) * frame, np.zeros(num_frames), "|", color="#c9d0d9")
    for step in path:
        emits = step.token != config.blank
        start, color = step.frame * frame, LABEL if emits else BLANK
        top.plot(start, 0, "o", color=color, markersize=4.5, zorder=3, clip_on=False)
        if step.duration:
            end = start + step.duration * frame
            curve = _curve((start, 0), (end, 0), height=0.2 * step.duration)
            top.plot(*curve.T, color=color, linewidth=1.6)
        if emits:
            text = pieces[step.token].lstrip("▁") or "▁"
            top.text(start, 0.95, text, color=LABEL, rotation=30, va="bottom")
            bottom.axvline(start, color="white", linewidth=1.2, linestyle="--")
    title = f"{len(path)} steps on {num_frames} frames"
    top.set_title(title, loc="right", fontsize=10, pad=16)
    top.set(xlim=(0, num_frames * frame), ylim=(-0.25, 1.6), yticks=[])
    top.tick_params(bottom=False)
    _frameless(top, "bottom")
    return np.array([top, bottom])


def words(spoken: Sequence, *, axes: "Axes") -> "Axes":
    """Draws words above an image over time: a bracket from `start` to `end`, and the `text`."""
    top = axes.get_ylim()[1]
    edges = axes.get_xaxis_transform()  # x in seconds, y as a fraction of the axes
    for word in spoken:
        axes.plot(
            [word.start, word.start, word.end, word.end],
            [1.02, 1.05, 1.05, 1.02],
            color=LABEL,
            linewidth=1.6,
            clip_on=False,
            transform=edges,
        )
        center = (word.start + word.end) / 2
        axes.text(center, 1.07, word.text, color=LABEL, ha="center", va="bottom", transform=edges)
        axes.vlines([word.start, word.end], 0, top, color="white", linewidth=0.8, linestyle="--")
    return axes


def _curve(start: tuple[float, float], end: tuple[float, float], *, height: float) -> np.ndarray:
    """Returns points [n, 2] from start to end, raised by `height` in the middle."""
    s = np.linspace(0, 1, 17)[:, None]
    line = (1 - s) * np.asarray(start) + s * np.asarray(end)
    return line + height * np.sin(np.pi * s) * np.array([0, 1])


def _new_axes(width: float, height: float) -> "Axes":
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _frameless(axes: "Axes", *more: str) -> None:
    axes.spines[["top", "right", "left", *more]].set_visible(False)
