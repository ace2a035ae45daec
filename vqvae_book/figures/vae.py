"""Pictures of chapter 9: VAE and VQ-VAE on one scale."""

import math
from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from vqvae_lib.vae import ACTIVE_NATS

from . import draw
from .draw import Curves, plot
from .style import BLUE, COLORS, GRAY, MARKERS, ORANGE, canvas


def bits_back(prices: Curves, sums: Curves, kl: float) -> Figure:
    """Show what a number of a Gaussian latent costs, and how a fine grid comes to it.

    prices: name of a mean -> (deviations of the posterior, KL in bits). sums: name ->
    (widths of the grid's bins, bits). kl: bits in the limit.
    """
    figure, [[left, right]] = canvas(1, 2, height=3.2)
    x, head = "standard deviation of the posterior", "Price of a number"
    plot(left, prices, x, "KL (bits)", head, xscale="log", ylim=(0, None))
    x = "width of the bins (finer to the right)"
    plot(right, sums, x, "bits", "Bits back", xscale="log")
    draw.level(right, kl, "KL")
    right.invert_xaxis()
    for axis in (left, right):
        draw.legend(axis)
    return figure


def kl_maps(kl: Tensor) -> Figure:
    """Show where Gaussian latents spend bits: kl (d, h, w), means in nats."""
    figure, [[left, right]] = canvas(1, 2, height=3.1, width_ratios=[1, 1.35])
    picture = draw.heat(left, kl.sum(0) / math.log(2), vmin=0)
    draw.label(left, "column", "row", "By position")
    draw.colorbar(picture, left, "KL (bits per position)", shrink=0.85)
    ranked = kl.flatten().sort(descending=True).values.clamp(min=1e-6)
    places = range(1, len(ranked) + 1)
    right.plot(places, ranked, color=BLUE, label="one number of the latent")
    name = f"{ACTIVE_NATS:g} nats: counted as unused below"
    draw.level(right, ACTIVE_NATS, name, ORANGE)
    x, head = "number, from dearest to cheapest", "Number by number"
    draw.label(right, x, "KL (nats)", head, yscale="log")
    draw.legend(right, loc="lower left")
    return figure


def equal_error(rows: Mapping[str, Mapping[str, float]]) -> Figure:
    """Show bits at the same error: whose -> coding -> bits; NaN is left out."""
    figure, [[axis]] = canvas(height=1.5 + 0.42 * len(rows))
    codings = dict.fromkeys(name for bits in rows.values() for name in bits)
    for place, bits in enumerate(rows.values()):
        known = [value for value in bits.values() if math.isfinite(value)]
        if known:
            axis.hlines(place, min(known), max(known), color=GRAY, linewidth=1)
    for i, name in enumerate(codings):
        values = [bits.get(name, math.nan) for bits in rows.values()]
        axis.plot(values, range(len(rows)), MARKERS[i], color=COLORS[i], label=name)
    axis.set_yticks(range(len(rows)), rows)
    axis.set(xlim=(0, None), ylim=(len(rows) - 0.5, -0.5))
    axis.set(xlabel="bits per image", ylabel="at the error of")
    draw.legend_below(figure)
    return figure
