"""Pictures of chapter 1: latent planes, bounds, gradients, codes."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import draw
from .draw import level
from .quantizer import arrows, plot_codes
from .style import BLUE, COLORS, GRAY, INK, MARKERS, ORANGE, WIDTH, canvas

DASHED = {"color": GRAY, "linestyle": "--"}


def latent_planes(
    points: Mapping[str, Tensor], labels: Tensor, *, rings: Sequence[str] = ()
) -> Figure:
    """Show latents (n, 2) as digits; `rings` have a prior N(0, I), drawn as circles."""
    figure, [axes] = canvas(1, len(points), height=3.6)
    angle = torch.linspace(0, 2 * torch.pi, 200)
    for axis, (name, z) in zip(axes, points.items(), strict=True):
        for digit in labels.unique().tolist():
            look = {"marker": f"${digit}$", "markersize": 4.5, "alpha": 0.75}
            look |= {"linestyle": "", "color": COLORS[digit % 4]}
            axis.plot(*z[labels == digit].T, **look)
        for radius in (1, 2) if name in rings else ():
            circle = radius * torch.stack([angle.cos(), angle.sin()])
            axis.plot(*circle, color=INK, linewidth=1, linestyle="--")
        draw.label(axis, "first latent coordinate", head=name)
    axes[0].set_ylabel("second")
    return figure


def evidence(
    sharpness: Tensor, bound: Tensor, kl: Tensor, log_p: float, num_codes: int
) -> Figure:
    """Show bound and KL (n,), in nats, as the posterior gets sharper; 1 is true."""
    figure, [[left, right]] = canvas(1, 2)
    level(left, log_p, "log p(x), summed over all places")
    left.plot(sharpness, bound, color=BLUE, label="ELBO")
    level(right, math.log(num_codes), f"log K = {math.log(num_codes):.2f}")
    right.plot(sharpness, kl, color=ORANGE, label="KL to the uniform prior")
    x = "sharpness of the posterior (1: the true one)"
    draw.label(left, x, "nats (up to one constant)", "The bound touches at one place")
    draw.label(right, x, "nats", "The KL climbs to log K and stays")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.axvline(1, color=GRAY, linewidth=1, linestyle=":")
        draw.legend(axis, loc="lower right")
    return figure


def staircase(
    place: Tensor, smooth: Tensor, stepped: Tensor, slopes: Tensor, handed: Tensor
) -> Figure:
    """Show errors along a line, of z_e and of its code, and slopes; all (n,)."""
    figure, [[left, right]] = canvas(1, 2)
    left.plot(place, smooth, label="decoding z_e itself", **DASHED)
    left.plot(place, stepped, color=BLUE, label="decoding its nearest code")
    right.axhline(0, color=BLUE, label="true slope between jumps")
    right.plot(place, slopes, label="slope of the dashed curve", **DASHED)
    right.plot(place, handed, color=ORANGE, label="straight-through slope")
    x = "place on a line through the latent plane"
    draw.label(left, x, "squared error per pixel", "A step has no slope")
    draw.label(right, x, "change of error by place", "What is handed to the encoder")
    for axis in (left, right):
        axis.set_ymargin(0.5)
        draw.legend(axis, loc="upper left", fontsize=7, frameon=True)
    return figure


def pulls(
    z: Tensor, codes: Tensor, panels: Mapping[str, tuple[Tensor, Tensor]]
) -> Figure:
    """Show where terms move z (n, 2) and codes (K, 2): against their gradients."""
    figure, [axes] = canvas(1, len(panels), sharex=True, sharey=True)
    reach = 0.18 * float((z.amax(0) - z.amin(0)).max())
    for axis, (name, gradients) in zip(axes, panels.items(), strict=True):
        longest = max(1e-12, *(float(grad.norm(dim=1).max()) for grad in gradients))
        axis.plot(*z.T, ".", color=BLUE, markersize=4, label="encoder output")
        plot_codes(axis, codes, "code")
        for start, grad, color in zip(
            (z, codes), gradients, (BLUE, ORANGE), strict=True
        ):
            if grad.any():
                arrows(axis, start, -grad * reach / longest, color, 0.009)
        draw.label(axis, "first latent coordinate", head=name)
    axes[0].set_ylabel("second")
    draw.legend(axes[0], frameon=True, fontsize=7)
    return figure


def gradient_table(terms: Sequence[str], parts: Sequence[str], norms: Tensor) -> Figure:
    """Show gradient norms (terms, parts): dark where a term moves a part."""
    figure, [[axis]] = canvas(height=0.5 * len(terms) + 0.9)
    shade = norms / norms.amax(1, keepdim=True).clamp(min=1e-12)
    draw.heat(axis, shade, ".3g", norms, 10, vmin=0, vmax=2.4, aspect="auto")
    axis.set_xticks(range(len(parts)), parts, fontsize=9)
    axis.set_yticks(range(len(terms)), terms, fontsize=9)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def norms_and_means(
    measured: Mapping[str, Mapping[int, float]], channels: Mapping[str, int]
) -> Figure:
    """Show r against D beside 16 C / D: name of the images -> {D: r}, and name -> C."""
    figure, [[axis]] = canvas(height=3.1)
    for i, (name, factors) in enumerate(measured.items()):
        sizes, rule = list(factors), f"16 C / D, C = {channels[name]}"
        expected = [16 * channels[name] / size for size in sizes]
        axis.plot(sizes, expected, color=COLORS[i], linewidth=1.2, label=rule)
        look = {"color": COLORS[i], "markersize": 7, "label": f"measured, {name}"}
        axis.plot(sizes, list(factors.values()), MARKERS[i], **look)
    level(axis, 1, color=GRAY)
    draw.binary(axis, sizes)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter("{x:g}")
    draw.label(axis, "length of a code, D", "factor r of the two VQ terms")
    draw.legend(axis)
    return figure


def code_sheet(images: Tensor, counts: Tensor, columns: int = 16) -> Figure:
    """Show all that codes can draw (K, C, H, W), from most to least used (K,)."""
    rows = -(-len(images) // columns)
    figure, axes = canvas(rows, columns, height=rows * (WIDTH / columns + 0.16))
    for axis in axes.flat[len(images) :]:
        axis.set_axis_off()
    share, order = draw.shares(counts), counts.argsort(descending=True)
    for axis, k, percent in zip(axes.flat, order, share, strict=False):
        draw.show_image(axis, images[k])
        axis.set_xlabel(f"{percent:.1f} %", fontsize=6, labelpad=1)
    return figure
