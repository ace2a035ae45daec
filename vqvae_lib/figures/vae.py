"""Pictures of chapter 7: VAE and VQ-VAE on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ..vae import ACTIVE
from .style import BLUE, COLOURS, GREY, HEAT, INK, MARKERS, ORANGE, canvas, legend_below, plain_ticks

__all__ = ["bits_back", "dots", "equal_error", "kl_maps", "tradeoff", "training"]


def bits_back(
    deviations: Tensor, prices: Mapping[str, Tensor], widths: Tensor, sent: Tensor, returned: Tensor, kl: float
) -> Figure:
    """Show what one number of a Gaussian latent costs, and how sending it on an ever finer grid comes to that price.

    Args:
        deviations: (n,) standard deviations of the posterior.
        prices: name of a mean -> (n,) KL from N(0, 1), in bits.
        widths: (m,) of the grid's bins.
        sent, returned: (m,) bits sent under the prior, and bits that the receiver gets back.
        kl: their difference in the limit, in bits.
    """
    figure, [[left, right]] = canvas(1, 2, height=3.2)
    for i, (name, price) in enumerate(prices.items()):
        left.plot(deviations, price, color=COLOURS[i], marker=MARKERS[i], markersize=4, markevery=15, label=name)
    left.set(xlabel="standard deviation of the posterior", ylabel="KL (bits)", xscale="log", title="Price of a number")
    left.set_ylim(bottom=0)
    left.legend()
    for i, (name, bits) in enumerate((("sent", sent), ("given back", returned), ("difference", sent - returned))):
        right.plot(widths, bits, color=COLOURS[i], marker=MARKERS[i], markersize=4, label=name)
    right.axhline(kl, color=INK, linestyle="--", linewidth=1.2, label="KL")
    right.set(xlabel="width of the bins (finer to the right)", ylabel="bits", xscale="log", title="Bits back")
    right.invert_xaxis()
    right.legend()
    return figure


def training(runs: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """Show error and rate along several trainings: name -> {"error", "rate"} -> (steps, values); one may be missing."""
    figure, [axes] = canvas(1, 2, height=3.0)
    for i, (name, curves) in enumerate(runs.items()):
        for axis, what in zip(axes, ("error", "rate"), strict=True):
            steps, values = curves.get(what, ([], []))
            every = max(1, len(steps) // 10)
            axis.plot(steps, values, color=COLOURS[i], marker=MARKERS[i], markersize=4, markevery=every, label=name)
    axes[0].set(xlabel="optimiser step", ylabel="MSE a pixel", yscale="log", title="Distortion, training batches")
    plain_ticks(axes[0], "y")
    axes[1].set(xlabel="optimiser step", ylabel="bits an image", title="Rate, training batches")
    axes[1].set_ylim(bottom=0)
    legend_below(axes[0])
    return figure


def kl_maps(kl: Tensor) -> Figure:
    """Show where a grid of Gaussian latents spends its bits: by position, and number by number in order.

    Args:
        kl: (d, h, w) mean KL of each number, in nats.
    """
    figure, [[left, right]] = canvas(1, 2, height=3.1, width_ratios=[1, 1.35])
    picture = left.imshow(kl.sum(0) / math.log(2), cmap=HEAT, vmin=0)
    left.set(xlabel="column", ylabel="row", title="By position")
    left.grid(False)
    figure.colorbar(picture, ax=left, label="KL (bits a position)", shrink=0.85)
    ranked = kl.flatten().sort(descending=True).values.clamp(min=1e-6)
    right.plot(range(1, len(ranked) + 1), ranked, color=BLUE, label="one number of the latent")
    right.axhline(
        ACTIVE, color=ORANGE, linestyle="--", linewidth=1.2, label=f"{ACTIVE:g} nats: counted as unused below"
    )
    right.set(xlabel="number, from dearest to cheapest", ylabel="KL (nats)", yscale="log", title="Number by number")
    right.legend(loc="lower left")
    return figure


def tradeoff(
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    x: str,
    y: str,
    named: Sequence[str] = (),
    level: tuple[str, float] | None = None,
    xscale: str = "linear",
    yscale: str = "log",
    height: float = 3.8,
) -> Figure:
    """Show curves over settings, a cross of thin bars at each mean for the range over seeds.

    Args:
        curves: name -> setting's name -> (x values, y values), one a seed.
        x, y: what the axes hold, with unit.
        named: curves whose settings are written beside their points.
        level: name and height of a dashed line.
        xscale, yscale: ``"linear"`` or ``"log"``.
        height: of the figure, in inches.
    """
    figure, [[axis]] = canvas(height=height)
    for i, (name, settings) in enumerate(curves.items()):
        pairs = [tuple(np.asarray(values, dtype=float) for values in pair) for pair in settings.values()]
        means = np.array([[values.mean() for values in pair] for pair in pairs]).T
        spans = [[[v.mean() - v.min(), v.max() - v.mean()] for v in pair] for pair in pairs]
        xerr, yerr = np.array(spans).clip(min=0).transpose(1, 2, 0)  # a mean may round past the end of its range
        style = {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 5}
        axis.errorbar(*means, xerr=xerr, yerr=yerr, ecolor=INK, elinewidth=1.2, label=name, **style)
        if name in named:
            for setting, point in zip(settings, means.T, strict=True):
                axis.annotate(setting, point, xytext=(5, 5), textcoords="offset points", fontsize=7.5)
    if level:
        axis.axhline(level[1], color=INK, linestyle="--", linewidth=1.2, label=level[0])
    axis.set(xlabel=x, ylabel=y, xscale=xscale, yscale=yscale)
    for scale, which in ((xscale, "x"), (yscale, "y")):
        if scale == "log":
            plain_ticks(axis, which)
    axis.margins(x=0.12, y=0.09)
    legend_below(axis)
    return figure


def equal_error(rows: Mapping[str, Mapping[str, float]]) -> Figure:
    """Show bits that several codings take for the same error: row's name -> coding -> bits; NaN is left out."""
    figure, [[axis]] = canvas(height=1.5 + 0.42 * len(rows))
    codings = list(dict.fromkeys(name for bits in rows.values() for name in bits))
    for place, bits in enumerate(rows.values()):
        known = [value for value in bits.values() if math.isfinite(value)]
        axis.hlines([place] * bool(known), min(known, default=0), max(known, default=0), color=GREY, linewidth=1)
    for i, name in enumerate(codings):
        values = [bits.get(name, math.nan) for bits in rows.values()]
        axis.plot(values, range(len(rows)), MARKERS[i], color=COLOURS[i], markersize=7, label=name)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.set(xlabel="bits an image", ylabel="at the error of")
    legend_below(axis)
    return figure


def dots(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    x: Sequence[str],
    scales: Sequence[str] | None = None,
    levels: Mapping[str, tuple[str, float]] | None = None,
) -> Figure:
    """Show one row a name, one mark a seed, and a bar at the mean of several, in panels that share their rows.

    Args:
        panels: title -> name -> one number a seed. Names that are alike before their last comma look alike.
        x: what the axis of each panel holds, with unit.
        scales: of each panel: ``"linear"``, ``"log"``, or ``"symlog"``, which is linear between -0.1 and 0.1.
        levels: title of a panel -> name and place of a dashed upright line.
    """
    names = list(dict.fromkeys(name for groups in panels.values() for name in groups))
    kinds = list(dict.fromkeys(name.rpartition(",")[0] for name in names))
    scales = scales or ["linear"] * len(panels)
    figure, [axes] = canvas(1, len(panels), height=1.35 + 0.36 * len(names), sharey=True)
    for axis, (title, groups), label, scale in zip(axes, panels.items(), x, scales, strict=True):
        for place, name in enumerate(names):
            values = list(groups.get(name, ()))
            if values:
                if len(values) > 1:
                    mean = sum(values) / len(values)
                    axis.vlines(mean, place - 0.28, place + 0.28, color=INK, linewidth=2)
                i = kinds.index(name.rpartition(",")[0]) % len(COLOURS)
                axis.plot(values, [place] * len(values), MARKERS[i], color=COLOURS[i], markersize=6)
        if title in (levels or {}):
            called, where = levels[title]
            axis.axvline(where, color=INK, linestyle="--", linewidth=1.2)
            place = {"xycoords": ("data", "axes fraction"), "xytext": (3, -2), "textcoords": "offset points"}
            axis.annotate(called, (where, 1), va="top", fontsize=7.5, **place)
        axis.set_xscale(scale, **({"linthresh": 0.1} if scale == "symlog" else {}))
        axis.set(xlabel=label, title=title)
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.7)
    return figure
