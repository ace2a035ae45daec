"""Pictures of the prior (chapter 6): masks and what they let through, prices of codes, and judged samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from .style import BLUE, COLOURS, HEAT, INK, MARKERS, ORANGE, PAPER, WIDTH, canvas, image_grid, legend_below, show_image

__all__ = [
    "by_class",
    "causality",
    "choices",
    "completions",
    "fields",
    "learning",
    "masks",
    "prices",
    "quality",
    "surprise",
]

LATER = "#e3e6ea"
STATES = ListedColormap([LATER, ORANGE, BLUE])  # later; earlier, but not seen; seen
MEANINGS = {"seen": BLUE, "earlier, but never seen": ORANGE, "its own and later": LATER}


def masks(panels: Mapping[str, Tensor]) -> Figure:
    """Draw kernels as grids: 1 where a weight is kept, 0 where it is not, a frame around the position itself.

    Args:
        panels: title -> (side, side) of 0 and 1, the position itself in the middle.
    """
    figure, [axes] = canvas(1, len(panels), height=2.3)
    for axis, (title, mask) in zip(axes, panels.items(), strict=True):
        _cells(axis, mask, ListedColormap([LATER, BLUE]), 1)
        for (i, j), kept in np.ndenumerate(mask.int().numpy()):
            axis.text(j, i, kept, ha="center", va="center", fontsize=9, color="white" if kept else INK)
        _frame(axis, len(mask) // 2, len(mask) // 2)
        axis.set_title(title, fontsize=9, loc="center")
    return figure


def fields(panels: Mapping[str, Tensor], position: tuple[int, int]) -> Figure:
    """Draw which cells of a grid the output at one position depends on.

    Args:
        panels: title -> (h, w) bool.
        position: (row, column) of the output, framed.
    """
    figure, [axes] = canvas(1, len(panels), height=2.4)
    for axis, (title, seen) in zip(axes, panels.items(), strict=True):
        height, width = seen.shape
        earlier = (torch.arange(height * width) < position[0] * width + position[1]).view(height, width)
        _cells(axis, torch.where(seen, 2, earlier.long()), STATES, 2)
        _frame(axis, *position)
        axis.set_title(title, fontsize=9, loc="center")
    _name_states(figure)
    return figure


def causality(panels: Mapping[str, Tensor]) -> Figure:
    """Draw, for every position of the output, which positions of the input it depends on.

    Args:
        panels: title -> (n, n) bool: row i holds what output i sees, in reading order.
    """
    figure, [axes] = canvas(1, len(panels), height=3.6)
    for axis, (title, sees) in zip(axes, panels.items(), strict=True):
        earlier = torch.ones_like(sees).tril(-1)
        axis.imshow(torch.where(sees, 2, earlier.long()), cmap=STATES, vmin=0, vmax=2)
        axis.set(title=title, xlabel="position in the input, in reading order", ylabel="position in the output")
        axis.grid(False)
    _name_states(figure)
    return figure


def learning(steps: Sequence[float], bits: Sequence[float], levels: Mapping[str, float]) -> Figure:
    """Draw what a code costs along training, against levels that hold all the way.

    Args:
        steps: optimiser steps.
        bits: bits a code at each.
        levels: name -> bits a code.
    """
    figure, [[axis]] = canvas(height=3.0)
    axis.plot(steps, bits, color=BLUE, label="learned prior, in training")
    for i, (name, level) in enumerate(levels.items(), start=1):
        style = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))[(i - 1) % 4]
        axis.axhline(level, color=COLOURS[i], linestyle=style, linewidth=1.3, label=name)
    axis.set(xlabel="optimiser steps", ylabel="bits a code", ylim=(0, 1.1 * max(*bits, *levels.values())))
    legend_below(axis, columns=3)
    return figure


def surprise(images: Tensor, bits: Tensor) -> Figure:
    """Show images above what each of their codes costs, all on one scale of colours.

    Args:
        images: (n, C, H, W) in [0, 1].
        bits: (n, h, w) bits of each code.
    """
    n = len(images)
    figure, axes = canvas(2, n, height=2 * (WIDTH - 0.8) / n + 0.3)
    for j in range(n):
        show_image(axes[0, j], images[j])
        picture = axes[1, j].imshow(bits[j], cmap=HEAT, vmin=0, vmax=float(bits.max()))
        axes[1, j].set(xticks=[], yticks=[])
        axes[1, j].set_xlabel(f"{float(bits[j].sum()):.0f} bits", fontsize=8)
        axes[1, j].grid(False)
    for axis, name in zip(axes[:, 0], ("decoded", "its codes"), strict=True):
        axis.set_ylabel(name, fontsize=9)
    figure.colorbar(picture, ax=axes, label="bits a code", shrink=0.8)
    return figure


def choices(panels: Mapping[str, Tensor]) -> Figure:
    """Draw the distributions that one code may be drawn from: title -> (K,) probabilities, in the same order of codes.

    Codes are ranked by the first panel's probabilities.
    """
    order = next(iter(panels.values())).argsort(descending=True)
    figure, [axes] = canvas(1, len(panels), height=2.3, sharey=True)
    for axis, (title, p) in zip(axes, panels.items(), strict=True):
        axis.bar(range(len(p)), 100 * p[order], width=1.0, color=BLUE, linewidth=0)
        axis.set(xlabel="code, by rank", xlim=(-0.7, len(p) - 0.3))
        axis.set_title(title, fontsize=9)
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("probability (%)")
    return figure


def prices(
    points: Mapping[int, tuple[Mapping[str, Sequence[float]], Sequence[float]]],
    others: Mapping[str, tuple[float, float]],
) -> Figure:
    """Draw error against rate for codebooks of several sizes, each set of codes at several prices.

    Args:
        points: K -> (price's name -> bits an image, error), each one number a seed; lines span the seeds' range.
        others: name -> (bits, error) of models to compare with.
    """
    figure, [[axis]] = canvas(height=3.8)
    names = list(next(iter(points.values()))[0])
    for i, name in enumerate(names):
        bits, errors = [rows[name] for rows, _ in points.values()], [error for _, error in points.values()]
        _through_means(axis, bits, errors, i, name)
    for size, (rows, errors) in points.items():
        place = (float(np.mean(rows[names[0]])), float(np.mean(errors)))
        axis.annotate(f"K = {size}", place, xytext=(5, 5), textcoords="offset points", fontsize=8)
    for i, (name, (bits, error)) in enumerate(others.items(), start=len(names)):
        axis.plot(bits, error, MARKERS[i], color=COLOURS[i], markersize=6, label=name)
    axis.set(
        xlabel="rate (bits an image)", ylabel="error (share of the pixels' variance)", yscale="log", xlim=(0, None)
    )
    axis.yaxis.set_major_formatter("{x:.3f}")
    axis.yaxis.set_minor_formatter("{x:.3f}")
    axis.margins(x=0.1)
    axis.legend()
    return figure


def quality(points: Mapping[int, Mapping[str, Sequence[float]]], floor: float, y: str) -> Figure:
    """Draw a distance from real images against the number of codes, a line for each kind of image.

    Args:
        points: K -> kind -> one number a seed.
        floor: the distance of real images from other real ones.
        y: what the distance is.
    """
    figure, [[axis]] = canvas(height=3.3)
    sizes = list(points)
    for i, name in enumerate(next(iter(points.values()))):
        _through_means(axis, [[size] for size in sizes], [points[size][name] for size in sizes], i, name)
    axis.axhline(floor, color=INK, linestyle="--", linewidth=1.2, label="real images from other real ones")
    axis.set(xlabel="number of codes K", ylabel=y, yscale="log")
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    legend_below(axis, columns=2)
    return figure


def by_class(shares: Sequence[Sequence[float]], level: float, level_name: str) -> Figure:
    """Draw the share of right ones in each class: one list a seed, each a number in [0, 1] a class.

    Args:
        shares: what to draw; a dot is a mean, a line the range over seeds.
        level: a share to compare with.
        level_name: what it is.
    """
    values = 100 * np.array(shares)  # (seeds, classes)
    classes = range(values.shape[1])
    figure, [[axis]] = canvas(height=2.8)
    several = len(values) > 1
    if several:
        axis.vlines(classes, values.min(0), values.max(0), color=INK, linewidth=2, label="range over seeds")
    label = "samples, mean over seeds" if several else "samples"
    axis.plot(classes, values.mean(0), MARKERS[0], color=BLUE, markersize=7, label=label)
    axis.axhline(100 * level, color=ORANGE, linestyle="--", linewidth=1.2, label=level_name)
    axis.set(xlabel="class asked for", ylabel="recognised as it (%)")
    axis.set_ylim(min(values.min(), 100 * level) - 3, 100.5)
    axis.set_xticks(classes)
    axis.grid(axis="x", visible=False)
    legend_below(axis, columns=3)
    return figure


def completions(rows: Sequence[Tensor], labels: Sequence[str], given: int, first: int = 0) -> Figure:
    """Draw rows of images as :func:`image_grid` does, with a line under the part that was given.

    Args:
        rows, labels: as there.
        given: rows of pixels that were given.
        first: the first row of images that gets a line.
    """
    figure = image_grid(rows, labels)
    for axis in figure.axes[first * len(rows[0]) :]:
        axis.axhline(given - 0.5, color=ORANGE, linewidth=1)
    return figure


def _through_means(axis: Axes, xs: Sequence[Sequence[float]], ys: Sequence[Sequence[float]], i: int, name: str) -> None:
    """Draw the i-th line of a plot through the seeds' means, with their range in both directions at each point."""
    x, y = ([float(np.mean(values)) for values in lists] for lists in (xs, ys))
    axis.plot(x, y, color=COLOURS[i], marker=MARKERS[i], markersize=5, label=name)
    axis.vlines(x, [min(v) for v in ys], [max(v) for v in ys], color=INK, linewidth=1.6, zorder=3)
    axis.hlines(y, [min(v) for v in xs], [max(v) for v in xs], color=INK, linewidth=1.6, zorder=3)


def _cells(axis: Axes, values: Tensor, colours: ListedColormap, top: int) -> None:
    height, width = values.shape
    axis.imshow(values, cmap=colours, vmin=0, vmax=top)
    axis.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, color=PAPER, linewidth=1.5)
    axis.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, color=PAPER, linewidth=1.5)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)


def _frame(axis: Axes, row: int, column: int) -> None:
    axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=2, zorder=4))


def _name_states(figure: Figure) -> None:
    handles = [Patch(color=colour, label=name) for name, colour in MEANINGS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
