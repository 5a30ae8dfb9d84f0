"""Drawings of features, alignment lattices and the decoder's jumps; matplotlib is imported late.

Every function takes the axes to draw on, or makes a figure, and returns the axes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.config import ModelConfig

LABEL, BLANK, INK = "#d1495b", "#7a869a", "#22303c"  # colours
FAINTEST = 0.01  # arcs of a lower posterior are not drawn


class Visit(NamedTuple):
    """One look of the greedy decoder at a frame."""

    frame: int
    position: int  # labels emitted before
    token: int
    duration: int  # frames that the decoder moved on by


def visits(
    token_logits, duration_logits, durations: tuple[int, ...] | None, *, max_symbols: int = 10
) -> list[Visit]:
    """Every step of `greedy_decode` on one utterance, from the logits of its own labels.

    Args:
      token_logits: [T, U+1, V+1], of the frames and the labels that the decoder emitted.
      duration_logits: [T, U+1, N]; None for an RNN-T.
      durations: N frame counts; None for an RNN-T.
      max_symbols: as in `greedy_decode`.

    Raises:
      ValueError: if the logits lead to more than U labels.
    """
    tokens = np.argmax(token_logits, axis=-1)  # [T, U+1]
    blank = np.shape(token_logits)[-1] - 1
    if durations is None:
        lengths = np.where(tokens == blank, 1, 0)
    else:
        lengths = np.asarray(durations)[np.argmax(duration_logits, axis=-1)]
    path, frame, position, here = [], 0, 0, 0
    while frame < len(tokens):
        token, length = int(tokens[frame, position]), int(lengths[frame, position])
        emits = token != blank
        if position + emits == tokens.shape[1]:
            raise ValueError(f"the logits are of {position} labels, but the decoder emits more")
        here = here + 1 if emits else 0
        if length == 0 and (not emits or here >= max_symbols):
            length = 1
        path.append(Visit(frame, position, token, length))
        frame, position, here = frame + length, position + emits, 0 if length else here
    return path


def over_time(rows, *, seconds: float, label: str, axes=None):
    """An image of [time, channels], each row `seconds` long."""
    axes = axes or _axes(9, 2.4)
    rows = np.asarray(rows)
    low, high = np.percentile(rows, (1, 99))
    extent = (0, len(rows) * seconds, -0.5, rows.shape[1] - 0.5)
    style = dict(origin="lower", aspect="auto", interpolation="nearest", cmap="magma")
    axes.imshow(rows.T, extent=extent, vmin=low, vmax=high, **style)
    axes.set(xlabel="seconds", ylabel=label)
    return axes


def lattice(
    blank,
    label,
    *,
    blank_durations: Sequence[int],
    label_durations: Sequence[int],
    texts: Sequence[str],
    path: Sequence[Visit] = (),
    axes=None,
):
    """The alignment lattice: arcs as strong as their posterior, and the decoder's path dotted.

    Args:
      blank: [T, U+1, Nb] posteriors of the blank arcs, from
        `tdt_jax.losses.lattice.arc_posteriors`.
      label: [T, U, Nl] posteriors of the label arcs.
      blank_durations, label_durations: frames that the arcs take.
      texts: U label texts.
      path: from `visits`.
    """
    from matplotlib.collections import LineCollection

    blank, label = np.asarray(blank), np.asarray(label)
    num_frames, num_labels = blank.shape[0], label.shape[1]
    axes = axes or _axes(min(12, 3 + 0.35 * num_frames), 1.6 + 0.5 * num_labels)
    frames, positions = np.meshgrid(np.arange(num_frames + 1), np.arange(num_labels + 1))
    axes.scatter(frames, positions, s=5, color="#c9d0d9", zorder=1, linewidths=0)
    kinds = ((blank, blank_durations, 0, BLANK), (label, label_durations, 1, LABEL))
    for posteriors, durations, rise, colour in kinds:
        chosen = np.argwhere(posteriors > FAINTEST)
        strength = np.minimum(posteriors[tuple(chosen.T)], 1.0)
        curves = [
            _curve((t, u), (t + durations[i], u + rise), height=0.08 * (1 - rise) * durations[i])
            for t, u, i in chosen
        ]
        widths, alphas = 0.6 + 2.6 * strength, 0.15 + 0.85 * strength
        axes.add_collection(LineCollection(curves, linewidths=widths, alpha=alphas, color=colour))
        axes.plot([], [], color=colour, linewidth=2.5, label="label" if rise else "blank")
    if path:
        corners = [(visit.frame, visit.position) for visit in path]
        corners.append((path[-1].frame + path[-1].duration, num_labels))
        style = dict(color=INK, linestyle=":", linewidth=1, marker="o", markersize=3.5)
        axes.plot(*zip(*corners, strict=True), label="greedy decoder", zorder=3, **style)
    axes.scatter([0, num_frames], [0, num_labels], s=45, color=INK, zorder=4, linewidths=0)
    axes.set_yticks(range(num_labels + 1), ["(start)", *texts])
    axes.set(xlabel="frame", ylabel="labels emitted")
    axes.set(xlim=(-0.6, num_frames + 0.6), ylim=(-0.45, num_labels + 0.45))
    _frameless(axes)
    axes.legend(loc="lower right", frameon=False)
    return axes


def jumps(features, path: Sequence[Visit], pieces: Sequence[str], config: ModelConfig):
    """The decoder's steps over the features [M, F]: an arrow from each frame to the next.

    A dot is a joint evaluation; labels are in colour, at the frame where they are emitted.
    """
    import matplotlib.pyplot as plt

    hop = config.features.hop_length / config.features.sample_rate
    frame, num_frames = config.seconds_per_frame, -(-len(features) // 8)
    _, (top, bottom) = plt.subplots(
        2, 1, figsize=(11, 4.2), sharex=True, height_ratios=(1, 2), layout="constrained"
    )
    over_time(features, seconds=hop, label="mel bin", axes=bottom)
    top.plot(np.arange(num_frames) * frame, np.zeros(num_frames), "|", color="#c9d0d9")
    for visit in path:
        emits = visit.token != config.blank
        start, colour = visit.frame * frame, LABEL if emits else BLANK
        top.plot(start, 0, "o", color=colour, markersize=4.5, zorder=3, clip_on=False)
        if visit.duration:
            end = start + visit.duration * frame
            curve = _curve((start, 0), (end, 0), height=0.2 * visit.duration)
            top.plot(*curve.T, color=colour, linewidth=1.6)
        if emits:
            text = pieces[visit.token].lstrip("▁") or "▁"
            top.text(start, 0.95, text, color=LABEL, rotation=30, va="bottom")
            bottom.axvline(start, color="white", linewidth=1.2, linestyle="--")
    steps = f"{len(path)} steps on {num_frames} frames"
    top.set_title(steps, loc="right", fontsize=10, pad=16)
    top.set(xlim=(0, num_frames * frame), ylim=(-0.25, 1.6), yticks=[])
    top.tick_params(bottom=False)
    _frameless(top, "bottom")
    return np.array([top, bottom])


def words(spoken: Sequence, *, axes):
    """Words over an image in seconds: a bracket each, from `start` to `end`, with the `text`."""
    top = axes.get_ylim()[1]
    edges = axes.get_xaxis_transform()  # x in seconds, y as a share of the axes
    for word in spoken:
        axes.plot(
            [word.start, word.start, word.end, word.end],
            [1.02, 1.05, 1.05, 1.02],
            color=LABEL,
            linewidth=1.6,
            clip_on=False,
            transform=edges,
        )
        centre = (word.start + word.end) / 2
        axes.text(centre, 1.07, word.text, color=LABEL, ha="center", va="bottom", transform=edges)
        axes.vlines([word.start, word.end], 0, top, color="white", linewidth=0.8, linestyle="--")
    return axes


def _finish(axes, title: str, x: Sequence[float], ends: Sequence[tuple[str, float, str]]) -> None:
    """Axes from zero with the names (text, y, colour) of its lines beside their ends."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    top = 1.15 * axes.get_ylim()[1]
    margin = 0.12 * (max(x) - min(x)) or 1.0
    axes.set(xticks=x, ylim=(0, top), xlim=(min(x) - margin, max(x) + margin))
    axes.set_xlabel("inserted silence, % of the audio", color=INK)
    axes.grid(axis="y", color="#e3e7ec", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    _frameless(axes)
    last = -np.inf
    for text, y, colour in sorted(ends, key=lambda end: end[1]):
        last = max(y / top, last + 0.055)  # names do not overlap
        style = dict(xycoords="axes fraction", va="center", fontsize=9.5, color=colour)
        axes.annotate(text, (1.01, last), **style)


def _note(axes, text: str, place: tuple[float, float], colour: str, *, ha: str) -> None:
    """Small text above a point."""
    style = dict(xytext=(0, 7), textcoords="offset points", fontsize=8.5, color=colour)
    clear = dict(facecolor="white", edgecolor="none", pad=1)  # the grid does not run through it
    axes.annotate(text, place, ha=ha, va="bottom", bbox=clear, **style)


def _curve(start, end, *, height: float):
    """Points [n, 2] from start to end, raised by `height` in the middle: jumps stay apart."""
    s = np.linspace(0, 1, 17)[:, None]
    line = (1 - s) * np.asarray(start) + s * np.asarray(end)
    return line + height * np.sin(np.pi * s) * np.array([0, 1])


def _axes(width: float, height: float):
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _frameless(axes, *more: str) -> None:
    axes.spines[["top", "right", "left", *more]].set_visible(False)
