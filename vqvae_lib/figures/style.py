"""One palette, one set of sizes, and the frames in which every picture of the book is drawn.

A figure function opens a frame with :func:`canvas` or :func:`image_grid`, draws, and returns the ``Figure``; none calls
``plt.show()``. Figures stand on their own light paper, so they read the same in a light and a dark page.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, NullFormatter
from PIL import Image
from torch import Tensor

__all__ = [
    "COLOURS",
    "GREY",
    "HEAT",
    "INK",
    "MARKERS",
    "PAPER",
    "STYLES",
    "WIDTH",
    "canvas",
    "image_grid",
    "legend_below",
    "plain_ticks",
    "show_image",
    "small_png",
]

INK, GREY, PAPER = "#1f2933", "#8792a0", "#fcfcfa"
# Apart in lightness as well as in hue, so that they stay apart for the colour-blind and in print.
BLUE, ORANGE, GREEN, PURPLE = "#2f6db5", "#d9731a", "#2a8c6a", "#8a5aa8"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, INK, GREY)
# So that no line is told apart by colour alone.
MARKERS = ("o", "s", "^", "D", "v", "x")
STYLES = ("-", "--", "-.", ":", "-", "--")
HEAT = LinearSegmentedColormap.from_list("book", ["#f4f1e8", "#e8b56a", ORANGE, "#8c3f3a", INK])
WIDTH = 7.2  # inches, the width of the text
PHOTOGRAPH = 12_000  # a picture of more colours than this holds photographs in colour
GRID_DPI = 110  # of grids of small images, which have no finer detail; they are the heaviest pictures of a page

_RC = {
    "figure.dpi": 144,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "font.family": "DejaVu Sans",
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


class _BookAxes(Axes):
    """Axes whose titles and legends, made after :func:`canvas` has returned, still follow the book's style."""

    def set_title(self, *args: object, **kwargs: object) -> Text:
        with plt.rc_context(_RC):
            return super().set_title(*args, **kwargs)

    def legend(self, *args: object, **kwargs: object) -> Legend:
        with plt.rc_context(_RC):
            return super().legend(*args, **kwargs)


class _BookFigure(Figure):
    """A figure that a notebook shows as :func:`small_png` makes it; its colour bars are in the book's style too."""

    def colorbar(self, *args: object, **kwargs: object) -> Colorbar:
        with plt.rc_context(_RC):
            return super().colorbar(*args, **kwargs)


def small_png(figure: Figure, colours: int = 128, dpi: float | None = None) -> bytes:
    """Return a figure as a PNG with a palette: about a third of the bytes, and no difference to the eye.

    Colour photographs keep all their colours; what a palette makes of their smooth parts can be seen.

    Args:
        figure: to be drawn.
        colours: of the palette, 2 to 256.
        dpi: dots an inch; the figure's own if not given.
    """
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=dpi or figure.dpi, bbox_inches="tight")
    image = Image.open(whole).convert("RGB")
    if image.getcolors(PHOTOGRAPH) is None:
        image.save(small, format="PNG", optimize=True)
        return small.getvalue()
    # Half of the palette for the commonest colours, as they are: areas keep their shade. The other half far apart: rare
    # colours (one thin line, one outlined cell) are not mixed into others.
    common = sorted(image.getcolors(image.width * image.height), reverse=True)[: colours // 2]
    rest = image.quantize(colours - len(common), Image.Quantize.MAXCOVERAGE).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(part for _, colour in common for part in colour), *rest])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return small.getvalue()


def plain_ticks(axis: Axes, which: str, in_a_decade: Sequence[float] = (1, 1.5, 2, 3, 4, 5, 7)) -> None:
    """Write out the numbers on a logarithmic ``"x"`` or ``"y"``, a few a decade, where it would have powers of ten."""
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_major_locator(FixedLocator([m * 10.0**e for e in range(-6, 5) for m in in_a_decade]))
    ticks.set_major_formatter("{x:g}")
    ticks.set_minor_formatter(NullFormatter())


def legend_below(axis: Axes, columns: int | None = None) -> None:
    """Name what ``axis`` shows under all panels, where it hides nothing; in as many columns as fit, if not told."""
    handles, labels = axis.get_legend_handles_labels()
    if columns is None:
        columns = len(labels) if sum(map(len, labels)) < 85 else min(3, (len(labels) + 1) // 2)
    axis.figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _show_small() -> None:
    """Tell the notebook that runs us, if one does, how it shows the book's figures."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell:
        shell.display_formatter.formatters["image/png"].for_type(_BookFigure, small_png)


_show_small()


def canvas(
    rows: int = 1, columns: int = 1, *, height: float = 2.8, width: float = WIDTH, **kwargs: object
) -> tuple[Figure, np.ndarray]:
    """Open a figure of ``rows`` x ``columns`` plots in the book's style.

    Args:
        rows, columns: plots.
        height, width: of the whole figure, in inches.
        kwargs: passed on to ``plt.subplots``.

    Returns:
        The figure, already closed for pyplot (so a notebook shows it once), and its axes (rows, columns).
    """
    with plt.rc_context(_RC):
        kwargs["subplot_kw"] = {"axes_class": _BookAxes, **kwargs.get("subplot_kw", {})}
        figure, axes = plt.subplots(
            rows,
            columns,
            FigureClass=_BookFigure,
            figsize=(width, height),
            layout="constrained",
            squeeze=False,
            **kwargs,
        )
        plt.close(figure)
    return figure, axes


def show_image(axis: Axes, image: Tensor, title: str = "") -> None:
    """Draw an image (C, H, W) in [0, 1] without ticks; its axis labels stay visible."""
    pixels = image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()  # (C, H, W) -> (H, W, C)
    axis.imshow(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, vmin=0, vmax=1, cmap="gray")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=8, loc="center")


def image_grid(rows: Sequence[Tensor], labels: Sequence[str], *, titles: Sequence[str] = ()) -> Figure:
    """Draw rows of images, each row with its name on the left.

    Args:
        rows: tensors (n, C, H, W) in [0, 1], all of the same n.
        labels: one name a row.
        titles: names over the columns, if wanted.
    """
    columns = len(rows[0])
    side = (WIDTH - 0.9) / columns
    figure, axes = canvas(len(rows), columns, height=side * len(rows) + (0.3 if titles else 0.1))
    figure.set_dpi(GRID_DPI)
    for i, (images, label) in enumerate(zip(rows, labels, strict=True)):
        for j in range(columns):
            show_image(axes[i, j], images[j], titles[j] if titles and i == 0 else "")
        axes[i, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    return figure
