"""Pictures of encoder and decoder (chapter 3): sizes, receptive fields, starts, the pattern of the stride."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from .style import BLUE, COLOURS, GREY, HEAT, INK, MARKERS, ORANGE, STYLES, canvas, show_image

__all__ = ["bits", "costs", "curves", "footprint", "maps", "overlaps", "profiles", "rings", "scales", "spectra"]

Box = tuple[int, int, int]  # first row, first column, side, in pixels


def costs(names: Sequence[str], parameters: Sequence[int], products: Sequence[int]) -> Figure:
    """Draw the share of each layer in all parameters and in all products of one image."""
    figure, [[axis]] = canvas(height=2.8)
    places = torch.arange(len(names)).flip(0).numpy()
    for shift, values, label, colour in ((0.2, parameters, "parameters", BLUE), (-0.2, products, "products", ORANGE)):
        total = sum(values)
        axis.barh(places + shift, [value / total for value in values], 0.38, color=colour, label=f"{label}: {total:,}")
    axis.set_yticks(places, names)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axis.set_xlabel("share of the whole model (%)")
    axis.grid(axis="y", visible=False)
    axis.legend()
    return figure


def bits(grids: Sequence[int], sizes: Sequence[int], marked: tuple[int, int], levels: Mapping[str, float]) -> Figure:
    """Draw bits an image against K, a line for each square grid.

    Args:
        grids: sides of latent grids.
        sizes: values of K.
        marked: side and K of the model at hand.
        levels: name -> bits of other ways to store the image.
    """
    figure, [[axis]] = canvas(height=3.0)
    cost = torch.tensor(sizes).log2()
    for i, side in enumerate(grids):
        axis.plot(sizes, side**2 * cost, marker=MARKERS[i], color=COLOURS[i], label=f"grid {side} x {side}")
    side, size = marked
    axis.plot(size, side**2 * torch.tensor(size).log2(), "o", markersize=13, mfc="none", mec=INK, label="this model")
    for name, value in levels.items():
        axis.axhline(value, color=GREY, linestyle="--", linewidth=1.2)
        axis.annotate(name, (sizes[0], value), xytext=(0, 3), textcoords="offset points", fontsize=8)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("codes K")
    axis.set_ylabel("bits an image")
    axis.legend(loc="lower right")
    return figure


def scales(names: Sequence[str], starts: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the standard deviation of each layer's output, a line for each way to draw the weights."""
    figure, [[axis]] = canvas(height=2.8)
    for i, (label, values) in enumerate(starts.items()):
        axis.plot(names, values, marker=MARKERS[i], color=COLOURS[i], label=label)
    axis.set_yscale("log")
    axis.set_ylabel("standard deviation of outputs")
    axis.set_xlabel("layer, in the order of the data's way")
    axis.legend()
    return figure


def curves(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], level: float, level_name: str) -> Figure:
    """Draw normalised errors against steps, on a logarithmic axis, with one level to compare with.

    Args:
        runs: name -> steps and normalised errors.
        level, level_name: a horizontal line.
    """
    figure, [[axis]] = canvas(height=3.0)
    for (label, (steps, values)), colour, style in zip(runs.items(), COLOURS, STYLES, strict=False):
        axis.plot(steps, values, style, color=colour, label=label)
    axis.axhline(level, color=GREY, linewidth=1.0)
    axis.annotate(
        level_name,
        (1, level),
        xycoords=("axes fraction", "data"),
        xytext=(-2, -10),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    axis.set_yscale("log")
    axis.set_xlabel("optimiser steps")
    axis.set_ylabel("error / variance of the images")
    figure.legend(loc="outside right center")
    return figure


def maps(
    values: Sequence[Tensor], titles: Sequence[str], label: str, *, boxes: Sequence[Box] = (), diverging: bool = False
) -> Figure:
    """Draw matrices (H, W) as heat maps, each with a frame around a computed field where ``boxes`` are given.

    One colour scale for all where ``diverging``; else each is divided by its own largest value.
    """
    figure, axes = canvas(1, len(values), height=2.7)
    limit = max(float(value.abs().max()) for value in values) or 1.0
    for i, (value, title) in enumerate(zip(values, titles, strict=True)):
        axis = axes[0, i]
        if diverging:
            picture = axis.imshow(value, cmap="PuOr", vmin=-limit, vmax=limit)
        else:
            picture = axis.imshow(value / value.max().clamp(min=1e-12), cmap=HEAT, vmin=0, vmax=1)
        if boxes:
            row, column, side = boxes[i]
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), side, side, fill=False, edgecolor=BLUE, linewidth=1.8))
        axis.set_title(title, fontsize=8)
        axis.set_xlabel("column (pixels)")
        axis.grid(False)
    axes[0, 0].set_ylabel("row (pixels)")
    figure.colorbar(picture, ax=axes, shrink=0.75, label=label)
    return figure


def profiles(values: Mapping[str, Tensor], first: int, side: int) -> Figure:
    """Draw curves (W,) over the columns of an image, with the computed field shaded."""
    figure, [[axis]] = canvas(height=2.6)
    axis.axvspan(first - 0.5, first + side - 0.5, color=GREY, alpha=0.2, linewidth=0, label="computed field")
    for i, (label, value) in enumerate(values.items()):
        axis.plot(value, marker=MARKERS[i], markersize=4, color=COLOURS[i], label=label)
    axis.set_xlabel("column (pixels)")
    axis.set_ylabel("share of gradient (%)")
    axis.legend()
    return figure


def footprint(before: Tensor, after: Tensor, box: Box) -> Figure:
    """Show two images (C, H, W) and where they differ, framed by the field that was computed."""
    figure, axes = canvas(1, 3, height=2.6)
    show_image(axes[0, 0], before, "reconstruction")
    show_image(axes[0, 1], after, "one code changed")
    difference = (after - before).abs().mean(0)
    picture = axes[0, 2].imshow(difference, cmap=HEAT, vmin=0)
    axes[0, 2].set_title("absolute difference", fontsize=8, loc="center")
    axes[0, 2].set_xticks([])
    axes[0, 2].set_yticks([])
    axes[0, 2].grid(False)
    for axis in axes[0]:
        row, column, side = box
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), side, side, fill=False, edgecolor=BLUE, linewidth=1.8))
    figure.colorbar(picture, ax=axes[0, 2], shrink=0.75, label="grey level, 0 to 1")
    return figure


def overlaps(counts: Mapping[str, Tensor]) -> Figure:
    """Draw how many inputs reach each output of a one-dimensional transposed convolution, a plot for each kernel."""
    figure, axes = canvas(1, len(counts), height=2.2, sharey=True)
    for axis, (label, values) in zip(axes[0], counts.items(), strict=True):
        axis.bar(range(len(values)), values, color=BLUE, width=0.85)
        axis.set_title(label, fontsize=9)
        axis.set_xlabel("output (pixels)")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.grid(axis="x", visible=False)
    axes[0, 0].set_ylabel("inputs that reach it")
    return figure


def spectra(amplitudes: Mapping[str, Tensor]) -> Figure:
    """Draw amplitude against horizontal frequency, a line for each decoder.

    Args:
        amplitudes: name -> (n,) grey levels at the frequencies 0 to 1/2 cycles a pixel; the mean is left out.
    """
    figure, [[axis]] = canvas(height=2.7)
    for i, (label, values) in enumerate(amplitudes.items()):
        frequency = torch.linspace(0, 0.5, len(values))
        axis.plot(frequency[1:], values[1:], marker=MARKERS[i], markersize=4, color=COLOURS[i], label=label)
    for place, name in ((0.25, "stride 4"), (0.5, "stride 2")):
        axis.axvline(place, color=GREY, linestyle="--", linewidth=1.0)
        axis.annotate(
            name,
            (place, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -9),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    axis.set_xlabel("horizontal frequency (cycles a pixel)")
    axis.set_ylabel("amplitude (grey level)")
    axis.legend(loc="center left")
    return figure


def rings(values: Sequence[float], level: float) -> Figure:
    """Draw normalised errors against the distance of pixels from the border, beside that of the whole image."""
    figure, [[axis]] = canvas(height=2.6)
    axis.plot(values, marker=MARKERS[0], color=BLUE, label="ring of pixels")
    axis.axhline(level, color=ORANGE, linestyle="--", linewidth=1.2, label="whole image")
    axis.set_xlabel("distance from the border (pixels)")
    axis.set_ylabel("error / variance")
    axis.set_ylim(0, 1.1 * max(*values, level))
    axis.legend()
    return figure
