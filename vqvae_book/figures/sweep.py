"""Pictures of the sweep over K and beta."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from . import draw
from .draw import Names, Values
from .style import canvas

Tables = Mapping[str, tuple[np.ndarray, str]]


def heat_maps(
    tables: Tables, sizes: Sequence[int], betas: Values, *, log: Names
) -> Figure:
    """Draw a table over K = sizes and beta for each quantity, colored by size.

    tables: title with unit -> values (sizes, betas), NaN for what stays blank, and the
    format of a number. log: titles whose colors follow the logarithm.
    """
    rows = -(-len(tables) // 2)
    figure, axes = canvas(rows, 2, height=2.7 * rows, sharex=True, sharey=True)
    for axis, (name, (values, form)) in zip(axes.flat, tables.items(), strict=False):
        norm = LogNorm() if name in log else None
        draw.heat(axis, values, form, norm=norm, aspect="auto")
        draw.label(axis, "β", "K", name)
        axis.label_outer()
    for axis in axes.flat[len(tables) :]:
        axis.set_axis_off()
    axes[0, 0].set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
    axes[0, 0].set_yticks(range(len(sizes)), sizes)
    return figure
