"""Pictures of chapter 9: VAE and VQ-VAE on one scale."""

import itertools
import math

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from vqvae_lib.vae import ACTIVE_NATS

from . import draw
from .draw import Curves, plot
from .style import BLUE, INK, ORANGE, PAPER, canvas

HEIGHTS = (35, 12)
BOXES = ((10, 8), (28, 12), (54, 20), (80, 12), (98, 8))  # middle, width
MODELS = {  # name: color, boxes, words on the arrows, price
    "VAE": (
        BLUE,
        (r"$x$", "encoder", "draw\n" r"$z = \mu + \sigma\,\epsilon$", "decoder"),
        ("", r"$\mu,\ \log \sigma^2$", r"$z$", ""),
        r"pays the KL of $N(\mu, \sigma^2)$ from $N(0, 1)$; training can lower it",
    ),
    "VQ-VAE": (
        ORANGE,
        (r"$x$", "encoder", "nearest code\n" r"of $e_1, \dots, e_K$", "decoder"),
        ("", r"$z_e$", r"$z_q = e_k$", ""),
        r"pays $\log K$ per position; training can't change it",
    ),
}


def models() -> Figure:
    """Draw VAE and VQ-VAE one above the other: identical except in the middle."""
    figure, [[axis]] = canvas(height=3)
    axis.set(xlim=(-6, 104), ylim=(0, 46))
    axis.set_axis_off()
    for y, (name, (color, boxes, words, price)) in zip(
        HEIGHTS, MODELS.items(), strict=True
    ):
        draw.write(axis, -1, y, name, 9, weight="bold", color=color)
        for i, text in enumerate((*boxes, r"$\hat{x}$")):
            (middle, width), own = BOXES[i], i == 2
            look = {"edgecolor": color if own else INK, "linewidth": 1 + own}
            look |= {"facecolor": PAPER if own or i in (0, 4) else "#e4ecf5"}
            corner = (middle - width / 2, y - 5)
            style = "round,pad=0,rounding_size=1.5"
            axis.add_patch(FancyBboxPatch(corner, width, 10, boxstyle=style, **look))
            draw.write(axis, middle, y, text, 9)
        pairs = itertools.pairwise(BOXES)
        for ((a, before), (b, after)), word in zip(pairs, words, strict=True):
            ends = (a + before / 2 + 0.5, y), (b - after / 2 - 0.5, y)
            head = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0}
            axis.add_patch(FancyArrowPatch(*ends, color=INK, shrinkB=0, **head))
            draw.write(axis, (ends[0][0] + ends[1][0]) / 2, y + 3, word, 8)
        draw.write(axis, 54, y - 9, price, 8, color=color)
    return figure


def bits_back(prices: Curves, sums: Curves, kl: float) -> Figure:
    """Show what a number of a Gaussian latent costs, and how a fine grid approaches it.

    prices: name of a mean -> (deviations of the posterior, KL in bits). sums: name ->
    (widths of the grid's bins, bits). kl: bits in the limit.
    """
    figure, [[left, right]] = canvas(1, 2, height=3.2)
    x, head = "standard deviation of the posterior", "Cost of a number"
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
    x, head = "number, from most to least costly", "Number by number"
    draw.label(right, x, "KL (nats)", head, yscale="log")
    draw.legend(right, loc="lower left")
    return figure
