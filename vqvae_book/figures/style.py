"""The book's palette, and the frame in which every picture is drawn.

A figure function opens a frame with `canvas`, draws, and returns the `Figure`. No
pyplot is involved: nothing is shown twice, and nobody else's settings change. Figures
stand on their own light paper, so they look the same on light and dark pages.
"""

import io
import sys

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

INK, GRAY, PAPER = "#1f2933", "#8792a0", "#fcfcfa"
# Apart in lightness as well as in hue: for the color-blind, and in print.
BLUE, ORANGE, GREEN, PURPLE = "#2f6db5", "#d9731a", "#2a8c6a", "#8a5aa8"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, INK, GRAY, "#8c2f39")
# So that no line is told apart by color alone.
MARKERS, STYLES = ("o", "s", "^", "D", "v", "x", "P"), ("-", "--", "-.", ":") * 2
HEATS = ["#f4f1e8", "#e8b56a", ORANGE, "#8c3f3a", INK]
HEAT = LinearSegmentedColormap.from_list("book", HEATS)
WIDTH = 7.2  # inches, the width of the text
PHOTOGRAPH = 5_500  # a picture of more colors than this holds photographs in color
FRAME = {
    "figure.dpi": 144,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


class BookFigure(Figure):
    """A plain `Figure`; its type tells notebooks to show it as `small_png` does."""


def canvas(
    rows: int = 1, columns: int = 1, *, height: float = 3, width=WIDTH, **subplots
) -> tuple[Figure, np.ndarray]:
    """Open a figure, in inches; return it and its axes; see `Figure.subplots`."""
    with rc_context(FRAME):
        figure = BookFigure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def small_png(figure: Figure, colors: int = 128, dpi: float | None = None) -> bytes:
    """Draw a PNG with a palette: a third of the bytes, no difference to the eye.

    Photographs in color keep all their colors. dpi: the figure's own if None.
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi or figure.dpi, bbox_inches="tight")
    image = Image.open(drawn).convert("RGB")
    if counted := image.getcolors(PHOTOGRAPH):
        # Half of the palette for the commonest colors, so that areas keep their shade;
        # the other half far apart, so that rare ones (a thin line) are not mixed.
        common = [color for _, color in sorted(counted, reverse=True)[: colors // 2]]
        rest = image.quantize(colors - len(common), Image.Quantize.MAXCOVERAGE)
        palette = Image.new("P", (1, 1))
        palette.putpalette([*sum(common, ()), *rest.getpalette()])
        image = image.quantize(palette=palette, dither=Image.Dither.NONE)
    image.save(small, format="PNG", optimize=True)
    return small.getvalue()


def show_small() -> None:
    """If a notebook runs this, make it show the book's figures by `small_png`."""
    ipython = sys.modules.get("IPython")
    if shell := ipython and ipython.get_ipython():
        formatters = shell.display_formatter.formatters
        formatters["image/png"].for_type(BookFigure, small_png)
