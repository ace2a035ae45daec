"""Pictures of chapter 2: cells, lookups, and codes that move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from ..quantizer import nearest_code
from .style import BLUE, COLOURS, GREY, HEAT, INK, MARKERS, ORANGE, PAPER, canvas, legend_below

__all__ = [
    "bars",
    "cells",
    "dead_and_alive",
    "flattened",
    "lines",
    "ranked_use",
    "scaling",
    "score_lines",
    "training_runs",
    "two_rules",
    "voronoi",
]

Assign = Callable[[Tensor, Tensor], Tensor]
# The palette, nine parts in ten paper: a cell is told from its neighbours, and what is drawn on it stays legible.
TINTS = ListedColormap(
    [tuple(0.88 * p + 0.12 * c for p, c in zip(to_rgb(PAPER), to_rgb(x), strict=True)) for x in COLOURS]
)


def cells(axis: Axes, codes: Tensor, *, span: float, assign: Assign = nearest_code) -> None:
    """Tint the regions of the plane by the code they are given, and draw their borders.

    Args:
        axis: where to draw.
        codes: (K, 2).
        span: both axes go from -span to span.
        assign: maps vectors (N, 2) and codes (K, 2) to indices (N,).
    """
    side = torch.linspace(-span, span, 500)
    grid = torch.cartesian_prod(side, side)  # x varies slowest
    owner = assign(grid, codes).reshape(500, 500).T  # rows: y, columns: x
    axis.imshow(
        owner % len(COLOURS), cmap=TINTS, vmin=0, vmax=len(COLOURS) - 1, extent=[-span, span] * 2, origin="lower"
    )
    for k in owner.unique():
        axis.contour(side, side, (owner == k).float(), levels=[0.5], colors=GREY, linewidths=0.6)
    axis.set(
        xlim=(-span, span), ylim=(-span, span), xlabel="first coordinate", ylabel="second coordinate", aspect="equal"
    )
    axis.grid(False)


def voronoi(z: Tensor, codes: Tensor, span: float) -> Figure:
    """Show vectors (N, 2) beside the codes (K, 2) that take their place."""
    figure, [[left, right]] = canvas(1, 2, height=3.7)
    cells(right, codes, span=span)
    chosen = codes[nearest_code(z, codes)]
    for vector, code in zip(z, chosen, strict=True):
        right.plot(*torch.stack([vector, code]).T, color=GREY, linewidth=0.5)
    for axis, title in ((left, f"before: {len(z)} vectors"), (right, f"after: {len(codes)} codes and their cells")):
        axis.plot(*z.T, ".", color=BLUE, markersize=3, label="vector")
        axis.set_title(title)
    right.plot(*codes.T, "X", color=ORANGE, markeredgecolor=INK, markeredgewidth=0.5, markersize=8, label="code")
    legend_below(right)
    left.set(
        xlim=(-span, span), ylim=(-span, span), xlabel="first coordinate", ylabel="second coordinate", aspect="equal"
    )
    return figure


def score_lines(codes: Tensor) -> Figure:
    """Show, for codes (K,) on a line, squared distances beside the scores that order them."""
    z = torch.linspace(-3, 3, 400)
    figure, [[left, right]] = canvas(1, 2, height=3.0)
    for k, e in enumerate(codes):
        style = {"color": COLOURS[k], "linewidth": 1.2}
        left.plot(z, (z - e) ** 2 / 2, **style)
        right.plot(z, z * e - e**2 / 2, label=f"code at {e:.1f}", **style)
        for axis in (left, right):
            axis.plot(e, -4.2, MARKERS[k], color=COLOURS[k], markersize=6, clip_on=False)
    distance = (z[:, None] - codes) ** 2 / 2
    score = z[:, None] * codes - codes**2 / 2
    left.plot(z, distance.min(1).values, color=INK, linewidth=3, alpha=0.35)
    right.plot(z, score.max(1).values, color=INK, linewidth=3, alpha=0.35)
    right.plot(z, z**2 / 2, color=INK, linestyle=":", linewidth=1.4, label="half the squared length of z")
    left.set(title="half the squared distance: take the lowest", ylabel="half the squared distance")
    right.set(title="score: take the highest", ylabel="score")
    for axis in (left, right):
        axis.set(xlabel="z", ylim=(-4.2, 6))
    legend_below(right)
    return figure


def two_rules(codes: Tensor, rules: Mapping[str, Assign], span: float) -> Figure:
    """Show the cells that different rules of assignment cut for the same codes (K, 2), one panel a rule."""
    figure, [axes] = canvas(1, len(rules), height=3.7)
    for axis, (title, assign) in zip(axes, rules.items(), strict=True):
        cells(axis, codes, span=span, assign=assign)
        grid = torch.cartesian_prod(*[torch.linspace(-span, span, 200)] * 2)
        won = torch.isin(torch.arange(len(codes)), assign(grid, codes))
        axis.plot(*codes[won].T, "X", color=ORANGE, markeredgecolor=INK, markeredgewidth=0.5, label="code with a cell")
        axis.plot(*codes[~won].T, "x", color=INK, label="code without one")
        axis.set_title(title)
    legend_below(axes[0])
    return figure


def flattened(panels: Mapping[str, Tensor]) -> Figure:
    """Show matrices whose rows are the quantizer's vectors, coloured by the position each number came from."""
    figure, [axes] = canvas(1, len(panels), height=3.0)
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        picture = axis.imshow(rows, cmap=HEAT, aspect="auto")
        axis.set(title=title, xlabel="column", ylabel="row handed to the lookup", xticks=range(rows.shape[1]))
        axis.grid(False)
    figure.colorbar(picture, ax=axes, label="position in the grid")
    return figure


def lines(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    x: str,
    y: str,
    xscale: str = "linear",
    yscale: str = "linear",
    levels: Mapping[str, float] | None = None,
    marks: bool = True,
) -> Figure:
    """Draw curves: panel title -> curve's name -> (x values, y values), all panels on the same axes.

    Args:
        panels: what to draw.
        x, y: what the axes hold, with unit.
        xscale, yscale: ``"linear"`` or ``"log"``.
        levels: name -> height of dashed horizontal lines.
        marks: mark each value.
    """
    figure, [axes] = canvas(1, len(panels), height=3.0, sharey=True)
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for i, (name, (xs, ys)) in enumerate(curves.items()):
            marker = MARKERS[i] if marks else None
            axis.plot(
                xs, ys, color=COLOURS[i], marker=marker, markersize=4, markevery=max(1, len(xs) // 10), label=name
            )
        for i, (name, height) in enumerate((levels or {}).items()):
            axis.axhline(height, color=COLOURS[len(curves) + i], linestyle="--", linewidth=1.2, label=name)
        axis.set(title=title, xlabel=x, xscale=xscale, yscale=yscale)
    axes[0].set_ylabel(y)
    legend_below(axes[-1])
    return figure


def scaling(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Draw time and memory of the lookup against K at the smallest N, and against N at the smallest K.

    Args:
        rows: ``N``, ``K``, ``ours ms``, ``bare product ms`` and ``MiB beyond`` (inputs and result) of each case.
    """
    figure, axes = canvas(2, 2, height=4.4, sharex="col", sharey="row", height_ratios=(3, 2))
    for column, (grows, fixed) in enumerate((("K", "N"), ("N", "K"))):
        least = min(row[fixed] for row in rows)
        cases = sorted((row for row in rows if row[fixed] == least), key=lambda row: row[grows])
        sizes = [row[grows] for row in cases]
        time, memory = axes[:, column]
        for i, (name, key) in enumerate((("library", "ours ms"), ("bare product", "bare product ms"))):
            time.plot(sizes, [row[key] for row in cases], color=COLOURS[i], marker=MARKERS[i], label=name)
        memory.plot(sizes, [row["MiB beyond"] for row in cases], color=COLOURS[0], marker=MARKERS[0])
        time.set(title=f"{fixed} = {least:,}", xscale="log", yscale="log")
        memory.set(xlabel=f"{'codes' if grows == 'K' else 'vectors'} {grows}", xscale="log")
        memory.set_ylim(0, 1.2 * max(row["MiB beyond"] for row in rows))
    axes[0, 0].set_ylabel("time (ms)")
    axes[1, 0].set_ylabel("memory beyond\ninputs and result (MiB)")
    legend_below(axes[0, 0])
    return figure


def bars(groups: Mapping[str, Mapping[str, float]], x: str) -> Figure:
    """Draw horizontal bars: panel title -> name -> length, longest lengths written beside the bars."""
    sizes = [len(values) for values in groups.values()]
    figure, axes = canvas(
        len(groups), 1, height=0.9 + 0.36 * sum(sizes) + 0.3 * len(sizes), height_ratios=sizes, sharex=True
    )
    for [axis], (title, values) in zip(axes, groups.items(), strict=True):
        drawn = axis.barh(list(values), list(values.values()), color=BLUE, height=0.6)
        axis.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_title(title)
    axes[-1, 0].set_xlabel(x)
    axes[-1, 0].margins(x=0.12)
    return figure


def dead_and_alive(z: Tensor, runs: Mapping[str, Tensor], span: float) -> Figure:
    """Show the paths of codes through the plane, and which of them end up without vectors.

    Args:
        z: (N, 2) vectors.
        runs: title -> (T, K, 2), the codebook at T moments.
        span: both axes go from -span to span.
    """
    figure, [axes] = canvas(1, len(runs), height=3.6, sharey=True)
    for axis, (title, path) in zip(axes, runs.items(), strict=True):
        cells(axis, path[-1], span=span)
        axis.plot(*z.T, ".", color=BLUE, markersize=1.5, alpha=0.5)
        used = torch.isin(torch.arange(path.shape[1]), nearest_code(z, path[-1]))
        for k in range(path.shape[1]):
            axis.plot(*path[:, k].T, color=ORANGE if used[k] else INK, linewidth=0.7)
        axis.plot(*path[-1, used].T, "X", color=ORANGE, markeredgecolor=INK, markeredgewidth=0.5, label="in use")
        axis.plot(*path[-1, ~used].T, "x", color=INK, markersize=5, label="dead")
        axis.set_title(f"{title}\n{int(used.sum())} of {len(used)} in use", fontsize=9)
        axis.set_ylabel("second coordinate" if axis is axes[0] else "")
    legend_below(axes[0])
    return figure


def training_runs(histories: Mapping[str, Mapping[str, Sequence[float]]], num_embeddings: int) -> Figure:
    """Show codes in use and reconstruction error along several trainings: name -> a trainer's history."""
    figure, [[left, right]] = canvas(1, 2, height=3.2)
    for i, (name, history) in enumerate(histories.items()):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 3.5}
        left.plot(history["step"], history["active_codes"], **style)
        right.plot(history["step"], history["recon_loss"], label=name, **style)
    left.axhline(num_embeddings, color=GREY, linestyle="--", linewidth=1)
    left.set(
        ylim=(0, num_embeddings * 1.05), xlabel="step", ylabel="codes used in a window of steps", title="Codes in use"
    )
    right.set(xlabel="step", ylabel="training MSE a pixel", yscale="log", title="Reconstruction error")
    legend_below(right)
    return figure


def ranked_use(counts: Mapping[str, Tensor]) -> Figure:
    """Show the share of each code, from most to least used: name -> counts (K,). Unused codes have no point."""
    figure, [[axis]] = canvas(height=3.0)
    for i, (name, values) in enumerate(counts.items()):
        share = (values[values > 0].double() / values.sum() * 100).sort(descending=True).values
        axis.plot(range(1, len(share) + 1), share, color=COLOURS[i], label=f"{name}: {len(share)} codes")
        axis.plot(len(share), share[-1], MARKERS[i], color=COLOURS[i], markersize=6)
    size = len(next(iter(counts.values())))
    axis.axhline(100 / size, color=GREY, linestyle="--", linewidth=1, label="all alike")
    axis.set(xlabel="code, from most to least used", ylabel="share of positions (%)", yscale="log", xlim=(0, size + 1))
    legend_below(axis)
    return figure
