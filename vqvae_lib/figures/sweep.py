"""Pictures of the sweep over K and beta (chapter 5): the whole grid, and the two plots of one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from .style import BLUE, HEAT, INK, ORANGE, PAPER, canvas

__all__ = ["heat_maps", "learning_curves", "usage_by_rank"]

NARROW = 3.5  # inches, the width of a plot that stands beside another or, on a narrow screen, above it


def heat_maps(
    tables: Mapping[str, tuple[np.ndarray, str]], sizes: Sequence[int], betas: Sequence[float], *, log: Sequence[str]
) -> Figure:
    """Draw a table of numbers over K and beta for each quantity, coloured by size.

    Args:
        tables: title with unit -> (values (len(sizes), len(betas)), format of a number); NaN stays blank.
        sizes, betas: K of the rows, beta of the columns.
        log: titles whose colours follow the logarithm.
    """
    rows = -(-len(tables) // 2)
    figure, axes = canvas(rows, 2, height=2.7 * rows, sharex=True, sharey=True)
    for axis, (title, (values, form)) in zip(axes.flat, tables.items(), strict=False):
        picture = axis.imshow(values, cmap=HEAT, norm=LogNorm() if title in log else None, aspect="auto")
        axis.set_title(title)
        axis.grid(False)
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = sum(picture.cmap(picture.norm(value))[:3]) < 1.5
                axis.text(j, i, format(value, form), ha="center", va="center", fontsize=7, color=PAPER if dark else INK)
    for axis in axes.flat[len(tables) :]:
        axis.set_axis_off()
    axes[0, 0].set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
    axes[0, 0].set_yticks(range(len(sizes)), sizes)
    for axis in axes[:, 0]:
        axis.set_ylabel("K")
    for axis in axes[-1]:
        axis.set_xlabel("β")
    return figure


def usage_by_rank(members: Sequence[Tensor]) -> Figure:
    """Draw how often codes are used, from most to least used: the first run filled, the others as outlines.

    Args:
        members: counts (K,) of runs with the same K, unused codes included.
    """
    size = len(members[0])
    figure, [[axis]] = canvas(height=2.2, width=NARROW)
    edges = np.arange(size + 1) + 0.5
    for i, counts in enumerate(members):
        share = (counts.double() / counts.sum() * 100).sort(descending=True).values.numpy()
        label = {0: "one seed", 1: "other seeds"}.get(i)
        axis.stairs(share, edges, fill=i == 0, color=BLUE if i == 0 else INK, linewidth=0.8, label=label)
    axis.axhline(100 / size, color=ORANGE, linestyle="--", linewidth=1.2, label=f"all alike: {100 / size:.2g} %")
    axis.set(xlim=(0.5, size + 0.5), ylim=(0, None), xlabel="codes, most used first", ylabel="share of positions (%)")
    axis.legend()
    return figure


def learning_curves(members: Sequence[tuple[Sequence[float], Sequence[float]]], limits: tuple[float, float]) -> Figure:
    """Draw the training error of runs that differ in their seed only.

    Args:
        members: optimiser steps and reconstruction error of each run.
        limits: ends of the vertical axis, the same for all pictures that are to be compared.
    """
    figure, [[axis]] = canvas(height=2.2, width=NARROW)
    for steps, values in members:
        axis.plot(steps, values, color=BLUE, linewidth=1.1)
    axis.set(yscale="log", ylim=limits, xlabel="optimiser steps", ylabel="training MSE a pixel")
    axis.set_title("one line a seed", fontsize=8, loc="right")
    return figure
