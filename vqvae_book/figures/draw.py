"""What pictures share: lines, means over seeds, bars, heat maps, grids of images."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter
from torch import Tensor

from . import style
from .style import BLUE, COLORS, GRAY, INK, MARKERS, ORANGE, PAPER, WIDTH, canvas

Values = Sequence[float]
Curve = tuple[Values, Values]  # places, and values at them
Curves = Mapping[str, Curve | list[Curve]]  # by name; a list has one curve per seed
Panels = Mapping[str, Curves]  # by title
Levels = Mapping[str, float] | None
Names = Sequence[str]
Box = tuple[float, float, float]  # first row, first column, side, in cells
GRID_DPI = 110  # small images have no finer detail, and weigh most on a page


def title(axis: Axes, text: str, size: float = 10, loc: str = "left") -> None:
    """Write a title above a plot."""
    axis.set_title(text, loc=loc, fontsize=size, color=INK)


def label(axis: Axes, x: str = "", y: str = "", head: str = "", **settings) -> None:
    """Label both axes, with units, and write a title; `settings` as in `Axes.set`."""
    axis.set(xlabel=x, ylabel=y, **settings)
    title(axis, head)


def legend(axis: Axes, **settings) -> None:
    """Put a legend inside a plot."""
    axis.legend(**{"fontsize": 8, "frameon": False, "labelcolor": INK, **settings})


def legend_below(figure: Figure, columns: int | None = None) -> None:
    """Put one legend below all plots; as many columns as fit, if None."""
    found = [axis.get_legend_handles_labels() for axis in figure.axes]
    named = {name: handle for pair in found for handle, name in zip(*pair, strict=True)}
    fit = len(named) if len("".join(named)) < 85 else min(3, (len(named) + 1) // 2)
    look = {"ncols": columns or fit, "fontsize": 8, "frameon": False}
    figure.legend(named.values(), named, loc="outside lower center", **look)


def write(axis: Axes, x: float, y: float, text: object, size=8.0, **look) -> Text:
    """Write a text centered at a point."""
    return axis.text(x, y, text, ha="center", va="center", fontsize=size, **look)


def beside(axis: Axes, text: str, point: Values, shift=(5, 5), **look) -> None:
    """Write a text next to a point, shifted by (x, y) in points."""
    look = {"textcoords": "offset points", "fontsize": 8, **look}
    axis.annotate(text, point, xytext=shift, **look)


def plain_ticks(axis: Axes, which: str, most: int = 8) -> None:
    """Write at most `most` plain numbers on a logarithmic axis, "x" or "y"."""
    ticks = axis.xaxis if which == "x" else axis.yaxis
    low, high = ticks.get_view_interval()
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,)):
        places = [m * 10.0**e for e in range(-9, 7) for m in steps]
        places = [place for place in places if low <= place <= high]
        if len(places) <= most:
            break
    ticks.set_major_locator(FixedLocator(places))
    ticks.set_major_formatter("{x:g}")
    ticks.set_minor_formatter(NullFormatter())


def binary(axis: Axes, sizes: Sequence[int]) -> None:
    """Make x logarithmic with base 2, with ticks at the sizes."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(size) for size in sizes])


def plot(
    axis: Axes, curves: Curves, x="", y="", head="", *, marks=4.0, names=(), **settings
) -> None:
    """Draw curves, one color per name, and label the axes as `label` does.

    marks: size of markers, ten on a long line; with 0, dashes tell lines apart.
    names: in the order of their colors; that of the curves if not given.
    """
    names = list(names or curves)
    for name, members in curves.items():
        i = names.index(name)
        look = {"linestyle": style.STYLES[i]}
        members = members if isinstance(members, list) else [members]
        for j, (xs, ys) in enumerate(members):
            if marks:
                every = max(1, len(xs) // 10)
                look = {"marker": MARKERS[i], "markersize": marks, "markevery": every}
            axis.plot(xs, ys, color=COLORS[i], label=None if j else name, **look)
    label(axis, x, y, head, **settings)


def level(axis: Axes, y: float, name: str | None = None, color=INK, **look) -> None:
    """Draw a dashed horizontal line to compare with."""
    look = {"linestyle": "--", "linewidth": 1.2, **look}
    axis.axhline(y, color=color, label=name, **look)


def line_panels(
    panels: Panels,
    *,
    x: str,
    y: str,
    levels: Levels = None,
    uprights: Levels = None,
    marks: float = 4,
    **settings,
) -> Figure:
    """Draw curves in panels that share their axes: title -> name -> (places, values).

    levels, uprights: name -> place of lines to compare with. marks: size of markers;
    with 0, dashes tell lines apart. settings: as in `Axes.set`.
    """
    figure, [axes] = canvas(1, len(panels), sharey=True)
    most = max(map(len, panels.values()))  # a level looks alike in all panels
    for axis, (head, curves) in zip(axes, panels.items(), strict=True):
        plot(axis, curves, x, "", head, marks=marks, **settings)
        for i, (name, place) in enumerate((levels or {}).items()):
            color = COLORS[(most + i) % len(COLORS)]
            dashes = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))[i % 4]
            level(axis, place, name, color, linestyle=dashes)
        for i, (name, place) in enumerate((uprights or {}).items()):
            axis.axvline(place, color=GRAY, linestyle=(":", "--")[i % 2], label=name)
    axes[0].set_ylabel(y)
    legend_below(figure)
    return figure


def metric_panels(
    panels: Panels, *, x="optimizer steps", log: Names = (), marks=0.0, sizes=()
) -> Figure:
    """Draw a panel per quantity: its name -> run -> (steps, values), or several.

    log: quantities whose axis is logarithmic. marks: size of markers; with 0, dashes
    tell runs apart. sizes: powers of two, if x holds them; y gets plain numbers too.
    """
    figure, [axes] = canvas(1, len(panels))
    names = list(dict.fromkeys(name for runs in panels.values() for name in runs))
    for axis, (y, runs) in zip(axes, panels.items(), strict=True):
        scale = "log" if y in log else "linear"
        plot(axis, runs, x, y, marks=marks, names=names, yscale=scale)
        if not axis.lines:
            write(axis, 0.5, 0.5, "no stored runs", 10, transform=axis.transAxes)
        if sizes:
            binary(axis, sizes)
            plain_ticks(axis, "y")
    if len(names) > 1:
        legend_below(figure)
    return figure


def tradeoff(
    lines: Mapping[str, Mapping[str, Curve]],
    *,
    x: str,
    y: str,
    named: Names = (),
    levels: Levels = None,
    sizes: Sequence[int] = (),
    **settings,
) -> Figure:
    """Draw lines through means over seeds, with thin bars for the seeds' range.

    lines: name -> setting -> (x values, y values), one per seed. named: lines whose
    settings are written beside their points. levels: name -> height, to compare with.
    sizes: powers of two, if x holds them. settings: as in `Axes.set`.
    """
    figure, [[axis]] = canvas(height=3.8)
    for i, (name, points) in enumerate(lines.items()):
        pairs = list(points.values())
        means = np.array([[np.mean(values) for values in pair] for pair in pairs])
        low = means - [[min(values) for values in pair] for pair in pairs]
        high = [[max(values) for values in pair] for pair in pairs] - means
        xerr, yerr = np.array([low, high]).clip(min=0).T.swapaxes(1, 2)  # of rounding
        look = {"color": COLORS[i], "marker": MARKERS[i], "markersize": 5}
        bars = {"xerr": xerr, "yerr": yerr, "ecolor": INK, "elinewidth": 1.4}
        axis.errorbar(*means.T, label=name, **bars, **look)
        for setting, point in zip(points, means, strict=True):
            if name in named:
                beside(axis, setting, point)
    for name, height in (levels or {}).items():
        level(axis, height, name)
    settings = {"yscale": "log", **settings}
    label(axis, x, y, **settings)
    axis.margins(x=0.12, y=0.09)
    for which in "xy":
        if settings.get(f"{which}scale") == "log":
            plain_ticks(axis, which)
    if sizes:
        binary(axis, sizes)
    legend_below(figure)
    return figure


def seeds_strip(
    panels: Mapping[str, Mapping[str, Values]],
    *,
    x: Names,
    scales: Names = (),
    levels: Mapping[str, tuple[str, float]] | None = None,
) -> Figure:
    """Draw a row per name, a mark per seed, a bar at the mean: title -> name -> values.

    x, scales: for each panel, its label, and "linear", "log" or "symlog", which is
    linear within 0.1 of 0; with no scales, "log" if values differ more than fourfold.
    levels: title -> name and place of a dashed line. Names that are alike before their
    last comma look alike.
    """
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    kinds = {name: name.rpartition(",")[0] or name for name in names}
    order = list(dict.fromkeys(kinds.values()))
    height = 1.35 + 0.36 * len(names)
    figure, [axes] = canvas(1, len(panels), height=height, sharey=True)
    for i, (axis, (head, rows)) in enumerate(zip(axes, panels.items(), strict=True)):
        for name, values in rows.items():
            row, look = names.index(name), order.index(kinds[name]) % len(COLORS)
            axis.plot(values, [row] * len(values), MARKERS[look], color=COLORS[look])
            mean = [np.mean(values)] if len(values) > 1 else []
            axis.vlines(mean, row - 0.28, row + 0.28, color=INK, linewidth=2)
        if levels and head in levels:
            name, place = levels[head]
            axis.axvline(place, color=INK, linestyle="--", linewidth=1.2)
            top = {"xycoords": axis.get_xaxis_transform(), "va": "top"}
            beside(axis, name, (place, 1), (3, -2), **top)
        drawn = np.concatenate([*rows.values()])
        scale = scales[i] if scales else "linear"
        if not scales and drawn.max() > 4 * drawn.min() > 0:
            scale = "log"  # on a linear axis the small ones would be one spot
        axis.set_xscale(scale, **({"linthresh": 0.1} if scale == "symlog" else {}))
        if scale == "log":
            plain_ticks(axis, "x", 6)
        label(axis, x[i], head=head)
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.7)
    return figure


def shares(counts: Tensor) -> Tensor:
    """Turn uses (K,) into percent, from most to least used."""
    return (100 * counts.double() / counts.sum()).sort(descending=True).values


def all_alike(axis: Axes, size: int) -> None:
    """Draw the level at which all K = size codes would be used equally."""
    level(axis, 100 / size, f"equal use: {100 / size:.2g}%", ORANGE)


def bar_panels(panels: Mapping[str, Values], *, x: str, y: str, width=1.0) -> Figure:
    """Draw bars at 0, 1, 2 ... in panels that share their axes: title -> heights."""
    figure, [axes] = canvas(1, len(panels), height=2.4, sharey=True)
    for axis, (head, heights) in zip(axes, panels.items(), strict=True):
        heights = np.asarray(heights)
        axis.bar(range(len(heights)), heights, width, color=BLUE, linewidth=0)
        label(axis, x, head=head, xlim=(-0.7, len(heights) - 0.3))
        axis.grid(axis="x", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel(y)
    return figure


def outline(axis: Axes, box: Box, color: str = ORANGE, width: float = 1.0) -> None:
    """Outline a square of cells."""
    row, column, side = box
    corner = (column - 0.5, row - 0.5)  # imshow puts cells' centers on whole numbers
    look = {"fill": False, "edgecolor": color, "linewidth": width, "zorder": 4}
    axis.add_patch(Rectangle(corner, side, side, **look))


def heat(axis: Axes, values: Tensor, form="", shown=None, size=7, **look) -> AxesImage:
    """Draw a matrix as a heat map, NaN blank, with numbers in its cells if `form`.

    form: format of a number. shown: (rows, columns), numbers other than the values.
    size: of the numbers, in points. look: further arguments of `imshow`.
    """
    picture = axis.imshow(values, **{"cmap": style.HEAT, **look})
    axis.grid(False)
    for (i, j), value in np.ndenumerate(np.asarray(values)) if form else ():
        if np.isfinite(value):
            dark = sum(picture.cmap(picture.norm(value))[:3]) < 1.5
            text = format(float((values if shown is None else shown)[i, j]), form)
            write(axis, j, i, text, size, color=PAPER if dark else INK)
    return picture


def colorbar(picture: AxesImage, axes: object, name: str, **place) -> None:
    """Say beside a picture what its colors mean."""
    with rc_context(style.FRAME):
        picture.figure.colorbar(picture, ax=axes, label=name, **place)


def map_panels(
    panels: Mapping[str, Tensor],
    name: str,
    *,
    x: str = "column",
    y: str = "row",
    boxes: Sequence[Box] = (),
    diverging: bool = False,
    **look,
) -> Figure:
    """Draw heat maps (height, width) side by side, all on one color scale.

    name: what the colors mean, with unit. boxes: (row, column, side) of a square to
    outline in each. diverging: centered on 0. look: arguments of `imshow`.
    """
    figure, [axes] = canvas(1, len(panels), height=2.7)
    top = max(float(values.abs().max()) for values in panels.values())
    low, colors = (-top, "PuOr") if diverging else (0, style.HEAT)
    for i, (axis, (head, values)) in enumerate(zip(axes, panels.items(), strict=True)):
        picture = heat(axis, values, vmin=low, vmax=top, cmap=colors, **look)
        axis.set(xlabel=x, ylabel="" if i else y)
        title(axis, head, 9)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(MaxNLocator(6, integer=True))
        if boxes:
            outline(axis, boxes[i], BLUE, 1.7)
    ticks = MaxNLocator(6, integer=not values.is_floating_point())
    colorbar(picture, axes, name, shrink=0.8, ticks=ticks)
    return figure


def bare(axis: Axes) -> None:
    """Remove ticks, grid and borders, but keep labels."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)


def show_image(axis: Axes, image: Tensor, head: str = "") -> None:
    """Draw an image (C, H, W) in [0, 1] without ticks; its axis labels stay visible."""
    pixels = image.detach().cpu().clamp(0, 1).movedim(0, -1).squeeze(-1)
    axis.imshow(pixels, vmin=0, vmax=1, cmap="gray")
    bare(axis)
    title(axis, head, 8, "center")


def name_rows(axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Write names to the left of rows of images."""
    for axis, name in zip(axes, names, strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)


def image_grid(
    rows: Sequence[Tensor], labels: Names, *, titles: Names = (), box: Box | None = None
) -> Figure:
    """Draw rows of images (n, C, H, W) in [0, 1], each with its label on the left.

    titles: over the columns. box: (row, column, side) in pixels, outlined in each.
    """
    n, m = len(rows), len(rows[0])
    height = (WIDTH - 0.9) / m * n + (0.3 if titles else 0.1)
    figure, axes = canvas(n, m, height=height)
    figure.set_dpi(GRID_DPI)
    for i, images in enumerate(rows):
        heads = titles if titles and i == 0 else [""] * m
        for axis, image, head in zip(axes[i], images, heads, strict=True):
            show_image(axis, image, head)
            if box:
                outline(axis, box)
    name_rows(axes[:, 0], labels)
    return figure
