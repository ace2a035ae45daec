"""Pictures of the introduction: an image as a grid of whole numbers, what the numbers cost and draw, and the model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from .style import BLUE, GREEN, GREY, HEAT, INK, ORANGE, PAPER, canvas, show_image

__all__ = ["bit_costs", "change_one", "model", "numbers_over_image"]

CELL = 4  # pixels that one number stands for, in height and in width


def numbers_over_image(x: Tensor, indices: Tensor, x_recon: Tensor) -> Figure:
    """Show an image, the same image dimmed under its numbers, and what the numbers decode to.

    Args:
        x, x_recon: (1, H, W) in [0, 1].
        indices: (H/4, W/4) int64.
    """
    height, width = x.shape[-2:]
    figure, [[left, middle, right]] = canvas(columns=3, height=2.95, width_ratios=[1, 1.75, 1])
    show_image(left, x, f"x: {height} × {width} pixels")
    show_image(middle, 0.4 * x, f"k: {len(indices)} × {len(indices[0])} whole numbers")
    show_image(right, x_recon, "decoded from the numbers alone")
    for i, row in enumerate(indices.tolist()):
        for j, k in enumerate(row):
            corner = (j * CELL - 0.5, i * CELL - 0.5)  # imshow puts pixel centres on whole coordinates
            middle.add_patch(Rectangle(corner, CELL, CELL, fill=False, edgecolor=GREY, linewidth=0.5))
            _write_number(middle, corner[0] + CELL / 2, corner[1] + CELL / 2, k)
    return figure


def bit_costs(costs: dict[str, tuple[float, bool]]) -> Figure:
    """Draw one bar a way of storing an image.

    Args:
        costs: name -> (bits an image, whether every pixel comes back as it was).
    """
    figure, [[axis]] = canvas(height=0.6 + 0.42 * len(costs))
    for place, (bits, lossless) in enumerate(costs.values()):
        style = {"color": BLUE} if lossless else {"color": ORANGE, "hatch": "///", "edgecolor": PAPER}
        axis.barh(place, bits, height=0.62, linewidth=0, **style)
        axis.text(bits, place, f"  {bits:,.0f}", va="center", fontsize=8)
    for label, place in (("every pixel comes back", -1), ("an approximation comes back", -2)):
        style = {"color": BLUE} if place == -1 else {"color": ORANGE, "hatch": "///", "edgecolor": PAPER}
        axis.barh(place, 0, label=label, linewidth=0, **style)
    axis.set_yticks(range(len(costs)), costs)
    axis.set_ylim(len(costs) - 0.5, -0.5)
    axis.set_xlim(0, 1.12 * max(bits for bits, _ in costs.values()))
    axis.set_xlabel("bits an image")
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower right", fontsize=8, frameon=False)
    return figure


def change_one(before: Tensor, after: Tensor, numbers: Sequence[int], position: tuple[int, int]) -> Figure:
    """Show an image whose one number was changed several times, and below where its pixels changed.

    Args:
        before: (1, H, W) in [0, 1], decoded from the true numbers.
        after: (n, 1, H, W), decoded with the number at ``position`` replaced.
        numbers: the true number, then the n that replaced it.
        position: row and column of the number.
    """
    figure, axes = canvas(2, len(after) + 1, height=2.8)
    for j, image in enumerate([before, *after]):
        top, bottom = axes[:, j]
        show_image(top, image, f"true: {numbers[0]}" if j == 0 else f"→ {numbers[j]}")
        bottom.imshow((image - before)[0].abs(), vmin=0, vmax=1, cmap=HEAT)
        bottom.set(xticks=[], yticks=[])
        bottom.grid(False)
        bottom.spines[:].set(visible=True, color=GREY)
        for axis, colour in ((top, ORANGE), (bottom, BLUE)):
            corner = (position[1] * CELL - 0.5, position[0] * CELL - 0.5)
            axis.add_patch(Rectangle(corner, CELL, CELL, fill=False, edgecolor=colour, linewidth=1.2))
    axes[0, 0].set_ylabel("decoded", rotation=0, ha="right", va="center", fontsize=9)
    axes[1, 0].set_ylabel("change", rotation=0, ha="right", va="center", fontsize=9)
    bar = figure.colorbar(axes[1, 0].images[0], ax=axes[1, :].tolist(), shrink=0.9, pad=0.01)
    bar.set_label("brightness")
    bar.outline.set_visible(False)
    return figure


def model(x: Tensor, indices: Tensor, x_recon: Tensor, num_embeddings: int) -> Figure:
    """Draw the whole model: the data's way to the right, each term's gradient back, the objective below.

    Args:
        x, x_recon: (1, H, W) in [0, 1].
        indices: (h, w) int64 in [0, K).
        num_embeddings: K.
    """
    figure, [[axis]] = canvas(height=4.6)
    axis.set(xlim=(0, 100), ylim=(-3, 61), aspect="equal")
    axis.set_axis_off()

    middle = 36
    _picture(axis, x, (1, middle - 5.5), 11, f"$x$\n{x.shape[-2]} × {x.shape[-1]} pixels")
    _part(axis, [(16, 9), (25, 5)], middle, "encoder")
    _vectors(axis, (29.5, middle - 3.5), indices.shape, None, "$z_e$\none vector\na position")
    _vectors(axis, (62, middle - 3.5), indices.shape, indices / num_embeddings, "$z_q$\nthe code\nin its place")
    _part(axis, [(75, 5), (84, 9)], middle, "decoder")
    _picture(axis, x_recon, (88, middle - 5.5), 11, f"$\\hat{{x}}$\n{x.shape[-2]} × {x.shape[-1]} pixels")

    box = FancyBboxPatch((42.5, middle - 7), 14.5, 15, boxstyle="round,pad=0.3", facecolor="#f3efe4", edgecolor=INK)
    axis.add_patch(box)
    axis.text(49.75, middle + 5.6, "nearest code", ha="center", va="center", fontsize=8, weight="bold")
    _cells(axis, (46.25, middle - 3.2), indices / num_embeddings)
    axis.text(
        49.75, middle - 5.4, f"$k$: {len(indices)} × {len(indices[0])} numbers", ha="center", va="center", fontsize=7
    )
    for i in range(16):  # a few codes stand for all K
        axis.add_patch(Rectangle((42.25 + i * 0.95, 50), 0.8, 6, facecolor=HEAT(i / 15), edgecolor=GREY, linewidth=0.4))
    axis.text(49.75, 58.2, f"codebook $E$: $K$ = {num_embeddings} codes $e_k$", ha="center", va="center", fontsize=8)

    for start, end in ((12.5, 15.5), (25.5, 29), (38.4, 42), (57.5, 61.5), (70.9, 74.5), (84.5, 87.5)):
        _arrow(axis, [(start, middle), (end, middle)], INK, "-")
    _arrow(axis, [(49.75, 49.6), (49.75, middle + 8.6)], INK, "-")

    _arrow(axis, [(93.5, 24.2), (93.5, 18), (20.5, 18), (20.5, middle - 7)], BLUE, "-", 2)
    _arrow(axis, [(79.5, 18), (79.5, middle - 7)], BLUE, "-", 2)
    axis.text(49.75, 16.4, "past the choice of a code, copied from $z_q$ to $z_e$: straight through", color=BLUE,
              ha="center", va="top", fontsize=7)  # fmt: skip
    _arrow(axis, [(34.5, middle + 5.6), (34.5, 53), (41.8, 53)], ORANGE, "--", 2)
    _arrow(axis, [(49.75, middle - 7.6), (49.75, 22), (23.2, 22), (23.2, middle - 5.4)], GREEN, ":", 2)

    terms = (
        (20, BLUE, r"$\|x-\hat{x}\|^2$", "reconstruction (solid)", "moves decoder and encoder"),
        (52, ORANGE, r"$\|\mathrm{sg}[z_e]-e_k\|^2$", "codebook (dashed)", "moves the codes to the vectors"),
        (83, GREEN, r"$\beta\,\|z_e-\mathrm{sg}[e_k]\|^2$", "commitment (dotted)", "moves the encoder to the codes"),
    )
    for centre, colour, formula, name, effect in terms:
        axis.text(centre, 8.5, formula, color=colour, ha="center", va="center", fontsize=12)
        axis.text(centre, 3.4, name, color=colour, ha="center", va="center", fontsize=8, weight="bold")
        axis.text(centre, 0, effect, ha="center", va="center", fontsize=8)
    axis.text(3, 8.5, r"$\mathcal{L}\;=$", ha="left", va="center", fontsize=12)
    for plus in (36, 68):
        axis.text(plus, 8.5, "+", ha="center", va="center", fontsize=12)
    return figure


def _write_number(axis: Axes, x: float, y: float, k: int) -> None:
    text = axis.text(x, y, str(k), ha="center", va="center", fontsize=7.5, color="white")
    text.set_path_effects([withStroke(linewidth=1.5, foreground=INK)])  # legible on black and on white strokes


def _arrow(axis: Axes, points: list[tuple[float, float]], colour: str, line: str, width: float = 1.2) -> None:
    """Draw straight lines through ``points``, with a head at the last."""
    for start, end in itertools.pairwise(points[:-1]):
        axis.plot(*zip(start, end, strict=True), color=colour, linestyle=line, linewidth=width, solid_capstyle="round")
    axis.add_patch(
        FancyArrowPatch(
            points[-2], points[-1], arrowstyle="-|>", mutation_scale=9, color=colour, linestyle=line,
            linewidth=width, shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def _label(axis: Axes, x: float, bottom: float, text: str) -> None:
    axis.text(x, bottom - 1.2, text, ha="center", va="top", fontsize=7, linespacing=1.25)


def _picture(axis: Axes, image: Tensor, corner: tuple[float, float], side: float, label: str) -> None:
    left, bottom = corner
    axis.imshow(image[0], extent=(left, left + side, bottom, bottom + side), cmap="gray", vmin=0, vmax=1)
    _label(axis, left + side / 2, bottom, label)


def _part(axis: Axes, ends: list[tuple[float, float]], middle: float, name: str) -> None:
    """Draw a network as a trapezium: ``ends`` are its (x, half height) on the left and on the right."""
    (left, a), (right, b) = ends
    corners = [(left, middle - a), (left, middle + a), (right, middle + b), (right, middle - b)]
    axis.add_patch(Polygon(corners, facecolor="#e4ecf5", edgecolor=INK, linewidth=1))
    axis.text((left + right) / 2, middle, name, ha="center", va="center", fontsize=8, weight="bold")


def _vectors(axis: Axes, corner: tuple[float, float], shape: Sequence[int], shades: Tensor | None, label: str) -> None:
    """Draw a grid of vectors as a stack of sheets, shaded by code where ``shades`` (h, w) in [0, 1] is given."""
    left, bottom = corner
    for depth in (1.6, 0.8, 0.0):
        place = (left + depth, bottom + depth)
        axis.add_patch(Rectangle(place, shape[1], shape[0], facecolor=PAPER, edgecolor=GREY, linewidth=0.6))
    _cells(axis, corner, torch.zeros(*shape) if shades is None else shades)
    _label(axis, left + shape[1] / 2, bottom, label)


def _cells(axis: Axes, corner: tuple[float, float], shades: Tensor) -> None:
    rows = len(shades)
    for i, row in enumerate(shades.tolist()):
        for j, shade in enumerate(row):
            place = (corner[0] + j, corner[1] + rows - 1 - i)
            axis.add_patch(Rectangle(place, 1, 1, facecolor=HEAT(shade), edgecolor=GREY, linewidth=0.3))
