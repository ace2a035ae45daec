"""Pictures of what a codebook does (chapter 5, and the description's two figures)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..analysis import active_codes, collect_indices, usage_counts
from ..quantizer import perplexity
from ..training import VQVAETrainer
from .style import BLUE, COLOURS, GREY, HEAT, INK, MARKERS, ORANGE, WIDTH, canvas, image_grid, show_image

LUMINANCE = torch.tensor([0.2126, 0.7152, 0.0722])  # what red, green and blue do to the eye's brightness

__all__ = [
    "atlas",
    "code_maps",
    "densities",
    "geometry",
    "maps",
    "near_and_far",
    "rate_distortion",
    "usage_histogram",
    "visualize_codebook_usage",
    "visualize_reconstruction",
    "walk",
]


def visualize_reconstruction(trainer: VQVAETrainer, dataset: torch.utils.data.Dataset, n: int = 8) -> Figure:
    """Show the first ``n`` images of ``dataset`` above their reconstructions, both rows named."""
    x = torch.stack([dataset[i][0] for i in range(n)])
    x_recon, _ = trainer.reconstruct(x)
    return image_grid([x, x_recon], ["original", "reconstruction"])


def visualize_codebook_usage(trainer: VQVAETrainer, loader: Iterable[tuple[Tensor, Tensor]]) -> Figure:
    """Show how often each code of the codebook is used over a whole pass of ``loader``."""
    indices = collect_indices(trainer.model, loader)
    return usage_histogram(usage_counts(indices, trainer.config.num_embeddings))


def usage_histogram(counts: Tensor, *, ranked: bool = False) -> Figure:
    """Draw one bar a code, unused codes included, beside the level at which all would be used alike.

    Args:
        counts: (K,) uses.
        ranked: order codes from most to least used, instead of by index.
    """
    size, used = len(counts), active_codes(counts)
    share = counts.double() / counts.sum() * 100
    share = (share.sort(descending=True).values if ranked else share).numpy()
    figure, [[axis]] = canvas(height=2.6)
    axis.bar(range(size), share, width=1.0, color=BLUE, linewidth=0)
    axis.axhline(100 / size, color=ORANGE, linestyle="--", linewidth=1.2, label=f"all alike: {100 / size:.2g} %")
    axis.set_xlim(-0.5, size - 0.5)
    axis.set_xlabel("code, from most to least used" if ranked else "code index")
    axis.set_ylabel("share of positions (%)")
    axis.set_title(f"{used} of {size} codes used, perplexity {float(perplexity(counts)):.0f}")
    axis.legend()
    axis.grid(axis="x", visible=False)
    if used < size and not ranked:
        unused = (counts == 0).nonzero().flatten()
        axis.plot(unused, torch.zeros(len(unused)), "|", color=GREY, markersize=4, clip_on=False)
    return figure


def maps(panels: Mapping[str, Tensor], *, label: str, inner: float = 0.0) -> Figure:
    """Draw small square maps side by side, all on one colour scale.

    Args:
        panels: title -> (height, width) non-negative values.
        label: what the colours mean, with unit.
        inner: side of a square to outline at the centre, in cells; 0 for none.
    """
    figure, [axes] = canvas(1, len(panels), height=2.7)
    top = max(float(values.max()) for values in panels.values())
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        picture = axis.imshow(values, cmap=HEAT, vmin=0, vmax=top)
        axis.set(title=title, xlabel="column", ylabel="row")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(False)
        if inner:
            corner = (len(values) - inner) / 2 - 0.5
            axis.add_patch(Rectangle((corner, corner), inner, inner, fill=False, edgecolor=BLUE, linewidth=1.6))
    figure.colorbar(picture, ax=axes, label=label)
    return figure


def code_maps(images: Tensor, colours: Tensor, x_recon: Tensor, numbers: Tensor) -> Figure:
    """Show images above the grids of their codes and above what the decoder makes of these.

    Args:
        images: (n, C, H, W) in [0, 1].
        colours: (n, 3, h, w) in [0, 1], one colour a code.
        x_recon: (n, C, H, W).
        numbers: (n, h, w) indices, written into the cells.
    """
    n = len(images)
    figure, axes = canvas(3, n, height=WIDTH / n * 3)
    for row, pictures in enumerate((images, colours, x_recon)):
        for axis, picture in zip(axes[row], pictures, strict=True):
            show_image(axis, picture)
    for axis, grid, cell in zip(axes[1], numbers, colours, strict=True):
        dark = torch.tensordot(LUMINANCE, cell, dims=1) < 0.45
        for (i, j), k in np.ndenumerate(grid.numpy()):
            axis.text(j, i, k, ha="center", va="center", fontsize=4.5, color="white" if dark[i, j] else INK)
    for axis, name in zip(axes[:, 0], ("image", "codes", "decoded"), strict=True):
        axis.set_ylabel(name, fontsize=9)
    return figure


def atlas(patches: Tensor, columns: int, inner: int) -> Figure:
    """Lay patches (n, height, width) in [0, 1] out in one sheet, the middle of each outlined.

    Args:
        patches: what to show; NaN stays blank.
        columns: patches a row.
        inner: side of the outlined square, in pixels.
    """
    n, height, width = patches.shape
    rows, gap = -(-n // columns), 1
    sheet = torch.full((rows * (height + gap), columns * (width + gap)), torch.nan)
    figure, [[axis]] = canvas(height=WIDTH * sheet.shape[0] / sheet.shape[1])
    for i, patch in enumerate(patches):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = patch
        if not patch.isnan().any():
            corner = (left + (width - inner) / 2 - 0.5, top + (height - inner) / 2 - 0.5)
            axis.add_patch(Rectangle(corner, inner, inner, fill=False, edgecolor=ORANGE, linewidth=0.4))
    axis.imshow(sheet, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)
    return figure


def geometry(coordinates: Tensor, variances: Tensor, counts: Tensor, ink: Tensor) -> Figure:
    """Show the codes in the plane of their two widest directions, and the variance along every direction.

    Args:
        coordinates: (K, 2).
        variances: (D,) variance along each principal direction, largest first.
        counts: (K,) uses, shown as size.
        ink: (K,) mean brightness of what a code draws, in [0, 1], shown as colour.
    """
    figure, [[left, right]] = canvas(1, 2, height=3.3, width_ratios=[1.5, 1])
    size = 3 + 1600 * counts / counts.sum()
    dots = left.scatter(*coordinates.T, s=size, c=ink, cmap=HEAT, vmin=0, edgecolors=INK, linewidths=0.4)
    figure.colorbar(dots, ax=left, label="mean brightness drawn, 0 to 1")
    left.set(xlabel="first principal direction", ylabel="second principal direction", title="The codes")
    share = 100 * variances.cumsum(0) / variances.sum()
    right.plot(range(1, len(share) + 1), share, color=BLUE)
    right.set(xlabel="directions kept", ylabel="variance of the codes kept (%)", ylim=(0, 103), title="Their spread")
    right.set_xscale("log", base=2)  # most of it happens in the first few
    right.xaxis.set_major_formatter("{x:g}")
    return figure


def densities(groups: Mapping[str, Tensor], *, x: str) -> Figure:
    """Draw outlined histograms over each other, a mark at each median: name -> values of any number."""
    figure, [[axis]] = canvas(height=2.9)
    everything = torch.cat([values.flatten() for values in groups.values()])
    edges = np.linspace(float(everything.min()), float(everything.max()), 50)
    for i, (name, values) in enumerate(groups.items()):
        weights = np.full(values.numel(), 100 / values.numel())
        axis.hist(values.flatten(), bins=edges, weights=weights, histtype="step", color=COLOURS[i], linewidth=1.6)
        axis.plot([], [], color=COLOURS[i], label=name)
        axis.plot(float(values.median()), 0, MARKERS[i], color=COLOURS[i], markersize=6, clip_on=False)
    axis.set(xlabel=x, ylabel="share of values (%)")
    axis.legend()
    return figure


def near_and_far(distance: Tensor, change: Tensor, noise: float) -> Figure:
    """Show, for codes put in the place of others, distance against what changes in the picture.

    Args:
        distance: (n,) between the old and the new code.
        change: (n,) mean squared change in the cell's neighbourhood.
        noise: level of the model's own reconstruction error there, for comparison.
    """
    figure, [[axis]] = canvas(height=3.2)
    axis.plot(distance, change, ".", color=BLUE, markersize=2.5, alpha=0.35, label="one swap")
    order = distance.argsort()
    groups = [part for part in order.chunk(12) if len(part)]
    middles = torch.tensor([[float(distance[part].median()), float(change[part].median())] for part in groups])
    axis.plot(*middles.T, "s-", color=ORANGE, markersize=5, label="median of a twelfth")
    axis.axhline(noise, color=INK, linestyle="--", linewidth=1.2, label="reconstruction error in the same pixels")
    axis.set(xlabel="distance of the two codes", ylabel="mean squared change of a pixel", yscale="log")
    axis.set_ylim(bottom=max(1e-9, float(change.quantile(0.02))))  # the least 2 % would take half the axis
    axis.legend(loc="lower right")
    return figure


def walk(pictures: Sequence[Tensor], labels: Sequence[str], *, cell: tuple[int, int], titles: Sequence[str]) -> Figure:
    """Draw rows of images as :func:`image_grid` does, with one 4 x 4 cell (row, column) outlined in each."""
    figure = image_grid(pictures, labels, titles=titles)
    for axis in figure.axes:
        corner = (4 * cell[1] - 0.5, 4 * cell[0] - 0.5)
        axis.add_patch(Rectangle(corner, 4, 4, fill=False, edgecolor=ORANGE, linewidth=1))
    return figure


def rate_distortion(points: Mapping[int, tuple[Sequence[float], Sequence[float], Sequence[float]]]) -> Figure:
    """Show test error against bits an image, for codebooks of several sizes.

    Args:
        points: K -> (nominal bits, entropy bits, MSE), each one number a seed.
    """
    figure, [[axis]] = canvas(height=3.4)
    mean = {size: [sum(values) / len(values) for values in rows] for size, rows in points.items()}
    for i, name in enumerate(("equally likely codes", "entropy of single codes")):
        axis.plot(
            [rows[i] for rows in mean.values()],
            [rows[2] for rows in mean.values()],
            color=COLOURS[i],
            marker=MARKERS[i],
            label=name,
        )
        for rows in points.values():
            axis.vlines(sum(rows[i]) / len(rows[i]), min(rows[2]), max(rows[2]), color=INK, linewidth=2.5)
    for size, rows in mean.items():
        axis.annotate(f"K = {size}", (rows[0], rows[2]), xytext=(4, 5), textcoords="offset points", fontsize=8)
    axis.set(xlabel="rate (bits an image)", ylabel="test MSE a pixel", yscale="log")
    axis.margins(x=0.1)
    axis.legend()
    return figure
