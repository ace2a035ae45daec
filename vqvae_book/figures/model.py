"""Pictures of chapter 4: sizes of the model, and receptive fields."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from . import draw
from .draw import Box, Levels, Names, level, plot
from .style import BLUE, GRAY, INK, ORANGE, canvas


def costs(names: Names, parameters: Sequence[int], products: Sequence[int]) -> Figure:
    """Show each layer's share of all parameters, and of one image's products."""
    figure, [[axis]] = canvas(height=2.8)
    places = np.arange(len(names))
    rows = (("parameters", parameters, BLUE), ("products", products, ORANGE))
    for shift, (name, values, color) in zip((-0.2, 0.2), rows, strict=True):
        look = {"color": color, "label": f"{name}: {sum(values):,}"}
        axis.barh(places + shift, 100 * np.array(values) / sum(values), 0.38, **look)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set_xlabel("share of the whole model (%)")
    axis.grid(axis="y", visible=False)
    draw.legend(axis)
    return figure


def bits(
    grids: Sequence[int], sizes: Sequence[int], marked: tuple[int, int], levels: Levels
) -> Figure:
    """Show bits against K = sizes, a line per grid; marked: (side, K) of this model."""
    figure, [[axis]] = canvas()
    lines = {
        f"grid {side} x {side}": (sizes, side**2 * np.log2(sizes)) for side in grids
    }
    plot(axis, lines, "codes K", "bits per image", marks=6, yscale="log")
    ring = {"markersize": 13, "mfc": "none", "mec": INK, "label": "this model"}
    axis.plot(marked[1], marked[0] ** 2 * np.log2(marked[1]), "o", **ring)
    for name, value in levels.items():
        level(axis, value, color=GRAY)
        draw.beside(axis, name, (sizes[0], value), (0, 3))
    axis.set_xscale("log", base=2)
    draw.legend(axis, loc="lower right")
    return figure


def footprint(before: Tensor, after: Tensor, box: Box) -> Figure:
    """Show two images (C, H, W) and where they differ; `box` is the computed field."""
    figure, [axes] = canvas(1, 3, height=2.6)
    draw.show_image(axes[0], before, "reconstruction")
    draw.show_image(axes[1], after, "one code changed")
    picture = draw.heat(axes[2], (after - before).abs().mean(0), vmin=0)
    axes[2].set(xticks=[], yticks=[])
    draw.title(axes[2], "absolute difference", 8, "center")
    for axis in axes:
        draw.outline(axis, box, BLUE, 1.8)
    draw.colorbar(picture, axes[2], "gray level, 0 to 1", shrink=0.75)
    return figure
