"""Pictures of chapter 1: latent planes, bounds, gradients, and what a lookup costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .style import BLUE, COLOURS, GREY, HEAT, INK, MARKERS, ORANGE, WIDTH, canvas, show_image

__all__ = [
    "beta_weights",
    "code_sheet",
    "cost",
    "evidence",
    "gradient_table",
    "latent_planes",
    "loss_curves",
    "meeting",
    "norms_and_means",
    "pulls",
    "staircase",
]


def _digits(axis: Axes, z: Tensor, labels: Tensor) -> None:
    for digit in labels.unique().tolist():
        points = z[labels == digit]
        axis.plot(*points.T, linestyle="", marker=f"${digit}$", color=COLOURS[digit % 4], markersize=4.5, alpha=0.75)


def latent_planes(
    points: Mapping[str, Tensor], labels: Tensor, *, rings: Sequence[str] = (), codes: Tensor | None = None
) -> Figure:
    """Show where models put images in a plane, each image as its digit.

    Args:
        points: name -> latents (n, 2).
        labels: (n,) the digits.
        rings: names of models with a prior N(0, I): circles are drawn at one and two standard deviations.
        codes: (K, 2) drawn in the last plane, if given.
    """
    figure, [axes] = canvas(1, len(points), height=3.6)
    for axis, (name, z) in zip(axes, points.items(), strict=True):
        _digits(axis, z, labels)
        if name in rings:
            angle = torch.linspace(0, 2 * torch.pi, 200)
            for radius in (1, 2):
                axis.plot(radius * angle.cos(), radius * angle.sin(), color=INK, linewidth=1, linestyle="--")
        axis.set(title=name, xlabel="first latent coordinate", ylabel="second" if axis is axes[0] else "")
    if codes is not None:
        axes[-1].plot(*codes.T, "X", color=ORANGE, markeredgecolor=INK, markeredgewidth=0.6, markersize=6, label="code")
        axes[-1].legend(loc="upper right", frameon=True)
    return figure


def evidence(sharpness: Tensor, bound: Tensor, kl: Tensor, log_p: float, num_codes: int) -> Figure:
    """Show the bound (1.2) and its KL while the posterior goes from uniform to one-hot; all in nats, inputs (n,)."""
    figure, [[left, right]] = canvas(1, 2, height=3.0)
    left.axhline(log_p, color=INK, linestyle="--", linewidth=1.2, label="log p(x), summed over all codes")
    left.plot(sharpness, bound, color=BLUE, label="ELBO")
    left.set(title="The bound touches at one place", ylabel="nats (up to one constant)")
    right.axhline(np.log(num_codes), color=INK, linestyle="--", linewidth=1.2, label=f"log K = {np.log(num_codes):.2f}")
    right.plot(sharpness, kl, color=ORANGE, label="KL to the uniform prior")
    right.set(title="The KL climbs to log K and stays", ylabel="nats")
    for axis in (left, right):
        axis.axvline(1, color=GREY, linewidth=1, linestyle=":")
        axis.set(xscale="log", xlabel="sharpness of the posterior (1: the true one)")
        axis.legend(loc="lower right", fontsize=8)
    return figure


def staircase(place: Tensor, smooth: Tensor, stepped: Tensor, slopes: Tensor, handed: Tensor) -> Figure:
    """Show the error along a line of encoder outputs, with and without quantization, and the slopes handed back.

    Args:
        place: (n,) positions on the line.
        smooth, stepped: (n,) squared error a pixel when z_e itself, or its nearest code, is decoded.
        slopes: (n,) derivative of ``smooth`` by the position.
        handed: (n,) straight-through derivative of ``stepped``.
    """
    figure, [[left, right]] = canvas(1, 2, height=3.0)
    left.plot(place, smooth, color=GREY, linestyle="--", label="decoding z_e itself")
    left.plot(place, stepped, color=BLUE, label="decoding its nearest code")
    left.set(title="A step has no slope", ylabel="squared error a pixel")
    right.axhline(0, color=BLUE, label="true slope between jumps")
    right.plot(place, slopes, color=GREY, linestyle="--", label="slope of the dashed curve")
    right.plot(place, handed, color=ORANGE, label="straight-through slope")
    right.set(title="What is handed to the encoder", ylabel="change of error by place")
    for axis in (left, right):
        axis.set_xlabel("place on a line through the latent plane")
        axis.set_ymargin(0.5)
        axis.legend(loc="upper left", fontsize=7, frameon=True)
    return figure


def pulls(z: Tensor, codes: Tensor, panels: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Show where each term would move vectors and codes.

    Args:
        z: (n, 2) encoder outputs; codes: (K, 2).
        panels: name of a term -> its gradient by z (n, 2) and by the codes (K, 2). Arrows go against it, the longest
            of a panel at the same length in each.
    """
    figure, [axes] = canvas(1, len(panels), height=3.0, sharex=True, sharey=True)
    reach = 0.18 * float((z.amax(0) - z.amin(0)).max())
    for axis, (name, (by_z, by_codes)) in zip(axes, panels.items(), strict=True):
        longest = max(float(by_z.norm(dim=1).max()), float(by_codes.norm(dim=1).max()), 1e-12)
        axis.plot(*z.T, ".", color=BLUE, markersize=4, label="encoder output")
        axis.plot(*codes.T, "X", color=ORANGE, markeredgecolor=INK, markeredgewidth=0.5, markersize=6, label="code")
        for start, grad, colour in ((z, by_z, BLUE), (codes, by_codes, ORANGE)):
            step = -grad * reach / longest
            if step.abs().max() > 0:
                axis.quiver(*start.T, *step.T, color=colour, angles="xy", scale_units="xy", scale=1, width=0.009)
        axis.set(title=name, xlabel="first latent coordinate", ylabel="second" if axis is axes[0] else "")
    axes[0].legend(loc="best", frameon=True, fontsize=7)
    return figure


def gradient_table(terms: Sequence[str], parts: Sequence[str], norms: Tensor) -> Figure:
    """Show gradient norms (terms, parts) as a table: dark where a term moves a part, white where it can't."""
    figure, [[axis]] = canvas(height=0.5 * len(terms) + 0.9)
    shade = norms / norms.amax(1, keepdim=True).clamp(min=1e-12)
    axis.imshow(shade, cmap=HEAT, vmin=0, vmax=2.4, aspect="auto")
    for i in range(len(terms)):
        for j in range(len(parts)):
            value = float(norms[i, j])
            axis.text(j, i, f"{value:.3g}" if value else "0", ha="center", va="center", fontsize=10, color=INK)
    axis.set_xticks(range(len(parts)), parts, fontsize=9)
    axis.set_yticks(range(len(terms)), terms, fontsize=9)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    return figure


def norms_and_means(measured: Mapping[str, Mapping[int, float]], channels: Mapping[str, int]) -> Figure:
    """Show the measured factor r against D beside 16 C / D: name of the images -> {D: r}; name -> C."""
    figure, [[axis]] = canvas(height=3.1)
    for i, (name, factors) in enumerate(measured.items()):
        sizes = torch.tensor(list(factors), dtype=torch.double)
        axis.plot(
            sizes, 16 * channels[name] / sizes, color=COLOURS[i], linewidth=1.2, label=f"16 C / D, C = {channels[name]}"
        )
        axis.plot(sizes, list(factors.values()), MARKERS[i], color=COLOURS[i], markersize=7, label=f"measured, {name}")
    axis.axhline(1, color=GREY, linestyle="--", linewidth=1)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.set_xticks(sizes, [f"{int(size)}" for size in sizes])
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set(xlabel="length of a code, D", ylabel="factor r of the two VQ terms")
    axis.legend()
    return figure


def code_sheet(images: Tensor, counts: Tensor, columns: int = 16) -> Figure:
    """Show all that codes can draw, from most to least used: images (K, C, H, W), counts (K,)."""
    order = counts.argsort(descending=True)
    rows = -(-len(images) // columns)
    figure, axes = canvas(rows, columns, height=rows * (WIDTH / columns + 0.16))
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, k in zip(axes.flat, order.tolist(), strict=False):
        show_image(axis, images[k])
        axis.set_xlabel(f"{100 * float(counts[k]) / float(counts.sum()):.1f} %", fontsize=6, labelpad=1)
    return figure


def cost(sizes: Sequence[int], seconds: Mapping[str, Sequence[float]], largest: Mapping[str, Sequence[int]]) -> Figure:
    """Show time (s) and largest tensor (bytes) of a lookup against the number of codes, by name of the method."""
    figure, [[left, right]] = canvas(1, 2, height=3.1)
    for i, name in enumerate(seconds):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 5, "label": name}
        left.plot(sizes, [1e3 * value for value in seconds[name]], **style)
        right.plot(sizes, [value / 2**20 for value in largest[name]], **style)
    left.plot(
        sizes,
        [1e3 * seconds[name][0] * size / sizes[0] for size in sizes],
        color=GREY,
        linestyle="--",
        linewidth=1,
        label="in proportion to K",
    )
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_xticks(sizes, [f"{size}" for size in sizes])
        axis.set_xlabel("number of codes, K")
        axis.yaxis.set_major_formatter("{x:g}")
    left.set(ylabel="time of a lookup (ms)", title="Time")
    right.set(ylabel="largest tensor made (MiB)", title="Memory")
    left.legend(loc="upper left")
    return figure


def loss_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Show both losses of several runs: name -> history with ``step``, ``recon_loss`` and ``vq_loss``."""
    figure, [axes] = canvas(1, 2, height=3.0)
    for axis, key, label in zip(axes, ("recon_loss", "vq_loss"), ("squared error a pixel", "VQ loss"), strict=True):
        for i, (name, history) in enumerate(histories.items()):
            axis.plot(history["step"], history[key], color=COLOURS[i], marker=MARKERS[i], markersize=3.5, label=name)
        axis.set(xlabel="step", ylabel=f"{label}, training", yscale="log")
    axes[0].legend()
    return figure


def beta_weights(betas: Sequence[float], pulls_on: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Show the weight with which the VQ loss pulls each part: part -> version of the loss -> weight at each beta."""
    figure, [axes] = canvas(1, len(pulls_on), height=3.0, sharey=True)
    for axis, (part, versions) in zip(axes, pulls_on.items(), strict=True):
        for i, (name, weights) in enumerate(versions.items()):
            axis.plot(betas, weights, color=COLOURS[i], marker=MARKERS[i], markersize=5, label=name)
        axis.axvline(1, color=GREY, linestyle=":", linewidth=1)
        axis.set(xlabel="commitment cost β", title=part)
    axes[0].set_ylabel("measured weight of the pull")
    axes[0].legend()
    return figure


def meeting(paths: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Show a vector and its code on a line while each is pulled to the other: name -> both positions (steps,)."""
    figure, [axes] = canvas(1, len(paths), height=2.8, sharey=True)
    for axis, (name, (vector, code)) in zip(axes, paths.items(), strict=True):
        axis.plot(vector, color=BLUE, label="encoder output, starts at 1")
        axis.plot(code, color=ORANGE, linestyle="--", label="code, starts at 0")
        axis.set(title=name, xlabel="step of gradient descent", ylim=(-0.05, 1.05))
    axes[0].set_ylabel("position")
    axes[-1].legend(fontsize=8)
    return figure
