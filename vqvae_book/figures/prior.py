"""Pictures of chapter 8: masks and what they let through, prices of codes, samples."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from . import draw
from .draw import Names
from .style import BLUE, GRAY, GREEN, INK, ORANGE, PAPER, WIDTH, canvas

LATER = "#e3e6ea"
STATES = {"its own and later": LATER, "earlier, but not seen": ORANGE, "seen": BLUE}


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


def two_stacks(position: tuple[int, int] = (2, 2), side: int = 4) -> Figure:
    """Draw how a grid of side x side codes, numbered from 1, runs through both stacks.

    Their kernels, of size 3, are outlined where they lie for a position, counted from
    0: neither covers that position's own number or a later one.
    """
    grid = torch.arange(1, side * side + 1).view(side, side)
    row, column = position
    figure, [[axis]] = canvas(height=3.7)
    axis.set(xlim=(0, 100), ylim=(0, 50), aspect="equal")
    axis.set_axis_off()
    asked = grid[position]
    _numbers(axis, 1, 17, grid, (row, column, 1, 1), INK)
    draw.write(axis, 8, 13, f"codes; which\nis number {asked}?")
    stacks = {  # name: height, moved grid, kernel, color, operation
        "vertical, down by one": (
            (29, F.pad(grid, (0, 0, 1, -1)), (row - 1, column - 1, 2, 3)),
            (BLUE, "2 × 3\ngate"),
        ),
        "horizontal, right by one": (
            (4, F.pad(grid, (1, -1)), (row, column - 1, 1, 2)),
            (ORANGE, "1 × 2\n+ link\ngate, + h"),
        ),
    }
    for name, ((bottom, moved, kernel), (color, work)) in stacks.items():
        middle = bottom + 7
        look = {"color": color, "fontsize": 8, "weight": "bold"}
        axis.text(25, bottom + 15.5, name, **look)
        _arrow(axis, (16, 25), (24, middle), color)
        _numbers(axis, 25, bottom, moved, kernel, color)
        _arrow(axis, (40, middle), (46, middle), color)
        for left in (46, 58, 74):
            corner = (left, bottom + 2)
            look = {"facecolor": PAPER, "edgecolor": color, "linewidth": 1.4}
            axis.add_patch(Rectangle(corner, 9, 10, **look))
            draw.write(axis, left + 4.5, middle, work, 7.5)
        _arrow(axis, (55, middle), (58, middle), color)
        draw.write(axis, 70.5, middle, "…", 12, color=color)
    for left in (50.5, 62.5, 78.5):
        _arrow(axis, (left, 31), (left, 16), GREEN)
    draw.write(axis, 70.5, 24, "links, 1 × 1", color=GREEN)
    _arrow(axis, (83, 11), (89, 11), ORANGE)
    draw.write(axis, 95, 11, f"logits of\nnumber {asked}")
    return figure


def _numbers(axis: Axes, left: float, bottom: float, grid: Tensor, box, color) -> None:
    """Draw a grid, 0 as blank, and a frame around (row, column, height, width)."""
    unit, side = 3.5, len(grid)
    for (i, j), number in np.ndenumerate(grid.numpy()):
        x, y = left + unit * j, bottom + unit * (side - 1 - i)
        look = {"facecolor": PAPER if number else LATER, "edgecolor": GRAY}
        axis.add_patch(Rectangle((x, y), unit, unit, linewidth=0.6, **look))
        if number:
            draw.write(axis, x + unit / 2, y + unit / 2, number, 7)
    row, column, height, width = box
    corner = (left + unit * column, bottom + unit * (side - row - height))
    look = {"fill": False, "edgecolor": color, "linewidth": 2.2, "zorder": 4}
    axis.add_patch(Rectangle(corner, unit * width, unit * height, **look))


def _arrow(axis: Axes, start, end, color: str) -> None:
    look = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=look)


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


def completions(rows: Sequence[Tensor], labels: Names, given: int, first=0) -> Figure:
    """Draw an `image_grid` with a line below the given pixels, from row first."""
    figure = draw.image_grid(rows, labels)
    for axis in figure.axes[first * len(rows[0]) :]:
        axis.axhline(given - 0.5, color=ORANGE, linewidth=1)
    return figure


def making(
    decode: Callable[[Tensor], Tensor], grids: Tensor, blank: Tensor
) -> list[Tensor]:
    """Show grids (n, h, w) being drawn: h w + 1 frames (n, 3, H, W), for a slider.

    Codes not drawn yet are decoded as `blank` (1, h, w) and tinted blue; the code
    drawn last is tinted orange. decode: (n, h, w) -> (n, 1, H, W).
    """
    order = torch.arange(blank.numel()).view(blank.shape)
    size = decode(blank).shape[-2:]
    colors = [torch.tensor(to_rgb(name))[:, None, None] for name in (BLUE, ORANGE)]
    frames = []
    for i in range(order.numel() + 1):
        images = decode(torch.where(order < i, grids, blank)).expand(-1, 3, -1, -1)
        for color, cells in zip(colors, (order >= i, order == i - 1), strict=True):
            images = images.lerp(color, 0.5 * F.interpolate(cells[None].float(), size))
        frames.append(images)
    return frames
