"""Pictures of chapter 6: what the codes are used for, and what they draw."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from vqvae_lib.metrics import active_codes, perplexity

from . import draw
from .style import BLUE, FRAME, HEAT, INK, ORANGE, PAPER, WIDTH, canvas

LUMINANCE = torch.tensor([0.2126, 0.7152, 0.0722])  # red, green and blue, to the eye


def usage_histogram(counts: Tensor) -> Figure:
    """Draw a bar per code (K,), unused ones included, from most to least used."""
    used = f"{active_codes(counts)} of {len(counts)} codes used"
    head = f"{used}, perplexity {float(perplexity(counts)):.0f}"
    x, y = "code, from most to least used", "share of positions (%)"
    figure = draw.bar_panels({head: draw.shares(counts)}, x=x, y=y)
    draw.all_alike(figure.axes[0], len(counts))
    draw.legend(figure.axes[0])
    return figure


def code_grid(image: Tensor, colors: Tensor, codes: Tensor) -> Figure:
    """Show an image (C, H, W), cut into cells, beside its codes (h, w) in colors."""
    figure, [[left, right]] = canvas(1, 2, height=3.3)
    draw.show_image(left, image, "an image, cut into cells")
    height, width = image.shape[-2:]
    rows, columns = codes.shape
    look = {"color": ORANGE, "linewidth": 0.5}
    for i in range(1, rows):
        left.axhline(i * height / rows - 0.5, **look)
    for j in range(1, columns):
        left.axvline(j * width / columns - 0.5, **look)
    draw.show_image(right, colors, "its codes, read row by row")
    dark = torch.tensordot(LUMINANCE, colors, dims=1) < 0.45
    for (row, column), k in np.ndenumerate(codes.numpy()):
        color = PAPER if dark[row, column] else INK
        draw.write(right, column, row, k, 9, color=color)
    return figure


def walk(rows: Mapping[str, Tensor], moves: Mapping[str, draw.Curve]) -> Figure:
    """Show walks: rows of images (n, C, H, W), and below how far each step moves.

    moves: row -> (share of the way, change), one value per step.
    """
    n = len(next(iter(rows.values())))
    figure, axes = canvas(len(rows) + 1, n, height=4.3, height_ratios=[1, 1, 2.2])
    for line, images in zip(axes, rows.values(), strict=False):
        for axis, image in zip(line, images, strict=True):
            draw.show_image(axis, image)
    draw.name_rows(axes[:-1, 0], list(rows))
    for axis in axes[-1]:
        axis.remove()
    with rc_context(FRAME):
        axis = figure.add_subplot(axes[-1, 0].get_gridspec()[-1, :])
    x, y = "share of the way", "change per step (% of the path)"
    draw.plot(axis, moves, x, y, marks=0, ylim=(0, None))
    draw.legend(axis)
    return figure


def atlas(patches: Tensor, columns: int, inner: int) -> Figure:
    """Show patches (n, C, H, W) in [0, 1], blank where NaN, `inner` x `inner` outlined.

    C: 1 for gray patches, 3 for color.
    """
    n, channels, height, width = patches.shape
    down, right = height + 1, width + 1
    size = -(-n // columns) * down, columns * right
    sheet = torch.full((channels, *size), torch.nan)
    figure, [[axis]] = canvas(height=WIDTH * size[0] / size[1])
    for i, patch in enumerate(patches):
        top, left = i // columns * down, i % columns * right
        sheet[:, top : top + height, left : left + width] = patch
        if not patch.isnan().any():
            box = (top + (height - inner) / 2, left + (width - inner) / 2, inner)
            draw.outline(axis, box, width=0.4)
    if channels == 3:  # opaque where there is a color
        sheet = torch.cat([sheet.nan_to_num(), (~sheet[:1].isnan()).float()])
    axis.imshow(sheet.movedim(0, -1).squeeze(-1), cmap="gray", vmin=0, vmax=1)
    draw.bare(axis)
    return figure


def geometry(places: Tensor, variances: Tensor, counts: Tensor, ink: Tensor) -> Figure:
    """Show codes (K, 2), uses (K,) as size, ink (K,) as color; variances (D,)."""
    figure, [[left, right]] = canvas(1, 2, height=3.3, width_ratios=[1.5, 1])
    look = {"s": 3 + 1600 * counts / counts.sum(), "c": ink, "cmap": HEAT, "vmin": 0}
    dots = left.scatter(*places.T, edgecolors=INK, linewidths=0.4, **look)
    draw.colorbar(dots, left, "mean brightness drawn, 0 to 1")
    x, y = "first principal direction", "second principal direction"
    draw.label(left, x, y, "The codes")
    share = 100 * variances.cumsum(0) / variances.sum()
    right.plot(range(1, len(share) + 1), share, color=BLUE)
    x, y = "directions kept", "variance of the codes kept (%)"
    draw.label(right, x, y, "Their spread", ylim=(0, 103))
    right.set_xscale("log", base=2)  # most of it happens in the first few
    right.xaxis.set_major_formatter("{x:g}")
    return figure


def near_and_far(distance: Tensor, change: Tensor, noise: float) -> Figure:
    """Show swaps: distance (n,) of codes, squared change (n,); noise: model error."""
    figure, [[axis]] = canvas(height=3.2)
    dots = {"color": BLUE, "markersize": 2.5, "alpha": 0.35, "label": "one swap"}
    axis.plot(distance, change, ".", **dots)
    parts = [part for part in distance.argsort().chunk(12) if len(part)]
    medians = [
        [float(row[part].median()) for part in parts] for row in (distance, change)
    ]
    axis.plot(*medians, "s-", color=ORANGE, markersize=5, label="median of a twelfth")
    draw.level(axis, noise, "reconstruction error in the same pixels")
    x, y = "distance between the two codes", "mean squared change of a pixel"
    least = float(change.quantile(0.02))  # the least 2% would take half the axis
    draw.label(axis, x, y, yscale="log", ylim=(max(1e-9, least), None))
    draw.legend(axis, loc="lower right")
    return figure
