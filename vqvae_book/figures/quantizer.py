"""Pictures of chapter 2, and of what came next: cells, lookups, codes that move."""

import operator
from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from vqvae_lib.lookup import nearest_code

from . import draw
from .style import BLUE, COLORS, GRAY, INK, MARKERS, ORANGE, PAPER, canvas

Assign = Callable[[Tensor, Tensor], Tensor]  # vectors (N, 2), codes (K, 2) -> (N,)
PALETTE = torch.tensor([to_rgb(color) for color in COLORS])
# Thinned with paper: cells differ, and what is drawn on them stays legible.
TINTS = ListedColormap((0.12 * PALETTE + 0.88 * torch.tensor(to_rgb(PAPER))).numpy())


def cells(axis: Axes, codes: Tensor, span: float, rule: Assign = nearest_code) -> None:
    """Tint the plane, from -span to span, by which of the codes (K, 2) a point gets."""
    side = torch.linspace(-span, span, 500)
    grid = torch.cartesian_prod(side, side)  # x varies slowest
    owner = rule(grid, codes).reshape(500, 500).T  # rows: y, columns: x
    look = {"cmap": TINTS, "vmin": 0, "vmax": len(COLORS) - 1}
    place = {"extent": [-span, span] * 2, "origin": "lower"}
    draw.heat(axis, owner % len(COLORS), **look, **place)
    for k in owner.unique():
        border = {"levels": [0.5], "colors": GRAY, "linewidths": 0.6}
        axis.contour(side, side, (owner == k).float(), **border)
    _plane(axis, span)


def _plane(axis: Axes, span: float) -> None:
    axis.set(xlim=(-span, span), ylim=(-span, span), aspect="equal")
    axis.set(xlabel="first coordinate", ylabel="second coordinate")


def plot_codes(axis: Axes, codes: Tensor, name: str, used: bool = True) -> None:
    """Mark codes (n, 2) in the plane: filled crosses if used, thin ones if not."""
    look = {"marker": "X", "color": ORANGE, "mec": INK, "mew": 0.5, "markersize": 7}
    if not used:
        look = {"marker": "x", "color": INK, "markersize": 5}
    axis.plot(*codes.T, linestyle="", label=name, **look)


def code_planes(
    panels: Mapping[str, Tensor],
    span: float,
    z: Tensor | None = None,
    names: tuple[str, str] = ("in use", "not in use"),
    rules: Mapping[str, Assign] | None = None,
) -> Figure:
    """Show which codes of the plane are used by vectors z (N, 2), or by any vectors.

    panels: title -> codes (K, 2), or their path (T, K, 2); more than three in rows of
    three. names: of codes in use and of others. rules: title -> rule of assignment, if
    it is not the nearest code.
    """
    grid = torch.cartesian_prod(*[torch.linspace(-span, span, 200)] * 2)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    height = (
        3.8 if columns < 3 else rows * 2.7 + 0.5
    )  # square panels of a row are lower
    figure, axes = canvas(rows, columns, height=height, sharex=True, sharey=True)
    for axis, (head, path) in zip(axes.flat, panels.items(), strict=True):
        path = path.view(-1, *path.shape[-2:])
        rule, codes = (rules or {}).get(head, nearest_code), path[-1]
        cells(axis, codes, span, rule)
        if z is not None:
            look = {"color": BLUE, "markersize": 1.7, "alpha": 0.5, "label": "vector"}
            axis.plot(*z.T, ".", **look)
        found = rule(grid if z is None else z, codes)
        used = torch.isin(torch.arange(len(codes)), found)
        for k, way in enumerate(path.movedim(1, 0)):
            axis.plot(*way.T, color=ORANGE if used[k] else INK, linewidth=0.7)
        plot_codes(axis, codes[used], names[0])
        plot_codes(axis, codes[~used], names[1], used=False)
        count = f"{int(used.sum())} of {len(used)} {names[0]}"
        draw.title(axis, f"{head}\n{count}", 9)
        axis.label_outer()
    draw.legend_below(figure)
    return figure


def arrows(axis: Axes, start: Tensor, step: Tensor, color: str, width: float) -> None:
    """Draw arrows (n, 2) from points (n, 2), in the axes' own units."""
    units = {"angles": "xy", "scale_units": "xy", "scale": 1}
    axis.quiver(*start.T, *step.T, color=color, width=width, **units)


def voronoi(z: Tensor, codes: Tensor, span: float) -> Figure:
    """Show vectors (N, 2) beside the codes (K, 2) that take their place."""
    figure, [[left, right]] = canvas(1, 2, height=3.3)
    _plane(left, span)
    cells(right, codes, span)
    for pair in zip(z, codes[nearest_code(z, codes)], strict=True):
        right.plot(*torch.stack(pair).T, color=GRAY, linewidth=0.5)
    for axis in (left, right):
        axis.plot(*z.T, ".", color=BLUE, markersize=3, label="vector")
    plot_codes(right, codes, "code")
    draw.title(left, f"before: {len(z)} vectors")
    draw.title(right, f"after: {len(codes)} codes and their cells")
    draw.legend_below(figure)
    return figure


def score_lines(codes: Tensor) -> Figure:
    """Show, for codes (K,) on a line, squared distances and scores that order them."""
    z = torch.linspace(-3, 3, 400)
    figure, [[left, right]] = canvas(1, 2, height=2.7)
    distance = (z[:, None] - codes) ** 2 / 2
    score = z[:, None] * codes - codes**2 / 2
    for axis, values in ((left, distance), (right, score)):
        for k, e in enumerate(codes):
            look = {"color": COLORS[k], "linewidth": 1.2, "label": f"code at {e:.1f}"}
            axis.plot(z, values[:, k], **look)
            axis.plot(e, -4.2, MARKERS[k], color=COLORS[k], clip_on=False)
        ends = distance.amin(1) if axis is left else score.amax(1)
        axis.plot(z, ends, color=INK, linewidth=3, alpha=0.35)
    right.plot(z, z**2 / 2, ":", color=INK, label="half the squared length of z")
    y = "half the squared distance"
    draw.label(left, "z", y, f"{y}: take the lowest", ylim=(-4.2, 6))
    draw.label(right, "z", "score", "score: take the highest", ylim=(-4.2, 6))
    draw.legend_below(figure)
    return figure


def scaling(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Show time and memory of the lookup as K or N grows, the other at its smallest.

    rows: for each case N, K, `ours ms`, `bare product ms`, and `MiB beyond`, the memory
    without inputs and result.
    """
    heights = {"sharex": "col", "sharey": "row", "height_ratios": (3, 2)}
    figure, axes = canvas(2, 2, height=4.4, **heights)
    for (time, memory), (grows, fixed) in zip(axes.T, ("KN", "NK"), strict=True):
        least = min(row[fixed] for row in rows)
        cases = [row for row in rows if row[fixed] == least]
        cases.sort(key=operator.itemgetter(grows))
        whats = (grows, "ours ms", "bare product ms", "MiB beyond")
        sizes, ours, bare, beyond = ([row[what] for row in cases] for what in whats)
        lines = {"library": (sizes, ours), "bare product": (sizes, bare)}
        time.set(xscale="log", yscale="log")
        draw.plot(time, lines, head=f"{fixed} = {least:,}", marks=6)
        x = f"{'codes' if grows == 'K' else 'vectors'} {grows}"
        draw.plot(memory, {"library": (sizes, beyond)}, x, marks=6)
    axes[1, 0].set_ylim(0, 1.2 * max(row["MiB beyond"] for row in rows))
    axes[0, 0].set_ylabel("time (ms)")
    axes[1, 0].set_ylabel("memory beyond\ninputs and result (MiB)")
    draw.legend_below(figure)
    return figure


def bars(groups: Mapping[str, Mapping[str, float]], x: str) -> Figure:
    """Draw bars with their lengths: panel title -> name -> length in the unit of x."""
    sizes = [len(values) for values in groups.values()]
    height = 0.9 + 0.36 * sum(sizes) + 0.3 * len(sizes)
    figure, axes = canvas(len(sizes), height=height, height_ratios=sizes, sharex=True)
    for [axis], (name, values) in zip(axes, groups.items(), strict=True):
        drawn = axis.barh(list(values), list(values.values()), color=BLUE, height=0.6)
        axis.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        draw.title(axis, name)
    axes[-1, 0].set_xlabel(x)
    axes[-1, 0].margins(x=0.12)
    return figure


def gradients_in_a_cell(
    z: Tensor, code: Tensor, gradients: Mapping[str, Tensor], at_code: Tensor
) -> Figure:
    """Show the steps that gradients ask of vectors (N, 2) and their code (2,)."""
    figure, [axes] = canvas(1, len(gradients), height=3.4, sharex=True, sharey=True)
    for axis, (name, values) in zip(axes, gradients.items(), strict=True):
        axis.plot(0, 0, "+", color=GRAY, markersize=10, label="origin")
        arrows(axis, z, -values, BLUE, 0.006)
        axis.plot(*z.T, ".", color=BLUE, label="vector and its step")
        arrows(axis, code[None], -at_code[None], ORANGE, 0.012)
        plot_codes(axis, code[None], "code and the step asked of it")
        axis.update_datalim((z - values).tolist())  # quiver leaves its tips out
        axis.autoscale_view()
        draw.label(axis, "first coordinate", head=name, aspect="equal")
    axes[0].set_ylabel("second coordinate")
    draw.legend_below(figure, columns=3)
    return figure
