"""Pictures of the introduction: an image as whole numbers, their cost, the model."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from . import draw
from .draw import write
from .style import BLUE, GRAY, GREEN, HEAT, INK, ORANGE, PAPER, canvas

CELL = 4  # pixels that one number stands for, in height and in width


def numbers_over_image(x: Tensor, indices: Tensor, x_recon: Tensor) -> Figure:
    """Show an image (1, H, W), then with its numbers (h, w) on top, then decoded."""
    (height, width), (rows, columns) = x.shape[-2:], indices.shape
    figure, [axes] = canvas(columns=3, height=2.95, width_ratios=[1, 1.75, 1])
    draw.show_image(axes[0], x, f"x: {height} × {width} pixels")
    draw.show_image(axes[1], 0.4 * x, f"k: {rows} × {columns} whole numbers")
    draw.show_image(axes[2], x_recon, "decoded from the numbers alone")
    for (i, j), k in np.ndenumerate(indices.numpy()):
        draw.outline(axes[1], (i * CELL, j * CELL, CELL), GRAY, 0.5)
        center = ((j + 0.5) * CELL - 0.5, (i + 0.5) * CELL - 0.5)
        number = write(axes[1], *center, k, 7.5, color="white")
        number.set_path_effects([withStroke(linewidth=1.5, foreground=INK)])
    return figure


def bit_costs(costs: Mapping[str, tuple[float, bool]]) -> Figure:
    """Show ways to store an image: name -> bits, and whether every pixel comes back."""
    figure, [[axis]] = canvas(height=0.6 + 0.42 * len(costs))
    exact = {"label": "every pixel comes back", "color": BLUE}
    lossy = {"label": "an approximation comes back", "color": ORANGE}
    lossy |= {"hatch": "///", "edgecolor": PAPER}
    for look, kind in ((exact, True), (lossy, False)):
        bits = {i: b for i, (b, kept) in enumerate(costs.values()) if kept == kind}
        bars = axis.barh(bits.keys(), bits.values(), 0.62, linewidth=0, **look)
        axis.bar_label(bars, fmt="{:,.0f}", padding=5, fontsize=8)
    axis.set_yticks(range(len(costs)), costs)
    axis.set_xlim(0, 1.12 * max(bits for bits, _ in costs.values()))
    axis.set(xlabel="bits per image", ylim=(len(costs) - 0.5, -0.5))
    axis.grid(axis="y", visible=False)
    draw.legend(axis, loc="lower right")
    return figure


def change_one(
    before: Tensor, after: Tensor, numbers: Sequence[int], position: tuple[int, int]
) -> Figure:
    """Show an image before (1, H, W) and after (n, 1, H, W) one number is changed.

    numbers: the true one, then the n that replaced it. position: its row and column.
    """
    figure, axes = canvas(2, len(after) + 1, height=3.2)
    box = (position[0] * CELL, position[1] * CELL, CELL)
    for [top, bottom], image, k in zip(axes.T, [before, *after], numbers, strict=True):
        draw.show_image(top, image, f"true: {k}" if image is before else f"→ {k}")
        change = draw.heat(bottom, (image - before)[0].abs(), vmin=0, vmax=1)
        draw.bare(bottom)
        bottom.spines[:].set(visible=True, color=GRAY)
        draw.outline(top, box, ORANGE, 1.2)
        draw.outline(bottom, box, BLUE, 1.2)
    draw.name_rows(axes[:, 0], ["decoded", "change"])
    draw.colorbar(change, axes[1].tolist(), "change", shrink=0.9, pad=0.01)
    return figure


MIDDLE = 36  # height of the data's way in the diagram, whose x goes from 0 to 100
WAY = ((12.5, 15.5), (25.5, 29), (38.4, 42), (57.5, 61.5), (70.9, 74.5), (84.5, 87.5))
BACK = (  # of the gradients
    (BLUE, "-", [(93.5, 24.2), (93.5, 18), (20.5, 18), (20.5, 29)]),
    (BLUE, "-", [(79.5, 18), (79.5, 29)]),
    (ORANGE, "--", [(34.5, 41.6), (34.5, 53), (41.8, 53)]),
    (GREEN, ":", [(49.75, 28.4), (49.75, 22), (23.2, 22), (23.2, 30.6)]),
)
PAST = "past the choice of a code, copied from $z_q$ to $z_e$: straight through"
TERMS = {  # formula: name, and what it moves
    r"$\|x-\hat{x}\|^2$": ("reconstruction", "decoder and encoder"),
    r"$\|\mathrm{sg}[z_e]-e_k\|^2$": ("codebook", "the codes to the vectors"),
    r"$\beta\,\|z_e-\mathrm{sg}[e_k]\|^2$": ("commitment", "the encoder to the codes"),
}


def model(x: Tensor, indices: Tensor, x_recon: Tensor, num_embeddings: int) -> Figure:
    """Draw the model for x, x_recon (1, H, W) and indices (h, w) of num_embeddings."""
    figure, [[axis]] = canvas(height=4.6)
    axis.set(xlim=(0, 100), ylim=(-3, 61), aspect="equal")
    axis.set_axis_off()
    shades, (rows, columns) = indices / num_embeddings, indices.shape
    for image, left, name in ((x, 1, "$x$"), (x_recon, 88, r"$\hat{x}$")):
        extent = (left, left + 11, MIDDLE - 5.5, MIDDLE + 5.5)
        axis.imshow(image[0], extent=extent, cmap="gray", vmin=0, vmax=1)
        size = f"{x.shape[-2]} × {x.shape[-1]} pixels"
        _note(axis, left + 5.5, MIDDLE - 5.5, f"{name}\n{size}")
    _network(axis, (16, 9), (25, 5), "encoder")
    _network(axis, (75, 5), (84, 9), "decoder")
    _vectors(axis, 29.5, 0 * shades, "$z_e$\none vector\nper position")
    _vectors(axis, 62, shades, "$z_q$\nthe code\nin its place")

    look = {"boxstyle": "round,pad=0.3", "facecolor": "#f3efe4", "edgecolor": INK}
    axis.add_patch(FancyBboxPatch((42.5, MIDDLE - 7), 14.5, 15, **look))
    write(axis, 49.75, MIDDLE + 5.6, "nearest code", weight="bold")
    _cells(axis, 46.25, MIDDLE - 3.2, shades)
    write(axis, 49.75, MIDDLE - 5.4, f"$k$: {rows} × {columns} numbers", 7)
    for i in range(16):  # a few codes stand for all K
        _box(axis, (42.25 + 0.95 * i, 50), 0.8, 6, HEAT(i / 15), 0.4)
    write(axis, 49.75, 58.2, f"codebook $E$: $K$ = {num_embeddings} codes $e_k$")

    for start, end in WAY:
        _arrow(axis, [(start, MIDDLE), (end, MIDDLE)])
    _arrow(axis, [(49.75, 49.6), (49.75, MIDDLE + 8.6)])
    for color, line, points in BACK:
        _arrow(axis, points, color, line, 2)
    write(axis, 49.75, 15.4, PAST, 7, color=BLUE)
    places = ((20, BLUE, "solid"), (52, ORANGE, "dashed"), (83, GREEN, "dotted"))
    for (x, color, line), (formula, term) in zip(places, TERMS.items(), strict=True):
        write(axis, x, 8.5, formula, 12, color=color)
        write(axis, x, 3.4, f"{term[0]} ({line})", color=color, weight="bold")
        write(axis, x, 0, f"moves {term[1]}")
    for place, sign in ((6, r"$\mathcal{L}\;=$"), (36, "+"), (68, "+")):
        write(axis, place, 8.5, sign, 12)
    return figure


def _arrow(axis: Axes, points, color=INK, line="-", width=1.2) -> None:
    """Draw straight lines through points, with a head at the last."""
    look = {"color": color, "linestyle": line, "linewidth": width}
    for pair in itertools.pairwise(points[:-1]):
        axis.plot(*zip(*pair, strict=True), solid_capstyle="round", **look)
    head = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
    axis.add_patch(FancyArrowPatch(*points[-2:], **head, **look))


def _network(axis: Axes, left, right, name: str) -> None:
    """Draw a trapezium; each end is (x, half the height)."""
    (x0, a), (x1, b) = left, right
    corners = [(x0, MIDDLE - a), (x0, MIDDLE + a), (x1, MIDDLE + b), (x1, MIDDLE - b)]
    axis.add_patch(Polygon(corners, facecolor="#e4ecf5", edgecolor=INK, linewidth=1))
    write(axis, (x0 + x1) / 2, MIDDLE, name, weight="bold")


def _vectors(axis: Axes, left: float, shades: Tensor, text: str) -> None:
    """Draw a grid of vectors as a stack of sheets, the front one shaded (h, w)."""
    (rows, columns), bottom = shades.shape, MIDDLE - 3.5
    for depth in (1.6, 0.8, 0.0):
        _box(axis, (left + depth, bottom + depth), columns, rows, PAPER, 0.6)
    _cells(axis, left, bottom, shades)
    _note(axis, left + columns / 2, bottom, text)


def _note(axis: Axes, x: float, bottom: float, text: str) -> None:
    look = {"ha": "center", "va": "top", "fontsize": 7, "linespacing": 1.25}
    axis.text(x, bottom - 1.2, text, **look)


def _cells(axis: Axes, left: float, bottom: float, shades: Tensor) -> None:
    for (i, j), shade in np.ndenumerate(shades.flip(0).numpy()):
        _box(axis, (left + j, bottom + i), 1, 1, HEAT(float(shade)), 0.3)


def _box(axis: Axes, corner, width: float, height: float, color, line: float) -> None:
    look = {"facecolor": color, "edgecolor": GRAY, "linewidth": line}
    axis.add_patch(Rectangle(corner, width, height, **look))
