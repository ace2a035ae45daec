"""Pictures of the sweep over K and beta: the grid, and plots of one setting."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from . import draw
from .draw import Curve, Names, Values
from .style import BLUE, INK, canvas

Tables = Mapping[str, tuple[np.ndarray, str]]
NARROW = 3.5  # inches, of a plot that stands beside another, or above it on a phone


def heat_maps(
    tables: Tables, sizes: Sequence[int], betas: Values, *, log: Names
) -> Figure:
    """Draw a table over K = sizes and beta for each quantity, colored by size.

    tables: title with unit -> values (sizes, betas), NaN for what stays blank, and the
    format of a number. log: titles whose colors follow the logarithm.
    """
    rows = -(-len(tables) // 2)
    figure, axes = canvas(rows, 2, height=2.7 * rows, sharex=True, sharey=True)
    for axis, (name, (values, form)) in zip(axes.flat, tables.items(), strict=False):
        norm = LogNorm() if name in log else None
        draw.heat(axis, values, form, norm=norm, aspect="auto")
        draw.label(axis, "β", "K", name)
        axis.label_outer()
    for axis in axes.flat[len(tables) :]:
        axis.set_axis_off()
    axes[0, 0].set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
    axes[0, 0].set_yticks(range(len(sizes)), sizes)
    return figure


def usage_by_rank(members: Sequence[Tensor]) -> Figure:
    """Show the uses (K,) of codes in runs: the first filled, others as outlines."""
    size = len(members[0])
    figure, [[axis]] = canvas(height=2.2, width=NARROW)
    for i, counts in enumerate(members):
        look = {"color": INK if i else BLUE, "fill": i == 0, "linewidth": 0.8}
        look["label"] = ("one seed", "other seeds", None)[min(i, 2)]
        axis.stairs(draw.shares(counts), np.arange(size + 1) + 0.5, **look)
    draw.all_alike(axis, size)
    draw.label(axis, "codes, most used first", "share of positions (%)")
    axis.set(xlim=(0.5, size + 0.5), ylim=(0, None))
    draw.legend(axis)
    return figure


def learning_curves(members: Sequence[Curve], limits: tuple[float, float]) -> Figure:
    """Show training errors of seeds, (steps, errors) each, between common limits."""
    figure, [[axis]] = canvas(height=2.2, width=NARROW)
    x, y = "optimizer steps", "training MSE per pixel"
    draw.plot(axis, {"": list(members)}, x, y, marks=0, yscale="log", ylim=limits)
    draw.title(axis, "one line per seed", 8, "right")
    return figure
