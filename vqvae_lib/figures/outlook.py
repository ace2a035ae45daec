"""Pictures of what came after the VQ-VAE: a codebook that is a grid, and two gradients past a quantizer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .quantizer import cells
from .style import BLUE, GREY, INK, ORANGE, canvas, legend_below

__all__ = ["codebooks", "gradients_in_a_cell"]


def codebooks(z: Tensor, panels: Mapping[str, tuple[Tensor, Tensor]], span: float) -> Figure:
    """Show codebooks in the plane over the same vectors, one panel each.

    Args:
        z: (N, 2) vectors.
        panels: title -> codes (K, 2) and the code of each vector, indices (N,).
        span: both axes go from -span to span.
    """
    figure, [axes] = canvas(1, len(panels), height=3.9, sharey=True)
    for axis, (title, (codes, indices)) in zip(axes, panels.items(), strict=True):
        cells(axis, codes, span=span)
        axis.plot(*z.T, ".", color=BLUE, markersize=2, alpha=0.6, label="vector")
        used = torch.isin(torch.arange(len(codes)), indices)
        axis.plot(*codes[used].T, "X", color=ORANGE, markeredgecolor=INK, markeredgewidth=0.5, label="code in use")
        axis.plot(*codes[~used].T, "x", color=INK, markersize=5, label="code not in use")
        axis.set_title(f"{title}\n{int(used.sum())} of {len(used)} in use", fontsize=9)
    axes[1].set_ylabel("")
    legend_below(axes[0], columns=3)
    return figure


def gradients_in_a_cell(z: Tensor, code: Tensor, gradients: Mapping[str, Tensor], at_code: Tensor) -> Figure:
    """Show the step that each vector of a cell is told to take, for several ways past the quantizer.

    Args:
        z: (N, 2) vectors of one cell.
        code: (2,) their code.
        gradients: title -> (N, 2) gradients that reach the vectors.
        at_code: (2,) gradient at the code, the same for all.
    """
    figure, [axes] = canvas(1, len(gradients), height=3.4, sharex=True, sharey=True)
    for axis, (title, values) in zip(axes, gradients.items(), strict=True):
        axis.plot(0, 0, "+", color=GREY, markersize=10, label="origin")
        axis.quiver(*z.T, *-values.T, color=BLUE, angles="xy", scale_units="xy", scale=1, width=0.006)
        axis.plot(*z.T, ".", color=BLUE, label="vector and its step")
        axis.quiver(*code, *-at_code, color=ORANGE, angles="xy", scale_units="xy", scale=1, width=0.012)
        axis.plot(*code, "X", color=ORANGE, markeredgecolor=INK, markersize=9, label="code and the step asked of it")
        axis.update_datalim((z - values).tolist())  # quiver leaves the tips of its arrows out
        axis.autoscale_view()
        axis.set(title=title, xlabel="first coordinate", aspect="equal")
    axes[0].set_ylabel("second coordinate")
    legend_below(axes[0], columns=3)
    return figure
