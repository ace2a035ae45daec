"""Pictures of chapter 1: latent planes, gradients, codes."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import draw
from .quantizer import arrows, plot_codes
from .style import BLUE, COLORS, INK, ORANGE, WIDTH, canvas


def latent_planes(
    points: Mapping[str, Tensor], labels: Tensor, *, rings: Sequence[str] = ()
) -> Figure:
    """Show latents (n, 2) as digits, one color each; `rings` get circles of N(0, I)."""
    figure, [axes] = canvas(1, len(points), height=3.6)
    angle = torch.linspace(0, 2 * torch.pi, 200)
    for axis, (name, z) in zip(axes, points.items(), strict=True):
        for i, digit in enumerate(labels.unique().tolist()):
            look = {"marker": f"${digit}$", "markersize": 6, "markeredgewidth": 0.3}
            look |= {"linestyle": "", "color": COLORS[i % len(COLORS)]}
            axis.plot(*z[labels == digit].T, **look)
        for radius in (1, 2) if name in rings else ():
            circle = radius * torch.stack([angle.cos(), angle.sin()])
            axis.plot(*circle, color=INK, linewidth=1, linestyle="--")
        draw.label(axis, "first latent coordinate", head=name)
        axis.set_aspect("equal", adjustable="datalim")
    axes[0].set_ylabel("second latent coordinate")
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
    axes[0].set_ylabel("second latent coordinate")
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


def code_sheet(images: Tensor, counts: Tensor, columns: int = 16) -> Figure:
    """Show what each code draws (K, C, H, W), from most to least used (K,)."""
    rows = -(-len(images) // columns)
    figure, axes = canvas(rows, columns, height=rows * (WIDTH / columns + 0.16))
    for axis in axes.flat[len(images) :]:
        axis.set_axis_off()
    share, order = draw.shares(counts), counts.argsort(descending=True)
    for axis, k, percent in zip(axes.flat, order, share, strict=False):
        draw.show_image(axis, images[k])
        axis.set_xlabel(f"{percent:.1f}%", fontsize=6, labelpad=1)
    return figure
