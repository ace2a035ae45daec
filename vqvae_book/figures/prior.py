"""Pictures of chapter 8: masks and what they let through, prices of codes, samples."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from . import draw
from .draw import Names, Values
from .style import BLUE, INK, ORANGE, PAPER, WIDTH, canvas

LATER = "#e3e6ea"
STATES = {"its own and later": LATER, "earlier, but never seen": ORANGE, "seen": BLUE}


def masks(panels: Mapping[str, Tensor]) -> Figure:
    """Draw kernels (side, side) of 0 and 1, with a frame around the middle."""
    figure, [axes] = canvas(1, len(panels), height=2.3)
    for axis, (name, mask) in zip(axes, panels.items(), strict=True):
        _cells(axis, mask, [LATER, BLUE], (len(mask) // 2, len(mask) // 2))
        for (i, j), kept in np.ndenumerate(mask.int().numpy()):
            draw.write(axis, j, i, kept, 9, color="white" if kept else INK)
        draw.title(axis, name, 9, "center")
    return figure


def fields(panels: Mapping[str, Tensor], position: tuple[int, int]) -> Figure:
    """Show which cells (h, w) bool of a grid the output at one position depends on."""
    figure, [axes] = canvas(1, len(panels), height=2.4)
    for axis, (name, seen) in zip(axes, panels.items(), strict=True):
        place = position[0] * seen.shape[1] + position[1]
        earlier = torch.arange(seen.numel()).view(seen.shape) < place
        states = torch.where(seen, 2, earlier.long())
        _cells(axis, states, list(STATES.values()), position)
        draw.title(axis, name, 9, "center")
    _name_states(figure)
    return figure


def causality(panels: Mapping[str, Tensor]) -> Figure:
    """Show which inputs each output depends on: (n, n) bool, a row per output."""
    figure, [axes] = canvas(1, len(panels), height=3.6)
    colors = ListedColormap(list(STATES.values()))
    for axis, (name, sees) in zip(axes, panels.items(), strict=True):
        earlier = torch.ones_like(sees).tril(-1).long()
        states = torch.where(sees, 2, earlier)
        draw.heat(axis, states, cmap=colors, vmin=0, vmax=2)
        x, y = "position in the input, in reading order", "position in the output"
        draw.label(axis, x, y, name)
    _name_states(figure)
    return figure


def _cells(axis: Axes, states: Tensor, colors: Sequence[str], framed) -> None:
    """Draw cells colored by their states (h, w), one (row, column) framed."""
    (height, width), top = states.shape, len(colors) - 1
    axis.imshow(states, cmap=ListedColormap(colors), vmin=0, vmax=top)
    gap = {"color": PAPER, "linewidth": 1.5}
    axis.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, **gap)
    axis.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, **gap)
    draw.bare(axis)
    draw.outline(axis, (*framed, 1), INK, 2)


def _name_states(figure: Figure) -> None:
    handles = [Patch(color=STATES[name], label=name) for name in reversed(STATES)]
    look = {"ncols": 3, "fontsize": 8, "frameon": False}
    figure.legend(handles=handles, loc="outside lower center", **look)


def surprise(images: Tensor, bits: Tensor) -> Figure:
    """Show images (n, C, H, W) above the bits (n, h, w) that their codes cost."""
    n = len(images)
    figure, axes = canvas(2, n, height=2 * (WIDTH - 0.8) / n + 0.3)
    for (top, bottom), image, cost in zip(axes.T, images, bits, strict=True):
        draw.show_image(top, image)
        picture = draw.heat(bottom, cost, vmin=0, vmax=float(bits.max()))
        bottom.set(xticks=[], yticks=[])
        bottom.set_xlabel(f"{float(cost.sum()):.0f} bits", fontsize=8)
    axes[0, 0].set_ylabel("decoded")
    axes[1, 0].set_ylabel("its codes")
    draw.colorbar(picture, axes, "bits per code", shrink=0.8)
    return figure


def by_class(shares: Sequence[Values], level: float, name: str) -> Figure:
    """Show the shares (seeds, classes) of samples recognized, beside a named level."""
    values = 100 * np.array(shares)
    classes = range(values.shape[1])
    figure, [[axis]] = canvas(height=2.8)
    bars = {"color": INK, "linewidth": 2, "label": "range over seeds"}
    axis.vlines(classes, values.min(0), values.max(0), **bars)
    mean = {"color": BLUE, "markersize": 7, "label": "samples, mean over seeds"}
    axis.plot(classes, values.mean(0), "o", **mean)
    draw.level(axis, 100 * level, name, ORANGE)
    low = min(values.min(), 100 * level) - 3
    x, y = "class asked for", "recognized as it (%)"
    draw.label(axis, x, y, xticks=classes, ylim=(low, 100.5))
    axis.grid(axis="x", visible=False)
    draw.legend_below(figure, columns=3)
    return figure


def completions(rows: Sequence[Tensor], labels: Names, given: int, first=0) -> Figure:
    """Draw an `image_grid` with a line below the given pixels, from row first."""
    figure = draw.image_grid(rows, labels)
    for axis in figure.axes[first * len(rows[0]) :]:
        axis.axhline(given - 0.5, color=ORANGE, linewidth=1)
    return figure
