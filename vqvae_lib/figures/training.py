"""Pictures of chapter 4: curves along a run, families of seeds, number formats, faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .style import BLUE, COLOURS, GREY, INK, MARKERS, ORANGE, STYLES, canvas, legend_below, plain_ticks

__all__ = ["counted", "curves", "families", "formats", "gauges", "paths", "spread"]

Curve = tuple[Sequence[float], Sequence[float]]  # optimiser steps and what was measured at them


def curves(
    panels: Mapping[str, Mapping[str, Curve]], *, log: Sequence[str] = (), xlabel: str = "optimiser steps"
) -> Figure:
    """Draw a panel for each quantity, in each the same runs.

    Args:
        panels: label of the vertical axis -> name of the run -> places and values.
        log: labels whose axis is logarithmic.
        xlabel: label of the horizontal axes.
    """
    figure, [axes] = canvas(1, len(panels), height=3.0)
    for axis, (ylabel, runs) in zip(axes, panels.items(), strict=True):
        for i, (name, (places, values)) in enumerate(runs.items()):
            axis.plot(places, values, STYLES[i], color=COLOURS[i], label=name, linewidth=1.5)
        axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if ylabel in log else "linear")
    most = max(len(runs) for runs in panels.values())
    if most > 1:
        legend_below(figure.axes[0])
    return figure


def gauges(steps: Sequence[float], quantities: Mapping[str, Sequence[float]], *, log: Sequence[str] = ()) -> Figure:
    """Draw quantities of one run, one below the other over the same steps.

    Args:
        steps: optimiser steps.
        quantities: label with unit -> one value a step.
        log: labels whose axis is logarithmic.
    """
    figure, axes = canvas(len(quantities), height=1.35 * len(quantities) + 0.4, sharex=True)
    for i, (axis, (label, values)) in enumerate(zip(axes[:, 0], quantities.items(), strict=True)):
        axis.plot(steps, values, color=COLOURS[i], marker=MARKERS[i], markersize=3)
        axis.set_ylabel(label)
        axis.set_yscale("log" if label in log else "linear")
    axes[-1, 0].set_xlabel("optimiser steps")
    figure.align_ylabels()
    return figure


def counted(images: Sequence[int], perplexities: Sequence[float], batch: int, levels: Mapping[str, float]) -> Figure:
    """Draw the perplexity of one model against the number of images that were counted.

    Args:
        images, perplexities: places and values.
        batch: images of a training batch, marked.
        levels: name -> perplexity of other ways to count.
    """
    figure, [[axis]] = canvas(height=2.8)
    axis.plot(images, perplexities, marker="o", color=BLUE, markersize=4, label="counted over so many images")
    axis.axvline(batch, color=GREY, linestyle=":", label=f"one batch ({batch} images)")
    for i, (name, value) in enumerate(levels.items()):
        axis.axhline(value, color=(ORANGE, INK)[i % 2], linestyle=("--", "-.")[i % 2], linewidth=1.4, label=name)
    axis.set(xscale="log", xlabel="images counted", ylabel="perplexity (codes)")
    legend_below(axis, columns=2)
    return figure


def paths(runs: Mapping[str, Curve], ends: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw the ways of runs in the plane of error and perplexity, beside the places where they and others end.

    Args:
        runs: name -> errors and perplexities along the run.
        ends: name -> error and perplexity of a finished model on test images.
    """
    figure, [[left, right]] = canvas(1, 2, height=3.3)
    for i, (name, (errors, perplexities)) in enumerate(runs.items()):
        left.plot(errors, perplexities, STYLES[i], color=COLOURS[i], linewidth=1.3, label=name)
        left.plot(errors[0], perplexities[0], "o", color=COLOURS[i], markersize=4)
        left.plot(errors[-1], perplexities[-1], "X", color=COLOURS[i], markersize=8)
    left.set(title="along the run: o start, X end", ylabel="perplexity (codes)")
    left.legend()
    for i, (name, (error, perplexity)) in enumerate(ends.items()):
        right.plot(error, perplexity, MARKERS[i], color=COLOURS[i], label=name)
    right.set(title="finished models, test images", ylabel="perplexity (codes)")
    right.legend(fontsize=7)
    for axis in (left, right):
        axis.set(xscale="log", xlabel="reconstruction error (MSE a pixel)")
        plain_ticks(axis, "x", (1, 2, 5))
    return figure


def families(groups: Mapping[str, Mapping[str, Sequence[Curve]]], *, log: Sequence[str] = ()) -> Figure:
    """Draw runs in families of one colour, a line for each seed.

    Args:
        groups: label of the vertical axis -> family -> curves, one a seed.
        log: labels whose axis is logarithmic.
    """
    figure, [axes] = canvas(1, len(groups), height=3.1)
    for axis, (ylabel, kinds) in zip(axes, groups.items(), strict=True):
        for i, (name, members) in enumerate(kinds.items()):
            for j, (steps, values) in enumerate(members):
                axis.plot(steps, values, STYLES[i], color=COLOURS[i], linewidth=1.1, label=name if j == 0 else None)
        if not any(kinds.values()):
            axis.text(0.5, 0.5, "no stored runs\nin this installation", ha="center", transform=axis.transAxes)
        axis.set(xlabel="optimiser steps", ylabel=ylabel, yscale="log" if ylabel in log else "linear")
    if axes[0].get_legend_handles_labels()[1]:
        legend_below(figure.axes[0])
    return figure


def spread(groups: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Draw one dot a seed, a row for each setting, with a line at each mean."""
    figure, [[axis]] = canvas(height=0.55 * len(groups) + 1.0)
    for i, values in enumerate(groups.values()):
        axis.plot(values, [i] * len(values), MARKERS[i % 6], color=COLOURS[i % 6], alpha=0.8)
        mean = sum(values) / len(values)
        axis.plot([mean, mean], [i - 0.3, i + 0.3], color=INK, linewidth=1.2)
    axis.set_yticks(range(len(groups)), list(groups))
    axis.set(xlabel=label, ylim=(-0.6, len(groups) - 0.4))
    everything = [value for values in groups.values() for value in values]
    if max(everything) > 4 * min(everything) > 0:  # on one linear axis the small ones would lie on one spot
        axis.set_xscale("log")
        plain_ticks(axis, "x", (1, 2, 5))
    axis.invert_yaxis()
    return figure


def formats(gradients: Mapping[str, Tensor], smallest: float, scale: float) -> Figure:
    """Draw how large gradients are, with what a number format can't hold to the left of a line.

    Args:
        gradients: name -> values of any shape; zeros are left out.
        smallest: the least positive number of the format.
        scale: factor by which a scaler would lift all gradients.
    """
    figure, [[axis]] = canvas(height=2.9)
    edges = torch.linspace(-14, 0, 85)
    middles = (edges[1:] + edges[:-1]) / 2
    for i, (name, values) in enumerate(gradients.items()):
        size = values.detach().abs().flatten().float()
        share = torch.histogram(size[size > 0].log10(), edges).hist / max(1, len(size))
        axis.plot(10.0**middles, 100 * share, STYLES[i], color=COLOURS[i], label=name)
    axis.axvspan(1e-14, smallest, color=GREY, alpha=0.25, linewidth=0, label="zero in float16")
    axis.axvline(smallest / scale, color=INK, linestyle=":", label=f"the border after scaling by {scale:,.0f}")
    axis.set(xscale="log", xlim=(1e-14, 1), xlabel="absolute gradient", ylabel="share of values (%)")
    legend_below(axis, columns=2)
    return figure
